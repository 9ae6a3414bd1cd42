"""Where each of several workers under one root keeps what is not finished. Blocks.

A worker's desk is ``.mirror/parts/<name>``, locked for as long as it lives. What it leaves is gathered, by whoever
comes next, into the folder from which every worker takes up what was left. Who takes a desk, or gathers, does so in
turn.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from mirror.errors import StoreError
from mirror.stores.files import let_go, translated
from mirror.stores.lock import Lock

_LOCK = "lock"


class Desk(Struct, frozen=True, kw_only=True):
    """A worker's place under a root.

    ``is_guest``: no driver has locked the root for it, so it keeps runs away itself, together with others like it.
    """

    name: str
    is_guest: bool = False


def desk_lock(desk: Path) -> Lock:
    """The lock of a worker on its own desk."""
    return Lock(desk / _LOCK, f"the desk {desk}")


@contextlib.contextmanager
def turn(parts: Path) -> Iterator[None]:
    """Nobody else takes a desk here, or clears one, meanwhile: a new one would be taken for one that was left.

    Raises:
        StoreError: there is nothing to lock.
    """
    path = parts.with_name("desks")
    with translated(f"{path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        with translated(f"{path}"):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        let_go(fd)


def gather(parts: Path, sync_all: Callable[[], None]) -> None:
    """Bring together what workers left, but for those that are alive.

    Where one of them was killed, perhaps between a file's name and the sync of its folder, ``sync_all`` is called
    before its desk goes, which is all that tells of that.

    Raises:
        StoreError: it cannot be listed.
    """
    found = list(desks(parts))
    if not found:
        return
    with turn(parts):
        for desk in found:
            lock = desk_lock(desk)
            with contextlib.suppress(StoreError):  # its worker is alive; or it is gone, or no desk of ours
                was_killed = lock.take()
                try:
                    if was_killed:
                        sync_all()
                    _clear(desk, parts)
                finally:
                    lock.release(unmark=False)


def desks(parts: Path) -> Iterator[Path]:
    """The desks of workers, alive or not; none where there is no such folder."""
    with translated(f"{parts}"), contextlib.suppress(FileNotFoundError), os.scandir(parts) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _clear(desk: Path, parts: Path) -> None:
    """What nobody of us has put there stays, and the desk with it."""
    with translated(f"{desk}"), os.scandir(desk) as entries:
        for name in [entry.name for entry in entries if entry.name != _LOCK and entry.is_file(follow_symlinks=False)]:
            os.rename(desk / name, _free(parts, name, desk.name))
    with contextlib.suppress(OSError):
        if len(os.listdir(desk)) == 1:
            os.unlink(desk / _LOCK)
            os.rmdir(desk)


def _free(parts: Path, name: str, desk: str) -> Path:
    """Where it goes. Of two that are about one file the second gets a name that only ``mirror cleanup`` looks at."""
    stem, dot, kind = name.partition(".")
    path = parts / name
    return parts / f"{stem}-{desk}{dot}{kind}" if os.path.lexists(path) else path
