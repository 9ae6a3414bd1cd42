"""A kernel lock on a file: it ends with the process, so a file that is left behind holds nobody up. Blocks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from pathlib import Path

from mirror.errors import Denied, Locked
from mirror.stores.files import is_ours_alone, let_go, translated


class Lock:
    """One run at a time uses ``what``. While it does, the file says which, and ``fd`` is its descriptor.

    Several may use it where each has it ``is_shared``: of these the file says nothing.
    """

    def __init__(self, path: Path, what: str, *, is_shared: bool = False) -> None:
        self._is_shared = is_shared
        self._path = path
        self._what = what
        self._taken_by = 0
        self.fd: int | None = None

    def take(self) -> bool:
        """Take it, if this run has not. The file stays as it is; True where its last holder left it marked.

        Raises:
            Locked: another run holds it.
            StoreError: it cannot be locked.
        """
        if self.fd is not None:
            return False
        with translated(f"the lock {self._path}"), contextlib.ExitStack() as unless_locked:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            unless_locked.callback(let_go, fd)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Denied(f"the lock {self._path} is no file: move it away")
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if self._is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
                told = f"{self._what} is in use by another run ({holder or 'unknown'}{_orphans(holder)})"
                raise Locked(f"{told}: try again after its end, or wait for it (--wait-lock, wait_lock)") from None
            except OSError as error:
                why = f"{error.strerror}: is it on a file system with locks?"
                raise Denied(f"{self._path} cannot be locked: {why}") from None
            is_marked = os.fstat(fd).st_size > 0
            unless_locked.pop_all()
            self.fd, self._taken_by = fd, os.getpid()
            return is_marked

    def mark(self) -> None:
        """Say in the file who holds it."""
        with translated(f"the lock {self._path}"):
            if (
                self.fd is not None and not self._is_shared and is_ours_alone(os.fstat(self.fd))
            ):  # else it may be somebody's file
                since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                os.ftruncate(self.fd, 0)
                os.pwrite(self.fd, f"pid {os.getpid()} since {since}\n".encode(), 0)

    def is_marked(self) -> bool:
        """True if another run has marked it."""
        with contextlib.suppress(OSError):
            return self.fd is None and self._path.lstat().st_size > 0
        return False

    def release(self, *, unmark: bool) -> None:
        """Let go of it; the mark stays where the next run is to know that this one did not end well.

        A process that was forked meanwhile holds the lock no longer, and cannot take it from us by letting go of it.
        """
        if self.fd is None:
            return
        if self._taken_by == os.getpid():
            with contextlib.suppress(OSError):  # then it stays marked, which harms nobody
                if unmark and not self._is_shared and is_ours_alone(os.fstat(self.fd)):
                    os.ftruncate(self.fd, 0)
            with contextlib.suppress(OSError):  # to close it is not enough where a forked process has it open, too
                fcntl.flock(self.fd, fcntl.LOCK_UN)
        let_go(self.fd)
        self.fd = None


def _orphans(holder: str) -> str:
    """What there is to add where the process that took the lock is gone: then one that it started holds it."""
    found = re.match(r"pid (\d+) ", holder)
    try:
        os.kill(int(found[1]) if found else os.getpid(), 0)
    except ProcessLookupError:
        return "; that process is gone, and a worker of it is not: look for mirror.engines.process"
    except (OSError, OverflowError):
        pass
    return ""
