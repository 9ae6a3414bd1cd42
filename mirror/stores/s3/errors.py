"""What a store answers, as our errors: one function from (operation, code, status) to the tree.

Source: the S3 API reference, "Error responses". The private classes are caught inside this folder: they are answers
that a caller acts upon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from mirror.errors import (
    ChecksumMismatch,
    Denied,
    Full,
    MirrorError,
    Obstructed,
    Severity,
    StoreError,
    StoreUnavailable,
    TooLarge,
)
from mirror.http import is_passing
from mirror.retry import parse_retry_after
from mirror.settings import S3Settings
from mirror.stores.s3.policy import RIGHTS, on_one_line


class Unreachable(StoreUnavailable):
    """The store cannot answer now: tried again, and an item's error when patience is at its end."""

    severity = Severity.TRANSIENT


class PreconditionFailed(StoreError):
    """412: If-Match or If-None-Match did not hold. It may be our own success, its answer lost."""

    severity = Severity.ITEM


class NoSuchKey(StoreError):
    """404: there is no such object."""

    severity = Severity.ITEM


class NoSuchUpload(StoreError):
    """404: the multipart upload has been completed or aborted."""

    severity = Severity.ITEM


class BadParts(StoreError):
    """400: the parts are not what we think they are: the upload starts over."""

    severity = Severity.ITEM


class Unexplained(StoreError):
    """A refused HEAD has no body, so no code: ``error`` is what the status alone says, until somebody asks again."""

    def __init__(self, error: MirrorError) -> None:
        super().__init__(str(error))
        self.error = error


class NotSupported(StoreUnavailable):
    """501: the store does not know what was asked of it. Where there is another way, that is taken."""


class CredentialsExpired(StoreError):
    """The credentials have run out: fresh ones, and once more."""


class ClockSkewed(StoreError):
    """Our clock and the store's are too far apart; ``date`` is the store's, as its answer's header has it."""

    def __init__(self, message: str, date: str | None) -> None:
        super().__init__(message)
        self.date = date


class WrongRegion(StoreError):
    """The bucket is in another region; ``region`` is where, if the store tells."""

    def __init__(self, message: str, region: str | None) -> None:
        super().__init__(message)
        self.region = region


class Refusal(Struct, frozen=True, kw_only=True):
    """A store's answer that is no success."""

    operation: str
    code: str
    status: int
    where: str
    headers: Mapping[str, str] = {}


_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_CORRUPTED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_BUSY = frozenset(
    {
        *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ConditionalRequestConflict"),
        *("OperationAborted", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
        "TooManyRequests",
    }
)
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})


class _Row(NamedTuple):
    """What some codes, or statuses without a code that is known, mean for good."""

    codes: frozenset[str]
    statuses: frozenset[int]
    kind: type[MirrorError]
    advice: str


def _row(codes: str, statuses: tuple[int, ...], kind: type[MirrorError], advice: str) -> _Row:
    return _Row(frozenset(codes.split()), frozenset(statuses), kind, advice)


_LASTING = (
    _row(
        "InvalidAccessKeyId SignatureDoesNotMatch InvalidToken InvalidSecurity NotSignedUp",
        (),
        Denied,
        "the credentials are not accepted: check the key, its secret and [s3] profile",
    ),
    _row("EntityTooLarge MaxMessageLengthExceeded", (413,), TooLarge, "it is larger than the store takes"),
    _row("QuotaExceeded InsufficientStorage XMinioStorageFull", (507,), Full, "it is full: make room and run again"),
    _row("KeyTooLongError", (), Obstructed, "shorten [s3] prefix"),
    _row("InvalidObjectState", (), Obstructed, "it is in an archive class: restore it first"),
    _row("MethodNotAllowed", (405,), Obstructed, "something else stands there"),
    _row("InvalidStorageClass", (), StoreUnavailable, "[s3] storage_class names none that this store has"),
    _row("InvalidTag", (), StoreUnavailable, "[s3] tags are not accepted"),
    _row("KMS.NotFoundException KMS.DisabledException", (), StoreUnavailable, "[s3] kms_key_id names no usable key"),
    _row(
        "NotImplemented",
        (501,),
        NotSupported,
        "leave out what it does not know: [s3] tags, storage_class or sse, or set checksum and conditional_writes "
        "(`mirror doctor` tries them)",
    ),
)


