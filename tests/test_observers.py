"""What observers make of events: counts, a bar on a real terminal, log records that keep secrets."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import TextIO
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import Gone
from mirror.events import (
    BytesReceived,
    Event,
    FileFailed,
    FilePlanned,
    FileSized,
    FileStored,
    HookFinished,
    HookOutcome,
    Noted,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
    RequestSent,
    Retrying,
    RunFinished,
    RunStarted,
)
from mirror.models import Failure, PromptState, Role, Summary
from mirror.observers.log import LogObserver, configure
from mirror.observers.progress import Progress
from mirror.observers.redact import Redactor
from mirror.observers.tally import Tally, render
from mirror.observers.text import counted, duration, one_line, size

URL = "https://media.example/a.mp4"
TOKEN = "t0k3n/+ with \"quotes\" & 'more'"


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def started(prompt_id: str = "p") -> Event:
    return PromptStarted(prompt_id=prompt_id)


def planned(prompt_id: str = "p", url: str = URL) -> Event:
    return FilePlanned(prompt_id=prompt_id, url=url, role=Role.ORIGIN)


def sized(length: int, held: int = 0, prompt_id: str = "p", url: str = URL) -> Event:
    return FileSized(prompt_id=prompt_id, url=url, bytes=length, held=held)


def stored(length: int, reused: bool = False, prompt_id: str = "p", url: str = URL) -> Event:
    return FileStored(prompt_id=prompt_id, url=url, path=f"{prompt_id}/a.mp4", bytes=length, reused=reused)


def failed(prompt_id: str = "p", message: str = "HTTP 404") -> Event:
    return FileFailed(prompt_id=prompt_id, failure=Failure(error="Gone", message=message, url=URL, attempts=2))


def finished(
    state: PromptState = PromptState.COMPLETE,
    ok: bool = True,
    prompt_id: str = "p",
    reused: int = 0,
    errors: tuple[Failure, ...] = (),
) -> Event:
    return PromptFinished(prompt_id=prompt_id, state=state, ok=ok, files=1, bytes_reused=reused, errors=errors)


def told(*events: Event) -> Tally:
    tally = Tally(Clock())
    for event in events:
        tally(event)
    return tally


class TestTally:
    def test_a_run_is_summed_up(self) -> None:
        tally = told(
            RunStarted(run_id="r1", root="archive", started_at="2026-01-29T13:54:20Z"),
            finished(prompt_id="old", reused=70),
            started("p"),
            RequestSent(kind="api"),
            planned("p"),
            RequestSent(kind="media"),
            sized(100, held=40),
            BytesReceived(bytes=35),
            Retrying(what=URL, cause="Truncated", message="75 of 100 bytes", attempt=1, seconds=0.5),
            BytesReceived(bytes=25),
            stored(100),
            finished(),
            started("q"),
            stored(100, reused=True, prompt_id="q"),
            failed("q"),
            finished(PromptState.PARTIAL, ok=False, prompt_id="q", reused=5),
            RunFinished(seconds=2.5, exit_code=4, fatal="Full: no room is left", unfinished=7),
        )
        assert tally.summary() == Summary(
            run_id="r1",
            started_at="2026-01-29T13:54:20Z",
            seconds=2.5,
            exit_code=4,
            prompts={"partial": 1, "complete": 2},
            unfinished=7,
            files=2,
            files_failed=1,
            bytes_downloaded=60,
            bytes_reused=70 + 40 + 100 + 5,
            requests=2,
            retries={"Truncated": 1},
            fatal="Full: no room is left",
        )

    def test_what_this_run_downloaded_is_not_reused_by_its_own_retry(self) -> None:
        tally = told(started(), sized(100, held=40), BytesReceived(bytes=30), sized(100, held=70))
        assert (tally.bytes_reused, tally.bytes_resumed, tally.bytes_known) == (40, 40, 100)

    def test_a_partial_that_was_dropped_is_not_reused(self) -> None:
        tally = told(started(), sized(100, held=40), sized(120, held=0), BytesReceived(bytes=120), stored(120))
        assert (tally.bytes_reused, tally.bytes_known, tally.bytes_downloaded) == (0, 120, 120)

    def test_a_file_whose_length_nobody_told_counts_once_stored(self) -> None:
        assert told(started(), planned(), BytesReceived(bytes=9), stored(9)).bytes_known == 9

    def test_before_its_end_a_run_claims_no_success(self) -> None:
        clock = Clock()
        tally = Tally(clock)
        tally(RunStarted(run_id="r", root=".", started_at="2026-01-29T13:54:20Z"))
        clock.now += 3
        assert (tally.summary().exit_code, tally.summary().seconds) == (3, 3.0)

    @pytest.mark.parametrize(
        ("events", "count"),
        [
            ([failed(), failed(), finished(PromptState.PARTIAL, ok=False)], 2),
            ([finished(PromptState.FAILED, ok=False)], 1),
            ([finished(PromptState.UNKNOWN, ok=False)], 1),
            ([finished(PromptState.UNKNOWN, ok=True)], 0),
            ([finished(PromptState.PENDING, ok=False)], 0),
        ],
    )
    def test_what_is_a_failure(self, events: list[Event], count: int) -> None:
        assert told(started(), *events).failed == count

    def test_known_prompts_are_those_done_and_those_under_way(self) -> None:
        tally = told(finished(prompt_id="skipped"), started("a"), started("b"), started("b"), finished(prompt_id="a"))
        assert (tally.prompts_done, tally.prompts_known) == (2, 3)


class TestRender:
    def test_everything(self) -> None:
        summary = Summary(
            run_id="r",
            started_at="2026-01-29T13:54:20Z",
            seconds=200,
            exit_code=4,
            prompts={"partial": 2, "complete": 37},
            unfinished=5,
            files=96,
            files_failed=3,
            bytes_downloaded=1 << 30,
            bytes_reused=3 << 20,
            bytes_uploaded=2048,
            bytes_copied=1,
            requests=152,
            retries={"Unavailable": 3, "Truncated": 1},
            fatal="Unauthorized: no\nsuch token",
        )
        assert render(summary).splitlines() == [
            "prompts     39: 2 partial, 37 complete; 5 left for the next run",
            "files       96 stored, 3 failed",
            "downloaded  1.0 GiB in 3 min 20 s, 5.1 MiB/s",
            "reused      3.0 MiB",
            "uploaded    2.0 KiB",
            "copied      1 B within the store",
            "requests    152, 4 tried again: Unavailable 3, Truncated 1",
            "exit code   4, the run had to stop",
            "stopped by  Unauthorized: no\\nsuch token",
        ]

    def test_what_is_zero_is_left_out(self) -> None:
        summary = Summary(run_id="r", started_at="", seconds=0, exit_code=0, prompts={})
        assert render(summary).splitlines() == [
            "prompts     0",
            "files       0 stored",
            "downloaded  0 B in 0.0 s",
            "requests    0",
            "exit code   0, all that was asked for is mirrored",
        ]


class TestText:
    @pytest.mark.parametrize(
        ("count", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 39, "1.5 TiB"),
            (1 << 60, "1024.0 PiB"),
        ],
    )
    def test_size(self, count: int, text: str) -> None:
        assert size(count) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min"), (100_000, "1 d 3 h")],
    )
    def test_duration(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text

    def test_counted(self) -> None:
        assert (counted(1, "file"), counted(0, "file")) == ("1 file", "0 files")

    @given(st.text())
    def test_one_line_is_one_line_and_can_be_written(self, text: str) -> None:
        assert len(one_line(text).splitlines()) <= 1
        one_line(text).encode()


@contextmanager
def terminal(columns: int = 100) -> Iterator[tuple[TextIO, FileIO]]:
    """A terminal to write to, and the side on which it is seen."""
    seen, shown = pty.openpty()
    fcntl.ioctl(shown, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with FileIO(seen) as side, io.TextIOWrapper(FileIO(shown, "w"), encoding="utf-8", write_through=True) as file:
        yield file, side


def look(file: TextIO, seen: FileIO) -> str:
    """What has come to the terminal until now."""
    file.write("END")
    file.flush()
    got = b""
    while not got.endswith(b"END"):
        got += seen.read(65536)
    return got.decode().removesuffix("END")


class TestProgress:
    def test_the_line_says_how_far_the_run_is(self) -> None:
        clock = Clock()
        with terminal() as (file, seen):
            progress = Progress(file, clock)
            for event in (started("q"), failed("q"), started(), planned(), planned(url="u2"), sized(4096, held=1024)):
                progress(event)
            progress(BytesReceived(bytes=1024))
            clock.now += 1
            progress(finished(prompt_id="q"))
            last = look(file, seen).rstrip().rsplit("\r", 1)[-1]
            progress.close()
        assert last.startswith("1/2 prompts, 0/2 files  50%|")
        assert re.search(r"\| 2\.0 KiB of 4\.0 KiB, .*/s, 1 failed$", last)

    def test_it_is_cleared_at_the_end_and_closing_twice_does_nothing(self) -> None:
        with terminal() as (file, seen):
            progress = Progress(file)
            progress(RunFinished(seconds=1, exit_code=0))
            progress.close()
            progress.close()
            assert re.search(r"\r +\r$", look(file, seen))
            progress(RunFinished(seconds=1, exit_code=0))
            assert progress.write("after") == 5
            assert look(file, seen) == "after\r\n"

    def test_log_lines_pass_over_the_bar(self) -> None:
        with terminal() as (file, seen):
            progress = Progress(file)
            look(file, seen)
            progress.write("a line\n")
            shown = look(file, seen)
            progress.close()
        assert re.search(r"\r +\ra line\r\n\r0/0 prompts", shown)

    def test_it_is_drawn_ten_times_a_second_at_most(self) -> None:
        clock = Clock()
        screen = io.StringIO()
        progress = Progress(screen, clock)
        for _ in range(1000):
            clock.now += 0.001
            progress(BytesReceived(bytes=1))
        assert 9 <= screen.getvalue().count("prompts") - 1 <= 10
        progress.close()

    def test_more_bytes_than_known_are_no_trouble(self) -> None:
        clock = Clock()
        screen = io.StringIO()
        progress = Progress(screen, clock)
        for event in (started(), sized(10, held=8), BytesReceived(bytes=5), sized(10, held=0), BytesReceived(bytes=9)):
            clock.now += 1
            progress(event)
        assert "14 B of 14 B" in screen.getvalue()
        progress.close()

    def test_a_terminal_without_a_size(self) -> None:
        with terminal(columns=0) as (file, seen):
            progress = Progress(file)
            assert len(look(file, seen).strip()) == 79
            progress.close()

    def test_a_terminal_that_went_away_ends_no_run(self) -> None:
        with terminal() as (file, seen):
            progress = Progress(file)
            seen.close()
            with pytest.raises(OSError, match="Input/output"):
                file.write("x")
            progress(RunFinished(seconds=1, exit_code=0))
            progress.close()
            Progress(file).close()

    @pytest.mark.parametrize("error", [BrokenPipeError("gone"), ValueError("I/O operation on closed file")])
    def test_a_stream_that_cannot_be_written_ends_no_run(self, error: Exception) -> None:
        class Stream(io.StringIO):
            broken = False

            def write(self, text: str) -> int:
                if self.broken:
                    raise type(error)(*error.args)  # one that is kept would keep the bar
                return super().write(text)

        stream = Stream()
        progress = Progress(stream)
        stream.broken = True
        progress(RunFinished(seconds=1, exit_code=0))
        progress.close()
        Progress(stream)(RunFinished(seconds=1, exit_code=0))

    def test_it_starts_no_thread(self) -> None:
        before = threading.enumerate()
        progress = Progress(io.StringIO())
        assert [thread for thread in threading.enumerate() if thread not in before] == []
        progress.close()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the logger ``mirror`` writes, configured as text on debug until a test says otherwise."""
    logger = logging.getLogger("mirror")
    before = list(logger.handlers), logger.level, logger.propagate
    stream = io.StringIO()
    configure("text", "debug", stream)
    yield stream
    logger.handlers, logger.level, logger.propagate = before
    logger.setLevel(logger.level)  # forgets what levels were looked up


