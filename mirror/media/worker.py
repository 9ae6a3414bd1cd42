"""The helper process that reads media: ``python -m mirror.media.worker PARENT MEMORY``, which nobody starts by hand.

It is asked through its stdin and answers through its stdout, a frame each: four bytes of length, then as many of JSON;
what it asked to read comes as bare bytes. It has little memory and time, few open files, writes no file, and ends with
the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
from typing import Any, BinaryIO

from mirror.media.confinement import allow, confine
from mirror.media.reading import Hindered, Undecodable, Unopened, decode, describe

_BUFFER = 64 << 10
_PIECE = 256 << 10

Request = dict[str, Any]


class Channel:
    """Frames, from and to the parent. Blocks."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def receive(self) -> bytes | None:
        """None where the parent has gone."""
        header = self._incoming.read(4)
        size = int.from_bytes(header)
        data = self._incoming.read(size) if len(header) == 4 else b""
        return data if len(header) == 4 and len(data) == size else None

    def send(self, message: Request, *, more: bool = False) -> None:
        """With ``more`` another answer follows at once: to wake the parent costs more than to find one."""
        data = json.dumps(message).encode()
        self._outgoing.write(len(data).to_bytes(4) + data)
        if not more:
            self._outgoing.flush()


class Remote(io.RawIOBase):
    """A file of ``size`` bytes that the parent reads for us."""

    def __init__(self, channel: Channel, size: int) -> None:
        super().__init__()
        self._channel = channel
        self._size = size
        self._at = 0
        self.failed = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readall(self) -> bytes:
        """In pieces that are worth a request each."""
        found, piece = bytearray(), bytearray(_PIECE)
        while count := self.readinto(piece):
            found += piece[:count]
        return bytes(found)

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        self._channel.send({"read": [self._at, self._at + count]})
        data = self._channel.receive()
        if not data:
            self.failed = True
            raise OSError("it cannot be read there")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def main() -> None:
    parent, memory = int(sys.argv[1]), int(sys.argv[2])
    has_room = confine(parent, memory)
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    channel = Channel(os.fdopen(os.dup(0), "rb"), outgoing)
    with contextlib.suppress(BrokenPipeError):
        channel.send({})
        while (message := channel.receive()) is not None:
            request = json.loads(message)
            channel.send(_answer(request, channel, has_room), more=request["more"])


def _answer(request: Request, channel: Channel, has_room: bool) -> Request:
    allow(request["seconds"])
    remote = Remote(channel, request["size"]) if "size" in request else None
    try:
        with _opened(request, remote) as file:
            return _found(file, request["decode"], has_room)
    except Undecodable as error:
        if remote is not None and remote.failed:
            return {"error": "it cannot be read there", "unread": True}
        return {"known": True, "wrong": str(error)}
    except Hindered as error:
        return {"error": f"it could not be decoded here: {error}", "unread": True}
    except OSError as error:
        return {"error": f"cannot be read: {error.strerror or error}", "unread": True}
    except MemoryError:
        return {"error": "it takes more memory than a helper may have"}


def _found(file: BinaryIO, to_decode: bool, has_room: bool) -> Request:
    """With little room, set by whoever started us, what needs more of it is not the file's fault."""
    try:
        return {"known": decode(file)} if to_decode else {"media": describe(file)}
    except (MemoryError, Unopened):  # a library leaves out the formats that it has no room for
        if has_room:
            raise
        raise Hindered("the memory that is allowed here (ulimit -v) may not do") from None


def _opened(request: Request, remote: Remote | None) -> Any:
    if remote is not None:
        return io.BufferedReader(remote, request.get("buffer", _BUFFER))
    fd = _open_below(*request["path"])
    if os.fstat(fd).st_size >= _BUFFER:
        return os.fdopen(fd, "rb")
    with os.fdopen(fd, "rb", 0) as file:  # most pictures: read at once
        return io.BytesIO(file.read(_BUFFER))


def _open_below(root: str, folder: str, name: str) -> int:
    """The file, where no symlink leads to it from the root on. A pipe is not waited for."""
    look = os.O_RDONLY | os.O_CLOEXEC
    there = os.open(root, look | os.O_DIRECTORY)
    try:
        below = os.open(folder, look | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=there)
    finally:
        os.close(there)
    try:
        fd = os.open(name, look | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=below)
    finally:
        os.close(below)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is no file")
    return fd


if __name__ == "__main__":
    main()
