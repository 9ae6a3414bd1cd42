"""A folder that holds one gallery: written beside the page that is there, published by one rename."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from mirror import names
from mirror.errors import ConfigError, Locked, Obstructed
from mirror.gallery.previews import FOLDER as PREVIEWS
from mirror.stores.files import let_go, open_folder, translated

PAGE = "index.html"
MARKER = ".mirror-gallery"
"""A folder or prefix that holds this is a gallery of ours, and anything in it may be replaced."""
MARK = b"This folder is written by `mirror gallery`; whatever else is put here may go.\n"

_GENERATION = re.compile(r"g\d{8}T\d{6}(\d{6})?-[0-9a-f]{8}", re.ASCII)  # of the second, in earlier versions
_TEMPORARY = ".new"
_WRONG = {
    errno.ENAMETOOLONG: "is too long a name",
    **dict.fromkeys((errno.ELOOP, errno.ENOTDIR, errno.EEXIST), "is no folder of its own, or is below what is none"),
}
"""What is wrong with where a gallery is to go, rather than with the disk."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(Protocol):
    """Where a gallery is written. Names are relative to the page, of two parts but for the page itself."""

    @property
    def shown(self) -> str:
        """The page, for a person: a path or a URL."""
        ...

    async def open(self) -> list[str]:
        """Take it, and say which previews are there.

        Raises:
            ConfigError: something that is no gallery stands there.
            Locked: another run writes this gallery.
            StoreError: it cannot be written to.
        """
        ...

    async def put(self, name: str, content: bytes) -> None:
        """Write a file that nothing refers to yet."""
        ...

    async def publish(self, page: bytes) -> None:
        """Put the page in the place of the one that is there."""
        ...

    async def prune(self, generation: str, previews: Collection[str]) -> None:
        """Remove what the page does not show: other generations, other previews."""
        ...

    async def close(self) -> None: ...


def outside(output: Path, root: Path) -> Path:
    """Where a gallery goes that is not to stand in the archive's own folder for it; links on the way are resolved.

    A browser that opens the folder takes one step back for each ``..`` of a link, by the names that it was given: so
    the name that is told, and the one that links begin from, has no symlink in it and no ``..``. The last part may be
    a symlink still: :class:`Folder` refuses that one.

    Raises:
        ConfigError: it is in the archive: anything there but the folder of that name is taken for a prompt.
    """
    parent = Path(os.path.realpath(output.parent))
    path = Path(os.path.realpath(output)) if output.name in ("", "..") else parent / output.name
    archive = Path(os.path.realpath(root))
    if path.is_relative_to(archive) and path != archive / names.GALLERY:
        raise ConfigError(f"--output {output}: nothing is put into the archive, but {archive / names.GALLERY}")
    return path


def new_generation() -> str:
    """A name for the folder of one run's files; later ones sort behind earlier ones, also within a second."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    return f"g{at}{nanoseconds // 1000:06}-{secrets.token_hex(4)}"


def is_generation(name: str) -> bool:
    return _GENERATION.fullmatch(name) is not None


class Folder:
    """A :class:`Place` on disk. No symlink in it is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._lock = -1

    @property
    def shown(self) -> str:
        return str(self.path / PAGE)

    async def open(self) -> list[str]:
        return await asyncio.to_thread(self._open)

    async def put(self, name: str, content: bytes) -> None:
        await asyncio.to_thread(self._put, name, content)

    async def publish(self, page: bytes) -> None:
        await asyncio.to_thread(self._put, PAGE, page)

    async def prune(self, generation: str, previews: Collection[str]) -> None:
        await asyncio.to_thread(self._prune, generation, previews)

    async def close(self) -> None:
        for fd in (self._lock, self._fd):
            if fd >= 0:
                let_go(fd)
        self._lock = self._fd = -1

    def _open(self) -> list[str]:
        with translated(f"the gallery {self.path}"):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.path.mkdir()
                self._fd = open_folder(str(self.path))
            except OSError as error:
                if error.errno not in _WRONG:
                    raise
                told = f"{self.path} {_WRONG[error.errno]}: give another with --output"
                raise ConfigError(told) from None
            found = _names(self._fd)
            if found and MARKER not in found:
                raise ConfigError(f"{self.path} is not empty, and no gallery: give another folder with --output")
            self._take()
            with self._inside(PREVIEWS) as there, os.scandir(there) as entries:
                return [f"{PREVIEWS}/{each.name}" for each in entries if _has_bytes(each)]

    def _take(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._lock = os.open(MARKER, flags, 0o644, dir_fd=self._fd)
        found = os.fstat(self._lock)
        if not stat.S_ISREG(found.st_mode):
            raise Obstructed(f"{self.path / MARKER} is no file: move it away")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"the gallery {self.path} is written by another run: wait for its end") from None
        if not found.st_size:
            os.pwrite(self._lock, MARK, 0)

    def _put(self, name: str, content: bytes) -> None:
        """Durable before it has its name, but for a preview: one that a power cut emptied is made anew."""
        folder, _, last = name.rpartition("/")
        with translated(f"{self.path / name}"), self._inside(folder) as there:
            fresh = f"{last}{_TEMPORARY}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=there)
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=there
            )
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                if folder != PREVIEWS:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(fresh, last, src_dir_fd=there, dst_dir_fd=there)

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[int]:
        """A folder of the gallery, made where it is missing; the gallery itself for an empty name."""
        if not name:
            yield self._fd
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._fd)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            yield fd
        finally:
            let_go(fd)

    def _prune(self, generation: str, previews: Collection[str]) -> None:
        with translated(f"the gallery {self.path}"):
            for name in _names(self._fd):
                if is_generation(name) and name != generation:
                    with contextlib.suppress(NotADirectoryError), self._inside(name) as there:
                        _empty(there, set())
                    with contextlib.suppress(OSError):  # somebody put a folder of theirs into it
                        os.rmdir(name, dir_fd=self._fd)
            with self._inside(PREVIEWS) as there:
                _empty(there, {name.rpartition("/")[2] for name in previews})


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _empty(folder: int, keep: set[str]) -> None:
    for name in _names(folder):
        if name not in keep:
            with contextlib.suppress(IsADirectoryError, PermissionError):
                os.unlink(name, dir_fd=folder)


def _has_bytes(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size > 0
