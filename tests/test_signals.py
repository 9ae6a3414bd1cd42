"""Runs that end before their work does: signals, a kill, a reader that goes away; and the bar on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, journaled, large_prompt, mirrored, running, sha256
from tests.origin import Origin

MIB = 1 << 20
LONG = 60.0
HELD = 2 * MIB + MIB // 2
"""Two batches, and a half that is in memory until the run is told to stop."""


@pytest.fixture
def body() -> bytes:
    return media.mp4(4 * MIB)


def resumed_whole(origin: Origin, archive: Archive, body: bytes, held: int) -> None:
    """The next run transfers what is missing and nothing else."""
    origin.clear()
    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    [request] = origin.media_requests
    assert (request.headers["range"], request.status, request.bytes_sent) == (f"bytes={held}-", 206, len(body) - held)
    [file] = archive.manifest("p")["files"]
    assert (file["bytes"], file["sha256"]) == (len(body), sha256(body))
    assert archive.files()["p/large.mp4"] == body
    assert archive.partials() == []


def has_result(archive: Archive, prompt_id: str) -> bool:
    """Whether the catalog has a result of the run that is under way, which has perhaps just made it."""
    path = archive.root / ".mirror" / "catalog.sqlite"
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as catalog:
        [count] = catalog.execute("SELECT count(run) FROM prompts WHERE prompt_id = ?", [prompt_id]).fetchone()
        return bool(count)
    return False


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_next_run_goes_on(
    origin: Origin, archive: Archive, body: bytes, sig: signal.Signals, code: int
) -> None:
    large_prompt(origin, "p", body, faults.hold_after(HELD))

    # Standard input is a pipe that stays open and silent; one prompt has failed already.
    with running(archive, "fetch", "unknown", "-i", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin
        origin.wait_for(lambda: has_result(archive, "unknown"))
        process.stdin.write("p\n")
        process.stdin.flush()
        origin.wait_for(lambda: journaled(archive) >= 2 * MIB)
        process.send_signal(sig)
        assert process.wait(LONG) == code
        assert process.stderr
        err = process.stderr.read()

    assert ("Traceback" in err, "1 unknown; 1 left for the next run" in err) == (False, True)
    assert not (archive.root / "p").exists()
    held = journaled(archive)
    # What had come over the wire and was not in the journal yet is written before the end.
    assert 2 * MIB <= held <= origin.body_bytes("/p/") == HELD
    resumed_whole(origin, archive, body, held)


def test_a_kill_loses_no_more_than_what_was_in_memory(origin: Origin, archive: Archive, body: bytes) -> None:
    large_prompt(origin, "p", body, faults.hold_after(HELD))

    with running(archive, "fetch", "p") as process:
        code = archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= 2 * MIB))

    assert code == -signal.SIGKILL
    assert archive.files() == {}
    held = journaled(archive)
    assert 2 * MIB <= held <= HELD
    resumed_whole(origin, archive, body, held)


def test_the_missing_bytes_are_sent_once_however_many_fetch_them(origin: Origin, archive: Archive, body: bytes) -> None:
    large_prompt(origin, "p", body, faults.hold_after(HELD))
    with running(archive, "fetch", "p") as process:
        archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= 2 * MIB))
    held = journaled(archive)

    origin.clear()
    assert mirrored(archive, "p", transfer_segment_size=256 << 10).code == 0

    assert len({request.connection for request in origin.media_requests}) > 1
    assert origin.body_bytes("/p/") == len(body) - held
    assert archive.files()["p/large.mp4"] == body


def test_bytes_that_the_disk_lost_after_a_kill_are_fetched_again(origin: Origin, archive: Archive, body: bytes) -> None:
    large_prompt(origin, "p", body, faults.hold_after(HELD))
    with running(archive, "fetch", "p") as process:
        archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= 2 * MIB))
    [partial] = (archive.root / ".mirror" / "parts").glob("*.part")
    with partial.open("r+b") as file:
        file.seek(MIB + MIB // 2)
        file.write(bytes(MIB))

    origin.clear()
    assert mirrored(archive, "p").code == 0

    [request] = origin.media_requests
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= MIB + MIB // 2
    assert archive.files()["p/large.mp4"] == body


def signals_until_the_end(process: subprocess.Popen[str]) -> int:
    """Send SIGINT again and again, and wait for the end; how many it took."""
    sent = 0
    while process.poll() is None and sent < 15:
        process.send_signal(signal.SIGINT)
        sent += 1
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2 if sent < 15 else LONG)
    return sent


def test_a_second_signal_ends_at_once(origin: Origin, archive: Archive, body: bytes) -> None:
    """Even where the first one has to wait for a disk that does not answer: here, a catalog that is held."""
    large_prompt(origin, "p", body, faults.hold_after(HELD))
    with running(archive, "fetch", "p") as process:
        origin.wait_for(lambda: journaled(archive) >= 2 * MIB)
        with closing(sqlite3.connect(archive.root / ".mirror" / "catalog.sqlite")) as holder:
            holder.execute("BEGIN IMMEDIATE")
            origin.release("/p/large.mp4")
            origin.wait_for((archive.root / "p" / "large.mp4").exists)
            time.sleep(0.5)  # now its row is to be written
            sent = signals_until_the_end(process)

    assert (process.returncode, sent >= 2) == (130, True)


def test_signals_end_a_run_whose_log_nobody_reads(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)

    with running(archive, "fetch", "p", "-v", stderr=write) as process:
        origin.wait_for((archive.root / ".mirror" / "catalog.sqlite").exists)
        signals_until_the_end(process)
        code = process.poll()
    os.close(read)
    os.close(write)

    assert code == 130


def test_a_reader_of_stdout_that_goes_away_ends_the_run(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.png(), faults.hold_after(10))
    read, write = os.pipe()

    with running(archive, "fetch", "p", "q", "--json", stdout=write) as process:
        os.close(write)
        with os.fdopen(read, "rb") as stdout:
            assert json.loads(stdout.readline())["prompt_id"] == "p"
        origin.release("/q/large.mp4")
        _, err = process.communicate(timeout=LONG)

    assert (process.returncode, "Traceback" in err, "Exception" in err) == (141, False, False)
    assert "the reader of the output went away" in err


def test_a_reader_that_goes_away_while_ids_are_left_is_told_of_nothing_else(archive: Archive, tmp_path: Path) -> None:
    """The file of ids, and all that reads it, is closed in order."""
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"n{number}\n" for number in range(3000)))

    with running(archive, "fetch", "-q", "-i", str(ids), "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(LONG) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_run_needs_no_streams(origin: Origin, archive: Archive, closed: str) -> None:
    done_prompt(origin, "p", "a.png")

    shell = ["sh", "-c", f'exec "$0" -m mirror fetch p --json {closed}', sys.executable]
    done = subprocess.run(shell, env={**os.environ, **archive.environ}, capture_output=True, timeout=LONG, check=False)

    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert archive.manifest("p")["state"] == "complete"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", [["fetch", "p", "--json"], ["status"]])
def test_an_output_that_takes_no_more_is_no_bug(origin: Origin, archive: Archive, command: list[str]) -> None:
    done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")

    with Path("/dev/full").open("wb") as full, running(archive, *command, stdout=full) as process:
        _, err = process.communicate(timeout=LONG)

    assert (process.returncode, "Traceback" in err, "No space left on device" in err) == (4, False, True)


class TestProgress:
    """The bar goes to a terminal only."""

    def shown_on_a_terminal(self, archive: Archive, *arguments: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        with running(archive, "fetch", "p", *arguments, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # how Linux tells that the other side of a terminal was closed
                while block := os.read(ours, 1 << 16):
                    shown += block
            os.close(ours)
            return process.wait(LONG), shown.decode()

    def test_a_bar_is_drawn_on_a_terminal(self, origin: Origin, archive: Archive) -> None:
        large_prompt(origin, "p", media.mp4(40_000), faults.trickle(16_000))  # fifty pieces, each of which may draw it

        code, shown = self.shown_on_a_terminal(archive)

        assert code == 0
        assert re.search(r"\r0/1 prompts, 0/1 files +\d+%\|.*of 39\.1 KiB", shown), shown
        assert shown.count("1 complete") == 1

    def test_none_where_it_is_not_wanted(self, origin: Origin, archive: Archive) -> None:
        done_prompt(origin, "p", "a.png")

        code, shown = self.shown_on_a_terminal(archive, "--no-progress")

        assert (code, "%|" in shown) == (0, False)

    def test_none_without_a_terminal(self, origin: Origin, archive: Archive) -> None:
        large_prompt(origin, "p", media.mp4(40_000), faults.trickle(200_000))

        done = archive.run("fetch", "p")

        assert (done.code, "%|" in done.err, "\r" in done.err, done.out) == (0, False, False, "")
