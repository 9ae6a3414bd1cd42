"""What a URL names, and what of it may be shown.

Signed URLs carry their permission in the query. Those parameters are no part of a file's identity (a freshly
signed URL names the same object) and their values are never shown.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from mirror.errors import Refused
from mirror.signatures import signature_names, without_signatures

_USERINFO = re.compile(r"(?i)(?<=[a-z0-9+.-]://)[^/?#\s\"<>]*@")
_UNFIT = re.compile(r"[\x00-\x20\x7f\\]")
_NAMES_A_FILE = re.compile(r"(?i).*\.(?!(?:php|aspx?|ashx|jsp|cgi|do|[0-9]+)\Z)[a-z0-9]{1,5}", re.DOTALL)
"""The last part of such a path says which file is meant; of another one, or a program's, the query may say it."""

_PLAIN = re.compile(
    r"https?://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::(?!80/|443/)[1-9]\d{0,3}|:[1-5]\d{4})?/[A-Za-z0-9._~/+,:!-]*"
)
"""What most URLs are: nothing in them is signed, or hidden, or could be written in another way."""

_AUTHORITY = re.compile(r"(?s).*?://([^/?#]*)")

REDACTED = "***"


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` with the values of signature parameters, passwords in URLs and the given secrets replaced."""
    for secret in filter(None, secrets):
        text = text.replace(secret, REDACTED)
    if "=" in text or "%" in text or "\\" in text:
        text = without_signatures(text, REDACTED)
    return _USERINFO.sub(f"{REDACTED}@", text) if "@" in text else text


def is_signed(url: str) -> bool:
    """True if the URL's query carries a signature: such a request must be sent exactly as it is."""
    if "?" not in url:
        return False
    query = url.partition("#")[0].partition("?")[2]
    return bool(signature_names(query))


def identity(url: str) -> str:
    """The URL without its signature parameters, fragment and password: what makes two URLs one file.

    A signature inside a part of the path is replaced there. One that stands deeper (a URL in the query of another) is
    replaced too, and a digest added, so that no two files become one. So is a ``token`` or the like behind a path that
    names no file: it may be what tells one file from another. Never raises: what is no URL is its own identity,
    redacted.
    """
    return url if _PLAIN.fullmatch(url) else _worked_out(url)


def _worked_out(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = _netloc(parts)
    except ValueError:
        return redact(url)
    *folders, last = parts.path.split("/")
    name, semicolon, parameters = last.partition(";")
    path = "/".join([*map(redact, folders), name + semicolon + redact(parameters)])
    dropped = signature_names(parts.query, schemes_only=not _NAMES_A_FILE.fullmatch(name))
    kept = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in dropped]
    whole = urlunsplit((parts.scheme, host, path, "&".join(kept), ""))
    hidden = redact(whole)
    if hidden != whole:
        hidden += "#" + hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return hidden


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: the unit to which credentials belong (RFC 6454). Never raises for a checked URL."""
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def authority(url: str) -> str:
    """Host and port as they stand in a URL: the unit that connections belong to."""
    found = _AUTHORITY.match(url)
    return found[1] if found is not None else ""


def check_url(url: str) -> None:
    """Refuse what we do not go to, before anything is opened.

    Raises:
        Refused: another scheme than http(s), no host, port 0, a password, a character that no URL may hold.
    """
    if _PLAIN.fullmatch(url) and is_fit(url):
        return
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text quotes the URL, password and all
        raise Refused(f"is not a URL: {shown(url)}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise Refused(f"only http and https are fetched, not {parts.scheme or 'a URL without a scheme'}: {shown(url)}")
    if not parts.hostname:
        raise Refused(f"the URL has no host: {shown(url)}")
    if port == 0:  # who reads it as none goes to another place than who does not
        raise Refused(f"the URL's port is 0, where nobody can listen: {shown(url)}")
    if parts.username is not None or parts.password is not None:
        raise Refused(f"the URL carries a user name or password: {shown(url)}")
    if not is_fit(url):
        raise Refused(f"the URL is too long, or has a space, control character or backslash: {shown(url)}")


def is_fit(url: str) -> bool:
    """Whether its length and its characters are those of a URL; the part of the check that no origin shares."""
    return len(url) <= 16384 and not _UNFIT.search(url)


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
