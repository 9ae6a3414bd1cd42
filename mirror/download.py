"""One ranged request for one file: validators, statuses and wire errors become our errors.

Nothing here tries again or writes: a caller gets a body that begins where it asked, of the version it asked for, or
an error that says which of the two is not so (RFC 9110, sections 13.1.5, 14.2 and 14.4).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

from mirror.digests import KNOWN
from mirror.errors import Changed, Gone, NotMedia, Refused, Truncated, Unavailable, UrlExpired
from mirror.h1 import CutShort
from mirror.h1.head import Headers
from mirror.h1.loan import Loan
from mirror.http import Answer, Http, is_passing
from mirror.models import Span, Validator
from mirror.retry import parse_retry_after
from mirror.stores import Head
from mirror.times import from_http
from mirror.urls import is_signed, shown

_PLAIN_CODINGS = frozenset({"", "identity", "aws-chunked"})
"""``aws-chunked`` is how some tools uploaded an object; what S3 then sends is the object itself."""

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,500}"')
_CHECKSUMS = tuple((name, f"x-amz-checksum-{name}") for name in ("sha256", "sha1", "crc32"))


class Body:
    """A body on the wire: ``head`` describes the whole file, ``start`` is the offset of the first byte to come.

    ``partial`` says whether this is the part that was asked for, of the version that was known; else it is the whole,
    of whatever version. ``ranges`` says whether the server claims to serve parts.
    """

    def __init__(self, response: Answer, told: Mapping[str, str], head: Head, start: int, url: str) -> None:
        self.head = head
        self.start = start
        self.partial = response.status == 206
        self.ranges = self.partial or told.get("accept-ranges", "").strip().lower() == "bytes"
        self._response = response
        self._url = url
        self._got = 0

    @property
    def batch(self) -> int:
        """Bytes of a piece, while there are so many to come; more of them cost less each."""
        return self._response.batch

    @batch.setter
    def batch(self, size: int) -> None:
        self._response.batch = size

    async def read(self) -> bytes | memoryview:
        """The next bytes, which belong to the caller from here on; b"" at the end.

        Raises:
            Truncated: the body ended before its length, or its last chunk, was reached.
        """
        try:
            piece = await self._response.read()
        except CutShort:
            raise Truncated(f"the body broke off after {self.start + self._got} bytes: {shown(self._url)}") from None
        self._got += len(piece)
        if not piece:
            expected = self._response.content_length
            if expected is not None and self._got < expected:
                raise Truncated(f"the body ended at {self.start + self._got} bytes: {shown(self._url)}")
        return piece

    def lend(self, least: int, most: int) -> Loan | None:
        """Let a thread read the next bytes, up to ``most``; None where fewer than ``least`` are to come, or none can.

        What it brought is told by :meth:`count` after the loan's block.
        """
        return self._response.lend(least, most)

    def count(self, size: int) -> None:
        """So many bytes came otherwise than by :meth:`read`."""
        self._got += size


def open_body(
    http: Http, url: str, span: Span | None = None, known: Head | None = None
) -> AbstractAsyncContextManager[Body]:
    """Ask for a file, or for what of it is missing.

    ``span`` is what is wanted of the version that ``known`` describes (``stop`` -1: to the end); the caller must have
    made sure that ``known`` has a validator for If-Range. A server may answer with the whole file: then ``start`` is 0
    and ``head`` may describe another version.

    Raises:
        Gone, UrlExpired, Refused, NotMedia: this URL will not do.
        Changed: the server has another version, or other ranges, than was asked for: start over.
        Unavailable, Truncated: try again.
    """
    return http.get_as(url, _headers(url, span, known), partial(_judge, url, span, known))


def _judge(url: str, span: Span | None, known: Head | None, response: Answer) -> Body:
    if response.status not in (200, 206):
        raise _status_error(response, url, ranged=span is not None)
    told = Headers.in_lower_case(response.headers)
    _check_coding(told, url)
    if response.status == 206:
        return _ranged(response, told, url, span, known)
    return Body(response, told, read_head(told, response.content_length), 0, url)


def _headers(url: str, span: Span | None, known: Head | None) -> Mapping[str, str]:
    if span is not None and known is not None:
        stop = span.stop - 1 if span.stop > 0 else ""
        return {"Range": f"bytes={span.start}-{stop}", "If-Range": known.validator.if_range or ""}
    # One header more would break a signed request.
    return {} if is_signed(url) else {"x-amz-checksum-mode": "ENABLED"}


def _ranged(response: Answer, headers: Mapping[str, str], url: str, span: Span | None, known: Head | None) -> Body:
    """A 206 is taken only if it is exactly what was asked for, of the same file as before."""
    if span is None or known is None:
        raise Unavailable(f"a part (206) came though the whole was asked for: {shown(url)}")
    told = parse_content_range(headers.get("content-range"))
    if told is None:
        raise Changed(f"the answer to a Range does not say which bytes it has: {shown(url)}")
    first, last, total = told
    if (
        first != span.start
        or (span.stop > 0 and last >= span.stop)
        or (known.length is not None and last >= known.length)
    ):
        raise Changed(f"asked for bytes from {span.start}, got {first}-{last}: {shown(url)}")
    if response.content_length is not None and response.content_length != last - first + 1:
        raise Changed(f"the answer's length is not that of its range: {shown(url)}")
    if known.length is not None and total is not None and total != known.length:
        raise Changed(f"the file had {known.length} bytes and has {total} now: {shown(url)}")
    head = read_head(headers, total if total is not None else known.length)
    if _differs(known.validator, head.validator):
        raise Changed(f"the file changed while it was being fetched: {shown(url)}")
    return Body(response, headers, head, first, url)


def _differs(before: Validator, now: Validator) -> bool:
    """True where a 206 cannot be trusted to be of the version before.

    It has to carry the ETag that a 200 would have (RFC 9110, section 15.3.7): without it, or with one that is none, a
    server may well have passed over If-Range. Last-Modified it may leave out.
    """
    if before.etag and (now.etag or before.if_range == before.etag):
        return before.etag != now.etag
    return bool(before.last_modified and now.last_modified and before.last_modified != now.last_modified)


def _status_error(response: Answer, url: str, *, ranged: bool) -> Exception:
    status, where = response.status, shown(url)
    if status in (404, 410):
        return Gone(f"the origin has no such file (HTTP {status}): {where}")
    if status == 403:
        return UrlExpired(f"the origin refuses this URL (HTTP 403): {where}")
    if status == 416 and ranged:
        return Changed(f"the origin has no such bytes (HTTP 416), so it has another file: {where}")
    if is_passing(status):
        pause = parse_retry_after(response.headers.get("Retry-After"))
        return Unavailable(f"the origin answered HTTP {status}: {where}", retry_after=pause)
    return Refused(f"the origin answered HTTP {status}: {where}")


def _check_coding(headers: Mapping[str, str], url: str) -> None:
    if headers.get("content-type", "").lower().startswith("multipart/byteranges"):
        raise Changed(f"several ranges came though one was asked for: {shown(url)}")
    told = headers.get("content-encoding")
    codings = {part.strip().lower() for part in told.split(",")} if told else set()
    if codings - _PLAIN_CODINGS:
        raise NotMedia(f"the body is coded ({', '.join(sorted(codings))}) though identity was asked for: {shown(url)}")


def parse_content_range(value: str | None) -> tuple[int, int, int | None] | None:
    """``bytes 0-9/100`` → (0, 9, 100), the total None where it is ``*``; None for anything else (RFC 9110, 14.4)."""
    match = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", value or "", re.ASCII | re.IGNORECASE)
    if not match:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return first, last, total


def read_head(headers: Mapping[str, str], length: int | None) -> Head:
    """What an answer's headers, named in lower case, say of the whole file, with the digests that it must have."""
    etag = headers.get("etag")
    return Head(
        length=length,
        etag=etag if etag and _ETAG.fullmatch(etag) else None,
        last_modified=_date(headers.get("last-modified")),
        content_type=_printable(headers.get("content-type")),
        checks=_checks(headers, etag or ""),
    )


