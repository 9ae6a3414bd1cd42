"""The root folder as the local store acts on it: names are opened relative to folders, symlinks are not followed.

Everything here runs in a thread of the store's pool and blocks. OSErrors leave as StoreErrors.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from mirror.errors import Denied, Full, Obstructed, Severity, StoreError, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

INTERNAL = ".mirror"
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)
_THREADS = 8
_BLOCK = 1 << 20
_LITTLE = 64 << 20
"""Bytes: a disk that has less room than this, and not enough for what is to be written, counts as full."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened to be read: not through a symlink, and if it is a pipe, without waiting for its other end."""
_datasync = getattr(os, "fdatasync", os.fsync)


class Disk:
    """``root`` on a local or network file system, and the threads that work on it."""

    def __init__(self, root: Path, *, durable: bool, min_free: int) -> None:
        self.root = root
        self.parts = root / INTERNAL / "parts"
        self.in_doubt = False
        """Something that was written may not be durable: it was not synced, or that failed."""
        self._durable = durable
        self._min_free = min_free
        self._room = threading.Lock()
        self._writing = 0
        self._new: set[str] = set()  # folders of the root that may not be durable yet
        self._pool = ThreadPoolExecutor(_THREADS, "mirror-disk")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread. A caller that is cancelled still waits for the call's end."""
        loop = asyncio.get_running_loop()
        return await uninterrupted(loop.run_in_executor(self._pool, lambda: call(*args, **kwargs)))

    def close(self) -> None:
        self._pool.shutdown()

    def prepare(self) -> None:
        """Make the root and our own folder in it; they are durable, and so is what a killed run made in the root."""
        with translated(f"the archive's root {self.root}"):
            if self.root.is_symlink() and not self.root.exists():
                raise Denied(f"the archive's root {self.root} is a symlink to nothing")
            if self.root.exists() and not self.root.is_dir():
                raise Denied(f"the archive's root {self.root} is a file, and must be a folder")
            missing = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            with contextlib.suppress(OSError):  # a killed run may just have made this one; else it is not ours to sync
                self.sync_folder((missing[-1].parent if missing else self.root).parent)
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                self.sync_folder(folder.parent)
            for name in (INTERNAL, f"{INTERNAL}/parts"):
                if (self.root / name).is_symlink():
                    raise Denied(f"{self.root / name} is a symlink: it must be a folder")
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
                self.sync_folder((self.root / name).parent)

    def left(self, suffix: str = "") -> list[str]:
        """The names of what earlier runs left, of one kind or of all. Blocks.

        Raises:
            StoreError: it cannot be listed.
        """
        with translated(f"{self.parts}"), contextlib.suppress(FileNotFoundError):
            return [name for name in os.listdir(self.parts) if name.endswith(suffix)]
        return []

    @contextlib.contextmanager
    def folder(self, name: str, *, create: bool = False) -> Iterator[int]:
        """A folder of the root as a file descriptor to act relative to.

        Raises:
            FileNotFoundError: there is none, and ``create`` is not set.
            OSError: it is no folder, or a symlink.
        """
        path = self.root / name
        try:
            fd = os.open(path, _FOLDER)
        except FileNotFoundError:
            if not create:
                raise
            self._new.add(name)
            path.mkdir(exist_ok=True)
            fd = os.open(path, _FOLDER)
        except OSError as error:
            if path.is_symlink():
                raise Obstructed(f"{path} is a symlink: nothing is written through it") from None
            if error.errno in (errno.ENOTDIR, errno.EACCES):
                raise Obstructed(f"{path} cannot be used as a folder: {error.strerror}: move it away") from None
            raise
        try:
            if name in self._new:  # whoever comes first, and all who come before that has ended
                self.sync_folder(self.root)
                self._new.discard(name)
            yield fd
        finally:
            let_go(fd)

    def sync_file(self, fd: int) -> None:
        """Make a file's content durable. After an error it never is: the kernel may call the same pages clean now."""
        self._sync(_datasync, fd)

    def sync_folder(self, folder: int | Path) -> None:
        """Make the names in a folder durable."""
        if isinstance(folder, int):
            self._sync(os.fsync, folder)
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(os.fsync, fd)
        finally:
            let_go(fd)

    def _sync(self, sync: Callable[[int], None], fd: int) -> None:
        try:
            if self._durable:
                sync(fd)
        except OSError:
            self.in_doubt = True
            raise
        self.in_doubt |= not self._durable

    def sync_all(self) -> None:
        """Make durable what an earlier run left, whatever it was: a kill took its order away from it."""
        if self._durable:
            os.sync()

    @contextlib.contextmanager
    def room(self, size: int, *, further: int = 0) -> Iterator[None]:
        """Room for ``size`` bytes while they are written: what is to stay free does, however many write at once.

        ``further`` is what must be free beyond that, for what may still come of a file of unknown length.

        Raises:
            Full: as :meth:`reserve`; nothing was written.
        """
        with self._room:
            self.reserve(size, further=further)
            self._writing += size
        try:
            yield
        finally:
            with self._room:
                self._writing -= size

    def reserve(self, size: int, *, further: int = 0) -> None:
        """Refuse to begin what would leave less than the free space that is to stay.

        Raises:
            Full: there is too little room for anything; or, as an error of this file only, there is room, but not for
                this: an origin that claims terabytes must not end the run. Another day there may be room for it.
        """
        free = self.free_space()
        left = free - self._min_free - self._writing
        if size + further <= left:
            return
        told = f"{free} bytes are free, {self._min_free} are to stay free (transfer.min_free_space)"
        if size > left and left < _LITTLE:
            raise Full(f"{self.root}: {told}: make room and run again")
        what = f"{size} bytes do not fit" if size > left else "who knows whether a file of unknown length fits"
        raise Full(f"{what}: {told}: make room and run again", severity=Severity.ITEM)

    def free_space(self) -> int:
        """Bytes that this user may still write."""
        usage = os.statvfs(self.root)
        return usage.f_bavail * usage.f_frsize