def lines(stream: io.StringIO) -> list[str]:
    """The log's lines without the time."""
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


GONE = Failure(error="Gone", message="HTTP 404", url=URL, attempts=1)
RETRYING = Retrying(what=URL, cause="Unavailable", message="HTTP 503", attempt=1, seconds=1.0)


class TestLogObserver:
    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (RunStarted(run_id="r1", root="x", started_at=""), "info     run r1 started, mirroring to x"),
            (RunFinished(seconds=12, exit_code=3), "info     run finished after 12 s, exit code 3"),
            (RunFinished(seconds=1, exit_code=4, fatal="Full"), "error    run stopped, exit code 4: Full"),
            (started(), "debug    prompt p: taken up"),
            (
                PromptWaiting(prompt_id="p", seconds=9),
                "info     prompt p: has not ended upstream, asked again in 9.0 s",
            ),
            (finished(), "debug    prompt p: complete, 1 file"),
            (
                PromptFinished(
                    prompt_id="p", state=PromptState.COMPLETE, ok=True, files=2, bytes_reused=1, skipped=True
                ),
                "debug    prompt p: complete, 2 files, was there already",
            ),
            (
                finished(PromptState.PARTIAL, ok=False, errors=(GONE,) * 5),
                f"warning  prompt p: partial, 1 file: {'; '.join([f'{URL}: HTTP 404 (Gone)'] * 3)}; and 2 more",
            ),
            (
                finished(PromptState.UNKNOWN, ok=False, errors=(Failure(error="NoData", message="code 900"),)),
                "warning  prompt p: unknown, 1 file: code 900 (NoData)",
            ),
            (stored(2048), "debug    stored p/a.mp4, 2.0 KiB"),
            (stored(2048, reused=True), "debug    linked p/a.mp4, 2.0 KiB"),
            (failed(), f"warning  file of prompt p failed: {URL}: HTTP 404 (Gone, 2 attempts)"),
            (RETRYING, f"debug    Unavailable: {URL}: HTTP 503; tried again in 1.0 s"),
            (
                Retrying(what="p", cause="ApiUnavailable", message="510", attempt=2, seconds=1.0),
                "info     ApiUnavailable: p: 510; tried again in 1.0 s",
            ),
            (
                Retrying(what="p", cause="ApiUnavailable", message="510", attempt=1, seconds=60.0),
                "info     ApiUnavailable: p: 510; tried again in 1 min 0 s",
            ),
            (Noted(level="info", message="50% %s"), "info     50% %s"),
            (Noted(level="warning", message="hm"), "warning  hm"),
        ],
    )
    def test_an_event_is_a_line(self, log: io.StringIO, event: Event, line: str) -> None:
        LogObserver()(event)
        assert lines(log) == [line]

    @pytest.mark.parametrize("event", [BytesReceived(bytes=1), RequestSent(kind="api"), planned(), sized(1)])
    def test_some_are_none(self, log: io.StringIO, event: Event) -> None:
        LogObserver()(event)
        assert lines(log) == []

    def test_waiting_is_told_once_a_prompt(self, log: io.StringIO) -> None:
        observer = LogObserver()
        for prompt_id in "aab":
            observer(PromptWaiting(prompt_id=prompt_id, seconds=1))
        assert [line.split()[0] for line in lines(log)] == ["info", "debug", "info"]

    def test_what_is_not_to_be_shown_is_not(self, log: io.StringIO) -> None:
        configure("text", "warning", log)
        observer = LogObserver()
        for event in (started(), finished(), failed()):
            observer(event)
        assert len(lines(log)) == 1

    def test_the_heartbeat(self, log: io.StringIO) -> None:
        configure("text", "info", log)
        clock = Clock()
        observer = LogObserver(heartbeat=30.0, clock=clock)
        for event in (started("a"), started("b"), stored(5 << 20, prompt_id="a"), finished(prompt_id="a")):
            observer(event)
        clock.now += 29.9
        observer(BytesReceived(bytes=5 << 20))
        assert lines(log) == []
        clock.now += 0.1
        observer(BytesReceived(bytes=1 << 20))
        observer(BytesReceived(bytes=1 << 20))
        assert lines(log) == ["info     1 of 2 prompts, 1 file, 6.0 MiB, 0 failed"]
        clock.now += 60
        observer(BytesReceived(bytes=1))
        observer(BytesReceived(bytes=1))
        assert len(lines(log)) == 2

    def test_no_heartbeat(self, log: io.StringIO) -> None:
        clock = Clock()
        observer = LogObserver(heartbeat=None, clock=clock)
        clock.now += 1000
        observer(BytesReceived(bytes=1))
        assert lines(log) == []

    def test_json_carries_what_is_known(self, log: io.StringIO) -> None:
        configure("json", "debug", log)
        observer = LogObserver()
        for event in (RunStarted(run_id="r1", root="x", started_at=""), RETRYING, failed()):
            observer(event)
        first, second, third = records(log)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(first.pop("time")))
        assert first == {"level": "info", "message": "run r1 started, mirroring to x", "run_id": "r1"}
        known = {"level": "debug", "run_id": "r1", "url": URL, "cause": "Unavailable", "attempt": 1}
        assert known.items() <= second.items()
        assert "prompt_id" not in second
        assert (third["prompt_id"], third["error"], third["attempt"], third["level"]) == ("p", "Gone", 2, "warning")

    def test_json_names_the_prompt_wherever_one_is_meant(self, log: io.StringIO) -> None:
        configure("json", "debug", log)
        observer = LogObserver()
        retrying = Retrying(what=URL, cause="Truncated", message="m", attempt=3, seconds=1, prompt_id="p")
        hook = HookFinished(prompt_id="p", outcome=HookOutcome.OK, message="ended well", output="one\ntwo\n")
        for event in (RunStarted(run_id="r1", root="x", started_at=""), retrying, hook):
            observer(event)
        observer(Noted(level="warning", message="of one prompt", prompt_id="p"))
        observer(Noted(level="warning", message="of none"))
        logging.getLogger("mirror.elsewhere").warning("by somebody else")
        _, retried, *hooks, noted, general, other = records(log)
        assert {"prompt_id": "p", "url": URL, "cause": "Truncated", "attempt": 3}.items() <= retried.items()
        assert [(each["prompt_id"], each["level"]) for each in hooks] == [("p", "debug")] * 3
        assert (noted["prompt_id"], "prompt_id" in general) == ("p", False)
        assert {each["run_id"] for each in records(log)} == {"r1"}
        assert other["message"] == "by somebody else"


