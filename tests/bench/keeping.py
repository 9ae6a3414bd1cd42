"""What a bucket does with the bytes of a body: it writes them to a file, or compares them with the file they are of."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from pathlib import Path
from typing import Protocol

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class Keeper(Protocol):
    """Takes a body in, piece by piece."""

    def take(self, piece: memoryview) -> None: ...

    def end(self) -> tuple[str, ...]:
        """The files that have its bytes, one after the other."""
        ...

    def close(self) -> None:
        """Let go, whether it came whole or not."""


class Written:
    """Its bytes go into a new file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def take(self, piece: memoryview) -> None:
        while piece:
            piece = piece[os.write(self._fd, piece) :]

    def end(self) -> tuple[str, ...]:
        return (self._path,)

    def close(self) -> None:
        os.close(self._fd)


class Compared:
    """Its bytes are compared with those of ``source`` as they come, all of them, and not kept.

    A store that keeps some gigabytes in memory is slow on a virtual machine: its host gives pages out one by one.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        status = source.stat()
        self._expected = _mapped(str(source), status.st_ino, status.st_size)
        self._at = 0
        self._is_same = True

    def take(self, piece: memoryview) -> None:
        came = ctypes.addressof(ctypes.c_char.from_buffer(piece))
        size = len(piece)
        self._is_same &= self._at + size <= len(self._expected) and not _memcmp(
            came, ctypes.addressof(self._expected) + self._at, size
        )
        self._at += size

    def end(self) -> tuple[str, ...]:
        """None of them where a byte is another."""
        return (str(self._source),) if self._is_same and self._at == len(self._expected) else ()

    def close(self) -> None:
        pass


@functools.cache
def _mapped(path: str, inode: int, size: int) -> ctypes.Array[ctypes.c_char]:
    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return (ctypes.c_char * size).from_buffer(mapped)
