"""``mirror cleanup``: what interrupted runs left, on disk and in the bucket."""

from __future__ import annotations

import asyncio

import click

from mirror.catalog import Catalog
from mirror.cli.common import (
    DURATION,
    open_disk,
    require_root,
    run_command,
    s3_flags,
    settings_for,
    wait_lock_flag,
)
from mirror.custody import catalog_path, has_catalog
from mirror.errors import ExitCode
from mirror.observers.text import counted, size
from mirror.places import Places, open_places
from mirror.settings import Settings
from mirror.sweep import Swept, sweep

_WEEK = 7 * 86400.0


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option(
    "--older-than", type=DURATION, default=_WEEK, help="Remove partial files not touched for so long (7d; 0: all)."
)
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@wait_lock_flag
@s3_flags
@click.pass_context
def cleanup(
    ctx: click.Context,
    /,
    root: str | None,
    older_than: float,
    dry_run: bool,
    wait_lock: float | None,
    **s3: str,
) -> int:
    """Remove stale partial files; with a bucket, abort this archive's unfinished multipart uploads, too.

    Of uploads those go that this archive's journals name, and no others. The next fetch of these files starts over.
    Until then they could be resumed; left alone for good they take room, and in a bucket they cost money.
    """
    settings = settings_for(ctx, {"root": root, **s3})
    places = open_places(settings)
    require_root(places)
    return run_command(lambda: _cleanup(settings, places, older_than, wait_lock, dry_run=dry_run))


async def _cleanup(
    settings: Settings, places: Places, older_than: float, wait_lock: float | None, *, dry_run: bool
) -> ExitCode:
    path = catalog_path(settings)
    try:
        if not dry_run:
            await open_disk(places, wait_lock)
        if places.bucket is not None and not dry_run:
            await places.ready()
            click.echo(f"{counted(await places.bucket.cleanup(), 'multipart upload')} aborted")
        left = len(places.disk.disk.left(".upload"))
        catalog = await asyncio.to_thread(Catalog.open, path, mode="read") if has_catalog(settings) else None
        try:
            swept = await sweep(places.disk, catalog, older_than=older_than, dry_run=dry_run)
        finally:
            if catalog is not None:
                await catalog.close()
    finally:
        await places.close()
    _tell(swept, left, would="would be " if dry_run else "")
    return ExitCode.OK


def _tell(swept: Swept, uploads: int, *, would: str) -> None:
    click.echo(f"{counted(swept.files, 'partial file')} {would}removed, {size(swept.bytes)}")
    if swept.kept:
        click.echo(
            f"{counted(swept.kept, 'journal')} kept: the catalog does not have the file yet; the next fetch does"
        )
    if uploads:
        what = "would be aborted" if would else "left"
        click.echo(f"{counted(uploads, 'multipart upload')} {what} (of the bucket that was configured then)", err=True)
