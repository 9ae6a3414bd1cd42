"""The process's own streams: what cannot be written to them ends no command, and nobody who stalls holds its end up.

stdout is for results: where it takes no more, what is left of them is dropped, the command does all of its work, and
the exit code says so. stderr is for words about it: what cannot be said there changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from mirror.errors import ExitCode


class ReaderGoneError(Exception):
    """Nobody reads stdout any more. No OSError: click would end the process for it, with an exit code of its own."""


class Sink(io.RawIOBase):
    """A descriptor that is written to at once and whole, without a buffer or a lock; the first failure is its last.

    ``failure`` is why it takes no more. ``is_busy`` while a thread is in a write, which may last for ever.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self.failure: OSError | None = None
        self.is_busy = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]  # whatever has bytes
        left = memoryview(data)
        self.is_busy = True
        try:
            while left and self.failure is None:
                left = left[self._write_some(left) :]
        finally:
            self.is_busy = False
        return len(data)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # whoever shares the pipe does not want to wait; we do
            waiting = select.poll()
            waiting.register(self._fd, select.POLLOUT)
            waiting.poll()
        except OSError as error:
            self.failure = error
        return 0


_STDOUT = Sink(1, "<stdout>")
_STDERR = Sink(2, "<stderr>")
_ours: list[TextIO] = []


def take_over() -> None:
    """From now on what is printed, by whomever, goes through sinks. Texts that the encoding does not have are spelled
    out.

    Streams that were closed from the start go nowhere, and no file that is opened later takes their place.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = _text(_STDOUT, sys.stdout)
    sys.stderr = _text(_STDERR, sys.stderr)


def _text(sink: Sink, former: TextIO | None) -> TextIO:
    if former is not None:
        former.flush()
    encoding = former.encoding if former is not None else "utf-8"
    return io.TextIOWrapper(sink, encoding, errors="backslashreplace", newline="\n", write_through=True)


@contextlib.contextmanager
def ours_alone() -> Iterator[None]:
    """What libraries print to stdout meanwhile goes nowhere; results are written as ever."""
    _ours.append(sys.stdout)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        _ours.pop()


def write_stdout(data: bytes) -> None:
    """Write to stdout at once, whole; nothing where it has failed before. Blocks.

    Raises:
        ReaderGoneError: nobody reads it any more.
    """
    stdout = _ours[-1] if _ours else sys.stdout
    stdout.buffer.write(data)
    stdout.buffer.flush()
    if is_reader_gone():
        raise ReaderGoneError


def write_lines(lines: Iterable[bytes]) -> None:
    """As :func:`write_stdout`, each line by itself: a pipe takes a short one whole or not at all."""
    for line in lines:
        write_stdout(line)


def is_reader_gone() -> bool:
    return _STDOUT.failure is not None and _STDOUT.failure.errno == errno.EPIPE


def stdout_code() -> ExitCode:
    """What became of the results, as an exit code."""
    if _STDOUT.failure is None:
        return ExitCode.OK
    return ExitCode.SIGPIPE if is_reader_gone() else ExitCode.STOPPED


def stdout_failure() -> str | None:
    """Why not all results could be written, where somebody is to be told."""
    failure = _STDOUT.failure
    return None if failure is None or is_reader_gone() else f"stdout cannot be written to: {failure.strerror}"


def is_stdout_stalled() -> bool:
    """True while a thread hangs in a write to stdout."""
    return _STDOUT.is_busy
