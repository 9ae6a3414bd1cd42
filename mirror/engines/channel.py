"""A pair of sockets between a driver and a worker: frames of four bytes of length and a list of messages in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Generic, TypeVar

import msgspec

M = TypeVar("M")

_LIMIT = 1 << 20


class Channel(Generic[M]):
    """One end of it. ``heard`` decodes what comes; what is posted in one step of the loop goes out as one frame."""

    def __init__(self, heard: msgspec.json.Decoder[list[M]]) -> None:
        self._decoder = heard
        self._going: list[bytes] = []
        self._encoder = msgspec.json.Encoder()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, end: socket.socket) -> None:
        """Use one of a connected pair of sockets, which belongs to this from here on."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=end, limit=_LIMIT)

    def post(self, message: object) -> None:
        """Say something, soon. What the other side does not hear any more is lost; what is no text is spelled out."""
        try:
            encoded = self._encoder.encode(message)
        except UnicodeEncodeError:  # a path in an error's message may be bytes that are no UTF-8
            encoded = self._encoder.encode(_spelled_out(msgspec.to_builtins(message)))
        if not self._going:
            asyncio.get_running_loop().call_soon(self._send)
        self._going.append(encoded)

    def _send(self) -> None:
        going, self._going = self._going, []
        if going and self._writer is not None and not self._writer.is_closing():
            frame = b"[%s]" % b",".join(going)
            self._writer.write(len(frame).to_bytes(4) + frame)  # at once: each write wakes the other side

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was posted."""
        self._send()
        if self._writer is not None:
            await self._writer.drain()

    async def hear(self) -> list[M]:
        """What comes next; nothing when the other side has gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4))
            return self._decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return []

    async def close(self) -> None:
        """The other side hears nothing any more, and learns that."""
        if self._writer is not None:
            self._writer.transport.abort()  # it may not read any more
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()


def _spelled_out(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_spelled_out(key): _spelled_out(each) for key, each in value.items()}
        case list():
            return [_spelled_out(each) for each in value]
    return value
