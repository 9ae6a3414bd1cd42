"""The root folder as the local store acts on it: names are opened relative to folders, symlinks are not followed.

What is no coroutine blocks: ``run`` and ``start`` have it done in a thread, ``brief`` on the loop's own if it is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from mirror.errors import Denied, Full, Obstructed, Severity
from mirror.stores.files import let_go, translated
from mirror.stores.workers import Uninterrupted, Workers

P = ParamSpec("P")
T = TypeVar("T")

INTERNAL = ".mirror"
_THREADS = 8
_DRAWERS = min(8, (os.cpu_count() or 1) + 1)
"""What they do is a core's work, and one that is woken takes a core from another."""
_BUFFER = 1 << 20
_LITTLE = 64 << 20
"""Bytes: a disk that has less room than this, and not enough for what is to be written, counts as full."""
_PLENTY = 8 << 30
_SOON = 0.1
"""Where so many bytes are free, nobody looks again for so many seconds: that is less time than they would last."""
_MOST_KNOWN = 4096
_BRIEF = 0.005
"""Seconds: after a call that took longer, threads are used for a while."""
_WHILE = 20
"""So many times as long as that call took: a slow disk holds the loop up for a twentieth of the time at most, and a
process that was not let run for a moment does not pay for it long."""
_NO_NEED = contextlib.nullcontext()
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_datasync = getattr(os, "fdatasync", os.fsync)


