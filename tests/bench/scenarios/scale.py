"""`scale`: one, two and four workers on an origin bound by latency, which gives each so many requests at once."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.check import check_files, check_manifests
from tests.bench.measure import Ran, measured
from tests.bench.media import head
from tests.bench.nginx import INSTALL
from tests.bench.options import Options
from tests.bench.results import Bar, Section, Used, Verdict
from tests.bench.stage import Stage, stage
from tests.bench.tools import MIRROR, Job, mirror_command

_HEADER = ["workers", "requests at once", "wall s", "min-max", "CPU s", "peak MB", "files/s", "times one", "efficiency"]
_ASKED = 0.9


def run(options: Options) -> Iterator[Section]:
    """9,600 × 20 KiB, 0.2 s to the first byte, 32 requests at once for each worker."""
    files, each, workers = (64, 16, (1, 2)) if options.quick else (9_600, 32, (1, 2, 4))
    with stage() as at:
        if not at.origin.can_be_slow:
            print(f"scale is left out, nginx lacks its echo module: {INSTALL}")
            return
        job = at.job("scale", at.media("scale", files, 20 << 10), each=10, prefix="busy/")
        runs: dict[int, list[Ran]] = {count: [] for count in workers}
        for _ in range(options.times):
            for count in workers:
                runs[count].append(_one(at, job, count, each))
        yield _section(job, runs, each)


def _one(at: Stage, job: Job, count: int, each: int) -> Ran:
    with tempfile.TemporaryDirectory(prefix="run", dir=at.folder) as made:
        target = Path(made)
        ran = measured(mirror_command(job, target, *_flags(count, each)))
        check_files(target, job.media, {head(path): path for path in job.media.files})
        check_manifests(target, job.media.sha256())
        return ran


def _flags(count: int, each: int) -> tuple[str, ...]:
    return ("--processes", str(count), "--concurrency", str(each * count))


def _section(job: Job, runs: dict[int, list[Ran]], each: int) -> Section:
    walls = {count: statistics.median(ran.wall for ran in ran_so) for count, ran_so in runs.items()}
    one, most = walls[1], max(walls)
    rows = [
        [
            str(count),
            str(each * count),
            f"{walls[count]:.2f}",
            f"{min(ran.wall for ran in ran_so):.2f}-{max(ran.wall for ran in ran_so):.2f}",
            f"{statistics.median(ran.cpu for ran in ran_so):.2f}",
            f"{max(ran.peak for ran in ran_so):.0f}",
            f"{job.media.count / walls[count]:.0f}",
            f"{one / walls[count]:.2f}",
            f"{one / walls[count] / count:.0%}",
        ]
        for count, ran_so in runs.items()
    ]
    command = " ".join(["python -m mirror fetch -q --root TARGET -i ids.txt", *_flags(most, each)])
    return Section(
        "scale",
        f"scale: {job.media}, 0.2 s to the first byte",
        _HEADER,
        rows,
        [f"The mirror's job is {job.media.count // 10} promptIds with 10 each; {each} requests at once a worker."],
        [Verdict(f"efficiency of {most} workers", one / walls[most] / most, _ASKED, at_least=True)],
        [Used(f"mirror, {most} workers", MIRROR.told_version(), command)],
        [Bar(f"mirror, {count} workers", wall, ours=True) for count, wall in walls.items()],
    )
