"""A power cut, as the tests of the kernel's own file systems make one: an ext4 of its own on a loop device is shut down
without its journal being flushed. What was not synced is gone, and the next mount replays what the journal has.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2
_SIZE = 256 << 20


class Disk:
    """A file system mounted at ``path``, until it is closed."""

    def __init__(self, folder: Path, options: str) -> None:
        self.path = folder / "mounted"
        self.path.mkdir(parents=True)
        self._image = folder / "image"
        self._options = f"loop,{options}" if options else "loop"
        with self._image.open("wb") as image:
            image.truncate(_SIZE)
        _call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(self._image))
        self.plug()

    def plug(self) -> None:
        _call("mount", "-o", self._options, str(self._image), str(self.path))

    def cut(self) -> None:
        """The power is gone: from here on every call fails, and nothing reaches the disk."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def again(self) -> None:
        """The power is back. Nobody may have a file open there any more; the kernel takes a moment to know that.

        A copy of the disk is mounted: another mount namespace of this machine may still hold the one that is shut
        down, and would hand it on.
        """
        self.unplug()
        copy = self._image.with_name("copy")
        _call("cp", "--sparse=always", str(self._image), str(copy))
        copy.replace(self._image)
        self.plug()

    def unplug(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                return _call("umount", str(self.path))
            except RuntimeError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            _call("umount", "-l", str(self.path))
        self._image.unlink()


@contextlib.contextmanager
def disk(folder: Path, options: str = "") -> Iterator[Disk]:
    made = Disk(folder, options)
    try:
        yield made
    finally:
        made.close()


def why_not() -> str:
    """Why no power can be cut here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root may mount a file system, on Linux"
    if not all(map(shutil.which, ("mkfs.ext4", "mount", "umount"))):
        return "mkfs.ext4 or mount is not installed"
    try:
        with tempfile.TemporaryDirectory() as folder, disk(Path(folder)) as made:
            made.cut()
    except (OSError, RuntimeError) as error:
        return f"no file system can be mounted and shut down here: {error}"
    return ""


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
