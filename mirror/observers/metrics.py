"""How the run is going, for Prometheus, in a text file."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

from mirror.errors import ConfigError, ExitCode
from mirror.events import Answered, Event, HookOutcome, RequestSent, RunFinished, RunStarted
from mirror.models import PromptState
from mirror.observers.tally import Tally
from mirror.observers.textfile import Textfile

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram, in seconds."""

_BOUNDS = (*map(str, BUCKETS), "+Inf")
_KINDS = ("api", "media", "s3")
_LATENCY = "mirror_request_duration_seconds"
_PATIENCE = 10.0
_PATIENCE_AFTER_SIGNAL = 0.5
_SIGNALS = (ExitCode.SIGINT, ExitCode.SIGTERM)

Labels = tuple[tuple[str, str], ...]
Counts = dict[tuple[str, ...], float]
"""Values by the values of their labels, in the order of the labels' names."""


class Metrics:
    """Writes metrics to ``path`` every ``interval`` seconds, driven by events, and at the end; 0: at the end only.

    Gauges are those of this run, or of the last one that ended. Counters go on from run to run, as Prometheus expects:
    the earlier file is read back. An event costs a microsecond or two: what is written is made up when it is written.
    Labels are states, kinds, outcomes and names of error classes, never an id, a URL or a token.
    A ``tally`` is one that is told of the same events before this is.

    Raises:
        ConfigError: the extra is missing, or the file's folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
    ) -> None:
        try:
            import prometheus_client  # noqa: F401, PLC0415
        except ImportError:
            raise ConfigError("[metrics] textfile needs the extra: pip install 'prompt-mirror[metrics]'") from None
        self._file = Textfile(path)
        self._earlier = _samples(self._file.read())
        self._interval = interval
        self._clock = clock
        self._tally = tally or Tally(clock)
        self._counts = tally is None
        self._requests = Counter(dict.fromkeys(_KINDS, 0))
        self._latency: defaultdict[str, _Latency] = defaultdict(_Latency, {kind: _Latency() for kind in _KINDS})
        self._answers: Counter[tuple[str, ...]] = Counter()
        self._reused = 0
        self._began = self._written = clock()
        self._started_at = self._ended_at = 0.0
        self._end: RunFinished | None = None

    def __call__(self, event: Event, /) -> None:
        if self._counts:
            self._tally(event)
        match event:
            case RequestSent():
                self._requests[event.kind] += 1
            case Answered():
                self._latency[event.kind].observe(event.seconds)
                self._answers[event.kind, f"{event.status // 100}xx"] += 1
            case RunStarted():
                self._began, self._started_at = self._clock(), time.time()
                self._write(due=bool(self._interval))
            case RunFinished():
                self._finish(event)
        self._write(due=bool(self._interval) and self._clock() - self._written >= self._interval)

    def _write(self, *, due: bool) -> None:
        if due and self._end is None:
            self._written = self._clock()
            if not self._file.is_busy:
                self._file.write(self._text())

    def _finish(self, end: RunFinished) -> None:
        self._end, self._ended_at = end, time.time()
        patience = _PATIENCE_AFTER_SIGNAL if end.exit_code in _SIGNALS else _PATIENCE
        if self._file.wait(patience):
            self._file.write(self._text())
            self._file.wait(patience)

    def _text(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    # What is in it -----------------------------------------------------------------------------

    def describe(self) -> list[Metric]:
        """Nothing is told beforehand; asked by prometheus_client."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as they stand now; asked by prometheus_client."""
        yield from self._gauges()
        yield from self._counters()
        yield self._histogram()

    def _gauges(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        prompts = GaugeMetricFamily("mirror_prompts", "Prompts that this run has finished, by state.", labels=["state"])
        for state in PromptState:
            prompts.add_metric([state.value], self._tally.prompts[state])
        yield prompts
        end = self._end
        now: dict[str, float] = {
            "run_in_progress": end is None,
            "run_duration_seconds": self._clock() - self._began if end is None else end.seconds,
            "prompts_unfinished": self._under_way if end is None else end.unfinished,
        }
        if self._started_at:
            now["run_start_timestamp_seconds"] = self._started_at
        if end is not None:
            now |= {"last_run_exit_code": end.exit_code, "last_run_timestamp_seconds": self._ended_at}
            if end.exit_code in (ExitCode.OK, ExitCode.PENDING):
                now["last_success_timestamp_seconds"] = self._ended_at
        for name, text in _GAUGES.items():
            value = now.get(name, self._earlier.get((f"mirror_{name}", ())))
            if value is not None:
                yield GaugeMetricFamily(f"mirror_{name}", text, value=value)

    @property
    def _under_way(self) -> int:
        return self._tally.prompts_known - self._tally.prompts_done

    def _counters(self) -> Iterator[Metric]:
        tally = self._tally
        self._reused = max(self._reused, tally.bytes_reused)  # a partial that is dropped takes some back
        files = _by_one({"stored": tally.files, "failed": tally.files_failed})
        yield self._counter("files", "Files, by outcome.", ["outcome"], files)
        for name, text, value in (
            ("downloaded_bytes", "Bytes of media bodies that came in.", tally.bytes_downloaded),
            ("uploaded_bytes", "Bytes of bodies that went to the bucket.", tally.bytes_uploaded),
            ("reused_bytes", "Bytes that were there already and were not transferred.", self._reused),
            ("copied_bytes", "Bytes that the store copied by itself.", tally.bytes_copied),
        ):
            yield self._counter(name, text, [], {(): value})
        yield self._counter("requests", "HTTP requests sent, by kind.", ["kind"], _by_one(self._requests))
        yield self._counter("answers", "HTTP answers, by class of status.", ["kind", "status"], {**self._answers})
        causes = _by_one(tally.retries)
        yield self._counter("retries", "What was tried again, by the error that was the cause.", ["cause"], causes)
        hooks = _by_one({outcome.value: tally.hooks[outcome] for outcome in HookOutcome})
        yield self._counter("hooks", "Hooks that ended, by outcome.", ["outcome"], hooks)

    def _counter(self, name: str, text: str, labels: list[str], counts: Counts) -> Metric:
        """A counter that goes on from where the earlier file left it."""
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        before: Counts = {
            tuple(value for _, value in told): count
            for (known, told), count in self._earlier.items()
            if known == f"mirror_{name}_total" and [label for label, _ in told] == labels
        }
        family = CounterMetricFamily(f"mirror_{name}", text, labels=labels)
        for values in sorted(counts.keys() | before.keys()):
            family.add_metric(list(values), counts.get(values, 0) + before.get(values, 0))
        return family

    def _histogram(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

        family = HistogramMetricFamily(_LATENCY, "From a request to the headers of its answer.", labels=["kind"])
        for kind, latency in self._latency.items():
            told = (("kind", kind),)
            known = [self._earlier.get((f"{_LATENCY}_bucket", (*told, ("le", bound)))) for bound in _BOUNDS]
            # Of other buckets nothing can be made: the counters begin again, which Prometheus understands.
            goes_on = None not in known
            before = [count or 0.0 for count in known] if goes_on else [0.0] * len(_BOUNDS)
            seconds = self._earlier.get((f"{_LATENCY}_sum", told), 0.0) if goes_on else 0.0
            counts = map(add, before, accumulate(latency.counts))
            family.add_metric([kind], list(zip(_BOUNDS, counts, strict=True)), sum_value=seconds + latency.seconds)
        return family


_GAUGES = {
    "run_in_progress": "1 while a run is under way, else 0.",
    "run_start_timestamp_seconds": "When the run started.",
    "run_duration_seconds": "How long the run has taken, so far or in all.",
    "prompts_unfinished": "Prompts under way; at the end, those left for the next run.",
    "last_run_exit_code": "Exit code of the last run that ended.",
    "last_run_timestamp_seconds": "When the last run ended.",
    "last_success_timestamp_seconds": "When a run last ended with exit code 0 or 5.",
}


def _by_one(counts: Mapping[str, float]) -> Counts:
    return {(value,): count for value, count in counts.items()}


class _Latency:
    """How long answers of one kind took: counts by bucket, the last one without a bound."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


def _samples(text: str) -> dict[tuple[str, Labels], float]:
    """What an earlier run wrote; nothing where the text is not ours to understand."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    try:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("mirror_") and 0 <= sample.value < float("inf")
        }
    except (ValueError, KeyError, IndexError):
        return {}
