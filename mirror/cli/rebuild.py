"""``mirror rebuild``: the catalog again, from the manifests."""

from __future__ import annotations

from typing import Any

import click

from mirror import audit
from mirror.cli.common import open_disk, require_root, run_command, s3_flags, settings_for, wait_lock_flag
from mirror.custody import catalog_of, catalog_path
from mirror.errors import ExitCode, StoreError
from mirror.observers.log import LogObserver
from mirror.observers.text import counted
from mirror.places import Places, open_places
from mirror.settings import Settings


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3-only", is_flag=True, default=None, help="From the bucket's manifests: nothing is kept here.")
@wait_lock_flag
@s3_flags
@click.pass_context
def rebuild(ctx: click.Context, /, root: str | None, wait_lock: float | None, **s3: Any) -> int:
    """Make the catalog again from the manifests, where it is lost or damaged."""
    settings = settings_for(ctx, {"root": root, **s3})
    places = open_places(settings)
    if places.wants_disk:
        require_root(places)
    return run_command(lambda: _rebuild(settings, places, wait_lock))


async def _rebuild(settings: Settings, places: Places, wait_lock: float | None) -> ExitCode:
    try:
        await open_disk(places, wait_lock)
        if settings.s3.catalog:
            async with catalog_of(settings, places, LogObserver(), anew=True):
                return ExitCode.OK
        done = await audit.rebuild(catalog_path(settings), places, durable=settings.archive.durability == "full")
        more = await _more_in_bucket(places)
    finally:
        await places.close()
    click.echo(f"{done.prompts} prompts came back from their manifests")
    for folder in done.unreadable:
        click.echo(f"{folder}: no manifest of its own that can be read: its prompt is not in the catalog", err=True)
    if more:
        click.echo(more, err=True)
    click.echo("what cannot come back: failures of prompts without a manifest, and how often each was tried")
    return ExitCode.INCOMPLETE if done.unreadable else ExitCode.OK


async def _more_in_bucket(places: Places) -> str:
    """A word on what is not on the disk, and so did not come back; nothing where there is nothing."""
    try:
        more = await places.only_in_bucket()
    except StoreError as error:
        return f"whether the bucket has more prompts is not known: {error}"
    if not more or places.bucket is None:
        return ""
    return (
        f"{places.bucket.shown} has {counted(more, 'folder')} that the disk has not: their prompts are not in the "
        "catalog. `mirror fetch` of their ids brings them back from there; where the bucket has all, so do "
        "`mirror rebuild --s3-only` and then `mirror verify --repair`"
    )
