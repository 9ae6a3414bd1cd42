"""Who we are to the store: credentials that are refreshed, and signatures made with them.

boto3 finds the credentials (environment, profile, web identity, instance role; ``role_arn`` through STS) and keeps them
fresh; every signature is made here, for the hot calls (:mod:`mirror.stores.s3.sigv4`) and for boto3's own
(botocore's signer) alike, so that a clock that is wrong and a token that has run out are mended in one place.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.auth
import botocore.credentials
import botocore.exceptions
import botocore.loaders
import botocore.session
from botocore.awsrequest import AWSRequest

from mirror.errors import ConfigError, Denied, StoreUnavailable
from mirror.settings import S3Settings
from mirror.stores.s3.sigv4 import STAMP, Key, Request, authorized

EMPTY = hashlib.sha256(b"").hexdigest()

_FOREIGN = (botocore.exceptions.BotoCoreError, OSError, RuntimeError, ValueError, KeyError)
"""What botocore's providers are known to raise. Their texts may hold what a helper program printed: not shown."""

_SOON = 300
"""Seconds before their end that credentials are fetched anew."""

_PAUSE = 10.0
"""Seconds between two such fetches, where whoever gives them gives short ones."""


@functools.cache
def _models() -> Any:
    """botocore's description of S3, parsed once: that takes longer than all else that opens a bucket."""
    return botocore.loaders.create_loader()


def moment_of(date: str | None) -> datetime | None:
    """What a Date header says; None where that is no date."""
    try:
        told = parsedate_to_datetime(date or "")
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Identity:
    """Credentials and clock. Blocks where it says so: call it in a thread."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._credentials: Any = None
        self._frozen: Any = None
        self._key: Key | None = None
        self._refreshed = 0.0
        self._skew = timedelta()
        self.session: Any = None

    def load(self) -> None:
        """Find the credentials from scratch: first of all, and again when the store says that they have run out.

        Blocks.

        Raises:
            ConfigError: the profile does not exist, or cannot be read.
            Denied: there are none.
        """
        profile = self._settings.profile or None
        try:
            core = botocore.session.Session()
            core.register_component("data_loader", _models())
            region = self._settings.region or None
            self.session = boto3.Session(profile_name=profile, region_name=region, botocore_session=core)
            found = self.session.get_credentials()
            if found is None:
                raise Denied(
                    "no credentials for the bucket were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    "or [s3] profile, or run where a role gives some"
                )
            self._credentials = self._in_role(found) if self._settings.role_arn else found
            self.refresh()
        except (botocore.exceptions.ProfileNotFound, botocore.exceptions.ConfigParseError) as error:
            raise ConfigError(f"[s3] profile: {error}") from None
        except botocore.exceptions.PartialCredentialsError as error:
            raise Denied(f"the credentials for the bucket are incomplete: {error}") from None
        except _FOREIGN as error:
            raise Denied(f"the credentials for the bucket cannot be read ({type(error).__name__})") from None

    def _in_role(self, source: Any) -> Any:
        region = self._settings.region or self.session.region_name or "us-east-1"

        def client(service: str, **options: Any) -> Any:
            return self.session._session.create_client(service, **{"region_name": region, **options})

        fetcher = botocore.credentials.AssumeRoleCredentialFetcher(
            client_creator=client,
            source_credentials=source,
            role_arn=self._settings.role_arn,
            extra_args={"RoleSessionName": "mirror"},
        )
        return botocore.credentials.DeferredRefreshableCredentials(
            method="assume-role", refresh_using=fetcher.fetch_credentials
        )

    @property
    def is_stale(self) -> bool:
        """True where the next signature would have to wait for fresh credentials: call :meth:`refresh` first."""
        needed = getattr(self._credentials, "refresh_needed", None)
        soon = needed is not None and needed(refresh_in=_SOON)
        return bool(soon and time.monotonic() - self._refreshed > _PAUSE)

    def refresh(self) -> None:
        """Fetch fresh credentials where they are about to run out. Blocks.

        Raises:
            Denied: whoever gives them does not.
            StoreUnavailable: whoever gives them cannot be reached.
        """
        self._refreshed = time.monotonic()  # who asks meanwhile signs with what is at hand
        try:
            self._frozen = self._credentials.get_frozen_credentials()
        except botocore.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            what = f"the role {self._settings.role_arn}" if self._settings.role_arn else "the credentials' role"
            raise Denied(
                f"{what} cannot be assumed ({code}): may these credentials call sts:AssumeRole on it?"
            ) from None
        except _FOREIGN as error:
            raise StoreUnavailable(f"no credentials could be fetched ({type(error).__name__})") from None
        finally:
            self._refreshed = time.monotonic()  # the pause is one between two, however long each takes

    def heed_clock(self, date: str | None) -> bool:
        """Take the store's clock for ours, from an answer's Date header; False where that says nothing new."""
        there = moment_of(date)
        if there is None:
            return False
        skew = there - datetime.now(UTC)
        before, self._skew = self._skew, skew
        return abs(self._skew - before) > timedelta(seconds=60)

    def sign(self, request: AWSRequest, region: str, payload: str) -> None:
        """Add the headers that authorise a request; ``payload`` is the SHA-256 of its body in hex."""
        _Signer(self._frozen, region, payload, datetime.now(UTC) + self._skew).add_auth(request)

    def headers(self, method: str, url: str, headers: Mapping[str, str], region: str, payload: str) -> dict[str, str]:
        """The headers to send, signature included."""
        stamp, key = (datetime.now(UTC) + self._skew).strftime(STAMP), self._key
        if key is None or not key.is_for(self._frozen, region, stamp[:8]):
            key = self._key = Key(self._frozen, region, stamp[:8])
        return authorized(Request(method, url, headers, payload), key, stamp)

    def presigned(self, url: str, region: str, seconds: int) -> str:
        """A URL that lets anybody GET this object for so long."""
        request = AWSRequest(method="GET", url=url, headers={})
        _QuerySigner(self._frozen, region, seconds, datetime.now(UTC) + self._skew).add_auth(request)
        return str(request.url)


class _Signer(botocore.auth.S3SigV4Auth):
    """botocore's signer, with a payload's digest that is known already, at a moment of our choice."""

    def __init__(self, credentials: Any, region: str, payload: str, moment: datetime) -> None:
        super().__init__(credentials, "s3", region)
        self._payload = payload
        self._moment = moment

    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002
        return self._payload

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._moment.strftime(STAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]


class _QuerySigner(botocore.auth.S3SigV4QueryAuth):
    """The same for a signature that stands in a URL."""

    def __init__(self, credentials: Any, region: str, seconds: int, moment: datetime) -> None:
        super().__init__(credentials, "s3", region, expires=seconds)
        self._moment = moment

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._moment.strftime(STAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]