class TestConfigure:
    def test_twice_replaces_and_others_handlers_stay(self, log: io.StringIO) -> None:
        logger = logging.getLogger("mirror")
        other = logging.NullHandler()
        logger.addHandler(other)
        second = io.StringIO()
        handler = configure("text", "info", second)
        logger.info("once")
        assert lines(log) == []
        assert lines(second) == ["info     once"]
        assert handler in logger.handlers
        assert other in logger.handlers

    def test_nothing_goes_to_the_root_logger(self, log: io.StringIO) -> None:
        root = io.StringIO()
        handler = logging.StreamHandler(root)
        logging.getLogger().addHandler(handler)
        logging.getLogger("mirror.http").warning("from %s", "below")
        logging.getLogger().removeHandler(handler)
        assert lines(log) == ["warning  from below"]
        assert root.getvalue() == ""

    def test_what_a_library_warns_of_looks_like_the_rest(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An illegal cookie's name, for one, which older versions of aiohttp quote."""
        former, stream = logging.lastResort, io.StringIO()
        try:
            configure("json", "info", stream, [TOKEN])
            logging.getLogger("aiohttp.internal").warning("Can not load cookies: Illegal cookie name %r", TOKEN)
            logging.getLogger("botocore.hooks").debug("Event %s", TOKEN)
        finally:
            logging.lastResort = former
        (record,) = records(stream)
        assert (record["level"], record["message"]) == ("warning", "Can not load cookies: Illegal cookie name '***'")
        assert capsys.readouterr() == ("", "")

    def test_stderr_unless_told(self, log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
        configure()
        logging.getLogger("mirror").info("here")
        out, err = capsys.readouterr()
        assert (out, err.endswith("info     here\n")) == ("", True)

    def test_a_progress_bar_is_a_stream(self, log: io.StringIO) -> None:
        screen = io.StringIO()
        progress = Progress(screen)
        configure("text", "info", progress)
        logging.getLogger("mirror").info("over the bar")
        assert screen.getvalue().count("over the bar\n") == 1
        progress.close()

    def test_a_stream_that_cannot_be_written_ends_nothing(
        self, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        closed = io.StringIO()
        closed.close()
        configure("text", "info", closed)
        logging.getLogger("mirror").info("lost")
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_one_record_is_one_line(self, log: io.StringIO, log_format: str) -> None:
        configure("json" if log_format == "json" else "text", "info", log)
        hostile = "a\r\n12:00:00 error forged\x1b[2J\x85\u2028\u202e\x9b\ud800 ü" + "x" * 10_000
        logging.getLogger("mirror").info("%s", hostile, extra={"url": hostile})
        written = log.getvalue()
        assert len(written.splitlines()) == 1
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]", written)
        assert "ü" in written
        if log_format == "json":
            message = str(records(log)[0]["message"])
            assert message.startswith("a\r\n12:00:00 error forged\x1b[2J\x85\u2028\u202e\x9b\\ud800 ü")
            assert len(message) < 5000

    def test_a_tracebacks_lines_cannot_pass_for_records(self, log: io.StringIO) -> None:
        try:
            raise Gone("HTTP 404\n12:00:00 error    forged")
        except Gone:
            logging.getLogger("mirror").exception("a bug")
        first, *below = log.getvalue().splitlines()
        assert first.endswith("error    a bug")
        assert below[0] == "    | Traceback (most recent call last):"
        assert below[-1] == "    | 12:00:00 error    forged"
        assert all(line.startswith("    | ") for line in below)

    def test_json_holds_the_traceback(self, log: io.StringIO) -> None:
        configure("json", "info", log)
        try:
            raise Gone("HTTP 404")
        except Gone:
            logging.getLogger("mirror").exception("a bug", stack_info=True)
        (record,) = records(log)
        assert record["error"] == "Gone"
        assert "Gone: HTTP 404" in str(record["traceback"])
        assert "Stack (most recent call last)" in str(record["traceback"])


SIGNED = [
    "X-Amz-Signature", "x-amz-credential", "X-Goog-Signature", "Signature", "Expires", "Policy", "Key-Pair-Id", "sig",
    "token", "AWSAccessKeyId", "GoogleAccessId", "access_token", "X-Amz-Security-Token",
]  # fmt: skip


class TestRedactor:
    @pytest.mark.parametrize("name", SIGNED)
    @pytest.mark.parametrize("spelled", [str, str.upper, str.lower])
    def test_signatures_in_urls(self, name: str, spelled: type[str]) -> None:
        redact = Redactor().redact
        name = spelled(name)
        for value in ("s3cr3t", "s3%2Fcr3t+/=='", "(s3cr3t)"):
            for text in (f"GET {URL}?a=1&{name}={value}&b=2 failed", f"URL('{URL}?{name}={value}&b=2')"):
                assert "cr3t" not in redact(text)
                assert f"{name}=***" in redact(text)
                assert "&b=2" in redact(text)
        inside = quote(f"{URL}?a=1&{name}=s3cr3t&b=2", safe="")
        assert "s3cr3t" not in redact(f"https://proxy.example/?url={inside}&c=3")
        assert "s3cr3t" not in redact(f"https://proxy.example/?url={quote(inside)}&c=3")
        assert "c=3" in redact(f"https://proxy.example/?url={inside}&c=3")

    @pytest.mark.parametrize("text", [f"{URL}?width=100&page=2", "se=1 is no query", "designed=yes", "a%20b", "x@y"])
    def test_other_text_stays(self, text: str) -> None:
        assert Redactor(["", TOKEN]).redact(text) == text

    def test_passwords_in_urls(self) -> None:
        assert Redactor().redact("via http://me:s3cr3t@proxy:3128/ now") == "via http://***@proxy:3128/ now"

    def test_a_secret_that_contains_another(self) -> None:
        assert Redactor(["abc", "abcdef"]).redact("abcdef abc") == "*** ***"

    @given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8), around=st.text())
    def test_no_spelling_of_a_secret_is_left(self, secret: str, around: str) -> None:
        redact = Redactor([secret]).redact
        spellings = (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1])
        for spelling in spellings:
            assert spelling not in redact(f"{around}{spelling}{around}").replace("***", "\0")

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_nothing_of_a_record_shows_a_secret(self, log: io.StringIO, log_format: str) -> None:
        configure("json" if log_format == "json" else "text", "info", log, [TOKEN])
        logger = logging.getLogger("mirror.api")
        logger.info("sent %s", TOKEN, extra={"url": f"{URL}?sig=s3cr3t", "cause": ValueError(TOKEN)})
        try:
            try:
                raise KeyError(f"{URL}?Signature=s3cr3t")
            except KeyError as error:
                raise Gone(f"no {TOKEN}") from error
        except Gone:
            logger.exception("bug with %r", TOKEN)
        written = log.getvalue()
        assert "t0k3n" not in written
        assert "s3cr3t" not in written
        assert "sent ***" in written
        assert "Signature=***" in written

    def test_a_record_that_cannot_be_formatted_passes(self) -> None:
        record = logging.LogRecord("mirror", logging.INFO, "", 0, "%d things", ("many",), None)
        assert Redactor().filter(record)
        assert record.getMessage() == "%d things"

    def test_a_later_handler_sees_no_secret_either(self, log: io.StringIO) -> None:
        kept: list[logging.LogRecord] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                kept.append(record)

        configure("text", "info", log, [TOKEN])
        logging.getLogger("mirror").addHandler(Keep())
        try:
            raise Gone(TOKEN)
        except Gone:
            logging.getLogger("mirror").exception("%s", TOKEN)
        assert (kept[0].getMessage(), kept[0].exc_info) == ("***", None)
        assert "***" in (kept[0].exc_text or "")


def test_the_package_costs_no_import_of_tqdm() -> None:
    program = "import sys, mirror.observers.progress, mirror.observers.log; sys.exit('tqdm' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
