"""`disk`: the small files on a real disk, durable when the command is over."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import duel
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import stage

_NOTES = (
    "The mirror's job is 50 promptIds with 100 each, durability = full: files are synced before a manifest names them.",
    "'then s' is `sync -f` after the peer. All is synced before each run, too.",
)


def run(options: Options) -> list[Section]:
    """5,000 × 20 KiB, written below `--disk`."""
    count, each = (100, 2) if options.quick else (5_000, 100)
    with stage() as at, tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=options.disk) as folder:
        job = at.job("disk", at.media("small", count, 20 << 10), each=each, durable=True)
        entries = duel.duel(
            job,
            duel.line_up(job, options),
            runs=options.times,
            folder=Path(folder),
            before=duel.synced,
            after=duel.synced,
        )
    verdicts = []
    if len(entries) > 1:
        verdicts = [Verdict("durable, of the fastest peer with sync", duel.verified(entries), 1.0)]
    return [duel.section("disk", f"disk: {job.media} over HTTP onto a disk, durable", entries, _NOTES, verdicts)]
