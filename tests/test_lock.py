"""One run a root at a time, and ``--wait-lock``: to wait for the other one's end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror import FetchOptions, Mirror
from mirror.errors import Locked
from mirror.settings import FOREVER
from mirror.stores.lock import Lock
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored, running
from tests.origin import Origin

COMMANDS = [
    ("verify", "--repair"),
    ("cleanup",),
    ("forget", "q"),
    ("rebuild",),
]


@pytest.fixture
def holder(origin: Origin, archive: Archive) -> Iterator[subprocess.Popen[str]]:
    """A run that holds the root until /p/large.mp4 is released."""
    done_prompt(origin, "q", "a.png")
    assert mirrored(archive, "q").code == 0
    large_prompt(origin, "p", media.png(), faults.hold_after(10))
    with running(archive, "fetch", "p") as process:
        origin.wait_for(lambda: origin.count("/p/") == 1)
        yield process


def told(process: subprocess.Popen[str], holder: subprocess.Popen[str]) -> str:
    """The line that says for whom it waits."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert f"is in use by another run (pid {holder.pid} since 20" in line, line
    assert "waiting for its end" in line
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_who_does_not_wait_is_told_who_holds_it(
    holder: subprocess.Popen[str], archive: Archive, command: tuple[str, ...]
) -> None:
    for options in ((), ("--wait-lock=50ms",)):
        done = archive.run(*command, *options)
        assert done.code == 4, done.err
        assert f"is in use by another run (pid {holder.pid} since 20" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("value", ["--wait-lock", "--wait-lock=10m"])
def test_who_waits_goes_on_at_the_other_s_end(
    holder: subprocess.Popen[str], origin: Origin, archive: Archive, command: tuple[str, ...], value: str
) -> None:
    with running(archive, *command, value) as process:
        told(process, holder)
        origin.release("/p/large.mp4")
        assert holder.wait(60) == 0
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "in use" not in err  # told once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_signal_ends_the_wait(
    holder: subprocess.Popen[str], archive: Archive, command: tuple[str, ...], number: signal.Signals
) -> None:
    with running(archive, *command, "--wait-lock") as process:
        told(process, holder)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "Traceback" not in err
    assert holder.poll() is None


def test_the_holder_s_death_ends_the_wait(holder: subprocess.Popen[str], archive: Archive) -> None:
    with running(archive, "forget", "q", "--wait-lock") as process:
        told(process, holder)
        holder.kill()
        assert process.wait(60) == 0


def test_to_verify_and_a_dry_run_wait_for_nobody(holder: subprocess.Popen[str], archive: Archive) -> None:
    assert holder.poll() is None
    assert archive.run("verify", "q").code == 0
    assert archive.run("cleanup", "--dry-run").code == 0


def test_waiting_from_python(holder: subprocess.Popen[str], origin: Origin, archive: Archive) -> None:
    notes: list[str] = []

    async def fetch(wait: float | None) -> list[str]:
        async with Mirror(archive.settings(), observers=[lambda event: notes.append(str(event))]) as mirror:
            return [str(m.state) async for m in mirror.fetch(["q"], FetchOptions(wait_lock=wait))]

    async def release_when_told() -> None:
        while not any("waiting for its end" in note for note in notes):
            await asyncio.sleep(0.01)
        origin.release("/p/large.mp4")

    async def both() -> list[str]:
        states, _ = await asyncio.gather(fetch(FOREVER), release_when_told())
        return states

    for wait in (None, 0.0):
        with pytest.raises(Locked, match=rf"pid {holder.pid} since .*\(--wait-lock, wait_lock\)"):
            asyncio.run(fetch(wait))
    assert asyncio.run(both()) == ["complete"]


@pytest.fixture
def shared(origin: Origin, archive: Archive, tmp_path: Path) -> Archive:
    """Another root, whose catalog is that of the first one."""
    archive.environ["MIRROR_ARCHIVE_CATALOG"] = str(tmp_path / "shared" / "catalog.sqlite")
    other = Archive(tmp_path / "other", origin)
    (tmp_path / "link").symlink_to("shared")
    other.environ["MIRROR_ARCHIVE_CATALOG"] = str(tmp_path / "link" / "catalog.sqlite")
    other.root.mkdir()
    return other


def test_two_roots_never_write_one_catalog_at_the_same_time(
    shared: Archive, origin: Origin, archive: Archive, holder: subprocess.Popen[str]
) -> None:
    for command in (("fetch", "q"), *COMMANDS):
        done = shared.run(*command)
        assert done.code == 4, done.err
        assert "shared/catalog.sqlite is in use by another run" in done.err
        assert f"(pid {holder.pid} since 20" in done.err
        assert "Traceback" not in done.err
    assert shared.run("status").code == 0
    with running(shared, "fetch", "q", "--wait-lock") as process:
        told(process, holder)
        assert archive.run("cleanup").code == 4
        origin.release("/p/large.mp4")
        assert holder.wait(60) == 0
        assert process.wait(60) == 0
    assert [archive.run("cleanup").code, shared.run("cleanup").code] == [0, 0]


def test_a_forked_process_keeps_nobody_out(origin: Origin, archive: Archive) -> None:
    """As those of a ProcessPoolExecutor are: what it inherits holds no lock, and what it closes frees none."""
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    code = """
import os, mirror
settings = mirror.load_settings()
manifests = mirror.fetch(["p", "q"], settings)
next(manifests)
end, open_so_long = os.pipe()
if os.fork() == 0:
    os.close(open_so_long)
    os.read(end, 1)
    os._exit(0)
manifests.close()
print(mirror.fetch_one("q", settings).state)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=archive.environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=60)[0] == "complete\n"


def test_a_forked_process_frees_no_lock_that_it_did_not_take(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "the root")
    lock.take()
    lock.mark()
    child = os.fork()
    if child == 0:
        lock.release(unmark=True)
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(Locked, match=f"pid {os.getpid()} since"):
        Lock(tmp_path / "lock", "the root").take()
    lock.release(unmark=True)
    assert Lock(tmp_path / "lock", "the root").take() is False
