"""``mirror sync``: the nightly run, which finds its work by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import click

from mirror.cli.common import DURATION, Parsed, run_until_signal
from mirror.cli.running import Command, prepared, run_flags
from mirror.client import Mirror
from mirror.run import Result
from mirror.settings import SyncOptions
from mirror.times import parse_moment

MOMENT = Parsed("date", parse_moment)


@click.command()
@click.option("--since", type=MOMENT, help="Leave alone what was created before (2026-01-29; UTC).")
@click.option(
    "--give-up", type=DURATION, default="7d", help="Leave alone what stays unfinished so long; 0: never. [7d]"
)
@click.option("--max-prompts", type=click.IntRange(0), default=0, metavar="N", help="Take up so many at most.")
@run_flags
@click.pass_context
def sync(ctx: click.Context, /, since: float | None, give_up: float, max_prompts: int, **flags: Any) -> int:
    """Mirror what is new in the service's history, and go on with everything that is unfinished.

    What failed for good (404, unknown, failed upstream, given up) is left alone; --retry-failed takes it up again.
    Made for a timer: a run with nothing to do asks for one page of the history.
    """
    settings, run = prepared(ctx, flags)
    night = SyncOptions(since=since, give_up=give_up, max_prompts=max_prompts)

    def results(mirror: Mirror) -> AsyncGenerator[list[Result], None]:
        return mirror.results(night, run.options, want_manifests=command.wants_manifests)

    command = Command(settings, run, results)
    return run_until_signal(command.run, command.stopped)
