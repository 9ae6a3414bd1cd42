"""Files as the operating system gives them: opened so that nothing planted harms, read and written whole.

Everything here blocks. OSErrors leave :func:`translated` as StoreErrors that say what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mirror.errors import Denied, Full, Obstructed, Severity, StoreError, StoreUnavailable

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened to be read: not through a symlink, and if it is a pipe, without waiting for its other end."""

_BLOCK = 1 << 20
_GATHERS = hasattr(os, "pwritev")
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)
_OBSTRUCTED = {
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY), "something else stands there: move it away"),
    errno.EXDEV: "it is on another file system than .mirror/parts: a file cannot be renamed into it",
}


def let_go(fd: int) -> None:
    """Close a file that was only read, or whose bytes are durable: what goes wrong with that costs nothing."""
    try:  # noqa: SIM105  this way it is half as much work, and it is done twice for each file
        os.close(fd)
    except OSError:
        pass


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
    if error.errno in _OBSTRUCTED:
        return Obstructed(f"{what}: {reason}: {_OBSTRUCTED[error.errno]}")
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


def open_folder(path: str) -> int:
    """A folder, not through a symlink, to act relative to.

    Raises:
        OSError: there is none, or it is something else.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def stat_file(name: str, folder: int) -> os.stat_result | None:
    """The entry ``name`` itself, symlinks not followed; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def create(path: str | Path, *, mode: int = 0o644, flags: int = 0) -> int:
    """A new, empty file in our own folder, open. What stood there goes: nothing is written through a link."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def is_ours_alone(found: os.stat_result) -> bool:
    """True for a regular file that has no second name elsewhere: what is written to it, is written nowhere else."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def read_regular(path: str | Path, folder: int | None = None, most: int | None = None) -> bytes | None:
    """A file's bytes; None of what is no file, or larger than ``most``.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    fd = os.open(path, READ, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (most is not None and status.st_size > most):
            return None
        blocks = []
        while block := os.read(fd, status.st_size + 1):
            blocks.append(block)
        return b"".join(blocks)
    finally:
        let_go(fd)


def is_file(found: os.stat_result | None, size: int) -> bool:
    """True for a regular file of ``size`` bytes (-1: any but 0, which a power cut leaves of what was not synced)."""
    return found is not None and stat.S_ISREG(found.st_mode) and size in (found.st_size, -1 if found.st_size else 0)


def write_all(fd: int, buffers: list[bytes | memoryview], at: int) -> None:
    """Write buffers one behind the other from offset ``at``, however short the single writes are."""
    for first in range(0, len(buffers), 256):
        batch = [memoryview(buffer) for buffer in buffers[first : first + 256] if buffer]
        while batch:
            done = os.pwritev(fd, batch, at) if _GATHERS else os.pwrite(fd, batch[0], at)
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
