"""Streams that stall, take no more or are read by nobody, and other poor places to start a command from."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mirror.cli import system_needed
from mirror.errors import StoreUnavailable
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored, running, tree
from tests.origin import Origin

FULL = Path("/dev/full")
ROOM = 4096
"""Bytes that a small pipe holds."""

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full, and pipes of one size only")


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams as Python has them by itself."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A small pipe, which nobody reads."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, ROOM)
    yield read, write
    for fd in (read, write):
        os.close(fd)


@pytest.fixture
def gone() -> Iterator[int]:
    """A pipe's end for writing, whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def waiting(pipe: int) -> int:
    """How many bytes stand in it unread."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def two_prompts(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    mirrored(archive, "p", "q")
    origin.clear()


def known(archive: Archive) -> int:
    """How many prompts are in the catalog."""
    with contextlib.closing(sqlite3.connect(archive.root / ".mirror" / "catalog.sqlite")) as catalog:
        return int(catalog.execute("SELECT count(*) FROM prompts").fetchone()[0])


@pytest.mark.parametrize(("command", "sig", "code"), [("fetch", signal.SIGTERM, 143), ("verify", signal.SIGINT, 130)])
def test_a_signal_ends_a_command_whose_results_nobody_reads(
    origin: Origin, archive: Archive, pipe: tuple[int, int], command: str, sig: signal.Signals, code: int
) -> None:
    ids = [f"p{number}" for number in range(12)]
    for prompt_id in ids:
        done_prompt(origin, prompt_id, "a.png")
    mirrored(archive, *ids)
    for number in range(40):
        (archive.root / "p0" / f"{number:0200}").touch()
    read, write = pipe

    with running(archive, command, "--json", *ids, stdout=write) as process:
        origin.wait_for(lambda: waiting(read) > ROOM // 2)
        process.send_signal(sig)
        assert process.wait(60) == code

    lines = os.read(read, ROOM).splitlines(keepends=True)
    assert [line for line in lines if not line.endswith(b"\n")] == []


def test_a_reader_that_does_not_want_its_writer_to_wait_has_everything(archive: Archive, pipe: tuple[int, int]) -> None:
    """Who shares the pipe has made it non-blocking, as some shells and node.js do."""
    whole = archive.run("schema", "config").out
    assert len(whole) > 2 * ROOM
    read, write = pipe
    os.set_blocking(write, False)

    with running(archive, "schema", "config", stdout=write) as process:
        got = b""
        while process.poll() is None or waiting(read):
            got += os.read(read, 1000) if waiting(read) else b""
            time.sleep(0.001)
    assert (process.returncode, got.decode()) == (0, whole)


class TestStdoutTakesNoMore:
    """Where nobody reads it: 141. Where it is full: 4, and a line that says so. All is done nevertheless."""

    def ended(self, archive: Archive, command: Sequence[str], stdout: Any) -> tuple[int, str]:
        with running(archive, *command, stdout=stdout) as process:
            _, err = process.communicate(timeout=60)
        return process.returncode, err

    @pytest.mark.parametrize("command", ["--help", "cleanup", "forget p q"])
    def test_nobody_reads_it(self, origin: Origin, archive: Archive, gone: int, command: str) -> None:
        two_prompts(origin, archive)

        assert self.ended(archive, command.split(), gone) == (141, "")
        assert known(archive) == (0 if "forget" in command else 2)

    @pytest.mark.parametrize("command", ["--version", "rebuild", "forget p q"])
    def test_it_is_full(self, origin: Origin, archive: Archive, command: str) -> None:
        two_prompts(origin, archive)

        with FULL.open("wb") as full:
            code, err = self.ended(archive, command.split(), full)

        assert (code, err) == (4, "mirror: stdout cannot be written to: No space left on device\n")
        assert known(archive) == (0 if "forget" in command else 2)

    def test_a_run_goes_on(self, origin: Origin, archive: Archive) -> None:
        done_prompt(origin, "p", "a.png")
        large_prompt(origin, "q", media.mp4(60_000), faults.trickle(100_000))

        with FULL.open("wb") as full:
            code, err = self.ended(archive, ["fetch", "--json", "p", "q"], full)

        assert (code, "exit code   4" in err) == (4, True)
        assert [archive.manifest(prompt_id)["state"] for prompt_id in ("p", "q")] == ["complete"] * 2


def test_a_log_that_cannot_be_written_changes_no_exit_code(origin: Origin, archive: Archive, gone: int) -> None:
    done_prompt(origin, "p", "a.png")

    with FULL.open("wb") as full, running(archive, "fetch", "p", stderr=full) as process:
        assert process.wait(60) == 0
    with running(archive, "fetch", "unknown", stderr=gone) as process:
        assert process.wait(60) == 3


class TestSummary:
    """--summary overwrites nothing of the archive's, waits for nobody, and is looked at before anything starts."""

    @pytest.mark.parametrize("place", ["archive/.mirror/new", "link"])
    def test_not_within_the_archive(self, origin: Origin, archive: Archive, place: str) -> None:
        two_prompts(origin, archive)
        Path("link").symlink_to(archive.root / "p" / "manifest.json")
        before = archive.files()

        with running(archive, "fetch", "p", "--refresh", "--summary", place) as process:
            _, err = process.communicate(timeout=60)

        assert (process.returncode, archive.files() == before, origin.requests) == (2, True, [])
        assert f"--summary {place}" in err

    def test_a_pipe_that_nobody_reads_is_told_and_not_waited_for(self, origin: Origin, archive: Archive) -> None:
        done_prompt(origin, "p", "a.png")
        os.mkfifo("pipe")

        with running(archive, "fetch", "p", "--summary", "pipe") as process:
            _, err = process.communicate(timeout=60)

        assert (process.returncode, archive.manifest("p")["state"]) == (4, "complete")
        assert f"--summary pipe: cannot be written: {os.strerror(errno.ENXIO)}" in err

    def test_a_pipe_that_is_read(self, origin: Origin, archive: Archive) -> None:
        done_prompt(origin, "p", "a.png")
        os.mkfifo("pipe")
        reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # it is there before the run is

        with os.fdopen(reader, "rb") as pipe, running(archive, "fetch", "p", "--summary", "pipe") as process:
            assert process.wait(60) == 0
            assert json.loads(pipe.read())["exit_code"] == 0


