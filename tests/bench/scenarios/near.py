"""`large` and `small`: what a near origin gives as fast as it is taken, over HTTP and over TLS, into memory."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench import duel
from tests.bench.options import Options
from tests.bench.peers import able
from tests.bench.results import Section, Verdict
from tests.bench.stage import Stage, stage
from tests.bench.tools import MIRROR, Job


@dataclass(frozen=True)
class _Asked:
    """A table, and the ratios that it should show."""

    name: str
    title: str
    bare: float
    verified: float
    one_process: float = 0.0


_THEN = "'then s' is `sha256sum` on all cores over what the tool fetched; the mirror has hashed it already."
_LARGE = "The mirror's job is one promptId with all of them; durability = fast."
_SMALL = "The mirror's job is 50 promptIds with 100 each, from a file (`-i`); durability = fast."


def large(options: Options) -> list[Section]:
    """40 × 25 MiB."""
    count, size = (4, 2 << 20) if options.quick else (40, 25 << 20)
    with stage() as at:
        files = at.media("large", count, size)
        plain, tls = at.job("large", files, each=count), at.job("largetls", files, each=count, tls=True)
        return [
            _section(options, at, plain, _Asked("large", f"{files} over HTTP", 1.0, 0.5), [_LARGE, _THEN]),
            _section(options, at, tls, _Asked("large-tls", f"{files} over TLS", 1.0, 0.75), [_LARGE, _THEN]),
        ]


def small(options: Options) -> list[Section]:
    """5,000 × 20 KiB."""
    count = 100 if options.quick else 5_000
    with stage() as at:
        files = at.media("small", count, 20 << 10)
        plain, tls = (
            at.job(name, files, each=max(1, count // 50), tls=name != "small") for name in ("small", "smalltls")
        )
        return [
            _section(options, at, plain, _Asked("small", f"{files} over HTTP", 1.0, 0.75, 1.5), [_SMALL, _THEN]),
            _section(options, at, tls, _Asked("small-tls", f"{files} over TLS", 1.0, 0.75, 1.5), [_SMALL, _THEN]),
        ]


def _section(options: Options, at: Stage, job: Job, asked: _Asked, notes: list[str]) -> Section:
    entries = duel.duel(
        job, [MIRROR, *able(job, quick=options.quick)], runs=options.times, folder=at.folder, after=duel.hashed
    )
    verdicts = []
    if len(entries) > 1:
        verdicts = [
            Verdict("bare, of the fastest peer", duel.bare(entries), asked.bare),
            Verdict("verified, of the fastest peer with sha256sum", duel.verified(entries), asked.verified),
        ]
        if asked.one_process:
            verdicts.append(Verdict("bare, one process", duel.bare(entries), asked.one_process))
    return Section(
        asked.name,
        f"{asked.name}: {asked.title}",
        duel.HEADER,
        duel.rows(entries),
        notes,
        verdicts,
        duel.used(entries),
        duel.bars(entries),
    )
