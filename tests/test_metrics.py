"""Metrics for Prometheus: what a run writes, and that nothing about the file can touch the run."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirror.errors import ConfigError
from mirror.events import (
    Answered,
    BytesReceived,
    Event,
    FileSized,
    HookFinished,
    HookOutcome,
    PromptFinished,
    RequestSent,
    Retrying,
    RunFinished,
    RunStarted,
)
from mirror.models import PromptState
from mirror.observers.metrics import Metrics
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, picture, running
from tests.origin import FOREVER, Origin, answer, task

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STARTED = RunStarted(run_id="r", root="archive", started_at="2026-01-29T13:54:20Z")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: after a signal a run waits half a second for a disk, and a busy one takes longer."""
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else tmp_path) as name:
        folder = Path(name, "collector")
        folder.mkdir()
        yield folder / "mirror.prom"


def parsed(path: Path) -> Samples:
    families = text_string_to_metric_families(path.read_text())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(path: Path, name: str, **labels: str) -> float | None:
    return parsed(path).get((f"mirror_{name}", tuple(sorted(labels.items()))))


def ran(path: Path, *events: Event, code: int = 0) -> None:
    """A whole run that these events happened in."""
    metrics = Metrics(path)
    for event in (STARTED, *events, RunFinished(seconds=2.5, exit_code=code)):
        metrics(event)


