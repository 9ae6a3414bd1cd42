"""``mirror fetch``: the main job."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

import click

from mirror.cli.common import run_until_signal
from mirror.cli.running import Command, prepared, run_flags
from mirror.client import Mirror
from mirror.errors import ConfigError
from mirror.run import Result
from mirror.sources.inputs import FORMATS, Reading, ids_of, is_local


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="FILE|-",
    help="Read ids from a file (text, .csv, .tsv, .jsonl, .parquet; .gz, .zst), from s3://BUCKET/KEY or - (stdin).",
)
@click.option("--column", metavar="NAME|N", help="Which column of a table holds the ids [promptId, prompt_id, id].")
@click.option("--input-format", type=click.Choice(FORMATS), help="The format of each -i, whatever its name says.")
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
    for name in inputs:
        if is_local(name) and not os.access(name, os.R_OK):
            raise ConfigError(f"-i {name}: cannot be read: is it there, and yours to read?")
    reading = Reading(settings=settings, column=column, format=input_format)

    def results(mirror: Mirror) -> AsyncGenerator[list[Result], None]:
        source = ids_of(ids, inputs, reading, on_bad_line=command.incomplete, observer=command.observe)
        return mirror.results(source, run.options, want_manifests=command.wants_manifests)

    command = Command(settings, run, results)
    return run_until_signal(command.run, command.stopped)
