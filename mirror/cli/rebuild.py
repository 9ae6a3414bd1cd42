"""``mirror rebuild``: the catalog again, from the manifests."""

from __future__ import annotations

import asyncio

import click

from mirror import audit
from mirror.cli.common import settings_for
from mirror.custody import catalog_path
from mirror.errors import ConfigError, ExitCode
from mirror.stores.local import LocalStore


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.pass_context
def rebuild(ctx: click.Context, root: str | None) -> int:
    """Make the catalog again from the manifests, where it is lost or damaged."""
    settings = settings_for(ctx, {"root": root})
    store = LocalStore(settings)
    if not store.root.is_dir():
        raise ConfigError(f"{store.root}: there is no such folder; is --root right?")
    store.open()
    try:
        durable = settings.archive.durability == "full"
        done = asyncio.run(audit.rebuild(catalog_path(settings), store, durable=durable))
    finally:
        store.close()
    click.echo(f"{done.prompts} prompts came back from their manifests")
    for folder in done.unreadable:
        click.echo(f"{folder}: no manifest that can be read: its prompt is not in the catalog", err=True)
    click.echo("what cannot come back: failures of prompts without a manifest, and how often each was tried")
    return ExitCode.INCOMPLETE if done.unreadable else ExitCode.OK
