"""The guarded session: every request of this package goes through here.

Guarantees: http and https only; redirects are followed hop by hop, each checked; a guarded session connects to
public addresses only, and the address that is checked is the address connected to; no cookies, no netrc, no
decompression; a proxy only where one is configured. aiohttp's exceptions do not leave this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from mirror import __version__
from mirror.addresses import is_public, names_private_place
from mirror.errors import ConfigError, MirrorError, Refused, Severity
from mirror.events import Answered, Observer, RequestSent
from mirror.settings import Settings
from mirror.urls import check_url, is_signed, origin, shown

_READ_BUFFER = 128 << 10
_ONE_READ = 256 << 10
MOST_BUFFERED = 2 * _READ_BUFFER + _ONE_READ
"""Bytes of a body that may be held before it is read: above twice its buffer's size aiohttp stops reading from the
socket, and what asyncio read last comes on top."""

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def is_passing(status: int) -> bool:
    """True for a status that says "not now" rather than "not this": worth trying again."""
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


class Http:
    """A session for one purpose. ``unavailable`` and ``refused`` are the error classes of its caller's floor."""

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        *,
        kind: str,
        unavailable: type[MirrorError],
        refused: type[MirrorError],
    ) -> None:
        self._transfer = settings.transfer
        self._guarded = kind == "media" and not settings.security.allow_private_addresses
        self._hosts = tuple(host.lower() for host in settings.security.allow_hosts) if kind == "media" else ()
        self._observer = observer
        self._kind = kind
        self._unavailable = unavailable
        self._refused = refused
        self._direct: aiohttp.ClientSession | None = None
        self._proxied: aiohttp.ClientSession | None = None
        self._tls = _tls(settings.transfer.ca_file) if settings.transfer.ca_file else True
        self._proxies = urllib.request.getproxies_environment()

    async def close(self) -> None:
        """Close all connections."""
        for session in (self._direct, self._proxied):
            if session is not None:
                await session.close()

    @contextlib.asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str], *, same_origin: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a GET, redirects followed, its body not yet read.

        ``same_origin`` refuses a redirect to another origin: for requests that carry a credential.

        Raises:
            MirrorError: of this session's two classes, translated from whatever went wrong, also inside the block.
        """
        with self._translated(url):
            response = await self._follow(url, headers, same_origin=same_origin)
            try:
                yield response
            finally:
                # A body that was read to its end has given its connection back already.
                response.close()

    @contextlib.asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterable[memoryview] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to any request, redirects not followed. How long a body may take is the caller's to say.

        Raises:
            MirrorError: as :meth:`get`.
        """
        with self._translated(url):
            self._check(url)
            response = await self._send(url, headers, method=method, body=body)
            try:
                yield response
            finally:
                response.close()

    async def _follow(self, url: str, headers: Mapping[str, str], *, same_origin: bool) -> aiohttp.ClientResponse:
        start, seen = url, {url}
        same_origin = same_origin or self._kind == "s3"  # a store's redirect leads nowhere else
        while True:
            self._check(url)
            response = await self._send(url, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            url = self._joined(url, location)
            if same_origin and origin(url) != origin(start):
                raise self._refused(f"{shown(start)} redirects to another origin, {shown(url)}: not followed")
            if url in seen or len(seen) > MAX_REDIRECTS:
                raise self._refused(f"{shown(start)} redirects in a loop or too often")
            seen.add(url)
            if is_signed(url):
                # One header more than was signed, and the store refuses.
                headers = {name: value for name, value in headers.items() if not name.startswith("x-amz-")}

    def _joined(self, url: str, location: str) -> str:
        try:
            # aiohttp keeps the bytes that are no UTF-8 as surrogates, which no URL can hold.
            target = urljoin(url, location.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            origin(target)
        except ValueError:
            raise self._refused(f"{shown(url)} redirects to what is no URL: {shown(location)}") from None
        return target

    async def _send(
        self, url: str, headers: Mapping[str, str], method: str = "GET", body: AsyncIterable[memoryview] | None = None
    ) -> aiohttp.ClientResponse:
        proxy = self._proxy_for(url)
        if proxy and self._guarded and names_private_place(urlsplit(url).hostname or ""):
            raise self._refused(f"{shown(url)} is not a public address")
        try:
            target = URL(url, encoded=True)
        except ValueError:
            raise self._refused(f"is not a URL that can be asked for: {shown(url)}") from None
        session = self._session(proxied=proxy is not None)
        self._observer(RequestSent(kind=self._kind))
        # aiohttp's own timeout starts anew with each byte: headers that trickle would hold a place for ever.
        patience = self._transfer.connect_timeout + self._transfer.stall_timeout
        sent = time.monotonic()
        async with asyncio.timeout(patience or None if body is None else None):
            response = await session.request(
                method, target, headers=headers, data=body, allow_redirects=False, proxy=URL(proxy) if proxy else None
            )
        self._observer(Answered(kind=self._kind, seconds=time.monotonic() - sent, status=response.status))
        return response

    def _check(self, url: str) -> None:
        try:
            check_url(url)
        except Refused as error:
            raise self._refused(str(error)) from None
        host = (urlsplit(url).hostname or "").lower()
        if self._hosts and host not in self._hosts:
            raise self._refused(f"{host} is not among security.allow_hosts: {shown(url)}")

    def _proxy_for(self, url: str) -> str | None:
        if self._transfer.proxy:
            return self._transfer.proxy
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(parts.netloc):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _session(self, *, proxied: bool) -> aiohttp.ClientSession:
        made = self._proxied if proxied else self._direct
        if made is None:
            made = self._make_session(guarded=self._guarded and not proxied)
            if proxied:
                self._proxied = made
            else:
                self._direct = made
        return made

    def _make_session(self, *, guarded: bool) -> aiohttp.ClientSession:
        transfer = self._transfer
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=60,
            ssl=self._tls,
            socket_factory=_public_socket if guarded else None,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
            max_field_size=32 << 10,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=transfer.connect_timeout or None, sock_read=transfer.stall_timeout or None
            ),
            headers={
                "User-Agent": transfer.user_agent or f"mirror/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
        )

    @contextlib.contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            # Not in this run, but a certificate is renewed: the file is not refused for good.
            reason = f"the certificate of {error.host} is not valid: {error.certificate_error}"
            message = f"{reason} (transfer.ca_file adds authorities of your own)"
            raise self._unavailable(message, severity=Severity.ITEM) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefusedError):
                raise self._refused(f"{error.os_error}: {shown(url)}") from None
            raise self._unavailable(f"cannot connect to {error.host}:{error.port}: {_reason(error.os_error)}") from None
        except (aiohttp.InvalidURL, UnicodeError) as error:
            raise self._refused(f"is not a URL that can be asked for: {shown(url)}") from error
        except aiohttp.ConnectionTimeoutError:
            raise self._unavailable(
                f"no connection within {self._transfer.connect_timeout:g} s: {shown(url)}"
            ) from None
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise self._unavailable(f"no byte came for {self._transfer.stall_timeout:g} s: {shown(url)}") from None
        except aiohttp.ClientResponseError:
            # It may be the end of another file's body, longer than its Content-Length, on a connection used again.
            raise self._unavailable(f"not an HTTP answer that can be read: {shown(url)}") from None
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            raise self._unavailable(f"the connection broke ({_reason(error)}): {shown(url)}") from None


class AddressRefusedError(OSError):
    """A name or literal led to an address that is not public."""


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Made for each address just before it is connected to, literal ones too: no check here can be evaded."""
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise AddressRefusedError("not a public address, and security.allow_private_addresses is not set")
    return socket.socket(family=family, type=kind, proto=protocol)


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"[transfer] ca_file: {ca_file} cannot be used: {error}") from None
    return context


def _reason(error: BaseException) -> str:
    """What went wrong, without any text that the other side wrote."""
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
