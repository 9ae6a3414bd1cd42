"""Events as records of the standard library's logging, on the logger ``mirror``."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from mirror.events import (
    Event,
    FileFailed,
    FilePlaced,
    FileStored,
    HookFinished,
    HookOutcome,
    Noted,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
    Retrying,
    RunFinished,
    RunStarted,
)
from mirror.models import Failure, PromptState
from mirror.observers.formats import JsonFormatter, TextFormatter
from mirror.observers.redact import Redactor
from mirror.observers.tally import Tally
from mirror.observers.text import counted, duration, size

LOGGER = "mirror"

_LONG_PAUSE = 10.0
_REASONS = 3


class Writable(Protocol):
    """A text stream, as far as a log needs one."""

    def write(self, text: str, /) -> object: ...


class _Handler(logging.StreamHandler[Writable]):
    """Ours, to be found again. A log that cannot be written ends no run, and shows no record in another way.

    Once a run has started, every record carries its id, whoever wrote it.
    """

    run_id = ""

    def emit(self, record: logging.LogRecord) -> None:
        if self.run_id and not getattr(record, "run_id", ""):
            record.run_id = self.run_id
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


def configure(
    log_format: Literal["text", "json"] = "text",
    level: str = "info",
    stream: Writable | None = None,
    secrets: Iterable[str] = (),
) -> logging.Handler:
    """Send the logger ``mirror`` and all below it to ``stream`` (default: stderr), and no further.

    ``secrets`` are never shown (see :class:`mirror.observers.redact.Redactor`). What a library warns of goes there as
    well, where nobody else takes it: it may quote a header that the other side wrote. A second call replaces what the
    first one set up; handlers that others added stay. Returns the handler.
    """
    logger = logging.getLogger(LOGGER)
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(Redactor(secrets))
    for former in [known for known in logger.handlers if isinstance(known, _Handler)]:
        logger.removeHandler(former)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    logging.lastResort = handler
    return handler


_SAID = frozenset(
    (
        *(PromptStarted, PromptWaiting, PromptFinished, FileStored, FilePlaced, FileFailed, Retrying),
        *(RunStarted, RunFinished, Noted, HookFinished),
    )
)


class LogObserver:
    """Writes what happens to the log.

    What goes well is debug, what is not mirrored is a warning. Every ``heartbeat`` seconds at most, driven by events,
    an info line says how far the run is; None (where a bar does) switches it off. ``clock`` is monotonic, in seconds.
    A ``tally`` is one that is told of the same events before this is.
    """

    def __init__(
        self,
        heartbeat: float | None = 30.0,
        clock: Callable[[], float] = time.monotonic,
        logger: logging.Logger | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self._logger = logger or logging.getLogger(LOGGER)
        self._tally = tally or Tally(clock)
        self._counts = tally is None
        self._beaten = clock()
        self._waiting: set[str] = set()
        self._run_id = ""

    def __call__(self, event: Event, /) -> None:
        if self._counts:
            self._tally(event)
        if type(event) in _SAID:
            self._tell(event)
        if self._heartbeat is not None and self._clock() - self._beaten >= self._heartbeat:
            self._beat()

    def _tell(self, event: Event) -> None:
        match event:
            case PromptStarted() | PromptWaiting() | PromptFinished():
                self._prompt(event)
            case FileStored() | FilePlaced() | FileFailed() | Retrying():
                self._file(event)
            case RunStarted() | RunFinished() | Noted():
                self._run(event)
            case HookFinished():
                self._hook(event)

    def _run(self, event: RunStarted | RunFinished | Noted) -> None:
        match event:
            case RunStarted():
                self._run_id = event.run_id
                for handler in self._logger.handlers:
                    if isinstance(handler, _Handler):
                        handler.run_id = event.run_id
                self._say(logging.INFO, f"run {event.run_id} started, mirroring to {event.root}")
            case RunFinished(fatal=None):
                took = duration(event.seconds)
                self._say(logging.INFO, f"run finished after {took}, exit code {int(event.exit_code)}")
            case RunFinished():
                self._say(logging.ERROR, f"run stopped, exit code {int(event.exit_code)}: {event.fatal}")
            case Noted():
                level = logging.getLevelNamesMapping()[event.level.upper()]
                self._say(level, event.message, prompt_id=event.prompt_id)

    def _hook(self, event: HookFinished) -> None:
        level = logging.DEBUG if event.outcome is HookOutcome.OK else logging.WARNING
        self._say(level, f"hook of prompt {event.prompt_id}: {event.message}", prompt_id=event.prompt_id)
        for line in event.output.splitlines():
            self._say(logging.DEBUG, f"hook of prompt {event.prompt_id} wrote: {line}", prompt_id=event.prompt_id)

    def _prompt(self, event: PromptStarted | PromptWaiting | PromptFinished) -> None:
        prompt_id = event.prompt_id
        match event:
            case PromptStarted():
                self._say(logging.DEBUG, f"prompt {prompt_id}: taken up", prompt_id=prompt_id)
            case PromptWaiting():
                level = logging.DEBUG if prompt_id in self._waiting else logging.INFO
                self._waiting.add(prompt_id)
                pause = duration(event.seconds)
                text = f"prompt {prompt_id}: has not ended upstream, asked again in {pause}"
                self._say(level, text, prompt_id=prompt_id)
            case PromptFinished():
                self._waiting.discard(prompt_id)
                self._finished(event)

    def _finished(self, event: PromptFinished) -> None:
        waits = event.state is PromptState.PENDING and not event.errors
        level = logging.DEBUG if event.ok else logging.INFO if waits else logging.WARNING
        if not self._logger.isEnabledFor(level):  # a run may skip a million of them
            return
        text = f"prompt {event.prompt_id}: {event.state}, {counted(event.files, 'file')}"
        if event.skipped:
            text += ", was there already"
        reasons = [_reason(failure) for failure in event.errors[:_REASONS]]
        if len(event.errors) > _REASONS:
            reasons.append(f"and {len(event.errors) - _REASONS} more")
        if reasons:
            text += ": " + "; ".join(reasons)
        error = event.errors[0].error if event.errors else None
        self._say(level, text, prompt_id=event.prompt_id, error=error)

    def _file(self, event: FileStored | FilePlaced | FileFailed | Retrying) -> None:
        match event:
            case FilePlaced() | FileStored() if not self._logger.isEnabledFor(logging.DEBUG):
                pass
            case FilePlaced():
                text = f"in the bucket: {event.key}, {size(event.bytes)}, by {event.via}"
                self._say(logging.DEBUG, text, prompt_id=event.prompt_id, url=event.url)
            case FileStored():
                how = "linked" if event.reused else "stored"
                text = f"{how} {event.path}, {size(event.bytes)}"
                self._say(logging.DEBUG, text, prompt_id=event.prompt_id, url=event.url)
            case FileFailed(failure=failure):
                text = f"file of prompt {event.prompt_id} failed: {_reason(failure)}"
                known = {"url": failure.url, "error": failure.error, "attempt": failure.attempts}
                self._say(logging.WARNING, text, prompt_id=event.prompt_id, **known)
            case Retrying():
                # One retry is everyday life; a second one, or a long silence, wants an explanation.
                level = logging.INFO if event.attempt > 1 or event.seconds >= _LONG_PAUSE else logging.DEBUG
                about = _about(event.what, event.message)
                text = f"{event.cause}: {about}; tried again in {duration(event.seconds)}"
                subject = {"url" if "://" in event.what else "prompt_id": event.what}
                fields = {"prompt_id": event.prompt_id, **subject}
                self._say(level, text, cause=event.cause, attempt=event.attempt, **fields)

    def _beat(self) -> None:
        self._beaten = self._clock()
        tally = self._tally
        self._say(
            logging.INFO,
            f"{tally.prompts_done} of {counted(tally.prompts_known, 'prompt')}, {counted(tally.files, 'file')}, "
            f"{size(tally.bytes_downloaded)}, {tally.failed} failed",
        )

    def _say(self, level: int, message: str, **fields: str | int | None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={"run_id": self._run_id, **fields})


def _reason(failure: Failure) -> str:
    attempts = f", {failure.attempts} attempts" if failure.attempts > 1 else ""
    return f"{_about(failure.url, failure.message)} ({failure.error}{attempts})"


def _about(what: str | None, message: str) -> str:
    """A message with what it is about, unless it says so itself."""
    return message if not what or what in message else f"{what}: {message}"
