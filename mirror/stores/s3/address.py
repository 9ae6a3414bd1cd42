"""Where an object is, as a URL and back: bucket and key under either addressing style. Pure.

Source: the S3 user guide, "Virtual hosting of buckets" and "Amazon S3 endpoints".
"""

from __future__ import annotations

import functools
import re
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from mirror.settings import S3Settings
from mirror.urls import identity

_AWS_HOST = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.)?"
    r"s3(?:-accelerate)?(?:[.-]dualstack)?(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com(?P<china>\.cn)?"
)
_IN_HOST = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IN_VIRTUAL_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


class Located(Struct, frozen=True):
    """An object, by bucket and key."""

    bucket: str
    key: str


def quoted(key: str) -> str:
    """A key as it stands in a URL's path, in the one spelling that is signed."""
    return quote(key, safe="/~")


class Address(Struct, frozen=True):
    """How one bucket is reached: ``base`` is what stands before an object's key, ``path`` style or virtual-hosted."""

    base: str
    path_style: bool

    def url(self, key: str) -> str:
        return f"{self.base}/{quoted(key)}"


@functools.lru_cache(64)
def address_of(bucket: str, endpoint: str, region: str, addressing: str) -> Address:
    """The address of a bucket; an empty ``endpoint`` is AWS.

    ``auto`` is virtual-hosted on AWS, where the bucket's name can stand in a TLS host name, and path style elsewhere:
    every store knows that one.
    """
    virtual_fits = _IN_VIRTUAL_HOST.fullmatch(bucket) is not None
    path_style = addressing == "path" or (addressing == "auto" and (bool(endpoint) or not virtual_fits))
    china = ".cn" if region.startswith("cn-") else ""
    endpoint = endpoint.rstrip("/") or f"https://s3.{region}.amazonaws.com{china}"
    if path_style:
        return Address(f"{endpoint}/{bucket}", path_style=True)
    parts = urlsplit(endpoint)
    return Address(f"{parts.scheme}://{bucket}.{parts.netloc}", path_style=False)


def locate(url: str, settings: S3Settings) -> Located | None:
    """The object that a URL names, if it stands in the store that our bucket is in; None for any other URL.

    ``s3.sources`` comes first, then the store's own host names: those of AWS, or those of ``endpoint_url``. A query
    beside a signature may ask for another version, or for something else than the object: that is located nowhere.
    """
    try:
        parts = urlsplit(url)
        host, netloc, port = (parts.hostname or "").lower(), parts.netloc.lower(), parts.port
        query = urlsplit(identity(url)).query
    except ValueError:
        return None
    path = unquote(parts.path.removeprefix("/"), errors="surrogateescape")
    if not _is_sound(path) or parts.scheme not in ("http", "https") or query or "@" in netloc:
        return None
    mapped = settings.sources.get(netloc) or settings.sources.get(host)
    if mapped is not None:
        bucket, _, prefix = mapped.partition("/")
        return Located(bucket, f"{prefix.rstrip('/')}/{path}" if prefix else path)
    if settings.endpoint_url:
        return _at_endpoint(netloc, path, urlsplit(settings.endpoint_url).netloc.lower())
    match = _AWS_HOST.fullmatch(host)
    if match is None or port not in (None, 80, 443) or _partition(match["region"] or "") != _partition(settings.region):
        return None
    return Located(match["bucket"], path) if match["bucket"] else _in_path(path)


def _at_endpoint(netloc: str, path: str, ours: str) -> Located | None:
    if netloc == ours:
        return _in_path(path)
    bucket = netloc.removesuffix(f".{ours}") if netloc.endswith(f".{ours}") else ""
    return Located(bucket, path) if _IN_HOST.fullmatch(bucket) else None


def _partition(region: str) -> str:
    """AWS is several stores that know nothing of each other; a bucket's name may be taken in each."""
    return next((part for part in ("cn-", "us-gov-", "us-iso") if region.startswith(part)), "")


def _in_path(path: str) -> Located | None:
    bucket, _, key = path.partition("/")
    return Located(bucket, key) if bucket and key and re.fullmatch(r"[A-Za-z0-9._-]+", bucket) else None


def _is_sound(key: str) -> bool:
    """A key that means the same to everybody who normalises paths, and can stand in a header."""
    if not key or any(0xD800 <= ord(letter) <= 0xDFFF or not letter.isprintable() for letter in key):
        return False
    if len(key.encode()) > 1024:
        return False
    return not {"", ".", ".."} & set(key.split("/")[:-1]) and key.rsplit("/", maxsplit=1)[-1] not in (".", "..", "")
