"""`far`: an origin as an object store is, with 30 ms to the first byte and 80 MiB/s a connection."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import duel
from tests.bench.nginx import INSTALL
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import stage

_SHAPES = {
    "far-small": (3_000, 20 << 10, 100, "The mirror's job is 30 promptIds with 100 each, at its defaults but fast."),
    "far-large": (20, 50 << 20, 20, "The mirror's job is one promptId with all of them, at its defaults but fast."),
}
_QUICK = {"far-small": (60, 20 << 10, 20), "far-large": (3, 2 << 20, 3)}
_FAR = "30 ms to the first byte, 80 MiB/s a connection. `best` here is what was best for this origin."


def run(options: Options) -> Iterator[Section]:
    """3,000 × 20 KiB and 20 × 50 MiB."""
    with stage() as at:
        if not at.origin.can_be_slow:
            print(f"far is left out, nginx lacks its echo module: {INSTALL}")
            return
        for name, (*usual, shape) in _SHAPES.items():
            count, size, each = _QUICK[name] if options.quick else usual
            job = at.job(name, at.media(name, count, size), each=each, prefix="far/")
            tools = duel.line_up(job, options)
            entries = duel.duel(job, tools, runs=options.times, folder=at.folder, after=duel.hashed)
            verdicts = []
            if len(entries) > 1:
                verdicts = [
                    Verdict("bare, of the best default", duel.bare(entries, "default"), 0.25),
                    Verdict("bare, of the best tuned", duel.bare(entries), 0.9),
                ]
            yield duel.section(name, f"{name}: {job.media}", entries, [_FAR, shape, duel.HASHED], verdicts)
