"""A finished file of the archive brought to a place outside of it: linked, or copied as cheaply as can be.

Its bytes are counted. They are not hashed, but where nobody has done that yet. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from mirror.errors import Obstructed, Severity, StoreError, StoreUnavailable
from mirror.models import ManifestFile
from mirror.stores.files import is_file, let_go, stat_file, translated, write_all
from mirror.stores.local import LocalStore

_HOP = 64 << 20
"""Bytes that are copied before whoever waits for it may stop it."""
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Copy:
    """A file as it comes to stand at ``target``, where nothing is; whoever makes one drops it in the end.

    Raises:
        StoreError: (from any method) of ``ITEM`` severity where the file's bytes cannot be had, or are too many or too
            few; else nothing more can be written.
    """

    def __init__(self, file: ManifestFile, target: Path, *, durable: bool) -> None:
        self._file = file
        self._target = target
        self._durable = durable
        self._hash = hashlib.sha256() if file.sha256 is None else None
        self._kernel_copies = hasattr(os, "copy_file_range") and self._hash is None
        self._size = 0
        self._is_whole = False
        try:
            with translated(f"{target}"):
                self._fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except StoreError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise _unfit("its manifest names it twice") from None
            raise

    def write(self, block: bytes) -> None:
        """Add to it."""
        if self._size + len(block) > self._file.bytes:
            raise _unfit("there are more bytes than its manifest says")
        with translated(f"{self._target}"):
            write_all(self._fd, [block], self._size)
        if self._hash is not None:
            self._hash.update(block)
        self._size += len(block)

    def take(self, source: int) -> bool:
        """Add so many bytes of an open file; False at its end. A file system whose files can share blocks does that."""
        until = min(self._size + _HOP, self._file.bytes)
        while self._size < until and (copied := self._copy_in_kernel(source, until - self._size)):
            self._size += copied
        while self._size < until:
            try:
                block = os.pread(source, min(_BLOCK, until - self._size), self._size)
            except OSError as error:
                raise _unfit(f"cannot be read: {error.strerror}") from None
            if not block:
                return False
            self.write(block)
        return self._size < self._file.bytes

    def _copy_in_kernel(self, source: int, most: int) -> int:
        """0 where that cannot be done: whoever reads and writes the rest finds out why."""
        if not self._kernel_copies:
            return 0
        try:
            return os.copy_file_range(source, self._fd, most, self._size, self._size)
        except OSError as error:
            if error.errno in _FULL:
                with translated(f"{self._target}"):
                    raise
            self._kernel_copies = False
            return 0

    def end(self) -> str:
        """Make it durable. Returns its SHA-256: the manifest's, or its own where that knows none."""
        if self._size < self._file.bytes:
            raise _unfit(f"{self._size} bytes of {self._file.bytes} are there")
        if self._durable:
            with translated(f"{self._target}"):
                os.fsync(self._fd)
        self._is_whole = True
        return self._hash.hexdigest() if self._hash is not None else str(self._file.sha256)

    def drop(self) -> None:
        """Let go of it. What is not whole goes."""
        let_go(self._fd)
        if not self._is_whole:
            with contextlib.suppress(OSError):
                self._target.unlink()


def copied(
    disk: LocalStore, folder: str, file: ManifestFile, target: Path, *, durable: bool
) -> Generator[str | None, None, None]:
    """Copy a file: None after each 64 MiB, in the end its SHA-256.

    Raises:
        StoreError: as :class:`Copy` does.
    """
    source = disk.open_now(folder, file.path)
    try:
        if not is_file(os.fstat(source), file.bytes):
            raise _unfit(f"is no file of {file.bytes} bytes")
        copy = Copy(file, target, durable=durable)
        try:
            while copy.take(source):
                yield None
            digest = copy.end()
        finally:
            copy.drop()
    finally:
        let_go(source)
    yield digest


def linked(disk: LocalStore, folder: str, file: ManifestFile, target: Path) -> bool:
    """Give a file a second name, ``target``; False where that cannot be done, and a copy may.

    Raises:
        StoreError: it is not there as its manifest says.
    """
    try:
        with disk.disk.folder(folder) as there:
            if not is_file(stat_file(file.path, there), file.bytes):
                raise _unfit(f"is no file of {file.bytes} bytes")
            os.link(file.path, target, src_dir_fd=there, follow_symlinks=False)
            if is_file(os.lstat(target), file.bytes):
                return True
            target.unlink()  # it was replaced that moment
    except (OSError, Obstructed):
        pass
    return False


def _unfit(why: str) -> StoreUnavailable:
    return StoreUnavailable(f"{why}: `mirror verify` tells more", severity=Severity.ITEM)
