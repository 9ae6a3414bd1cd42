"""``mirror fetch``: the main job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import Any

import click

from mirror.cli.common import run_until_signal
from mirror.cli.running import Command, prepared, run_flags
from mirror.client import Mirror
from mirror.errors import ConfigError
from mirror.run import Result
from mirror.sources import Batch
from mirror.sources.args import from_iterable
from mirror.sources.file import from_file
from mirror.sources.stdin import from_stdin


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-i", "--input", "inputs", multiple=True, metavar="FILE|-", help="Read ids, one a line; - is stdin.")
@run_flags
@click.pass_context
def fetch(ctx: click.Context, /, ids: tuple[str, ...], inputs: tuple[str, ...], **flags: Any) -> int:
    """Mirror prompts into the archive: every thumbnail and every original, verified, with a manifest.

    What is complete already costs no request; what was interrupted goes on where it stopped.
    """
    if not ids and not inputs:
        raise click.UsageError("give promptIds, or -i FILE, or -i - for stdin")
    settings, run = prepared(ctx, flags)
    for name in inputs:
        if name != "-" and not os.access(name, os.R_OK):
            raise ConfigError(f"-i {name}: cannot be read: is it there, and yours to read?")

    def results(mirror: Mirror) -> AsyncGenerator[Result, None]:
        source = _source(ids, inputs, command.incomplete)
        return mirror.results(source, run.options, want_manifests=command.wants_manifests)

    command = Command(settings, run, results)
    return run_until_signal(command.run, command.stopped)


async def _source(
    ids: tuple[str, ...], inputs: tuple[str, ...], on_bad_line: Callable[[str], None]
) -> AsyncGenerator[Batch, None]:
    """The ids of the command line first, then those of each input in turn."""
    sources = [from_iterable(ids)] if ids else []
    sources += [
        from_stdin(on_bad_line=on_bad_line) if name == "-" else from_file(name, on_bad_line=on_bad_line)
        for name in inputs
    ]
    for source in sources:
        async with contextlib.aclosing(source):
            async for batch in source:
                yield batch
