"""`resume`: a large file breaks off at 90 %. What counts is what is read from the network once more."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.stores.journal import Claim, journal_of
from tests.bench import duel
from tests.bench.check import Wrong, check_files
from tests.bench.measure import Command, Ran, measured, start, stop
from tests.bench.media import head
from tests.bench.options import Options
from tests.bench.results import Section, Used, Verdict
from tests.bench.stage import stage
from tests.bench.tools import MIRROR, Job, Tool, mirror_command, on_path

_PART = 0.9
_MIB = 1 << 20
_PATIENCE = 120
_HEADER = ["tool", "here MiB", "missing MiB", "read then MiB", "of the missing", "wall s"]

Begin = Callable[[Job, Path], Command]
"""A tool's command for a job, with what is in the target already."""


def _aria2(job: Job, target: Path) -> Command:
    careful = ["--file-allocation=none", "--auto-save-interval=1"]
    return Command(["aria2c", "--no-conf", "-q", "-c", *careful, "-d", str(target), job.urls[0]], target)


def _curl(job: Job, target: Path) -> Command:
    return Command(["curl", "-q", "-sS", "--fail", "-C", "-", "-O", job.urls[0]], target)


def _wget2(job: Job, target: Path) -> Command:
    return Command(["wget2", "--no-config", "-q", "-c", job.urls[0]], target)


_PEERS: tuple[tuple[str, tuple[str, ...], Begin], ...] = (
    ("aria2c", ("--version",), _aria2),
    ("curl", ("--version",), _curl),
    ("wget2", ("--version",), _wget2),
)


@dataclass(frozen=True)
class _Resumed:
    """Bytes that were here at the kill, bytes that the origin sent afterwards, and what the second run took."""

    here: int
    sent: int
    ran: Ran


def run(options: Options) -> list[Section]:
    """One file of 1 GiB."""
    size = (32 if options.quick else 1024) * _MIB
    rows, used, verdicts = [], [], []
    with stage() as at:
        job = at.job("resume", at.media("one", 1, size), each=1, prefix="counted/")
        for tool, begin in _tools():
            with tempfile.TemporaryDirectory(prefix="run", dir=at.folder) as made:
                target = Path(made)
                found = _broken(job, target, begin)
                shown = duel.shown(begin(job, target), job, target)
            missing = size - found.here
            share = found.sent / missing
            told = [found.here / _MIB, missing / _MIB, found.sent / _MIB, share, found.ran.wall]
            rows.append([tool.name, *(f"{value:,.2f}" if value < 10 else f"{value:,.0f}" for value in told)])
            used.append(Used(tool.name, tool.told_version(), shown))
            if tool.name == MIRROR.name:
                verdicts.append(Verdict("bytes read, of those that were missing", share, 1.0))
    notes = [
        f"The origin gives 64 MiB/s a connection. Each is killed (SIGKILL) when {_PART:.0%} is written, and run again.",
        "'here' is what the mirror's journal claims; of others it is what they wrote.",
        "'read then' is what the origin sent to the second run, as its log has it.",
    ]
    return [Section("resume", f"resume: {job.media}, broken off", _HEADER, rows, notes, verdicts, used)]


def _tools() -> list[tuple[Tool, Begin]]:
    ours: list[tuple[Tool, Begin]] = [(MIRROR, mirror_command)]
    peers = (
        (replace(MIRROR, name=name, program=on_path(name), version=version), begin) for name, version, begin in _PEERS
    )
    return ours + [(tool, begin) for tool, begin in peers if tool.program()]


def _broken(job: Job, target: Path, begin: Begin) -> _Resumed:
    with tempfile.TemporaryFile() as output:
        process = start(begin(job, target), output)
        until = time.monotonic() + _PATIENCE
        while _written(target) < _PART * job.media.size and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        ended = process.poll() is not None
        stop(process)
    here = _claimed(target) or _written(target)
    if ended or here >= job.media.size:
        raise Wrong(f"{process.args!r} ended before it could be killed")
    time.sleep(0.2)  # the origin writes its log when it sees the connection go
    before = job.origin.sent()
    ran = measured(begin(job, target))
    check_files(target, job.media, {head(path): path for path in job.media.files})
    return _Resumed(here, job.origin.sent() - before, ran)


def _written(folder: Path) -> int:
    """Bytes that stand on the disk: of a file with holes, those beside the holes."""
    stats = [path.stat() for path in folder.rglob("*") if path.suffix in (".png", ".part", ".partial")]
    return max((min(stat.st_size, stat.st_blocks * 512) for stat in stats), default=0)


def _claimed(root: Path) -> int:
    """Bytes that the mirror's journals claim."""
    journals = (journal_of(path) for path in (root / ".mirror" / "parts").glob("*.journal"))
    return sum(record.stop - record.start for each in journals for record in each.read() if isinstance(record, Claim))
