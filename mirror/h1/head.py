"""Heads of requests and answers as bytes, strictly (RFC 9112, sections 2 to 6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar, overload

from mirror.h1 import Unreadable, Unsendable

LONGEST_HEAD = 64 << 10
LONGEST_LINE = 32 << 10
END = b"\r\n\r\n"

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = r"[^\x00-\x08\x0a-\x1f\x7f]*"
FIELD = re.compile(rf"({_NAME}):({_VALUE})")
_FIELDS = re.compile(rf"\r\n({_NAME}+):({_VALUE}+)(?=\r\n|\Z)")
"""Each field with the end of the line before it; what is taken is not given back, however long a line is."""
_ONE_NAME = re.compile(_NAME)
_ONE_VALUE = re.compile(_VALUE)
_STATUS = re.compile(rf"HTTP/1\.([01]) ([1-9][0-9]{{2}})(?: {_VALUE})?(?=\r\n|\Z)")
_BEGINS = re.compile(rb"(?:H(?:T(?:T(?:P(?:/(?:1(?:\.[01]?)?)?)?)?)?)?)?")
_LONE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_TARGET = re.compile(r"/[^\x00-\x20\x7f#]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
"""Fields whose every line counts, not only the first."""

_T = TypeVar("_T")


class Headers(Mapping[str, str]):
    """An answer's header fields. Names are compared without case, and are in lower case where they are listed; of
    several fields of a name the first one counts. Bytes that are no UTF-8 are surrogates, as in Python's file names.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...
    def get(self, name: str, /, default: object = None) -> object:
        return self._fields.get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @staticmethod
    def in_lower_case(headers: Mapping[str, str]) -> Mapping[str, str]:
        """Somebody's header fields as a plain table: to look up ten of a few names costs a tenth there."""
        if isinstance(headers, Headers):
            return headers._fields
        return {name.lower(): value for name, value in reversed([*headers.items()])}


class Head(NamedTuple):
    """An answer's head, and what it says of the body (RFC 9112, section 6.3).

    ``length`` is the body's in bytes; None for one in chunks (``is_chunked``) or that ends with the connection.
    ``is_lasting`` says whether the connection may be used again after it.
    """

    status: int
    headers: Headers
    length: int | None
    is_chunked: bool
    is_lasting: bool


def request(target: str, common: bytes, headers: Mapping[str, str], *, method: str = "GET") -> bytes:
    """A request's head. ``target`` is path and query as they are sent; ``common`` is made by :func:`common_lines`.

    Raises:
        Unsendable: a character that may not stand there.
    """
    if not _TARGET.fullmatch(target):
        raise Unsendable
    return b"%b %b%b%b\r\n" % (method.encode(), _encoded(target), common, _lines(headers))


def common_lines(host: str, headers: Mapping[str, str]) -> bytes:
    """What all requests to a host have in common: the rest of the request line, Host, and the fields of ``headers``.

    Raises:
        Unsendable: a character that may not stand there.
    """
    return b" HTTP/1.1\r\n" + _lines({"Host": host, **headers})


def _lines(headers: Mapping[str, str]) -> bytes:
    text = ""
    for name, value in headers.items():
        if not _ONE_NAME.fullmatch(name) or not _ONE_VALUE.fullmatch(value):
            raise Unsendable
        text += f"{name}: {value}\r\n"
    return _encoded(text)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unsendable from None


def check_begun(begun: bytearray, start: int) -> None:
    """Whether this may become a head: for one that is not there whole, so that nobody waits for its end in vain.

    What stands before ``start`` has been checked before.

    Raises:
        Unreadable: it is none, or too long.
    """
    if not _BEGINS.fullmatch(begun[:8]) or _LONE.search(begun, max(0, start - 1)) or len(begun) > LONGEST_HEAD:
        raise Unreadable


def parse(raw: bytes | bytearray) -> Head:
    """An answer's head, all of it without the empty line at its end.

    Raises:
        Unreadable: anything that is not plainly one.
    """
    if len(raw) > LONGEST_HEAD:
        raise Unreadable
    text = raw.decode("utf-8", "surrogateescape")
    status = _STATUS.match(text)
    found = _FIELDS.findall(text)
    # Neither a name nor a value can hold the end of a line: where there are as many of these as fields, all are fields.
    if status is None or len(found) != text.count("\r\n"):
        raise Unreadable
    if len(text) > LONGEST_LINE and max(map(len, text.split("\r\n"))) > LONGEST_LINE:
        raise Unreadable
    fields: dict[str, str] = {}
    for name, value in found:
        name = name.lower()  # noqa: PLW2901
        if name not in fields:
            fields[name] = value.strip(" \t")
        elif name in _FRAMING:
            fields[name] = f"{fields[name]},{value}"
    return _framed(int(status[2]), fields, is_old=status[1] == "0")


def _framed(status: int, fields: dict[str, str], *, is_old: bool) -> Head:
    told = fields.get("connection")
    options = {option.strip(" \t") for option in told.lower().split(",")} if told is not None else ()
    lasting = "close" not in options and (not is_old or "keep-alive" in options)
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if status < 200 or status in (204, 304):
        return Head(status, Headers(fields), 0, False, lasting)
    if coding is not None:
        if coding.lower() != "chunked" or is_old:
            raise Unreadable
        # With a length beside it somebody may have read it otherwise: what follows could be anything.
        return Head(status, Headers(fields), None, True, lasting and length is None)
    if length is None:
        return Head(status, Headers(fields), None, False, False)
    return Head(status, Headers(fields), _length(length), False, lasting)


def _length(told: str) -> int:
    if not _LENGTH.fullmatch(told):
        several = {each.strip(" \t") for each in told.split(",")}
        told = several.pop()
        if several or not _LENGTH.fullmatch(told):
            raise Unreadable
    return int(told)
