"""One object at a time: how it is described when it is written, what stands there already, and whether that is ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from mirror.digests import Digests
from mirror.errors import ChecksumMismatch, Denied, MirrorError, Severity, StoreError, StoreUnavailable
from mirror.h1 import CutShort
from mirror.models import S3Object
from mirror.settings import Settings
from mirror.stores.disk import Disk
from mirror.stores.finished import Content, Finished
from mirror.stores.s3.checksums import hex_of, proofs, same_etag
from mirror.stores.s3.control import Control, needed
from mirror.stores.s3.errors import ClockSkewed, CredentialsExpired, NoSuchKey, PreconditionFailed, Unreachable
from mirror.stores.s3.wire import Put, Wire

_BLOCK = 1 << 20
_PIECE = 256 << 10
_LONGEST_SOURCE = 1500
"""An object's user metadata may have 2 KB in all."""
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

_HEADERS = {
    "CacheControl": "Cache-Control",
    "StorageClass": "x-amz-storage-class",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "Tagging": "x-amz-tagging",
}


class Described(Struct, frozen=True, kw_only=True):
    """What is said of a media object beside its bytes; ``sha256`` where it is known before the write."""

    prompt_id: str
    source: str
    source_etag: str | None = None
    content_type: str | None = None
    sha256: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """The user metadata: printable ASCII, as a header can carry it."""
        source = quote(self.source, safe=_PRINTABLE)
        told = {
            "prompt-id": quote(self.prompt_id, safe=_PRINTABLE),
            "source-url": source if len(source) <= _LONGEST_SOURCE else "",
            "source-etag": self.source_etag or "",
            "sha256": self.sha256 or "",
        }
        return {name: value for name, value in told.items() if value}


class Prints(Struct, frozen=True, kw_only=True):
    """What we know of the bytes that should stand there: their SHA-256 in hex, the rest as S3's headers have it.

    ``composite`` and ``etag`` are those of a multipart object.
    """

    size: int
    sha256: str | None = None
    crc64nvme: str | None = None
    composite: str | None = None
    etag: str | None = None


class Found(Struct, frozen=True, kw_only=True):
    """An object as the store describes it; the checksums in base64, those of multipart objects with ``-N``."""

    size: int
    etag: str
    version_id: str | None = None
    checksum_sha256: str | None = None
    checksum_crc64nvme: str | None = None
    is_composite: bool = False
    content_type: str | None = None
    metadata: Mapping[str, str] = {}

    def as_object(self, bucket: str, key: str, via: str) -> S3Object:
        told: dict[str, Any] = {"checksum_crc64nvme": self.checksum_crc64nvme} if self.checksum_crc64nvme else {}
        return S3Object(
            bucket=bucket,
            key=key,
            etag=self.etag,
            version_id=self.version_id,
            checksum_sha256=self.checksum_sha256,
            via=via,
            **told,
        )


def compared(found: Found, prints: Prints) -> bool | None:
    """Whether the store's own word says that an object is what we think; None where the two have nothing in common.

    An ETag that differs says nothing: not all of them are digests of the bytes.
    """
    if found.size != prints.size:
        return False
    whole = hex_of(found.checksum_sha256)
    pairs = [
        (whole, prints.sha256),
        (None if found.is_composite else found.checksum_crc64nvme, prints.crc64nvme),
        (
            found.checksum_sha256 if _layout(found.checksum_sha256) == _layout(prints.composite) else None,
            prints.composite,
        ),
    ]
    for theirs, ours in pairs:
        if theirs and ours:
            return theirs == ours
    return True if prints.etag and same_etag(found.etag, prints.etag) else None


