"""What a URL names, and what of it may be shown.

Signed URLs carry their permission in the query. Those parameters are no part of a file's identity (a freshly
signed URL names the same object) and their values are never shown.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from mirror.errors import Refused

# Names that mean a signature wherever they stand, and short ones that do so only among others of a query.
_LONG = (
    r"x-(?:amz|goog|oss|cos|obs|tos|bce|expires|signature)[\w.-]*|q-(?:sign|ak|key|header|url)[\w-]*|"
    r"signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|ossaccesskeyid|sig|"
    r"(?:[a-z]+[_-])?token|auth_key|api_?key|secret|password|hdnts|hdnea|wssecret|wstime|sign"
)
_AZURE = r"s[eprtv]|spr|sip|ske|skoid|sks|skt|sktid|skv"
"""Azure's short names are a signature's only beside ``sig``; elsewhere they may mean anything."""

_LONG_NAME = re.compile(rf"(?i){_LONG}")
_AZURE_NAME = re.compile(rf"(?i){_AZURE}")
_IN_AZURE_TEXT = re.compile(rf"(?i)([?&;](?:{_AZURE})=)[^&#\s\"<>]+")
_USERINFO = re.compile(r"(?i)(?<=[a-z0-9+.-]://)[^/?#\s\"<>]*@")

# A URL may stand inside another's query, or in JSON that is a string: its signs are escaped then, even several times.
_BACKSLASHES = r"(?:\\|%(?:25)*5c){1,8}"
_ESCAPED = re.compile(rf"(?i){_BACKSLASHES}u00([0-9a-f]{{2}})|%(?:25)*([0-9a-f]{{2}})")
_EQUALS = re.compile(rf"(?i)=|%((?:25)*)3d|{_BACKSLASHES}u003d")
_NO_NAME = re.compile(r"[^\w.-]")
_LONGEST_NAME = 1000
"""Characters of a parameter's name, with all its escapes, that are looked at."""

REDACTED = "***"


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` with the values of signature parameters, passwords in URLs and the given secrets replaced."""
    for secret in filter(None, secrets):
        text = text.replace(secret, REDACTED)
    if "=" in text or "%" in text or "\\" in text:
        text = _without_signatures(text)
    if "sig=" in text.lower():
        text = _IN_AZURE_TEXT.sub(rf"\1{REDACTED}", text)
    return _USERINFO.sub(f"{REDACTED}@", text) if "@" in text else text


def _without_signatures(text: str) -> str:
    """Each value is taken to end where its own level does: at a sign that is escaped no more often than its ``=``."""
    kept: list[str] = []
    done = begun = 0  # what was taken over; where the next name begins at the earliest
    for equals in _EQUALS.finditer(text):
        if equals.start() < done:
            continue
        before = _unescaped(text[max(begun, equals.start() - _LONGEST_NAME) : equals.start()])
        begun = equals.end()
        name = _NO_NAME.split(before)[-1]
        escaped = before[: len(before) - len(name)][-1:] in ("?", "&", ";") and equals[0] != "="
        if not (_LONG_NAME.fullmatch(name) or (escaped and _AZURE_NAME.fullmatch(name))):
            continue
        level = None if equals[1] is None else len(equals[1]) // 2
        if value := _value(level).match(text, equals.end()):
            kept += (text[done : equals.end()], REDACTED)
            done = begun = value.end()
    return "".join([*kept, text[done:]])


@lru_cache(16)
def _value(level: int | None) -> re.Pattern[str]:
    """A parameter's value, where ``level`` times a percent sign before its ``=`` was escaped (None: it is none)."""
    ends = rf"{_BACKSLASHES}u00(?:23|26)" + ("" if level is None else rf"|%(?:25){{0,{level}}}(?:23|26)")
    return re.compile(rf"(?i)(?:[^&#\s\"<>\\%]++|(?!{ends})[\\%])++")


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)


def is_signed(url: str) -> bool:
    """True if the URL's query carries a signature: such a request must be sent exactly as it is."""
    query = url.partition("#")[0].partition("?")[2]
    return bool(_signature_names(query))


def identity(url: str) -> str:
    """The URL without its signature parameters, fragment and password: what makes two URLs one file.

    A signature inside a part of the path is replaced there. One that stands deeper (a URL in the query of another) is
    replaced too, and a digest added, so that no two files become one. Never raises: what is no URL is its own identity,
    redacted.
    """
    try:
        parts = urlsplit(url)
        host = _netloc(parts)
    except ValueError:
        return redact(url)
    dropped = _signature_names(parts.query)
    kept = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in dropped]
    *folders, last = parts.path.split("/")
    name, semicolon, parameters = last.partition(";")
    path = "/".join([*map(redact, folders), name + semicolon + redact(parameters)])
    whole = urlunsplit((parts.scheme, host, path, "&".join(kept), ""))
    hidden = redact(whole)
    if hidden != whole:
        hidden += "#" + hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return hidden


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: the unit to which credentials belong (RFC 6454). Never raises for a checked URL."""
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def check_url(url: str) -> None:
    """Refuse what we do not go to, before anything is opened.

    Raises:
        Refused: another scheme than http(s), no host, a password, a character that no URL may hold.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text quotes the URL, password and all
        raise Refused(f"is not a URL: {shown(url)}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise Refused(f"only http and https are fetched, not {parts.scheme or 'a URL without a scheme'}: {shown(url)}")
    if not parts.hostname:
        raise Refused(f"the URL has no host: {shown(url)}")
    if parts.username is not None or parts.password is not None:
        raise Refused(f"the URL carries a user name or password: {shown(url)}")
    if re.search(r"[\x00-\x20\x7f\\]", url) or len(url) > 16384:
        raise Refused(f"the URL is too long, or has a space, control character or backslash: {shown(url)}")


def shown(url: str) -> str:
    """A URL fit for a message: redacted, one line, of bounded length."""
    text = redact(url).encode("unicode_escape").decode("ascii")
    return text if len(text) <= 300 else text[:300] + "…"


def _netloc(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def _signature_names(query: str) -> set[str]:
    """The names, as they stand in a query, whose values are part of a signature."""
    names = {pair.partition("=")[0] for pair in query.split("&") if pair}
    signed = {name for name in names if _LONG_NAME.fullmatch(unquote(name))}
    if any(unquote(name).lower() == "sig" for name in signed):
        signed |= {name for name in names if _AZURE_NAME.fullmatch(unquote(name))}
    return signed