def test_a_relative_root_in_a_folder_that_is_gone(archive: Archive) -> None:
    shell = ["sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$0" -m mirror rebuild --root here', sys.executable]

    done = subprocess.run(shell, env=archive.environment(), capture_output=True, timeout=60, check=False, text=True)

    assert (done.returncode, "archive.root here is relative" in done.stderr) == (2, True), done.stderr


def test_names_are_written_as_utf_8_or_not_at_all(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    done = archive.run("fetch", "p", environ={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})

    assert (done.code, origin.requests, "set PYTHONUTF8=1" in done.err) == (2, [], True)
    assert not archive.root.exists()


def no_room_for_a_stack() -> None:
    """From the next program on, each thread asks for more memory than there may be."""
    resource.setrlimit(resource.RLIMIT_STACK, (16 << 30, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY, reason="stacks are limited here"
)
@pytest.mark.parametrize("command", ["fetch p", "verify"])
def test_a_system_that_starts_no_thread(origin: Origin, archive: Archive, command: str) -> None:
    two_prompts(origin, archive)
    before = tree(archive.root)

    with running(archive, *command.split(), preexec_fn=no_room_for_a_stack) as process:
        _, err = process.communicate(timeout=60)

    assert (process.returncode, "Traceback" in err) == (4, False), err
    assert "no more threads can be started: raise the limit (ulimit -u" in err
    assert tree(archive.root) == before


def test_an_interrupt_while_modules_are_imported_is_silent(archive: Archive, tmp_path: Path) -> None:
    told = tmp_path / "imports"
    told.mkdir()
    (told / "click.py").write_text("import os, time\nos.write(1, b'here')\nfor _ in range(300):\n    time.sleep(0.1)\n")
    paths = [str(told), *filter(None, [os.environ.get("PYTHONPATH")])]

    not_ignored = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # as it is where tests run in the background
    environ = {"PYTHONPATH": os.pathsep.join(paths)}
    with running(archive, "status", environ=environ, preexec_fn=not_ignored) as process:
        assert process.stdout
        assert process.stdout.read(4) == "here"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (130, "")


def test_a_system_that_gives_no_memory() -> None:
    with pytest.raises(StoreUnavailable, match="no more memory can be had: raise the limit") as told, system_needed():
        bytearray(1 << 60)
    assert told.value.exit_code == 4
    with pytest.raises(StoreUnavailable, match="no more memory"), system_needed():
        raise ExceptionGroup("several tasks", [MemoryError()])
