"""Counts what happens in a run, and tells it at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from mirror.errors import ExitCode
from mirror.events import (
    BytesReceived,
    BytesSent,
    Event,
    FileFailed,
    FilePlaced,
    FilePlanned,
    FileSized,
    FileStored,
    HookFinished,
    HookOutcome,
    PromptFinished,
    PromptStarted,
    RequestSent,
    Retrying,
    RunFinished,
    RunStarted,
)
from mirror.models import PromptState, Summary
from mirror.observers.text import duration, one_line, size


class _Open:
    """A prompt that has not finished: its files' lengths and held bytes by URL, and whether one of them failed."""

    __slots__ = ("failed", "sized")

    def __init__(self) -> None:
        self.sized: dict[str, tuple[int, int]] = {}
        self.failed = False


class Tally:
    """Folds events into counters. Memory grows with the prompts under way, not with those that have finished.

    ``bytes_downloaded`` counts every byte of a media body that came in, those of attempts that failed too.

    ``bytes_reused`` counts bytes that were there before and were not transferred, each once: files that a prompt
    had already (``PromptFinished.bytes_reused``, which must not contain the following two), files linked from another
    prompt of the run (``FileStored.reused``), and partial files resumed (``FileSized.held``). Of a file that is sized
    anew at each attempt only the first ``held`` counts, because later ones contain what this run downloaded; where
    a later one is smaller, the partial was dropped and what is downloaded again is taken off.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.prompts: Counter[PromptState] = Counter()
        self.files = 0
        self.files_planned = 0
        self.files_failed = 0
        self.failed = 0
        """Failed files, and prompts that ended not ok for another reason. A pending prompt is no failure."""
        self.bytes_downloaded = 0
        self.bytes_uploaded = 0
        """Bytes of bodies that went to the bucket, manifests and attempts that failed among them."""
        self.bytes_copied = 0
        self.bytes_reused = 0
        self.bytes_resumed = 0
        """The part of ``bytes_reused`` that comes from partial files."""
        self.bytes_known = 0
        """The length of all files that are fetched in this run, as far as it is known."""
        self.requests = 0
        self.retries: Counter[str] = Counter()
        self.hooks: Counter[HookOutcome] = Counter()
        self._open: dict[str, _Open] = {}
        self._clock = clock
        self._started = clock()
        self._run = RunStarted(run_id="", root="", started_at="")
        self._end: RunFinished | None = None

    @property
    def run_id(self) -> str:
        """The run's id; "" before it has started."""
        return self._run.run_id

    @property
    def hooks_failed(self) -> int:
        """Hooks that did not end well, those that the run's end cut short among them."""
        return self.hooks.total() - self.hooks[HookOutcome.OK]

    @property
    def prompts_done(self) -> int:
        return self.prompts.total()

    @property
    def prompts_known(self) -> int:
        """Prompts that have finished or are under way."""
        return self.prompts.total() + len(self._open)

    def __call__(self, event: Event, /) -> None:
        # A table, not a match: events come ten a file, and most are none of ours.
        count = _COUNTS.get(type(event))
        if count is not None:
            count(self, event)

    def _received(self, event: BytesReceived) -> None:
        self.bytes_downloaded += event.bytes

    def _sent(self, event: BytesSent) -> None:
        self.bytes_uploaded += event.bytes

    def _placed(self, event: FilePlaced) -> None:
        if event.via == "copy":
            self.bytes_copied += event.bytes

    def _asked(self, _: RequestSent) -> None:
        self.requests += 1

    def _tried_again(self, event: Retrying) -> None:
        self.retries[event.cause] += 1

    def _hooked(self, event: HookFinished) -> None:
        self.hooks[event.outcome] += 1

    def _run_started(self, event: RunStarted) -> None:
        self._run, self._started = event, self._clock()

    def _run_finished(self, event: RunFinished) -> None:
        self._end = event

    def _of(self, prompt_id: str) -> _Open:
        prompt = self._open.get(prompt_id)
        if prompt is None:
            prompt = self._open[prompt_id] = _Open()
        return prompt

    def _taken_up(self, event: PromptStarted) -> None:
        self._of(event.prompt_id)

    def _planned(self, event: FilePlanned) -> None:
        self._of(event.prompt_id)
        self.files_planned += 1

    def _stored(self, event: FileStored) -> None:
        self.files += 1
        if event.reused:
            self.bytes_reused += event.bytes
        elif event.url not in self._of(event.prompt_id).sized:
            self.bytes_known += event.bytes

    def _failed(self, event: FileFailed) -> None:
        self._of(event.prompt_id).failed = True
        self.files_failed += 1
        self.failed += 1

    def _sized(self, event: FileSized) -> None:
        prompt = self._of(event.prompt_id)
        first = event.url not in prompt.sized
        known_before, held_before = prompt.sized.get(event.url, (0, 0))
        held = event.held if first else min(held_before, event.held)
        self.bytes_resumed += held - held_before
        self.bytes_reused += held - held_before
        self.bytes_known += event.bytes - known_before
        prompt.sized[event.url] = (event.bytes, held)

    def _finished(self, event: PromptFinished) -> None:
        prompt = self._open.pop(event.prompt_id, _Open())
        self.prompts[event.state] += 1
        self.bytes_reused += event.bytes_reused
        if not event.ok:
            self.failed += not prompt.failed and event.state is not PromptState.PENDING

    def summary(self) -> Summary:
        """What was counted so far. States and causes that did not occur are left out.

        Before RunFinished ``seconds`` are those gone by, and ``exit_code`` is that of an incomplete run, so that a
        summary taken too early never claims success.
        """
        end = self._end or RunFinished(seconds=self._clock() - self._started, exit_code=ExitCode.INCOMPLETE)
        return Summary(
            run_id=self._run.run_id,
            started_at=self._run.started_at,
            seconds=end.seconds,
            exit_code=int(end.exit_code),
            prompts={state.value: self.prompts[state] for state in PromptState if self.prompts[state]},
            unfinished=end.unfinished,
            files=self.files,
            files_failed=self.files_failed,
            bytes_downloaded=self.bytes_downloaded,
            bytes_reused=self.bytes_reused,
            bytes_uploaded=self.bytes_uploaded,
            bytes_copied=self.bytes_copied,
            requests=self.requests,
            retries=dict(self.retries.most_common()),
            hooks_failed=self.hooks_failed,
            fatal=end.fatal,
        )


