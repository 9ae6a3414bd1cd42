"""A file or folder that is made for somebody: it stands under its name when all of it is durable, and not before.

Until then it stands beside its place, under a hidden name and locked. What a kill has left of that, the next export
into the same folder removes. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import stat
import time
from pathlib import Path

from mirror.errors import ConfigError
from mirror.stores.disk import INTERNAL
from mirror.stores.files import READ, let_go, translated, write_all

_HIDDEN = ".mirror-output-"


def checked(output: str, root: Path, *, folder: bool) -> Path:
    """Where an output goes, links resolved.

    Raises:
        ConfigError: it cannot go there: something else is there, or it is the archive's own place.
    """
    if not output:
        raise ConfigError("--output is empty: give a path")
    try:
        path, archive = Path(os.path.realpath(output)), Path(os.path.realpath(root))
        if _is_inside(path, archive, folder=folder):
            told = "nothing is put into the archive" + ("" if folder else ", but a file directly in its root")
            raise _refused(output, told)
        above, there, named = _stat(path.parent), _stat(path), _stat(output)
    except OSError as error:
        raise _refused(output, str(error.strerror)) from None
    if above is None or not stat.S_ISDIR(above.st_mode):
        raise _refused(output, f"there is no folder {path.parent}")
    # What has no path of its own (an open pipe, as /dev/stdout may be one) resolves to a name that is nowhere.
    is_kind = stat.S_ISDIR if folder else stat.S_ISREG
    if named is not None and not (there is not None and is_kind(named.st_mode) and os.path.samestat(named, there)):
        raise _refused(output, f"is no {'folder' if folder else 'plain file'}")
    return path


def _refused(output: str | Path, why: str) -> ConfigError:
    return ConfigError(f"--output {output}: {why}")


def _is_inside(path: Path, archive: Path, *, folder: bool) -> bool:
    """Whether a place is the archive's own. Folders are compared, not only paths: a second mount has other paths.

    Raises:
        OSError: that cannot be found out.
    """
    top = _stat(archive)
    ways = [(each, _stat(each)) for each in (path, *path.parents)]
    for steps, (way, found) in enumerate(ways):
        if way == archive or (top is not None and found is not None and os.path.samestat(found, top)):
            return folder or steps != 1 or path.name == INTERNAL
    if top is None:
        return False
    numbers = {found.st_ino: found for _, found in ways if found is not None and stat.S_ISDIR(found.st_mode)}
    for owner in (archive, archive / INTERNAL):  # of prompts' folders there may be many: most are told by the number
        with contextlib.suppress(FileNotFoundError), os.scandir(owner) as entries:
            for entry in entries:
                if entry.inode() in numbers and os.path.samestat(entry.stat(), numbers[entry.inode()]):
                    return True
    return False


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except FileNotFoundError:
        return None


def require_empty(folder: Path) -> None:
    """Check that a folder is not there yet, or has nothing in it and can be replaced.

    Raises:
        ConfigError: it has, or cannot be: a mount point cannot, nor a folder in one that may not be written to.
    """
    try:
        if not folder.exists():
            return
        if any(folder.iterdir()):
            raise _refused(folder, "is not empty: give a new folder")
        _try_to_move(folder)
    except OSError as error:
        told = f"cannot be replaced by a finished one: {error.strerror}"
        raise _refused(folder, f"{told}: give a new folder, in it if it is a mount point") from None


def _try_to_move(folder: Path) -> None:
    """Away and back again. Nothing else tells of every mount; at the end it would be too late to find out."""
    fd = os.open(folder, READ | os.O_DIRECTORY)
    try:
        _lock(fd)  # or a sweep might take it for one of its own
        aside = _fresh(folder)
        folder.rename(aside)
        aside.rename(folder)
    finally:
        let_go(fd)


class Draft:
    """What is to stand at ``target``: begun, written, published; and discarded in any case, which then does nothing.

    Raises:
        StoreError: (from any method) it cannot be written.
    """

    def __init__(self, target: Path, *, durable: bool, folder: bool = False) -> None:
        self.path = _fresh(target)
        self._target = target
        self._durable = durable
        self._is_folder = folder
        self._size = 0
        self._fd = -1

    def begin(self) -> None:
        """Make it, empty and hidden; again, where a sweep was faster than the lock."""
        with translated(f"{self._target}"):
            while not self._make():
                self._let_go()
                self.path = _fresh(self._target)

    def _make(self) -> bool:
        """False where it is gone before it was locked. Afterwards no sweep removes it."""
        if self._is_folder:
            self.path.mkdir()
            try:
                self._fd = os.open(self.path, READ | os.O_DIRECTORY)
            except FileNotFoundError:
                return False
        else:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        _lock(self._fd)
        return self.path.exists()

    def write(self, data: bytes) -> None:
        """Add to a file."""
        with translated(f"{self._target}"):
            write_all(self._fd, [data], self._size)
        self._size += len(data)

    def publish(self) -> None:
        """Give it its name. What is inside a folder was made durable by whoever put it there.

        The name is durable after :func:`sync_folder` of the folder that it is in.
        """
        with translated(f"{self._target}"):
            if self._durable:
                os.fsync(self._fd)
            self.path.replace(self._target)
        self._let_go()

    def discard(self, within: float = math.inf) -> None:
        """Remove it, unless it was published; what that leaves after so many seconds is for the next one to sweep."""
        if self._fd >= 0:
            _remove(self.path, within)
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            let_go(self._fd)
        self._fd = -1


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        StoreError: that cannot be done.
    """
    with translated(f"{folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            let_go(fd)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left in a folder: nobody holds its lock any more."""
    for path in list(folder.glob(f"{_HIDDEN}*")):
        with contextlib.suppress(OSError):
            fd = os.open(path, READ)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                let_go(fd)


def _fresh(target: Path) -> Path:
    """A hidden name beside it, of one length whatever its own is: with that in it, it could be too long."""
    return target.with_name(_HIDDEN + secrets.token_hex(8))


def _lock(fd: int) -> None:
    """Wait for the lock of what is hidden: a sweep that has it is done with it soon."""
    with contextlib.suppress(OSError):  # a file system without locks: there nothing is swept, either
        fcntl.flock(fd, fcntl.LOCK_EX)


def _remove(path: Path, within: float = math.inf) -> None:
    end = time.monotonic() + within
    with contextlib.suppress(OSError):
        if not path.is_dir():
            path.unlink()
            return
        for folder, _, names in os.walk(path, topdown=False):
            if time.monotonic() > end:
                return
            for name in names:
                Path(folder, name).unlink()
            Path(folder).rmdir()
