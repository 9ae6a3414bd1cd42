"""``mirror forget``: remove prompts from the catalog."""

from __future__ import annotations

import click

from mirror import audit
from mirror.cli.common import (
    open_disk,
    prompt_ids,
    run_command,
    s3_flags,
    settings_for,
    wait_lock_flag,
)
from mirror.custody import catalog_of, require_catalog
from mirror.errors import ExitCode
from mirror.models import PromptId
from mirror.observers.log import LogObserver
from mirror.observers.text import one_line
from mirror.places import open_places
from mirror.settings import Settings


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option(
    "--delete", is_flag=True, help="Delete manifest and files, too, wherever they are. This cannot be undone."
)
@wait_lock_flag
@s3_flags
@click.pass_context
def forget(
    ctx: click.Context, /, ids: tuple[str, ...], root: str | None, delete: bool, wait_lock: float | None, **s3: str
) -> int:
    """Remove prompts from the catalog; a later fetch starts from what is on disk then."""
    settings = settings_for(ctx, {"root": root, **s3})
    require_catalog(settings)
    return run_command(lambda: _forget(settings, prompt_ids(ids), delete=delete, wait_lock=wait_lock))


async def _forget(settings: Settings, ids: list[PromptId], *, delete: bool, wait_lock: float | None) -> ExitCode:
    places = open_places(settings)
    code = ExitCode.OK
    try:
        await open_disk(places, wait_lock)
        async with catalog_of(settings, places, LogObserver()) as catalog:
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
        await places.close()
    return code
