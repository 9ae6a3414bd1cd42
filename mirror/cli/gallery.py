"""``mirror gallery``: a static page of what was mirrored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterable, Sequence
from pathlib import Path
from typing import Any

import click

from mirror import names
from mirror.catalog import PromptRecord, in_pages
from mirror.cli.common import (
    require_bucket,
    require_root,
    run_command,
    s3_flags,
    settings_for,
)
from mirror.cli.inputs import Selection, input_flags, selection
from mirror.cli.streams import write_stdout
from mirror.custody import has_catalog, reading
from mirror.errors import CatalogError, ExitCode, MirrorError
from mirror.gallery.build import Gallery
from mirror.gallery.compose import moment
from mirror.gallery.folder import Folder, Place, outside
from mirror.gallery.links import BucketLinks, DiskLinks, Links
from mirror.gallery.records import Card
from mirror.holdings import Absent, Holdings
from mirror.models import PromptId, PromptState
from mirror.observers.log import LogObserver
from mirror.observers.text import counted, one_line, shorten
from mirror.places import Places, open_places
from mirror.settings import Settings

_PAGE = 500
_LONGEST = 400


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@input_flags
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder to write (else `gallery` under the root, or in the bucket). Holds nothing else.",
)
@click.option("--title", metavar="TEXT", help="What stands above it (else the archive's name).")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3", "bucket", is_flag=True, help="Read the bucket, and put the page into it.")
@s3_flags
@click.pass_context
def gallery(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    output: Path | None,
    title: str | None,
    bucket: bool,
    **flags: Any,
) -> int:
    """Write a page of what was mirrored: of all of it, or of these prompts. Prints where the page is.

    It needs no server and asks nobody: open it from disk, or put it on any web server or into a bucket together with
    what it links to. Written anew it takes the place of the one before; previews that are there are used again. Exit
    code 3 where a manifest cannot be read.
    """
    settings = settings_for(ctx, {key: flags[key] for key in ("root", "s3", "s3_endpoint")})
    if bucket:
        require_bucket(settings)
    elif settings.s3.only:
        raise click.UsageError("this archive stands in its bucket only: mirror gallery --s3")
    work = _Work(settings, selection(settings, ids, flags), bucket=bucket)
    return run_command(lambda: work.run(output, title))


class _Work:
    def __init__(self, settings: Settings, chosen: Selection, *, bucket: bool) -> None:
        self._settings = settings
        self._selection = chosen
        self._bucket = bucket
        self._asked: list[PromptId] = []
        self._wrong = 0

    async def run(self, output: Path | None, title: str | None) -> ExitCode:
        places = open_places(self._settings)
        try:
            if not self._bucket:
                require_root(places)
            await places.ready() if self._bucket else None
            place, links = self._place(places, output)
            holdings = Holdings(places, in_bucket=self._bucket)
            found = holdings.all() if self._selection.is_all else holdings.some(self._chosen())
            writing = Gallery(place, holdings, links, self._absent)
            is_all = self._selection.is_all
            built = await writing.write(found, title or self._name(places), self._unmirrored, may_be_empty=is_all)
        finally:
            await places.close()
        if built is None:
            why = "no manifest can be read" if is_all else "none of the prompts that were asked for is here"
            raise MirrorError(f"{why}: no page is written")
        told = [counted(built.prompts, "prompt"), counted(built.files, "file"), counted(built.previews, "preview")]
        click.echo(f"{', '.join(told)}, {built.made} made anew", err=True)
        if built.bare:
            needed = 'small previews need a Pillow that works: pip install "prompt-mirror[media]"'
            click.echo(f"thumbnails are shown as they are; {needed}", err=True)
        await asyncio.to_thread(write_stdout, f"{place.shown}\n".encode("utf-8", "surrogateescape"))
        return ExitCode.INCOMPLETE if self._wrong else ExitCode.OK

    def _name(self, places: Places) -> str:
        s3 = self._settings.s3
        named = (s3.prefix.strip("/").rpartition("/")[2] or s3.bucket) if self._bucket else places.disk.root.name
        return named or names.GALLERY

    def _place(self, places: Places, output: Path | None) -> tuple[Place, Links]:
        if not self._bucket:
            root = places.disk.root
            if output is None:
                return Folder(root / names.GALLERY), DiskLinks(root, root / names.GALLERY)
            folder = outside(output, root)
            return Folder(folder), DiskLinks(Path(os.path.realpath(root)), folder)
        from mirror.gallery.bucket import BucketFolder  # noqa: PLC0415 - boto3, for a bucket only

        assert places.bucket is not None
        there = BucketFolder(places.bucket)
        links = BucketLinks(self._settings.s3.bucket, places.bucket.objects.key(""), there.home)
        return (there if output is None else Folder(outside(output, places.disk.root))), links

    async def _chosen(self) -> AsyncIterable[Sequence[PromptId]]:
        """The ids that were asked for; they are noted, for what the catalog knows of them."""
        async for batch in self._selection.batches(lambda told: self._tell(one_line(told))):
            self._asked += batch
            yield batch

    async def _unmirrored(self) -> list[Card]:
        """Prompts that have no manifest, because the service denies them or could not be asked: so the catalog says.

        A gallery needs no catalog; without one, or with one that is damaged, it does not know of these.
        """
        if self._settings.s3.catalog or not has_catalog(self._settings):
            return []
        found: list[Card] = []
        try:
            async with reading(self._settings, LogObserver()) as (_, catalog):
                is_all = self._selection.is_all
                pages = catalog.prompt_ids(failed=True) if is_all else in_pages(self._asked, _PAGE)
                async with contextlib.aclosing(pages):
                    async for page in pages:
                        found += map(_card, filter(_is_told, (await catalog.records(page)).values()))
        except CatalogError as error:
            logging.getLogger("mirror").warning(str(error))
        return found

    def _absent(self, found: Absent) -> None:
        self._tell(f"{one_line(found.what)}: {one_line(found.why)}")

    def _tell(self, what: str) -> None:
        self._wrong += 1
        click.echo(what, err=True)


def _is_told(record: PromptRecord) -> bool:
    return record.state in (PromptState.UNKNOWN, PromptState.UNRESOLVED) and record.message is not None


def _card(record: PromptRecord) -> Card:
    return Card(
        id=record.prompt_id,
        state=record.state.value,
        at=moment(record.last_tried),
        failures=1,
        reason=shorten(f"{record.message} ({record.error})", _LONGEST),
    )
