"""A server that speaks TLS by hand, so that it can send what it likes, cut as it likes, when it likes."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.wire import Peer, Server, serving

T = TypeVar("T")


class Speaker:
    """The server's end of TLS on a connection."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def _done(self, step: Callable[[], T], *, bytewise: bool = False) -> T:
        """What a step gives, once enough has come for it."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush(bytewise=bytewise)
                came = await self.peer.reader.read(1 << 16)
                self._incoming.write(came) if came else self._incoming.write_eof()
            finally:
                await self._flush(bytewise=bytewise)

    async def _flush(self, *, bytewise: bool) -> None:
        data = self._outgoing.read()
        await self.peer.send(*(data[at : at + 1] for at in range(len(data))) if bytewise else [data])

    async def shake(self, *, bytewise: bool = False) -> None:
        await self._done(self._ssl.do_handshake, bytewise=bytewise)

    async def read(self) -> bytes:
        """Some of what the client says; b"" if it said that this was its end."""
        try:
            return await self._done(lambda: self._ssl.read(1 << 16))
        except ssl.SSLZeroReturnError:  # we had said so, too
            return b""

    async def request(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            got = await self.read()
            if not got:
                raise ConnectionResetError
            head += got
        return head

    def words(self, *data: bytes) -> bytes:
        """Each as records of its own."""
        for each in data:
            self._ssl.write(each)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._ssl.unwrap()
        return self._outgoing.read()


Script = Callable[[Speaker], Awaitable[None]]


def speaking(
    context: ssl.SSLContext, script: Script, *, bytewise: bool = False
) -> contextlib.AbstractAsyncContextManager[Server]:
    """Runs the script for each connection that has shaken hands; TCP is closed at its end, without a word of TLS."""

    async def serve(peer: Peer) -> None:
        speaker = Speaker(peer, context)
        with contextlib.suppress(ssl.SSLError):
            await speaker.shake(bytewise=bytewise)
            await script(speaker)

    return serving(serve)
