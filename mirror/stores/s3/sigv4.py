"""Signature version 4 in a request's header, for many requests with one key. Pure.

botocore's signer makes the same signatures, and takes ten times as long over each: it makes a mail message of the
headers and derives the key anew. It stays for what is rare.

Source: the IAM user guide, "Create a signed AWS API request", and the S3 API reference, "Authenticating Requests:
Using the Authorization Header".
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

STAMP = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


class Credentials(Protocol):
    """What botocore calls frozen credentials."""

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...

    @property
    def token(self) -> str | None: ...


class Key:
    """What signs the requests of one day to one region with one secret: derived once."""

    def __init__(self, credentials: Credentials, region: str, day: str) -> None:
        self.credentials = credentials
        self.region = region
        self.day = day
        self.scope = f"{day}/{region}/s3/aws4_request"
        self._key = f"AWS4{credentials.secret_key}".encode()
        for part in (day, region, "s3", "aws4_request"):
            self._key = _hmac(self._key, part)

    def is_for(self, credentials: Credentials, region: str, day: str) -> bool:
        return self.credentials is credentials and self.region == region and self.day == day

    def sign(self, text: str) -> str:
        """The signature of a text, in hex."""
        return _hmac(self._key, text).hex()


class Request(NamedTuple):
    """What is signed. ``payload`` is the SHA-256 of the body in hex.

    The URL is spelled as it is sent; no two of the headers have one name, and none is one that a proxy may change.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    payload: str


def authorized(request: Request, key: Key, stamp: str) -> dict[str, str]:
    """The request's headers and those that authorise it; ``stamp`` is the moment, as :data:`STAMP` has it."""
    base, path, query = _split(request.url)
    headers = {**request.headers, "X-Amz-Date": stamp}
    if key.credentials.token:
        headers["X-Amz-Security-Token"] = key.credentials.token
    headers["X-Amz-Content-SHA256"] = request.payload
    # White space is squeezed, as the other side does before it checks.
    signed = sorted(
        [("host", host_of(base)), *((name.lower(), " ".join(value.split())) for name, value in headers.items())]
    )
    lines = "".join([f"{name}:{value}\n" for name, value in signed])
    names = ";".join([name for name, _ in signed])
    canonical = f"{request.method}\n{path}\n{query}\n{lines}\n{names}\n{request.payload}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = key.sign(f"{_ALGORITHM}\n{stamp}\n{key.scope}\n{digest}")
    credential = f"{key.credentials.access_key}/{key.scope}"
    headers["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


def _split(url: str) -> tuple[str, str, str]:
    """Scheme and host, the path, and the query in the order that is signed."""
    url, _, query = url.partition("?")
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    if "&" in query or (query and "=" not in query):
        query = "&".join(
            f"{name}={value}" for name, _, value in sorted(each.partition("=") for each in query.split("&"))
        )
    return f"{scheme}://{netloc}", slash + path, query


@functools.lru_cache(16)
def host_of(base: str) -> str:
    """The Host header for what is sent there."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return name if parts.port in (None, _PORTS.get(parts.scheme)) else f"{name}:{parts.port}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
