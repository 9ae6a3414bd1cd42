"""`hashing`: what SHA-256 costs, and what comparing an MD5 ETag costs beside it."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replace_struct

from tests.bench import duel, media, nginx
from tests.bench.measure import Command
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import Stage
from tests.bench.tools import CHECKOUT, MIRROR, Job, mirror_command

_NOTES = (
    "One promptId with all of them; durability = fast. 'bare' is the usual mirror's time as a share of that row's.",
    "'MD5 ETag': the origin answers as S3 does, and the mirror compares each file's MD5 with its ETag.",
)


def run(options: Options) -> list[Section]:
    """40 × 25 MiB by the mirror as it is, without SHA-256, and with MD5 as well."""
    count, size = (4, 2 << 20) if options.quick else (40, 25 << 20)
    with tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=media.memory_folder()) as name:
        folder = Path(name)
        files = media.make(folder / "origin" / "www" / "large", count, size)
        tags = {f"large/{path.name}": hashlib.md5(path.read_bytes()).hexdigest() for path in files.files}
        with nginx.origin(folder / "origin", tags) as served:
            at = Stage(folder, served)
            job = at.job("hashing", files, each=count)
            tagged = at.job("hashing-md5", files, each=count, prefix="md5/")
            without = replace(MIRROR, name="mirror without SHA-256", command=_unhashed)
            with_md5 = replace(
                MIRROR, name="mirror with MD5 ETag", command=lambda _, target: mirror_command(tagged, target)
            )
            entries = duel.duel(job, [MIRROR, without, with_md5], runs=options.times, folder=folder)
    wall = {entry.tool.name: entry.wall for entry in entries}
    cpu = {entry.tool.name: entry.cpu for entry in entries}
    verdicts = [Verdict("wall with SHA-256, of that without", wall[MIRROR.name] / wall[without.name], 1.15)]
    md5 = with_md5.name
    told = (
        f"SHA-256 adds {cpu[MIRROR.name] / cpu[without.name] - 1:.0%} to the CPU time. "
        f"The MD5 adds {wall[md5] / wall[MIRROR.name] - 1:.0%} to the wall time, "
        f"{cpu[md5] / cpu[MIRROR.name] - 1:.0%} to the CPU time."
    )
    section = duel.section("hashing", f"hashing: {job.media} over HTTP", entries, [*_NOTES, told], verdicts)
    return [replace_struct(section, bars=[])]


def _unhashed(job: Job, target: Path) -> Command:
    usual = mirror_command(job, target)
    return Command([sys.executable, "-m", "tests.bench.unhashed", *usual.argv[3:]], CHECKOUT, usual.environ)
