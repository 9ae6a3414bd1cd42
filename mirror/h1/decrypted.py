"""What TLS has decrypted, on its way to a connection."""

from __future__ import annotations

import asyncio

from mirror.h1.connection import Connection


class Decrypted(asyncio.Protocol):
    """Gives a connection what comes through TLS as a socket would: into the buffers that it asks for.

    asyncio would do that, too. But where the other side ends the connection, it gives such a protocol as much as one
    buffer takes, and drops what else is decrypted (``SSLProtocol._do_flush``): of a body that ends with the connection
    nobody would notice. A protocol without buffers of its own gets all there is.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            buffer = self.connection.get_buffer(-1)
            size = min(len(buffer), len(left))
            buffer[:size] = left[:size]
            self.connection.buffer_updated(size)
            left = left[size:]

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def eof_received(self) -> None:
        self.connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.connection_lost(exc)
