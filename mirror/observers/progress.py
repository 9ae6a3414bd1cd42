"""How far the run is: one line on a terminal, a widget in a notebook."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
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
    """How far a run is, drawn by tqdm: prompts, files, bytes of those known by now, rate, failures.

    An observer, to be given to what runs; a context manager, whose end draws the last state. In Jupyter it is a widget
    (with ``ipywidgets``), on a terminal a line on stderr; where stderr is none nothing is drawn. It works where a loop
    runs, and for runs in other threads. The total is the length in bytes of all files whose length is known by now, so
    it grows; it is drawn at most ten times a second. A terminal that goes away ends the drawing, never the run.

    ``file`` is a text stream to draw on, whatever it is, instead of stderr or a widget. ``leave`` says whether what was
    drawn stays when it is closed (None: in Jupyter only). ``clock`` tells the time in seconds; a ``tally`` is one that
    is told of the same events before this is. Events come from one thread; :meth:`write` may be called from any.

    Example::

        with mirror.Progress() as progress:
            for manifest in mirror.fetch(["ef8ec19d6670c018814358a21a910090"], settings, on_event=progress):
                progress.write(f"{manifest.prompt_id} {manifest.state}")
    """

    def __init__(
        self,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
        *,
        leave: bool | None = None,
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._tally = tally or Tally(clock)
        self._counts = tally is None
        self._drawn = clock()
        self._bar: tqdm[None] | None = None
        with contextlib.suppress(OSError, ValueError):
            self._bar = _make_bar(file, leave)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: Event, /) -> None:
        if self._counts:
            self._tally(event)
        now = self._clock()
        if now - self._drawn >= _INTERVAL or isinstance(event, RunFinished):
            self._drawn = now
            self._draw()

    def write(self, line: str) -> int:
        """Write ``line`` above the bar; a newline at its end may be missing. Makes this a stream to log to.

        Works after :meth:`close` too. Returns the number of characters taken.

        Raises:
            OSError: the terminal went away.

        Example::

            with mirror.Progress() as progress:
                progress.write("above the bar")
        """
        text = line.removesuffix("\n")
        if self._bar is None:
            self._file.write(text + "\n")
        else:
            self._bar.write(text, file=self._file)
        self.flush()
        return len(line)

    def flush(self) -> None:
        """Hand on what was written: a stream has this.

        Example::

            with mirror.Progress() as progress:
                print("above the bar", file=progress, flush=True)
        """
        self._file.flush()

    def close(self) -> None:
        """Clear the line, so that what is written next begins there, or leave the last state; then draw no more.

        May be called again.

        Example::

            progress = mirror.Progress()
            mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings, on_event=progress)
            progress.close()
        """
        if self._bar is not None and self._bar.leave:
            self._draw()
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
        if container := getattr(bar, "container", None):
            gauge = container.children[1]  # it is made for one total
            gauge.max, gauge.bar_style = max(bar.total, 1), ""
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


def _make_bar(file: TextIO | None, leave: bool | None) -> tqdm[None] | None:
    """A widget where there can be one, else a line; None where neither would be seen."""
    from tqdm import auto  # noqa: PLC0415 - only who looks pays for the import

    found: Any = auto  # it says what it has chosen; on a terminal the two are one
    kind: Any = found.notebook_tqdm if file is None else found.std_tqdm
    is_widget = kind is not found.std_tqdm
    measured = 0 if is_widget else _columns(file or sys.stderr)

    # Its own class, so that an application's bars keep their lock and their monitor.
    class Bar(kind):  # type: ignore[misc]
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
    bar: tqdm[None] = Bar(
        file=file,
        desc="0/0 prompts, 0/0 files",
        total=0,
        leave=is_widget if leave is None else leave,
        disable=None if file is None else False,
        ncols=measured or _COLUMNS,
        nrows=None if measured else 24,
        dynamic_ncols=is_widget or measured > 0,
        mininterval=0,
        miniters=0,
        smoothing=0.1,
        bar_format=_FORMAT,
    )
    return None if bar.disable else bar
