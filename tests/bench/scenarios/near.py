"""`large` and `small`: what a near origin gives as fast as it is taken, over HTTP and over TLS, into memory."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import duel
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import Stage, stage
from tests.bench.tools import Job

_LARGE = "The mirror's job is one promptId with all of them; durability = fast."
_SMALL = "The mirror's job is 50 promptIds with 100 each, from a file (`-i`); durability = fast."


def large(options: Options) -> Iterator[Section]:
    """40 × 25 MiB."""
    count, size = (4, 2 << 20) if options.quick else (40, 25 << 20)
    with stage() as at:
        files = at.media("large", count, size)
        plain, tls = at.job("large", files, each=count), at.job("large-tls", files, each=count, tls=True)
        yield _section(options, at, plain, 0.5, _LARGE)
        yield _section(options, at, tls, 0.75, _LARGE)


def small(options: Options) -> Iterator[Section]:
    """5,000 × 20 KiB."""
    count, each = (100, 2) if options.quick else (5_000, 100)
    with stage() as at:
        files = at.media("small", count, 20 << 10)
        jobs = at.job("small", files, each=each), at.job("small-tls", files, each=each, tls=True)
        for job in jobs:
            yield _section(options, at, job, 0.75, _SMALL, one_process=1.5)


def _section(
    options: Options, at: Stage, job: Job, verified: float, shape: str, one_process: float | None = None
) -> Section:
    entries = duel.duel(job, duel.line_up(job, options), runs=options.times, folder=at.folder, after=duel.hashed)
    verdicts = []
    if len(entries) > 1:
        verdicts = [
            Verdict("bare, of the fastest peer", duel.bare(entries, spread=True), 1.0),
            Verdict("verified, of the fastest peer with sha256sum", duel.verified(entries, spread=True), verified),
        ]
        if one_process:
            verdicts.append(Verdict("bare, in one process", duel.bare(entries), one_process))
    title = f"{job.work.name}: {job.media} over {'TLS' if job.tls else 'HTTP'}"
    return duel.section(job.work.name, title, entries, [shape, duel.HASHED], verdicts)
