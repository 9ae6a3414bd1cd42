"""aiohttp's session: what goes through a proxy, and whatever is no plain GET. Its errors become the carrier's own.

Imported when it is needed first: it takes longer to import than many a run takes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence

import aiohttp
from aiohappyeyeballs import SocketFactoryType
from yarl import URL

from mirror.h1 import (
    BadCertificate,
    Broken,
    CannotConnect,
    ConnectTimeout,
    CutShort,
    Stalled,
    Unreadable,
    Unsendable,
    WireError,
)
from mirror.h1.outgoing import Body
from mirror.settings import TransferSettings

_READ_BUFFER = 32 << 10
"""Above twice this size aiohttp stops reading; what asyncio read last, 256 KiB at most, comes on top."""

_PIECE = 256 << 10

_OURS: dict[type[Exception], type[WireError]] = {
    aiohttp.InvalidURL: Unsendable,
    aiohttp.ConnectionTimeoutError: ConnectTimeout,
    aiohttp.ServerTimeoutError: Stalled,
    aiohttp.ClientPayloadError: CutShort,
    aiohttp.ClientResponseError: Unreadable,
    aiohttp.ClientError: Broken,
}
"""The first one that an error is an instance of counts."""


class Session:
    """One of aiohttp's. ``open_socket`` judges and opens each address that is connected to."""

    def __init__(
        self,
        transfer: TransferSettings,
        common: Mapping[str, str],
        context: ssl.SSLContext | bool,
        open_socket: SocketFactoryType | None,
    ) -> None:
        self._made = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, ssl=context, socket_factory=open_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
            max_field_size=32 << 10,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=transfer.connect_timeout or None, sock_read=transfer.stall_timeout or None
            ),
            headers=common,
        )

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: AsyncIterable[memoryview] | None,
        proxy: str | None,
    ) -> aiohttp.ClientResponse:
        """The answer, its body not yet read, redirects not followed.

        Raises:
            WireError, or what :meth:`wire_error` makes one of.
        """
        try:
            target = URL(url, encoded=True)
        except ValueError:
            raise Unsendable from None
        return await self._made.request(
            method, target, headers=headers, data=body, allow_redirects=False, proxy=URL(proxy) if proxy else None
        )

    def wire_error(self, error: Exception) -> WireError | None:
        """What one of aiohttp's errors is called here; None for any other one."""
        return _wire_error(error)

    async def close(self) -> None:
        await self._made.close()


async def trickled(body: Body, timer: asyncio.Timeout, stall: float | None) -> AsyncGenerator[memoryview, None]:
    """A body in pieces; each that the socket takes shows that the other side is alive, and puts the timer off."""
    loop = asyncio.get_running_loop()
    assert isinstance(body.content, Sequence)  # files do not go through proxies: Http.is_direct
    at = 0
    for each in body.content:
        buffer = memoryview(each)
        for start in range(0, len(buffer), _PIECE):
            piece = buffer[start : start + _PIECE]
            yield piece  # not copied
            at += len(piece)
            body.sent(at)
            if stall is not None and not timer.expired():
                timer.reschedule(loop.time() + stall)


class Relayed:
    """An answer of aiohttp's, as the carrier's own are."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_length = response.content_length
        self.batch = _READ_BUFFER  # aiohttp hands over what it has
        self._response = response

    async def read(self) -> bytes:
        """The next piece; b"" at the end."""
        try:
            return await self._response.content.readany()
        except aiohttp.ClientPayloadError:
            raise CutShort("the body broke off") from None

    def lend(self, least: int, most: int) -> None:
        """aiohttp lends nothing."""

    def close(self) -> None:
        """A body that was read to its end has given its connection back already."""
        self._response.close()


def _wire_error(error: Exception) -> WireError | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return BadCertificate(error.host, error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return CannotConnect(error.host, error.port or 0, error.os_error)
    for theirs, ours in _OURS.items():
        if isinstance(error, theirs):
            return ours((isinstance(error, OSError) and error.strerror) or type(error).__name__)
    return None
