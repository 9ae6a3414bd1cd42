"""What a URL names, and what of it may be shown.

Signed URLs carry their permission in the query. Those parameters are no part of a file's identity (a freshly
signed URL names the same object) and their values are never shown.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from mirror.errors import Refused

_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "q-sign-")
_NAMES = frozenset(
    {
        "signature", "expires", "policy", "key-pair-id", "sig", "token", "access_token", "awsaccesskeyid",
        "googleaccessid", "ossaccesskeyid", "security-token", "auth_key", "sign", "hdnts", "hdnea", "wssecret",
        "wstime", "q-ak", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
    }
)  # fmt: skip
_AZURE = frozenset({"sv", "se", "sr", "sp", "st", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"})
"""Azure's short names are a signature's only beside ``sig``; elsewhere they may mean anything."""

_NAME_PATTERN = "|".join(
    [re.escape(prefix) + r"[\w.-]+" for prefix in _PREFIXES] + [re.escape(name) for name in sorted(_NAMES)]
)
_IN_TEXT = re.compile(rf"(?i)(?<![\w.%-])((?:{_NAME_PATTERN})=)[^&#\s\"'<>\\;,)]+")
_USERINFO = re.compile(r"(?i)(\bhttps?://)[^/?#\s\"'<>@]*@")

REDACTED = "REDACTED"


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` with the values of signature parameters, passwords in URLs and the given secrets replaced."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, REDACTED)
    if "=" in text:
        text = _IN_TEXT.sub(rf"\1{REDACTED}", text)
    return _USERINFO.sub(rf"\1{REDACTED}@", text) if "@" in text else text


def is_signed(url: str) -> bool:
    """True if the URL's query carries a signature: such a request must be sent exactly as it is."""
    return any(_is_signature(name, set()) for name in _query_names(url))


def identity(url: str) -> str:
    """The URL without its signature parameters, fragment and password: what makes two URLs one file.

    Never raises: what is no URL is its own, redacted, identity.
    """
    try:
        parts = urlsplit(url)
        host = _netloc(parts)
    except ValueError:
        return redact(url)
    names = {unquote(name).lower() for name in _query_names(url)}
    kept = [
        pair for pair in parts.query.split("&") if not _is_signature(unquote(pair.partition("=")[0]).lower(), names)
    ]
    return redact(urlunsplit((parts.scheme, host, parts.path, "&".join(kept), "")))


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
    except ValueError as error:
        raise Refused(f"is not a URL ({error}): {shown(url)}") from None
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


def _query_names(url: str) -> list[str]:
    query = url.partition("#")[0].partition("?")[2]
    return [pair.partition("=")[0] for pair in query.split("&") if pair]


def _is_signature(name: str, all_names: set[str]) -> bool:
    name = unquote(name).lower()
    return name in _NAMES or name.startswith(_PREFIXES) or ("sig" in all_names and name in _AZURE)