class Objects:
    """What every way into the bucket builds on."""

    def __init__(self, settings: Settings, control: Control, wire: Wire, disk: Disk) -> None:
        self.settings = settings.s3
        self.control = control
        self.wire = wire
        self.disk = disk
        self.attests = False
        """Whether the store told the SHA-256 of what it got last: so it says that it has looked."""
        self._attempts = settings.transfer.attempts
        self._prefix = settings.s3.prefix.strip("/")
        told = {
            "CacheControl": settings.s3.cache_control,
            "StorageClass": settings.s3.storage_class,
            "ServerSideEncryption": settings.s3.sse,
            "SSEKMSKeyId": settings.s3.kms_key_id,
            "Tagging": urlencode(settings.s3.tags),
        }
        self._told = {name: value for name, value in told.items() if value}
        self._headers = {_HEADERS[name]: value for name, value in self._told.items()}

    def key(self, *parts: str) -> str:
        """The key of a path in the archive."""
        return "/".join([self._prefix, *parts] if self._prefix else parts)

    def parameters(self, described: Described) -> dict[str, Any]:
        """A media object's description, as boto3 takes it."""
        kind = {"ContentType": described.content_type} if described.content_type else {}
        return {**kind, **self._told, "Metadata": described.metadata}

    def headers(self, described: Described) -> dict[str, str]:
        """The same, as it stands in a request."""
        kind = {"Content-Type": described.content_type} if described.content_type else {}
        told = {f"x-amz-meta-{name}": value for name, value in described.metadata.items()}
        return {**kind, **self._headers, **told}

    # Looking -----------------------------------------------------------------------------------

    async def find(self, key: str) -> Found | None:
        """The object at a key; None without one."""
        more = {"ChecksumMode": "ENABLED"} if self.settings.checksum != "when_required" else {}
        try:
            answer = await self.control.call("HeadObject", Key=key, **more)
        except NoSuchKey:
            return None
        return Found(
            size=needed(answer, "ContentLength", "HeadObject"),
            etag=answer.get("ETag", ""),
            version_id=_version(answer.get("VersionId")),
            checksum_sha256=answer.get("ChecksumSHA256"),
            checksum_crc64nvme=answer.get("ChecksumCRC64NVME"),
            is_composite=answer.get("ChecksumType") == "COMPOSITE",
            content_type=answer.get("ContentType"),
            metadata=answer.get("Metadata", {}),
        )

    async def with_attributes(self, key: str, found: Found) -> Found:
        """The same with the checksums of GetObjectAttributes, where the store knows that and HEAD told none."""
        try:
            answer = await self.control.call("GetObjectAttributes", Key=key, ObjectAttributes=["Checksum"])
        except StoreError:
            return found
        told = answer.get("Checksum", {})
        return msgspec.structs.replace(
            found, checksum_sha256=told.get("ChecksumSHA256"), checksum_crc64nvme=told.get("ChecksumCRC64NVME")
        )

    def is_of(self, found: Found, sha256: str | None) -> bool:
        """Whether the store itself says that an object has this digest (hex)."""
        return sha256 is not None and hex_of(found.checksum_sha256) == sha256

    async def same(self, key: str, found: Found, prints: Prints) -> bool:
        """Whether an object has the bytes that these prints are of: by its checksums, else by reading it back."""
        told = compared(found, prints)
        if told is None and prints.sha256 is not None:
            return (await self.read_back(key, found, Digests())).sha256 == prints.sha256
        return bool(told)

    async def read_back(self, key: str, found: Found, digests: Digests) -> Digests:
        """The digests of an object's bytes, read once; a connection that breaks is taken up where it broke.

        Raises:
            StoreError: it cannot be read, or changed meanwhile.
        """
        failures = 0
        while digests.at < found.size:
            before = digests.at
            try:
                async with contextlib.aclosing(self._batches(key, found.etag, before)) as batches:
                    async for batch in batches:
                        await self.disk.run(_update, digests, batch)
            except (NoSuchKey, PreconditionFailed):
                told = f"{self.where(key)}: it changed while it was read"
                raise StoreUnavailable(told, severity=Severity.ITEM) from None
            except (CredentialsExpired, ClockSkewed) as error:
                if not await self.control.mend(error):
                    raise Denied(str(error)) from None
            except MirrorError as error:
                if error.severity is not Severity.TRANSIENT:
                    raise
            failures = failures + 1 if digests.at == before else 0
            if failures >= self._attempts:
                raise StoreUnavailable(f"{self.where(key)}: it cannot be read back", severity=Severity.ITEM)
            if failures:
                await asyncio.sleep(min(0.2 * 2**failures, 10))
        return digests

    async def _batches(self, key: str, etag: str, start: int) -> AsyncGenerator[list[bytes | memoryview], None]:
        headers = {"If-Match": etag} if etag else {}
        if start:
            headers["Range"] = f"bytes={start}-"
        async with self.wire.get(key, headers) as response:
            if start and response.status != 206:
                raise StoreUnavailable(f"{self.where(key)}: the store serves no ranges", severity=Severity.ITEM)
            response.batch = _PIECE
            batch: list[bytes | memoryview] = []
            size = 0
            try:
                while piece := await response.read():
                    batch.append(piece)
                    size += len(piece)
                    if size >= _BLOCK:
                        yield batch
                        batch, size = [], 0
            except CutShort:
                raise Unreachable(f"{self.where(key)}: the body broke off") from None
            if batch:
                yield batch

    # Writing -----------------------------------------------------------------------------------

    async def write(self, key: str, body: Content, prints: Prints, described: Described) -> Found | None:
        """Write a whole object, unless one stands there: then that one if it has these very bytes, else None."""
        if not self.settings.conditional_writes:
            there = await self.find(key)
            if there is not None:
                return there if await self.same(key, there, prints) else None
        assert prints.sha256 is not None
        try:
            return await self.put(key, body, prints.size, prints.sha256, {**self.headers(described), **self.condition})
        except PreconditionFailed:
            # It may be our own success, its answer lost.
            there = await self.find(key)
            if there is None:
                raise StoreUnavailable(f"{self.where(key)}: it comes and goes", severity=Severity.ITEM) from None
            return there if await self.same(key, there, prints) else None

    @property
    def condition(self) -> dict[str, str]:
        """Nothing is overwritten on a guess."""
        return {"If-None-Match": "*"} if self.settings.conditional_writes else {}

    async def put(self, key: str, body: Content, size: int, sha256: str, headers: Mapping[str, str]) -> Found:
        """One PutObject with its checksum.

        Raises:
            PreconditionFailed: If-Match or If-None-Match did not hold.
            ChecksumMismatch: the bytes are not those, here or there; for good where a file is damaged.
        """
        proof = await self.proof(body, sha256)
        told = await self.wire.put(
            Put(operation="PutObject", key=key, body=body, size=size, sha256=sha256, headers={**headers, **proof})
        )
        self.attests = "x-amz-checksum-sha256" in told
        version_id = _version(told.get("x-amz-version-id"))
        if isinstance(body, Finished) and not self.attests:
            await self._prove(key, version_id, body)
        sent = {name.removeprefix("x-amz-checksum-"): value for name, value in proof.items()}
        return Found(
            size=size,
            etag=told.get("ETag", ""),
            version_id=version_id,
            checksum_sha256=told.get("x-amz-checksum-sha256") and sent.get("sha256"),
            checksum_crc64nvme=told.get("x-amz-checksum-crc64nvme") and sent.get("crc64nvme"),
        )

    async def _prove(self, key: str, version_id: str | None, file: Finished) -> None:
        """The store took a file and does not say that it looked at it: we do, and take it out if it is not sound."""
        try:
            await file.check()
        except MirrorError as error:
            if not await self.take_out(key, version_id):
                told = f"{error}; its bytes went to {self.where(key)}, which may not be deleted: delete that"
                raise ChecksumMismatch(told, severity=Severity.ITEM) from None
            raise

    async def take_out(self, key: str, version_id: str | None) -> bool:
        """Delete what this call has just written, unproven; False where that is not possible."""
        version = {"VersionId": version_id} if version_id else {}
        try:
            await self.control.call("DeleteObject", Key=key, **version)
        except MirrorError:
            return False
        return True

    async def proof(self, body: Content, sha256: str) -> dict[str, str]:
        """The headers by which the store can check a body."""
        if self.settings.checksum == "sha256":
            return proofs("sha256", (), sha256)
        assert isinstance(body, Sequence)  # a file goes with its SHA-256 only: see ObjectSink.post
        return await self.disk.run(proofs, self.settings.checksum, body, sha256)

    def where(self, key: str) -> str:
        return f"s3://{self.settings.bucket}/{key}"


def _update(digests: Digests, buffers: Sequence[bytes | memoryview]) -> None:
    for buffer in buffers:
        digests.update(buffer)


def _version(told: str | None) -> str | None:
    """``null`` is the version of an object that was written before versioning was switched on."""
    return told if told and told != "null" else None


def _layout(checksum: str | None) -> str:
    """How many parts a composite checksum is of."""
    return (checksum or "").rpartition("-")[2]
