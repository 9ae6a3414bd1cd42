"""The control plane: everything but the two hot calls goes through boto3, in threads of its own.

botocore's exceptions do not leave this module. Each call is tried again as the store's answers allow; credentials that
have run out and a clock that is wrong are mended on the way.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import botocore
import botocore.exceptions
import botocore.httpsession
from botocore.config import Config

from mirror import __version__
from mirror.errors import Denied, MirrorError, Severity, StoreError, StoreUnavailable
from mirror.events import Noted, Observer, RequestSent
from mirror.retry import Patience
from mirror.settings import Settings
from mirror.stores.s3.address import Address, address_of
from mirror.stores.s3.errors import (
    ClockSkewed,
    CredentialsExpired,
    NoSuchKey,
    Refusal,
    Unexplained,
    Unreachable,
    WrongRegion,
    error_of,
)
from mirror.stores.s3.signing import Identity, moment_of
from mirror.stores.s3.threads import Threads

T = TypeVar("T")

_THREADS = 16
_DEFAULT_REGION = "us-east-1"
_MARKERS = {
    "ListObjectsV2": ("ContinuationToken",),
    "ListMultipartUploads": ("KeyMarker", "UploadIdMarker"),
    "ListParts": ("PartNumberMarker",),
}
"""What a page is asked for by: the page before tells it as ``Next…``."""


class Control:
    """One bucket's control plane. :meth:`open` comes first."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self.settings = settings.s3
        self.bucket = settings.s3.bucket
        self._transfer = settings.transfer
        self._observer = observer
        self._threads = Threads(_THREADS, "mirror-s3")
        self.identity = Identity(settings.s3)
        self.region = settings.s3.region
        self._client: Any = None
        self._authorities: IO[bytes] | None = None

    async def open(self) -> None:
        """Find the credentials, the bucket and its region.

        Raises:
            ConfigError: the profile does not exist.
            Denied: no credentials, wrong ones, no such bucket, or the right to list it is missing.
            StoreUnavailable: the endpoint cannot be reached.
        """
        await self.connect()
        try:
            answer = await self.call("HeadBucket")
        except NoSuchKey:
            raise Denied(
                f"there is no bucket {self.bucket}: create it, or check [s3] bucket and endpoint_url"
            ) from None
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{error}: is [s3] endpoint_url right?") from None
        told = _headers(answer).get("x-amz-bucket-region")
        if told and told != self.region and not self.settings.region:
            await self._move(told)

    async def connect(self) -> None:
        """The first half of :meth:`open`, for one who may read some objects and not list the bucket.

        Raises:
            ConfigError: the profile does not exist.
            Denied: no credentials.
        """
        await self._threads.run(self.identity.load)
        self.region = self.settings.region or self.identity.session.region_name or _DEFAULT_REGION
        await self._threads.run(self._make_client)

    def close(self) -> None:
        self._threads.close()
        if self._authorities is not None:
            self._authorities.close()

    @property
    def address(self) -> Address:
        return address_of(self.bucket, self.settings.endpoint_url, self.region, self.settings.addressing)

    async def fresh_identity(self) -> Identity:
        """The identity, its credentials fresh enough to sign with."""
        if self.identity.is_stale:
            try:
                await self._threads.run(self.identity.refresh)
            except StoreError as error:  # those at hand are good for a while; the store says when they are not
                self._observer(Noted(level="warning", message=str(error)))
        return self.identity

    async def run(self, call: Callable[[], T]) -> T:
        """Another blocking call, in one of these threads."""
        return await self._threads.run(call)

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """An operation by its name in the S3 reference, on our bucket unless ``Bucket`` names another.

        Raises:
            StoreError, SourceError: as :func:`mirror.stores.s3.errors.error_of` says; a temporary one after its
            attempts are used up is an item's StoreUnavailable.
        """
        return await self.patiently(self._where(parameters), lambda: self.once(operation, **parameters))

    async def pages(self, operation: str, **parameters: Any) -> AsyncGenerator[dict[str, Any], None]:
        """A listing, answer for answer, to its end: one that does not say whether it is at its end is no listing.

        Raises:
            StoreError: as :meth:`call`.
        """
        while True:
            answer = await self.call(operation, **parameters)
            is_more = needed(answer, "IsTruncated", operation)
            yield answer
            if not is_more:
                return
            markers = {name: needed(answer, f"Next{name}", operation) for name in _MARKERS[operation]}
            if markers.items() <= parameters.items():
                told = f"s3://{self.bucket}: {operation} does not come to an end: is that a store?"
                raise StoreUnavailable(told, severity=Severity.ITEM)
            parameters |= markers

    async def once(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The same, not tried again."""
        parameters.setdefault("Bucket", self.bucket)
        if self.settings.request_payer and operation not in ("HeadBucket", "ListMultipartUploads"):
            parameters["RequestPayer"] = "requester"
        await self.fresh_identity()
        self._observer(RequestSent(kind="s3"))
        try:
            return await self._threads.run(lambda: self._call(operation, self._where(parameters), parameters))
        except Unexplained as refused:
            prefix = parameters.get("Key", self.settings.prefix)
            await self.once("ListObjectsV2", Bucket=parameters["Bucket"], Prefix=prefix, MaxKeys=1)
            raise refused.error from None

    def _where(self, parameters: Mapping[str, Any]) -> str:
        return f"s3://{parameters.get('Bucket', self.bucket)}/{parameters.get('Key', '')}".rstrip("/")

    async def patiently(self, what: str, once: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds or fails for good. What can be mended (token, clock, region) is, once each."""
        mended: set[type] = set()

        async def mending() -> T:
            while True:
                try:
                    return await once()
                except (CredentialsExpired, ClockSkewed, WrongRegion) as error:
                    if type(error) in mended or not await self.mend(error):
                        raise Denied(str(error)) from None
                    mended.add(type(error))

        try:
            return await Patience(self._transfer.attempts, what, self._observer).run(mending)
        except Unreachable as error:
            raise StoreUnavailable(str(error), severity=Severity.ITEM) from None

    async def mend(self, error: MirrorError) -> bool:
        """Fresh credentials, the right clock, the right region; False where nothing can be done."""
        if isinstance(error, CredentialsExpired):
            await self._threads.run(self.identity.load)
            return True
        if isinstance(error, WrongRegion) and error.region and error.region != self.region:
            await self._move(error.region)
            return True
        return isinstance(error, ClockSkewed) and self.identity.heed_clock(error.date)

    async def _move(self, region: str) -> None:
        self.region = region
        await self._threads.run(self._make_client)

    def _make_client(self) -> None:
        transfer = self._transfer
        config = Config(
            signature_version=botocore.UNSIGNED,  # we sign: see _sign
            # Both ways to the wire lead to one store, [s3] endpoint_url. The stubs do not know this one.
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]
            connect_timeout=transfer.connect_timeout or None,
            read_timeout=transfer.stall_timeout or None,
            retries={"total_max_attempts": 1, "mode": "standard"},  # so that each try is counted and told of
            max_pool_connections=_THREADS,
            proxies={"http": transfer.proxy, "https": transfer.proxy} if transfer.proxy else None,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra=f"mirror/{__version__}",
            s3={"addressing_style": "path" if self.address.path_style else "virtual"},
        )
        try:
            self._client = self.identity.session.client(
                "s3",
                region_name=self.region,
                endpoint_url=self.settings.endpoint_url or None,
                verify=self._bundle(),
                config=config,
            )
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise StoreUnavailable(f"[s3] does not make a client: {error}") from None
        self._client.meta.events.register("before-sign.s3", self._sign)

    def _bundle(self) -> str | None:
        """The authorities to trust: ``ca_file`` beside the usual ones, not in their place."""
        ca_file = self._transfer.ca_file
        if not ca_file:
            return None
        if self._authorities is None:
            self._authorities = tempfile.NamedTemporaryFile(prefix="mirror-ca-", suffix=".pem")  # noqa: SIM115
            for source in (botocore.httpsession.where(), ca_file):
                self._authorities.write(Path(source).read_bytes() + b"\n")
            self._authorities.flush()
        return self._authorities.name

    def _sign(self, request: Any, **_: Any) -> None:
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else bytes(body)
        signing = request.context.get("signing") or {}
        self.identity.sign(request, signing.get("region") or self.region, hashlib.sha256(content).hexdigest())

    def _call(self, operation: str, where: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Blocks."""
        method = getattr(self._client, botocore.xform_name(operation))
        try:
            answer: dict[str, Any] = method(**parameters)
        except botocore.exceptions.ClientError as error:
            refusal = _refusal(operation, where, error)
            ours = error_of(refusal, self.settings)
            if operation.startswith("Head") and not refusal.code and refusal.status in (400, 403):
                raise Unexplained(ours) from None
            raise ours from None
        except botocore.exceptions.SSLError as error:
            raise Denied(f"{where}: the endpoint's certificate is not valid: {_reason(error)}") from None
        except botocore.exceptions.ParamValidationError as error:
            raise StoreUnavailable(
                f"{where}: {operation} cannot be asked for: {error}", severity=Severity.ITEM
            ) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise Unreachable(f"{where}: {operation}: {_reason(error)}") from None
        return answer


def _refusal(operation: str, where: str, error: botocore.exceptions.ClientError) -> Refusal:
    answer: Mapping[str, Any] = error.response
    told = answer.get("Error", {})
    code, region = str(told.get("Code", "")), told.get("Region")
    if not re.fullmatch(r"[A-Za-z0-9.]{1,80}", code):
        code = ""  # a store's own text goes into no message
    return Refusal(
        operation=operation,
        code="" if code.isdigit() else code,
        status=int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        where=where,
        headers={"x-amz-bucket-region": region} | _headers(answer) if region else _headers(answer),
    )


def needed(told: Mapping[str, Any], name: str, operation: str) -> Any:
    """A field that an answer, or one item in it, must have.

    Raises:
        StoreUnavailable: it lacks it: a broken store, or something between that answers in its place.
    """
    if told.get(name) is None:
        raise StoreUnavailable(
            f"the answer to {operation} has no {name}: is that a store, and nothing between?", severity=Severity.ITEM
        )
    return told[name]


def time_of(answer: Mapping[str, Any]) -> datetime:
    """What time it is by the store's clock; by ours where an answer does not tell."""
    return moment_of(_headers(answer).get("date")) or datetime.now(UTC)


def _headers(answer: Mapping[str, Any]) -> dict[str, str]:
    return dict(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}))


def _reason(error: BaseException) -> str:
    """botocore's own words end in a URL; the first sentence and the class are enough."""
    kwargs: Mapping[str, Any] = getattr(error, "kwargs", {})
    cause = kwargs.get("error")
    inner = getattr(cause, "reason", cause)
    return f"no answer ({type(inner).__name__ if inner is not None else type(error).__name__})"
