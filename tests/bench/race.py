"""Tools side by side where the result is in a bucket: run by run, each with an empty store of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.duel import Entry, shown
from tests.bench.measure import Command, measured
from tests.bench.stores import ENVIRON, Sink, Told, sink
from tests.bench.tools import MIRROR, Job, Tool, mirror_command

Into = Callable[[Job, Path, str], Command]
"""What is run for a job, in an empty folder, into the store at an endpoint."""

_ENDPOINT = "http://127.0.0.1:SINK"


@dataclass(frozen=True)
class Racer:
    """A tool and how it is run. ``tool.command`` is only for showing."""

    tool: Tool
    into: Into


def racer(tool: Tool, into: Into) -> Racer:
    """``tool`` without a command, and the command."""
    return Racer(replace(tool, command=lambda job, folder: into(job, folder, _ENDPOINT)), into)


def mirror(*flags: str) -> Racer:
    """``mirror fetch`` into the bucket, with the flags."""

    def into(job: Job, folder: Path, endpoint: str) -> Command:
        made = mirror_command(job, folder, "--s3", "s3://bench/archive", "--s3-endpoint", endpoint, *flags)
        return replace(made, environ={**made.environ, **ENVIRON})

    return racer(MIRROR, into)


_ENOUGH = 60.0
"""Seconds in all, after which a slow peer is not run again."""

Check = Callable[[Path, Told], None]
"""Raises Wrong where the folder and the store are not as they should be after a run."""

Prepare = Callable[[Sink], None]


def race(
    job: Job,
    racers: Sequence[Racer],
    *,
    runs: int,
    folder: Path,
    check: Check,
    prepare: Prepare = lambda _: None,
) -> tuple[list[Entry], dict[str, Told]]:
    """Have each do the job so often; also what the store told after each tool's last run.

    Raises:
        Wrong: see ``check``.
    """
    entries = [Entry(each.tool, shown(each.tool.command(job, folder), job, folder)) for each in racers]
    told: dict[str, Told] = {}
    for turn in range(runs):
        pairs = [*zip(entries, racers, strict=True)]
        pairs = pairs[turn % len(pairs) :] + pairs[: turn % len(pairs)]
        for entry, each in reversed(pairs) if turn % 2 else pairs:
            if not entry.ours and sum(ran.wall for ran in entry.runs) > _ENOUGH:
                continue
            with sink(folder, job.media.folder) as store, tempfile.TemporaryDirectory(prefix="run", dir=folder) as made:
                prepare(store)
                before = store.told()
                entry.runs.append(measured(each.into(job, Path(made), store.endpoint), timeout=900))
                entry.after.append(0.0)
                after = store.told()
                check(Path(made), after)
                moved = (after.received - before.received, after.sent - before.sent)
                told[str(entry.tool)] = replace(after, received=moved[0], sent=moved[1])
    return entries, told
