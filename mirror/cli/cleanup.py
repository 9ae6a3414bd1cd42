"""``mirror cleanup``: abort the multipart uploads that interrupted runs left."""

from __future__ import annotations

import asyncio

import click

from mirror.cli.common import require_bucket, s3_flags, settings_for
from mirror.errors import ExitCode
from mirror.observers.text import counted
from mirror.places import open_places
from mirror.settings import Settings


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@s3_flags
@click.pass_context
def cleanup(ctx: click.Context, /, root: str | None, **s3: str) -> int:
    """Abort this archive's unfinished multipart uploads: those that its journals name, and no others.

    The next fetch of those files starts over. Until then they could be resumed; left alone for good they cost money.
    """
    settings = settings_for(ctx, {"root": root, **s3})
    require_bucket(settings)
    return asyncio.run(_cleanup(settings))


async def _cleanup(settings: Settings) -> int:
    places = open_places(settings)
    assert places.bucket is not None
    try:
        await asyncio.to_thread(places.disk.open)
        await places.ready()
        aborted = await places.bucket.cleanup()
    finally:
        await places.close()
    click.echo(f"{counted(aborted, 'multipart upload')} aborted")
    return ExitCode.OK
