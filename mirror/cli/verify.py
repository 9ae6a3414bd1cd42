"""``mirror verify``: is there what the manifests say?"""

from __future__ import annotations

import asyncio
import contextlib

import click

from mirror.catalog import Catalog
from mirror.cli.common import prompt_ids, require_bucket, s3_flags, settings_for, write_stdout
from mirror.custody import catalog_path
from mirror.errors import ConfigError, ExitCode
from mirror.models import PromptId
from mirror.observers.text import counted, one_line, size
from mirror.places import open_places
from mirror.settings import Settings
from mirror.verify import Checked, Verify


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3", "s3_only", is_flag=True, help="Check the bucket, by its own checksums: nothing is downloaded.")
@click.option("--deep", is_flag=True, help="With --s3: read every object back and hash it.")
@s3_flags
@click.pass_context
def verify(ctx: click.Context, /, ids: tuple[str, ...], root: str | None, s3_only: bool, deep: bool, **s3: str) -> int:
    """Compare what is there with the manifests: files on disk by hashing them, with --s3 the bucket instead.

    Prints a line for each file that is missing or damaged: promptId, place, what is wrong. Exit code 3 if there is one.
    """
    if deep and not s3_only:
        raise click.UsageError("--deep goes with --s3: what is on disk is always hashed")
    settings = settings_for(ctx, {"root": root, **s3})
    if s3_only:
        require_bucket(settings)
    elif settings.s3.only:
        raise click.UsageError("this archive stands in its bucket only: mirror verify --s3")
    if not catalog_path(settings).exists():
        raise ConfigError(f"{catalog_path(settings)}: there is no catalog; is --root right?")
    return asyncio.run(_verify(settings, prompt_ids(ids), bucket=s3_only, deep=deep))


async def _verify(settings: Settings, ids: list[PromptId], *, bucket: bool, deep: bool) -> int:
    catalog = await asyncio.to_thread(Catalog.open, catalog_path(settings), mode="read")
    places = open_places(settings)
    told = _Told()
    try:
        checking = Verify(places, catalog, deep=deep)
        checkeds = checking.in_bucket(ids) if bucket else checking.on_disk(ids)
        async with contextlib.aclosing(checkeds):
            async for checked in checkeds:
                await asyncio.to_thread(told.tell, checked)
    finally:
        await places.close()
        await catalog.close()
    click.echo(told.summary, err=True)
    if told.wrong and bucket:
        click.echo("`mirror fetch --refresh` of these ids puts back what is missing", err=True)
    return ExitCode.INCOMPLETE if told.wrong else ExitCode.OK


class _Told:
    def __init__(self) -> None:
        self.files = self.bytes = self.wrong = 0

    def tell(self, checked: Checked) -> None:
        self.files += 1
        self.bytes += checked.bytes
        if checked.flaw is not None:
            self.wrong += 1
            what = checked.flaw + (f": {checked.detail}" if checked.detail else "")
            write_stdout("\t".join(map(one_line, (checked.prompt_id, checked.where, what))).encode() + b"\n")

    @property
    def summary(self) -> str:
        return f"{counted(self.files, 'file')}, {size(self.bytes)}, {self.wrong or 'nothing'} wrong"
