"""``mirror forget``: remove prompts from the catalog."""

from __future__ import annotations

import asyncio

import click

from mirror import audit
from mirror.catalog import Catalog
from mirror.cli.common import prompt_ids, s3_flags, settings_for
from mirror.custody import catalog_path
from mirror.errors import ConfigError, ExitCode
from mirror.models import PromptId
from mirror.observers.text import one_line
from mirror.places import open_places
from mirror.settings import Settings


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option(
    "--delete", is_flag=True, help="Delete manifest and files, too, wherever they are. This cannot be undone."
)
@s3_flags
@click.pass_context
def forget(ctx: click.Context, /, ids: tuple[str, ...], root: str | None, delete: bool, **s3: str) -> int:
    """Remove prompts from the catalog; a later fetch starts from what is on disk then."""
    settings = settings_for(ctx, {"root": root, **s3})
    if not catalog_path(settings).exists():
        raise ConfigError(f"{catalog_path(settings)}: there is no catalog; is --root right?")
    return asyncio.run(_forget(settings, prompt_ids(ids), delete=delete))


async def _forget(settings: Settings, ids: list[PromptId], *, delete: bool) -> int:
    places = open_places(settings)
    code = ExitCode.OK
    try:
        places.disk.open()
        catalog = Catalog.open(catalog_path(settings))
        try:
            for prompt_id in ids:
                done = await audit.forget(catalog, places, prompt_id, delete=delete)
                shown = one_line(prompt_id)
                if not done.known:
                    code = ExitCode.INCOMPLETE
                    click.echo(f"{shown}: not in the catalog", err=True)
                elif done.left:
                    click.echo(f"{shown}: forgotten; left in its folder, not ours: {', '.join(done.left)}")
                else:
                    click.echo(f"{shown}: forgotten{', its files deleted' if delete else ', its files stay'}")
        finally:
            await catalog.close()
    finally:
        await places.close()
    return code