def _date(value: str | None) -> str | None:
    """Last-Modified as it was written; None for what is no date, and so no validator."""
    return _printable(value) if from_http(value) else None


def _printable(value: str | None) -> str | None:
    """A header's value that can go into a manifest; None for anything else."""
    return value if value and len(value) <= 500 and value.isascii() and value.isprintable() else None


def _checks(headers: Mapping[str, str], etag: str) -> dict[str, str]:
    """The strongest digest of the whole that the store states: an ``x-amz-checksum-*``, else an ETag that is an MD5."""
    for name, header in _CHECKSUMS:
        value = _from_base64(headers.get(header))
        if value and name in KNOWN and headers.get("x-amz-checksum-type", "FULL_OBJECT").upper() == "FULL_OBJECT":
            return {name: value}
    if _etag_is_md5(headers, etag):
        return {"etag-md5": etag.strip('"').lower()}
    return {}


def _etag_is_md5(headers: Mapping[str, str], etag: str) -> bool:
    """S3's rule: a single-part object that is not encrypted with KMS or a customer's key."""
    if "x-amz-request-id" not in headers or not re.fullmatch(r'"[0-9a-fA-F]{32}"', etag):
        return False
    if any(name.lower().startswith("x-amz-server-side-encryption-customer") for name in headers):
        return False
    return not headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")


def _from_base64(value: str | None) -> str | None:
    """Base64 as hex; None for a composite checksum (``…-3``) and anything else that is not one digest."""
    try:
        return base64.b64decode(value, validate=True).hex() if value else None
    except (binascii.Error, ValueError):
        return None
