"""``mirror fetch``: the main job."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import click

from mirror.cli.common import run_until_signal
from mirror.cli.inputs import input_flags, require_inputs
from mirror.cli.running import Command, RunFlags, prepared, run_flags
from mirror.client import Mirror
from mirror.run import Result
from mirror.sources.inputs import Opener, Reading, ids_of


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@input_flags
@run_flags
@click.pass_context
def fetch(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    inputs: tuple[str, ...],
    column: str | None,
    input_format: Any,
    **flags: Any,
) -> int:
    """Mirror prompts into the archive: every thumbnail and every original, verified, with a manifest.

    What is complete already costs no request; what was interrupted goes on where it stopped.
    """
    if not ids and not inputs:
        raise click.UsageError("give promptIds, or -i FILE, or -i - for stdin")
    settings, run = prepared(ctx, flags)
    require_inputs(inputs)
    reading = Reading(settings=settings, column=column, format=input_format)

    async def results(mirror: Mirror) -> AsyncGenerator[list[Result], None]:
        source = ids_of(
            ids, inputs, reading, on_bad_line=command.incomplete, observer=command.observe, opener=_opener(run)
        )
        async with (
            aclosing(source),
            aclosing(mirror.results(source, run.options, want_manifests=command.wants_manifests)) as found,
        ):
            async for come in found:
                yield come

    command = Command(settings, run, results)
    return run_until_signal(command.run, command.stopped)


def _opener(run: RunFlags) -> Opener | None:
    """Who opens inputs, where they are not read here."""
    if run.options.engine != "ray" or run.options.dry_run:
        return None
    from mirror.engines.ray.inputs import open_on_cluster  # noqa: PLC0415 - few runs have a cluster

    return open_on_cluster