def let_go(fd: int) -> None:
    """Close a file that was only read, or whose bytes are durable: what goes wrong with that costs nothing."""
    with contextlib.suppress(OSError):
        os.close(fd)


async def uninterrupted(future: asyncio.Future[T]) -> T:
    """Await ``future`` to its end even if the caller is cancelled; the cancellation is passed on after it."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()
        raise cancelled
    return future.result()


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """OSErrors as StoreErrors that say what was acted on and what to do."""
    try:
        yield
    except OSError as error:
        raise store_error(what, error) from error


def store_error(what: str, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"{what}: {reason}: make room and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP):
        return Denied(f"{what}: {reason}: check who owns it and how it is mounted")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY):
        return Obstructed(f"{what}: {reason}: something else stands there: move it away")
    if error.errno in _EXHAUSTED:
        return StoreUnavailable(f"{what}: {reason}: raise the limit (ulimit -n) or lower transfer.concurrency")
    if error.errno == errno.EFBIG:
        told = f"{what}: {reason}: neither the file system nor a limit (ulimit -f) takes a file of this size"
        return StoreUnavailable(told, severity=Severity.ITEM)
    return StoreUnavailable(f"{what}: {reason}: check the disk, and run again")


def raise_if_exhausted(what: str, error: OSError | StoreError) -> None:
    """Raise an error that says nothing about a file, only that this process has no more descriptors.

    Who takes a file that cannot be looked at for one that is not there calls this first.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
        raise store_error(what, cause) from cause


def stat_file(name: str, folder: int) -> os.stat_result | None:
    """The entry ``name`` itself, symlinks not followed; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def create(path: Path, *, mode: int = 0o644, flags: int = 0) -> int:
    """A new, empty file in our own folder, open. What stood there goes: nothing is written through a link."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, mode)


def is_ours_alone(found: os.stat_result) -> bool:
    """True for a regular file that has no second name elsewhere: what is written to it, is written nowhere else."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def read_regular(path: str | Path, folder: int | None = None, most: int | None = None) -> bytes | None:
    """A file's bytes; None of what is no file, or larger than ``most``.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    with os.fdopen(os.open(path, READ, dir_fd=folder), "rb") as file:
        status = os.fstat(file.fileno())
        sound = stat.S_ISREG(status.st_mode) and (most is None or status.st_size <= most)
        return file.read() if sound else None


def is_file(found: os.stat_result | None, size: int) -> bool:
    """True for a regular file of ``size`` bytes (-1: any but 0, which a power cut leaves of what was not synced)."""
    return found is not None and stat.S_ISREG(found.st_mode) and size in (found.st_size, -1 if found.st_size else 0)


def write_all(fd: int, buffers: list[bytes], at: int) -> None:
    """Write buffers one behind the other from offset ``at``, however short the single writes are."""
    for first in range(0, len(buffers), 256):
        batch = [memoryview(buffer) for buffer in buffers[first : first + 256] if buffer]
        while batch:
            done = os.pwritev(fd, batch, at) if hasattr(os, "pwritev") else os.pwrite(fd, batch[0], at)
            at += done
            while batch and done >= len(batch[0]):
                done -= len(batch.pop(0))
            if done:
                batch[0] = batch[0][done:]


def read_span(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from ``start`` to ``stop`` in blocks; ends early where the file does."""
    while start < stop:
        block = os.pread(fd, min(_BLOCK, stop - start), start)
        if not block:
            return
        start += len(block)
        yield block


def same_bytes(one: int, other: int) -> bool:
    """True if two open files hold the same bytes."""
    size = os.fstat(one).st_size
    if os.fstat(other).st_size != size:
        return False
    return all(a == b for a, b in zip(read_span(one, 0, size), read_span(other, 0, size), strict=True))