def is_stopped() -> Callable[[], object]:
    """Whether the running task is to end, for a thread that works for it: what has not begun need not begin."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling


class Disk:
    """``root`` on a local or network file system, and the threads that work on it.

    ``desk`` is the name of a worker, where several share the root: what is not finished stands in a folder of its own
    then, so that no two ever write one partial file.
    """

    def __init__(self, root: Path, *, durable: bool, min_free: int, desk: str = "") -> None:
        self.root = root
        self.left_by_all = root / INTERNAL / "parts"
        self.is_shared = bool(desk)
        self.parts = self.left_by_all / desk
        self.in_doubt = False
        """Something that was written may not be durable: it was not synced, or that failed."""
        self.is_durable = durable
        self._min_free = min_free
        self._room = threading.Lock()
        self._writing = 0
        self._plenty_until = 0.0
        self._slow_until = 0.0
        self._known: set[str] = set()  # folders of the root that were durable once
        self._new: set[str] = set()  # folders of the root that may not be durable yet
        self._workers = Workers(_THREADS, "mirror-disk")
        self._drawers = Workers(_DRAWERS, "mirror-draw")
        self._drawing = 0
        self._local = threading.local()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread. A caller that is cancelled still waits for the call's end."""
        return await self._workers.start(partial(call, *args, **kwargs))

    async def brief(self, call: Callable[[], T]) -> T:
        """As :meth:`run`, for what is short: on the loop's own thread where nobody waits for the disk.

        Two threads that take turns after each system call cost more than such a call itself. Where calls wait until
        something is durable they go to threads, and for a while after one that has taken longer than it should.
        """
        if self.is_durable or time.monotonic() < self._slow_until:
            return await self._workers.start(call)
        since = time.monotonic()
        try:
            return call()
        finally:
            took = time.monotonic() - since
            if took > _BRIEF:
                self._slow_until = since + (1 + _WHILE) * took

    def draw(self, call: Callable[[], T]) -> Uninterrupted[T]:
        """As :meth:`start`, for what may wait for the network: what only waits for the disk does not wait behind it."""
        try:
            drawing = self._drawers.start(call)
        except RuntimeError:  # the system gives no thread: there may be one of the others
            drawing = self._workers.start(call)
        self._drawing += 1
        drawing.add_done_callback(self._drawn)
        return drawing

    def _drawn(self, drawing: asyncio.Future[T]) -> None:  # noqa: ARG002
        self._drawing -= 1

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits for a thread to :meth:`draw` in."""
        return self._drawing > _DRAWERS

    @property
    def buffer(self) -> memoryview:
        """A buffer of the calling thread's own."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(_BUFFER))
        buffer: memoryview = self._local.buffer
        return buffer

    def start(self, call: Callable[[], T]) -> Uninterrupted[T]:
        """As :meth:`run`, to be awaited later."""
        return self._workers.start(call)

    def close(self) -> None:
        self._drawers.close()
        self._workers.close()

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
            self._make_own(self.root / INTERNAL)
            self._make_own(self.left_by_all)

    def take_desk(self) -> None:
        """Make the worker's own folder."""
        with translated(f"{self.parts}"):
            self._make_own(self.parts)

    def _make_own(self, folder: Path) -> None:
        if folder.is_symlink():
            raise Denied(f"{folder} is a symlink: it must be a folder")
        folder.mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(folder.parent)

    def left(self, suffix: str = "") -> list[str]:
        """The names of what earlier runs left, of one kind or of all. Blocks.

        Raises:
            StoreError: it cannot be listed.
        """
        names: set[str] = set()
        for folder in {self.left_by_all, self.parts}:
            with translated(f"{folder}"), contextlib.suppress(FileNotFoundError):
                names |= {name for name in os.listdir(folder) if name.endswith(suffix)}
        return sorted(names)

    def take_left(self, name: str) -> None:
        """Have a file that an earlier run left at the worker's own desk. Of several that try, one gets it. Blocks."""
        if self.is_shared:
            with translated(f"{self.left_by_all / name}"), contextlib.suppress(FileNotFoundError):
                os.rename(self.left_by_all / name, self.parts / name)

    @contextlib.contextmanager
    def folder(self, name: str, *, create: bool = False) -> Iterator[int]:
        """A folder of the root as a file descriptor to act relative to.

        Raises:
            FileNotFoundError: there is none, and ``create`` is not set.
            OSError: it is no folder, or a symlink.
        """
        fd = self.open_folder(name, create=create)
        try:
            yield fd
        finally:
            let_go(fd)

    def open_folder(self, name: str, *, create: bool) -> int:
        """As :meth:`folder`; the caller closes it."""
        path = f"{self.root}/{name}"
        try:
            fd = os.open(path, _FOLDER)
        except FileNotFoundError:
            if not create:
                raise
            self._new.add(name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            fd = os.open(path, _FOLDER)
        except OSError as error:
            if os.path.islink(path):
                raise Obstructed(f"{path} is a symlink: nothing is written through it") from None
            if error.errno in (errno.ENOTDIR, errno.EACCES):
                raise Obstructed(f"{path} cannot be used as a folder: {error.strerror}: move it away") from None
            raise
        try:
            if create and self.is_shared and name not in self._known:  # another worker may just have made it
                self._known = {name} if len(self._known) >= _MOST_KNOWN else self._known | {name}
                self._new.add(name)
            if name in self._new:  # whoever comes first, and all who come before that has ended
                self.sync_folder(self.root)
                self._new.discard(name)
        except BaseException:
            let_go(fd)
            raise
        return fd

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
            if self.is_durable:
                sync(fd)
        except OSError:
            self.in_doubt = True
            raise
        self.in_doubt |= not self.is_durable

    def sync_all(self) -> None:
        """Make durable what an earlier run left, whatever it was: a kill took its order away from it."""
        if self.is_durable:
            os.sync()

    def room(self, size: int, *, further: int = 0) -> contextlib.AbstractContextManager[None]:
        """Room for ``size`` bytes while they are written: what is to stay free does, however many write at once.

        ``further`` is what must be free beyond that, for what may still come of a file of unknown length.

        Raises:
            Full: as :meth:`reserve`; nothing was written.
        """
        return _NO_NEED if self._is_plenty(size + further) else self._ledger(size, further)

    def _is_plenty(self, size: int) -> bool:
        return size <= _LITTLE and time.monotonic() < self._plenty_until

    @contextlib.contextmanager
    def _ledger(self, size: int, further: int) -> Iterator[None]:
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
        if self._is_plenty(size + further):
            return
        free = self.free_space()
        left = free - self._min_free - self._writing
        if left >= _PLENTY:
            self._plenty_until = time.monotonic() + _SOON
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
