"""``mirror rebuild``: the catalog again, from the manifests."""

from __future__ import annotations

import click

from mirror import audit
from mirror.cli.common import open_disk, run_command, settings_for, wait_lock_flag
from mirror.client import catalog_path
from mirror.errors import ConfigError, ExitCode
from mirror.places import Places
from mirror.settings import Settings
from mirror.stores.local import LocalStore


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@wait_lock_flag
@click.pass_context
def rebuild(ctx: click.Context, root: str | None, wait_lock: float | None) -> int:
    """Make the catalog again from the manifests, where it is lost or damaged."""
    settings = settings_for(ctx, {"root": root})
    store = LocalStore(settings)
    if not store.root.is_dir():
        raise ConfigError(f"{store.root}: there is no such folder; is --root right?")
    return run_command(lambda: _rebuild(settings, store, wait_lock))


async def _rebuild(settings: Settings, store: LocalStore, wait_lock: float | None) -> ExitCode:
    try:
        await open_disk(Places(store, None, only_bucket=False), wait_lock)
        done = await audit.rebuild(catalog_path(settings), store, durable=settings.archive.durability == "full")
    finally:
        store.close()
    click.echo(f"{done.prompts} prompts came back from their manifests")
    for folder in done.unreadable:
        click.echo(f"{folder}: no manifest that can be read: its prompt is not in the catalog", err=True)
    click.echo("what cannot come back: failures of prompts without a manifest, and how often each was tried")
    return ExitCode.INCOMPLETE if done.unreadable else ExitCode.OK
