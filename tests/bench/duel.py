"""Tools side by side: one job, run by run in a changing order, each result checked, medians and ratios."""

from __future__ import annotations

import os
import shlex
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.check import check_files, check_manifests
from tests.bench.measure import Command, Failed, Ran, measured
from tests.bench.media import head
from tests.bench.options import Options
from tests.bench.peers import able
from tests.bench.results import Bar, Section, Used, Verdict
from tests.bench.tools import CHECKOUT, MIRROR, MIRROR_SPREAD, Job, Tool

_ENOUGH = 30.0
"""Seconds in all, after which a slow peer is not run again."""

HASHED = "'then s' is `sha256sum` on all cores over what the tool fetched; the mirror has hashed it already."

HEADER = ["tool", "wall s", "min-max", "CPU s", "peak MB", "bare", "then s", "verified", "runs"]
"""Of `rows`. ``bare`` and ``verified`` are the mirror's time as a share of that tool's."""


@dataclass
class Entry:
    """What a tool took, run by run.

    Attributes:
        after: Seconds of what followed each run: hashing, or syncing.
        failed: Why a run came to nothing; no other follows.
    """

    tool: Tool
    command: str
    runs: list[Ran] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    failed: str = ""

    @property
    def ours(self) -> bool:
        return self.tool.name == MIRROR.name

    @property
    def wall(self) -> float:
        return statistics.median(ran.wall for ran in self.runs)

    @property
    def cpu(self) -> float:
        return statistics.median(ran.cpu for ran in self.runs)

    @property
    def verified(self) -> float:
        """Seconds of a run with what followed it, the median; the mirror needs nothing to follow."""
        return statistics.median(ran.wall + more for ran, more in zip(self.runs, self.after, strict=True))


After = Callable[[Path, int], float]
"""What follows a peer's run into a folder with so many files; its seconds."""


def line_up(job: Job, options: Options) -> list[Tool]:
    """The mirror, in one process and for small files also in two, and the peers that can do the job."""
    ours = [MIRROR, MIRROR_SPREAD] if job.small else [MIRROR]
    return [*ours, *able(job, quick=options.quick)]


def duel(
    job: Job,
    tools: Sequence[Tool],
    *,
    runs: int,
    folder: Path,
    before: After | None = None,
    after: After | None = None,
) -> list[Entry]:
    """Have each tool do the job so often, into folders of its own below ``folder``.

    Args:
        before: What precedes every run.
        after: What follows a peer's run, and is timed.

    A peer that fails is told, and not run again.

    Raises:
        Wrong: a result is not what the origin has.
        Failed: the mirror did.
    """
    sources, digests = {head(path): path for path in job.media.files}, job.media.sha256()
    entries = [Entry(tool, shown(tool.command(job, folder), job, folder)) for tool in tools]
    for turn in range(runs):
        for entry in _order(entries, turn):
            if entry.failed or (not entry.ours and sum(ran.wall for ran in entry.runs) > _ENOUGH):
                continue
            with tempfile.TemporaryDirectory(prefix="run", dir=folder) as made:
                target = Path(made)
                if before:
                    before(target, job.media.count)
                try:
                    entry.runs.append(measured(entry.tool.command(job, target)))
                except Failed as error:
                    if entry.ours:
                        raise
                    entry.failed = str(error).strip()
                    continue
                entry.after.append(after(target, job.media.count) if after and not entry.ours else 0.0)
                check_files(target, job.media, sources)
                if entry.ours:
                    check_manifests(target, digests)
    for entry in entries:
        if entry.failed:
            print(f"{entry.tool} failed at {job.work.name}: {entry.failed}")
    return [entry for entry in entries if entry.runs]


def _order(entries: list[Entry], turn: int) -> Iterable[Entry]:
    """Another one first each time, and backwards every other time."""
    turned = entries[turn % len(entries) :] + entries[: turn % len(entries)]
    return reversed(turned) if turn % 2 else turned


