"""A finished file, open to be read by whoever takes it elsewhere."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from mirror.digests import Digests
from mirror.errors import ChecksumMismatch, Severity, StoreUnavailable
from mirror.models import ManifestFile
from mirror.stores.disk import Disk
from mirror.stores.files import let_go
from mirror.stores.recovery import hash_on

BLOCK = 1 << 20
"""Bytes that are read at once."""

_HOP = 64 << 20
"""Bytes that are hashed in one hop, so that a stop never waits long."""


def unreadable(what: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{what}: cannot be read: {error.strerror}", severity=Severity.ITEM)


class Finished:
    """The file behind a descriptor, and its entry in the manifest. ``what`` says in messages which one it is.

    ``is_new``: this run stored it, so its bytes were seen a moment ago.

    ``read`` and ``run`` make it a body of a request (mirror.h1.outgoing).
    """

    def __init__(self, disk: Disk, fd: int, what: str, known: ManifestFile, *, is_new: bool) -> None:
        self.fd = fd
        self.is_new = is_new
        self._disk = disk
        self._what = what
        self._known = known

    def close(self) -> None:
        let_go(self.fd)

    async def read(self, at: int, size: int) -> bytes:
        """The bytes at an offset, at most so many.

        Raises:
            StoreUnavailable: they cannot be read.
            ChecksumMismatch: the file ends before them.
        """
        block = await self.take(at, size)
        if not block:
            raise self.damaged()
        return block

    async def take(self, at: int, size: int) -> bytes:
        """The same, and b"" at the end of the file, wherever that is."""
        try:
            return await self._disk.run(os.pread, self.fd, size, at)
        except OSError as error:
            raise unreadable(self._what, error) from None

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """All of its bytes that the manifest tells of.

        Raises:
            StoreUnavailable, ChecksumMismatch: as :meth:`read`.
        """
        at = 0
        while at < self._known.bytes:
            block = await self.read(at, min(BLOCK, self._known.bytes - at))
            yield block
            at += len(block)

    def run(self, call: Callable[[], int]) -> Awaitable[int]:
        """A call that may wait for a socket, in a thread."""
        return self._disk.draw(call)

    async def check(self) -> None:
        """Read it once more: whether it is what was mirrored.

        Raises:
            ChecksumMismatch: it is not.
            StoreUnavailable: it cannot be read.
        """
        try:
            digest = await self.sha256()
        except OSError as error:
            raise unreadable(self._what, error) from None
        if digest != self._known.sha256:
            raise self.damaged()

    async def sha256(self) -> str:
        """The digest of what is there, to its end.

        Raises:
            OSError: it cannot be read.
        """
        digests = Digests()
        while await self._disk.run(hash_on, self.fd, digests, _HOP):
            pass
        return digests.sha256

    def damaged(self) -> ChecksumMismatch:
        """An error of this file only, for bytes that are not those of the manifest."""
        told = f"{self._what} on disk is not what was mirrored: `mirror verify` tells more"
        return ChecksumMismatch(told, severity=Severity.ITEM)


Content = Sequence[bytes | memoryview] | Finished
"""What is sent: bytes at hand, or a file."""
