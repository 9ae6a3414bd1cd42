"""A file for node_exporter's textfile collector: replaced in one step, beside the run, and never in its way."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from pathlib import Path

from mirror.errors import ConfigError

_MOST_READ = 4 << 20


class Textfile:
    """Writes from a thread of its own. A file that cannot be written is warned of once, and ends nothing.

    Raises:
        ConfigError: the folder does not exist, or a folder stands where the file should.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
        self._writing: threading.Thread | None = None
        self._warned = False
        if not self._path.parent.is_dir():
            raise ConfigError(f"[metrics] textfile: the folder {self._path.parent} does not exist")
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(f"[metrics] textfile: {self._path} is no file, expected one such as mirror.prom")
        if not os.access(self._path.parent, os.W_OK):
            self._warn("its folder cannot be written to")

    @property
    def is_busy(self) -> bool:
        """The disk has not taken the last text yet."""
        return self._writing is not None and self._writing.is_alive()

    def read(self) -> str:
        """What stands there now; "" for no file, and for one that cannot be read."""
        with contextlib.suppress(OSError, ValueError), self._path.open("rb") as stream:
            return stream.read(_MOST_READ).decode()
        return ""

    def write(self, text: bytes) -> None:
        """Begin to write; returns at once. Not to be called while :attr:`is_busy`."""
        # A daemon: a network file system that hangs must not keep the process.
        self._writing = threading.Thread(target=self._replace, args=(text,), name="metrics", daemon=True)
        self._writing.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the disk; whether it has taken everything."""
        if self._writing is not None:
            self._writing.join(seconds)
            if self._writing.is_alive():
                self._warn("the disk does not answer")
        return not self.is_busy

    def _replace(self, text: bytes) -> None:
        try:
            # Not ending in .prom, or the collector would read it as well.
            file, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".tmp", dir=self._path.parent)
            try:
                with open(file, "wb") as stream:  # noqa: PTH123
                    os.fchmod(stream.fileno(), 0o644)
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(name).replace(self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            self._warn(error.strerror or type(error).__name__)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logging.getLogger("mirror").warning("[metrics] textfile %s cannot be written: %s", self._path, why)