class TestTheFile:
    def test_a_run_of_the_command_line(self, archive: Archive, origin: Origin, path: Path) -> None:
        files = done_prompt(origin, "a", "one.png", "two.png")
        url, body = picture(origin, "/flaky.png", fault=faults.status(503))
        origin.prompt("b", answer(task("b", images=[(None, url)])))
        origin.prompt("c", answer(task("c", images=[(None, origin.url + "/gone.png")])))

        done = archive.run("fetch", "a", "b", "c", "d", environ={"MIRROR_METRICS_TEXTFILE": str(path)})

        assert done.code == 3
        counted = {
            ("prompts", "state", "complete"): 2,
            ("prompts", "state", "partial"): 1,
            ("prompts", "state", "unknown"): 1,
            ("prompts", "state", "pending"): 0,
            ("files_total", "outcome", "stored"): 3,
            ("files_total", "outcome", "failed"): 1,
            ("requests_total", "kind", "api"): 4,
            ("requests_total", "kind", "media"): 5,
            ("requests_total", "kind", "s3"): 0,
            ("retries_total", "cause", "Unavailable"): 1,
            ("hooks_total", "outcome", "ok"): 0,
            ("request_duration_seconds_count", "kind", "api"): 4,
            ("request_duration_seconds_count", "kind", "media"): 5,
        }
        assert {known: value(path, known[0], **{known[1]: known[2]}) for known in counted} == counted
        by_status = {
            status: value(path, "answers_total", kind="media", status=status) for status in ("2xx", "4xx", "5xx")
        }
        assert by_status == {"2xx": 3, "4xx": 1, "5xx": 1}
        size = sum(map(len, files.values())) + len(body)
        assert (value(path, "downloaded_bytes_total"), done.summary["bytes_downloaded"]) == (size, size)
        assert (value(path, "run_in_progress"), value(path, "last_run_exit_code")) == (0, 3)
        assert value(path, "run_duration_seconds") == pytest.approx(done.summary["seconds"])
        assert value(path, "last_run_timestamp_seconds")
        assert value(path, "last_success_timestamp_seconds") is None
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert [child.name for child in path.parent.iterdir()] == [path.name]

    def test_buckets_are_cumulative_and_end_with_all(self, path: Path) -> None:
        ran(path, *(Answered(kind="api", seconds=seconds, status=200) for seconds in (0.001, 0.005, 0.02, 400)))
        buckets = {
            dict(labels)["le"]: count
            for (name, labels), count in parsed(path).items()
            if name.endswith("_bucket") and dict(labels)["kind"] == "api"
        }
        assert (buckets["0.005"], buckets["0.01"], buckets["0.025"], buckets["30.0"], buckets["+Inf"]) == (
            2,
            2,
            3,
            3,
            4,
        )
        assert value(path, "request_duration_seconds_sum", kind="api") == pytest.approx(400.026)

    def test_counters_go_on_from_run_to_run_and_gauges_do_not(self, path: Path) -> None:
        finished = PromptFinished(prompt_id="p", state=PromptState.COMPLETE, ok=True, files=1, bytes_reused=0)
        retried = Retrying(what="p", cause="Truncated", message="", attempt=1, seconds=1)
        hook = HookFinished(prompt_id="p", outcome=HookOutcome.TIMEOUT, message="")
        answered = Answered(kind="media", seconds=0.3, status=206)
        events = (RequestSent(kind="api"), answered, BytesReceived(bytes=7), retried, hook, finished)
        for number in (1, 2, 3):
            ran(path, *events)
            assert value(path, "downloaded_bytes_total") == 7 * number
            assert value(path, "requests_total", kind="api") == number
            assert value(path, "answers_total", kind="media", status="2xx") == number
            assert value(path, "retries_total", cause="Truncated") == number
            assert value(path, "hooks_total", outcome="timeout") == number
            assert value(path, "request_duration_seconds_bucket", kind="media", le="0.5") == number
            assert value(path, "request_duration_seconds_bucket", kind="media", le="0.25") == 0
            assert value(path, "request_duration_seconds_sum", kind="media") == pytest.approx(0.3 * number)
            assert value(path, "prompts", state="complete") == 1
        ran(path)
        assert value(path, "retries_total", cause="Truncated") == 3
        assert value(path, "prompts", state="complete") == 0

    def test_a_counter_never_goes_down_within_a_run(self, path: Path) -> None:
        clock = Clock()
        metrics = Metrics(path, 30, clock)
        told = []
        for held in (100, 0):
            metrics(FileSized(prompt_id="p", url="u", bytes=500, held=held))
            clock.now += 30
            metrics(BytesReceived(bytes=1))
            assert metrics._file.wait(30)
            told.append(value(path, "reused_bytes_total"))
        assert told == [100, 100]

    @pytest.mark.parametrize(
        ("code", "success"), [(0, True), (5, True), (3, False), (4, False), (1, False), (143, False)]
    )
    def test_the_last_success_is_kept(self, path: Path, code: int, success: bool) -> None:
        ran(path)
        ran(path, code=code)
        assert value(path, "last_run_exit_code") == code
        last, well = value(path, "last_run_timestamp_seconds"), value(path, "last_success_timestamp_seconds")
        assert last is not None
        assert well is not None
        assert (well == last, well <= last) == (success, True)

    def test_while_a_run_is_under_way(self, path: Path) -> None:
        ran(path, code=3)
        clock = Clock()
        metrics = Metrics(path, 30, clock)
        metrics(STARTED)
        assert metrics._file.wait(30)
        assert (value(path, "run_in_progress"), value(path, "last_run_exit_code")) == (1, 3)
        clock.now += 29
        metrics(BytesReceived(bytes=1))
        assert metrics._file.wait(30)
        assert value(path, "downloaded_bytes_total") == 0
        clock.now += 1
        metrics(BytesReceived(bytes=1))
        assert metrics._file.wait(30)
        assert (value(path, "downloaded_bytes_total"), value(path, "run_duration_seconds")) == (2, 30)

    def test_no_interval_is_the_end_only(self, path: Path) -> None:
        clock = Clock()
        metrics = Metrics(path, 0, clock)
        for event in (STARTED, BytesReceived(bytes=1)):
            metrics(event)
            clock.now += 1e6
            assert metrics._file.wait(30)
        assert not path.exists()
        metrics(RunFinished(seconds=1, exit_code=0))
        assert value(path, "downloaded_bytes_total") == 1

    @pytest.mark.parametrize(
        "content",
        [
            b"\xff\xfe no text",
            b"mirror_requests_total{kind=",
            b'mirror_downloaded_bytes_total nan\nmirror_files_total{outcome="stored"} -3\n',
            b'mirror_downloaded_bytes_total{other="1"} 9\nmirror_run_in_progress{a="b"} 7\n',
            b'mirror_request_duration_seconds_bucket{kind="api",le="7"} 7\n',
            b"",
        ],
    )
    def test_an_earlier_file_that_makes_no_sense_is_replaced(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        ran(path, BytesReceived(bytes=5), Answered(kind="api", seconds=1, status=200))
        assert value(path, "downloaded_bytes_total") == 5
        assert value(path, "files_total", outcome="stored") == 0
        assert value(path, "request_duration_seconds_bucket", kind="api", le="+Inf") == 1

    def test_it_is_never_seen_half_written(self, path: Path) -> None:
        """A reader that looks all the time sees whole files only."""
        ran(path)
        whole = len(path.read_text().splitlines())
        script = (
            "import sys; from mirror.observers.metrics import Metrics; from mirror.events import *\n"
            "clock = iter(range(10**6)).__next__\n"
            f"m = Metrics({str(path)!r}, 1, clock)\n"
            "for _ in range(400): m(BytesReceived(bytes=1)); m._file.wait(30)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script])
        seen = 0
        while process.poll() is None or not seen:
            assert len(path.read_text().splitlines()) == whole
            seen += 1
        assert process.returncode == 0
        assert (value(path, "downloaded_bytes_total") or 0) > 300

    def test_labels_are_few_and_tell_nothing(self, archive: Archive, origin: Origin, path: Path) -> None:
        signature = "X-Amz-Signature=signature-5678"
        ids = [f"prompt-{number}" for number in range(20)]
        for prompt_id in ids:
            url = origin.add(f"/{prompt_id}.png?{signature}", media.png(), fault=faults.status(503))
            origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
        gone = origin.add(f"/gone.png?{signature}", media.png(), fault=faults.status(404, times=FOREVER))
        origin.prompt("gone", answer(task("gone", images=[(None, gone)])))

        archive.run("fetch", *ids, "gone", "none", environ={"MIRROR_METRICS_TEXTFILE": str(path)})

        text = path.read_text()
        for secret in (origin.token, "signature-5678", "prompt-", "http", "127.0.0.1", str(archive.root)):
            assert secret not in text
        labels = {label for _, labels in parsed(path) for label in labels}
        assert {name for name, _ in labels} == {"state", "outcome", "kind", "status", "cause", "le"}
        assert len(labels) < 50

    def test_sigterm(self, archive: Archive, origin: Origin, path: Path) -> None:
        large_prompt(origin, "p", media.mp4(1 << 20), faults.hold_after(1000))
        with running(archive, "fetch", "p", environ={"MIRROR_METRICS_TEXTFILE": str(path)}) as process:
            origin.wait_bytes("/p/", 1000)
            origin.wait_for(path.exists)  # it is written beside the run
            assert value(path, "run_in_progress") == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        assert (value(path, "run_in_progress"), value(path, "last_run_exit_code")) == (0, 143)
        assert value(path, "prompts_unfinished") == 1


class TestWhatCannotBe:
    def test_a_folder_that_is_missing_is_told_before_the_start(self, archive: Archive, tmp_path: Path) -> None:
        path = tmp_path / "no" / "mirror.prom"
        done = archive.run("fetch", "p", environ={"MIRROR_METRICS_TEXTFILE": str(path)})
        assert (done.code, done.err) == (2, f"mirror: [metrics] textfile: the folder {path.parent} does not exist\n")
        assert archive.origin.requests == []

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is no file, expected one"):
            Metrics(tmp_path)

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(ConfigError, match=r"pip install 'prompt-mirror\[metrics\]'"):
            Metrics(path)

    def test_a_folder_that_goes_away_costs_one_warning(self, archive: Archive, origin: Origin, path: Path) -> None:
        files = done_prompt(origin, "p", "one.png")
        large_prompt(origin, "q", media.mp4(1 << 20), faults.hold_after(1000))
        environ = {"MIRROR_METRICS_TEXTFILE": str(path), "MIRROR_METRICS_INTERVAL": "1ms"}
        with running(archive, "fetch", "p", "q", environ=environ) as process:
            origin.wait_bytes("/q/", 1000)
            for attempt in itertools.count():
                try:
                    path.parent.rename(path.parent.with_name("gone"))
                    break
                except OSError:
                    assert attempt < 100
            origin.release("/q/large.mp4")
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.count("cannot be written") == 1
        assert f"[metrics] textfile {path} cannot be written: No such file or directory" in err
        assert archive.files()["p/one.png"] == files["one.png"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_not_ours_costs_one_warning(self, archive: Archive, origin: Origin, path: Path) -> None:
        done_prompt(origin, "p", "one.png")
        path.parent.chmod(0o555)
        done = archive.run("fetch", "p", environ={"MIRROR_METRICS_TEXTFILE": str(path)})
        path.parent.chmod(0o755)
        assert (done.code, done.err.count("cannot be written")) == (0, 1)

    def test_a_dry_run_writes_nothing(self, archive: Archive, origin: Origin, path: Path) -> None:
        done_prompt(origin, "p", "one.png")
        assert archive.run("fetch", "p", "--dry-run", environ={"MIRROR_METRICS_TEXTFILE": str(path)}).code == 0
        assert not path.exists()
