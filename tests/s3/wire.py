"""HTTP/1.1 as a proxy needs it: heads kept as they came, bodies as streams of payload, whatever frames them."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PIECE = 1 << 16


@dataclass
class Head:
    """The first line of a message and its fields, in the order and spelling they arrived in."""

    first: str
    fields: list[tuple[str, str]]

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.fields if key.lower() == name), default)

    def put(self, name: str, value: str) -> None:
        """Sets a field, in place of what had that name."""
        self.fields = [(key, held) for key, held in self.fields if key.lower() != name.lower()]
        self.fields.append((name, value))

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    @property
    def chunked(self) -> bool:
        return self.get("transfer-encoding").lower() == "chunked"

    @property
    def closes(self) -> bool:
        return self.get("connection").lower() == "close" or "HTTP/1.0" in self.first

    def raw(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.fields), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class Wire:
    """A socket, plain or TLS, with what was read ahead of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._ahead = bytearray()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def some(self, most: int) -> bytes:
        """At least one byte, unless the other side has closed."""
        if not self._ahead:
            return self.sock.recv(most)
        data = bytes(self._ahead[:most])
        del self._ahead[:most]
        return data

    def line(self) -> bytes:
        """A line without its end; what there is, where the other side closes first."""
        while (end := self._ahead.find(b"\n")) < 0:
            data = self.sock.recv(PIECE)
            if not data:
                end = len(self._ahead)
                break
            self._ahead += data
        line = bytes(self._ahead[:end]).rstrip(b"\r")
        del self._ahead[: end + 1]
        return line

    def head(self) -> Head | None:
        """The next head; None where the other side closed before it."""
        first = self.line().decode("latin-1")
        if not first:
            return None
        fields = []
        while line := self.line().decode("latin-1"):
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
        return Head(first, fields)

    def payload(self, head: Head) -> Iterator[bytes]:
        """The body that follows a head, without the framing; trailers are dropped.

        Raises:
            ConnectionError: the other side closed before the end.
        """
        if head.chunked:
            while size := int(self.line().partition(b";")[0] or b"-1", 16):
                if size < 0:
                    raise ConnectionError("the body ended early")
                yield from self._exactly(size)
                self.line()
            while self.line():
                pass
        elif length := head.get("content-length"):
            yield from self._exactly(int(length))
        elif head.first.startswith("HTTP/"):
            while data := self.some(PIECE):
                yield data

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.some(min(size, PIECE))
            if not data:
                raise ConnectionError("the body ended early")
            size -= len(data)
            yield data

    @property
    def pending(self) -> bool:
        """Whether something was read ahead, which select() does not see."""
        return bool(self._ahead) or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0)

    def shutdown(self) -> None:
        """Breaks off whatever the socket is waiting for, in any thread."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Closes with an RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def readable(*wires: Wire, timeout: float | None = 0) -> list[Wire]:
    """Those of which something, or their end, can be read."""
    if found := [wire for wire in wires if wire.pending]:
        return found
    by_socket = {wire.sock: wire for wire in wires}
    return [by_socket[sock] for sock in select.select(list(by_socket), [], [], timeout)[0]]