def error_of(refusal: Refusal, settings: S3Settings) -> MirrorError:
    """A refusal as an error of the tree (or a private one above)."""
    code, where, operation = refusal.code, refusal.where, refusal.operation
    told = f"{where}: the store answered {code or f'HTTP {refusal.status}'} to {operation}"
    if code == "NoSuchUpload":
        return NoSuchUpload(told)
    if code in ("InvalidPart", "InvalidPartOrder"):
        return BadParts(told)
    if code == "PreconditionFailed" or refusal.status in (304, 412):
        return PreconditionFailed(told)
    if code == "NoSuchBucket":
        return Denied(f"there is no bucket {settings.bucket}: create it, or check [s3] bucket and endpoint_url")
    if code in ("NoSuchKey", "NotFound", "NoSuchVersion", "404") or refusal.status == 404:
        return NoSuchKey(told)
    return _temporary(refusal, told) or _lasting(refusal, settings, told)


def _temporary(refusal: Refusal, told: str) -> MirrorError | None:
    code = refusal.code
    if code in _EXPIRED:
        return CredentialsExpired(f"{told}: log in anew, or give credentials that can be refreshed")
    if code == "RequestTimeTooSkewed":
        return ClockSkewed(f"{told}: this machine's clock is wrong: set it (NTP)", _header(refusal, "date"))
    if code in _ELSEWHERE or refusal.status == 301:
        return WrongRegion(f"{told}: the bucket is in another region: set [s3] region", _region_in(refusal))
    if code in _CORRUPTED:
        return ChecksumMismatch(f"{told}: other bytes came there than were sent")
    if code in _BUSY or (is_passing(refusal.status) and refusal.status != 507):
        return Unreachable(told, retry_after=parse_retry_after(_header(refusal, "retry-after")))
    return None


def _lasting(refusal: Refusal, settings: S3Settings, told: str) -> MirrorError:
    code, status = refusal.code, refusal.status
    row = next((row for row in _LASTING if code in row.codes), None)
    row = row or next((row for row in _LASTING if status in row.statuses), None)
    if row is not None:
        return row.kind(f"{told}: {row.advice}")
    if status in (401, 403):
        right = RIGHTS.get(refusal.operation, f"s3:{refusal.operation}")
        policy = on_one_line(settings, right)
        return Denied(f"{told}: the right {right} is missing: attach this policy to the credentials: {policy}")
    return StoreUnavailable(told, severity=Severity.ITEM)


def _header(refusal: Refusal, name: str) -> str | None:
    """A header by its name in lower case: botocore and the carrier spell all so, aiohttp as they came."""
    return next((value for spelled, value in refusal.headers.items() if spelled.lower() == name), None)


def _region_in(refusal: Refusal) -> str | None:
    region = _header(refusal, "x-amz-bucket-region")
    return region if region and re.fullmatch(r"[A-Za-z0-9-]{1,40}", region) else None


def code_in(body: bytes) -> str:
    """The ``Code`` of an error's XML; empty without one. Only letters, digits and dots are taken over."""
    match = re.search(rb"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>", body[: 64 << 10])
    return match[1].decode() if match else ""


def region_in(body: bytes) -> str | None:
    """The ``Region`` of an error's XML, where a signature was made for another one."""
    match = re.search(rb"<Region>\s*([A-Za-z0-9-]{1,40})\s*</Region>", body[: 64 << 10])
    return match[1].decode() if match else None
