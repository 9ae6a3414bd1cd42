"""One run of a command: wall seconds, CPU seconds and peak memory of it and of all processes that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_EVERY = 0.02
"""Seconds between two looks at the memory, at most; the first ones come sooner."""
_FOREIGN = re.compile(r"(?i)^(mirror_|aws_|python|pip_)|_proxy$")
"""Variables that would change what is measured."""


@dataclass(frozen=True)
class Command:
    """What is run, where, and with which variables beside PATH and its like."""

    argv: Sequence[str]
    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What a run took. ``wall`` and ``cpu`` in seconds; ``peak`` in MB, summed over its processes."""

    wall: float
    cpu: float
    peak: float


class Failed(Exception):
    """The command's exit code was not 0, or it took too long. Says what it printed last."""


def measured(command: Command, *, timeout: float = 300) -> Ran:
    """Run to the end.

    Args:
        timeout: Seconds after which it is killed.

    Raises:
        Failed: see there.
    """
    with tempfile.TemporaryFile() as output:
        since = time.monotonic()
        process = start(command, output)
        watch = os.pidfd_open(process.pid)
        try:
            peak = _watch(process.pid, watch, since + timeout)
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            stop(process)
            raise
        finally:
            os.close(watch)
        wall = time.monotonic() - since
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            told = output.read()[-2000:].decode("utf-8", "replace")
            raise Failed(f"{command.argv[0]}: exit code {process.returncode} after {wall:.1f} s\n{told}")
    return Ran(wall, used.ru_utime + used.ru_stime, peak)


def start(command: Command, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Begin a run, in a process group of its own; what it prints goes into a file."""
    inherited = {name: value for name, value in os.environ.items() if not _FOREIGN.search(name)}
    return subprocess.Popen(
        command.argv,
        cwd=command.cwd,
        env={**inherited, **command.environ},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a run with all its processes, as if the power of that machine failed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _watch(pid: int, pidfd: int, until: float) -> float:
    """The peak of the tree's memory until its end; a child's ru_maxrss would count ours, from before its exec."""
    peaks: dict[int, float] = {}
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    since = time.monotonic()
    while not ended.poll(min(_EVERY, 0.001 + (time.monotonic() - since) / 4) * 1000):
        for each in _tree(pid):
            with contextlib.suppress(OSError):
                told = Path(f"/proc/{each}/status").read_bytes()
                found = re.search(rb"VmHWM:\s+(\d+) kB", told)
                peaks[each] = int(found[1]) / 1024 if found else peaks.get(each, 0)
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
    return sum(peaks.values())


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            yield from _tree(int(child))