def hashed(folder: Path, count: int) -> float:
    """Take the SHA-256 of everything with ``sha256sum`` on all cores; seconds."""
    cores = os.cpu_count() or 1
    each = max(1, count // (cores * 8))
    script = f"find . -type f -print0 | xargs -0 -P {cores} -n {each} sha256sum > /dev/null"
    return measured(Command(["sh", "-c", script], folder)).wall


def synced(folder: Path, count: int) -> float:
    """Have the file system write everything to the disk; seconds."""
    return measured(Command(["sync", "-f", "."], folder)).wall


# What came of it --------------------------------------------------------------------------------


def rows(entries: Sequence[Entry]) -> list[list[str]]:
    """A row a tool under `HEADER`, the fastest first."""
    ours = next((entry for entry in entries if entry.ours), None)
    return [_row(entry, ours) for entry in sorted(entries, key=lambda entry: (not entry.ours, entry.wall))]


def _row(entry: Entry, ours: Entry | None) -> list[str]:
    walls = [ran.wall for ran in entry.runs]
    peer = ours is not None and not entry.ours
    followed = peer and any(entry.after)
    return [
        str(entry.tool),
        f"{entry.wall:.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{entry.cpu:.2f}",
        f"{max(ran.peak for ran in entry.runs):.0f}",
        f"{ours.wall / entry.wall:.2f}" if ours and peer else "",
        f"{statistics.median(entry.after):.2f}" if followed else "",
        f"{ours.wall / entry.verified:.2f}" if ours and followed else "",
        f"{len(walls)}{' (then failed)' if entry.failed else ''}",
    ]


def bare(entries: Sequence[Entry], variant: str = "", *, spread: bool = False) -> float:
    """The mirror's time as a share of the fastest peer's; of those of one variant only, where it is given.

    That of one process, or with ``spread`` the best of ours.
    """
    return _ours(entries, spread=spread) / min(
        e.wall for e in entries if not e.ours and e.tool.variant in (variant or e.tool.variant,)
    )


def verified(entries: Sequence[Entry], *, spread: bool = False) -> float:
    """As :func:`bare`, of the fastest peer's with what follows it."""
    return _ours(entries, spread=spread) / min(entry.verified for entry in entries if not entry.ours)


def _ours(entries: Sequence[Entry], *, spread: bool) -> float:
    walls = [entry.wall for entry in entries if entry.ours]
    return min(walls) if spread else walls[0]


def section(
    name: str, title: str, entries: Sequence[Entry], notes: Iterable[str], verdicts: Sequence[Verdict]
) -> Section:
    """All of it as a section."""
    return Section(name, title, HEADER, rows(entries), list(notes), list(verdicts), used(entries), bars(entries))


def bars(entries: Sequence[Entry]) -> list[Bar]:
    """For the plot."""
    return [Bar(str(entry.tool), entry.wall, entry.ours) for entry in entries]


def used(entries: Sequence[Entry]) -> list[Used]:
    """Versions and commands."""
    return [Used(str(entry.tool), entry.tool.told_version(), entry.command) for entry in entries]


def shown(command: Command, job: Job, target: Path) -> str:
    """A command as a reader would type it: no folder or port of this run, and no search path of this machine."""
    environ = {name: value for name, value in command.environ.items() if name != "PATH"}
    words = [*(f"{name}={value}" for name, value in environ.items()), *command.argv]
    text = shlex.join(words)
    for place, name in (
        (f"{job.work}/", ""),
        (str(job.ca_file), "ca.pem"),
        (str(target), "DIR"),
        (job.origin.https, "https://localhost:PORT"),
        (job.origin.http, "http://127.0.0.1:PORT"),
        (f"{CHECKOUT}/", ""),
    ):
        text = text.replace(place, name)
    program = command.argv[0]
    return text.replace(program, Path(program).name, 1) if "/" in program else text
