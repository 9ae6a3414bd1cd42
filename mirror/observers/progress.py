"""One line on a terminal that says how far the run is."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from mirror.events import Event, RunFinished
from mirror.observers.tally import Tally
from mirror.observers.text import size

if TYPE_CHECKING:
    from tqdm import tqdm

_INTERVAL = 0.1
_COLUMNS = 79
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {here} of {whole}, {speed}{postfix}"


class Progress:
    """A tqdm bar over bytes: prompts done of those known, files done of those planned, bytes, rate, failures.

    The total is the length of all files whose length is known by now, so it grows. The line is drawn at most ten
    times a second and cleared at the end. Made only where ``file`` (default: stderr) is a terminal: the caller looks.
    A terminal that goes away ends the drawing, never the run. Events come from one thread; :meth:`write` may be
    called from any. A ``tally`` is one that is told of the same events before this is.
    """

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic, tally: Tally | None = None
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._tally = tally or Tally(clock)
        self._counts = tally is None
        self._drawn = clock()
        self._bar: tqdm[None] | None = None
        with contextlib.suppress(OSError, ValueError):
            self._bar = _make_bar(self._file)

    def __call__(self, event: Event, /) -> None:
        if self._counts:
            self._tally(event)
        now = self._clock()
        if now - self._drawn >= _INTERVAL or isinstance(event, RunFinished):
            self._drawn = now
            self._draw()

    def write(self, line: str) -> int:
        """Write a line above the bar; a newline at its end may be missing. Makes this a stream to log to.

        Works after :meth:`close` too. Returns the number of characters taken.

        Raises:
            OSError: the terminal went away.
        """
        text = line.removesuffix("\n")
        if self._bar is None:
            self._file.write(text + "\n")
        else:
            self._bar.write(text, file=self._file)
        self.flush()
        return len(line)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Clear the line, so that what is written next begins there. Nothing is drawn afterwards. Idempotent."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError, ValueError):
                bar.close()

    def _draw(self) -> None:
        bar, tally = self._bar, self._tally
        if bar is None:
            return
        # Bytes from before move the bar, but are no speed: tqdm must not see them as progress since the last drawing.
        resumed = tally.bytes_resumed - int(bar.initial)
        bar.initial += resumed
        bar.n += resumed
        bar.last_print_n += resumed
        received = tally.bytes_downloaded + tally.bytes_resumed - int(bar.n)
        # More than the total comes in where a partial file was dropped, or where an origin tells no length.
        bar.total = max(tally.bytes_known, int(bar.n) + received)
        bar.desc = _description(tally)
        bar.postfix = f"{tally.failed} failed" if tally.failed else ""
        try:
            if received:
                bar.update(received)
            else:
                bar.refresh()  # an update by nothing would lose the time since the last one, and show too high a rate
        except (OSError, ValueError):
            self.close()


def _description(tally: Tally) -> str:
    planned = max(tally.files_planned, tally.files + tally.files_failed)
    return f"{tally.prompts_done}/{tally.prompts_known} prompts, {tally.files}/{planned} files"


def _columns(file: TextIO) -> int:
    """The terminal's width; 0 where it does not tell (a serial line, a container without a size)."""
    try:
        return os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):
        return 0


def _make_bar(file: TextIO) -> tqdm[None]:
    from tqdm import tqdm  # noqa: PLC0415 - only a terminal pays for the import

    measured = _columns(file)

    # Its own class, so that an application's bars keep their lock and their monitor; generic for type checkers only.
    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no monitor thread: what it does, update does

        @property
        def format_dict(self) -> dict[str, Any]:
            values = super().format_dict
            return {
                **values,
                "here": size(values["n"]),
                "whole": size(values["total"]),
                "speed": f"{size(values['rate'] or 0)}/s",
            }

    # The default lock is one between processes too, which can start a helper process.
    Bar.set_lock(threading.RLock())
    return Bar(
        file=file,
        desc="0/0 prompts, 0/0 files",
        total=0,
        leave=False,
        disable=False,
        ncols=measured or _COLUMNS,
        nrows=None if measured else 24,
        dynamic_ncols=measured > 0,
        mininterval=0,
        miniters=0,
        smoothing=0.1,
        bar_format=_FORMAT,
    )