_COUNTS: dict[type[Event], Callable[[Tally, Any], None]] = {
    BytesReceived: Tally._received,
    BytesSent: Tally._sent,
    FilePlaced: Tally._placed,
    RequestSent: Tally._asked,
    Retrying: Tally._tried_again,
    HookFinished: Tally._hooked,
    FilePlanned: Tally._planned,
    FileSized: Tally._sized,
    FileStored: Tally._stored,
    FileFailed: Tally._failed,
    PromptStarted: Tally._taken_up,
    PromptFinished: Tally._finished,
    RunStarted: Tally._run_started,
    RunFinished: Tally._run_finished,
}


_MEANING = {
    0: "all that was asked for is mirrored",
    1: "a bug",
    2: "wrong usage or configuration",
    3: "some prompts failed or are incomplete",
    4: "the run had to stop",
    5: "some tasks are still queued or running",
    130: "interrupted",
    141: "the reader of the output went away",
    143: "terminated",
}


def render(summary: Summary) -> str:
    """The summary for people: a few aligned lines, without a newline at the end. What is zero is left out."""
    rate = f", {size(summary.bytes_downloaded / summary.seconds)}/s" if summary.seconds > 0 else ""
    retries = sum(summary.retries.values())
    causes = ", ".join(f"{name} {count}" for name, count in summary.retries.items())
    states = ", ".join(f"{count} {state}" for state, count in summary.prompts.items())
    lines = {
        "prompts": f"{sum(summary.prompts.values())}"
        + (f": {states}" if states else "")
        + (f"; {summary.unfinished} left for the next run" if summary.unfinished else ""),
        "files": f"{summary.files} stored" + (f", {summary.files_failed} failed" if summary.files_failed else ""),
        "downloaded": f"{size(summary.bytes_downloaded)} in {duration(summary.seconds)}{rate}",
        "reused": size(summary.bytes_reused) if summary.bytes_reused else "",
        "uploaded": size(summary.bytes_uploaded) if summary.bytes_uploaded else "",
        "copied": f"{size(summary.bytes_copied)} within the store" if summary.bytes_copied else "",
        "requests": str(summary.requests) + (f", {retries} tried again: {causes}" if retries else ""),
        "hooks": f"{summary.hooks_failed} did not end well" if summary.hooks_failed else "",
        "exit code": f"{summary.exit_code}, {_MEANING.get(summary.exit_code, 'unknown')}",
        "stopped by": summary.fatal or "",
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{one_line(text)}" for name, text in lines.items() if text)
