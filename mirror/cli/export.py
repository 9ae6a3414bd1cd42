"""``mirror export``: what the manifests say, in a form that other tools check or read. Takes no lock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from mirror.cli import streams
from mirror.cli.common import require_bucket, require_root, run_command, s3_flags, settings_for
from mirror.cli.inputs import Selection, input_flags, selection
from mirror.errors import ConfigError, ExitCode, Obstructed, StoreUnavailable
from mirror.holdings import Absent, Holding, Holdings
from mirror.manifests.formats import Export, FileFormat, FolderFormat, Format, Prompts, formats
from mirror.observers.text import counted, one_line, size
from mirror.outputs import Draft, checked, require_empty, sweep, sync_folder
from mirror.places import Places, open_places
from mirror.settings import Settings
from mirror.stores.files import translated
from mirror.stores.workers import Workers

_FORMATS = formats()
_BLOCK = 1 << 18
"""Bytes that are written at once."""
_BRIEF = 1.0
"""Seconds that a signal leaves for removing what is not finished: a large bag takes longer."""


class _Wanted(Struct, frozen=True, kw_only=True):
    """What is to be exported, and where it goes."""

    format: Format
    selection: Selection
    output: Path | None
    per_prompt: bool
    in_bucket: bool
    links: bool


def _help() -> str:
    lines = [f"  {each.name:<12}{each.about}" for each in _FORMATS.values()]
    return "\n".join(["Formats:", "", "\b", *lines])


@click.command(epilog=_help())
@click.argument("form", metavar="FORMAT", type=click.Choice(list(_FORMATS)))
@click.argument("ids", nargs=-1, metavar="[ID]...")
@input_flags
@click.option("--output", metavar="PATH", help="Where it goes, else to stdout. It appears when all of it is there.")
@click.option("--per-prompt", is_flag=True, help="A file for each prompt, in the folder that --output names.")
@click.option("--link", is_flag=True, help="bagit: hard links instead of copies, where the file system has them.")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3", "in_bucket", is_flag=True, help="Read the bucket: its manifests, and for bagit its files.")
@s3_flags
@click.pass_context
def export(ctx: click.Context, /, form: str, ids: tuple[str, ...], in_bucket: bool, **flags: Any) -> int:
    """Hand on what the manifests say, of these prompts or of all: digests, a bag, a table with a row for each file.

    Asks no service and needs no catalog. What cannot be told is named on stderr, and the exit code is 3; the rest is
    exported.
    """
    chosen = _FORMATS[form]
    settings = settings_for(ctx, {key: flags[key] for key in ("root", "s3", "s3_endpoint")})
    if in_bucket:
        require_bucket(settings)
    elif settings.s3.only:
        raise click.UsageError("this archive stands in its bucket only: mirror export --s3")
    _check_flags(chosen, in_bucket=in_bucket, **{key: flags[key] for key in ("output", "per_prompt", "link")})
    chosen_prompts = selection(settings, ids, flags)
    places = open_places(settings)
    if not in_bucket:
        require_root(places)
    into_folder = isinstance(chosen, FolderFormat)
    target = None
    if flags["output"] is not None:
        target = _target(flags["output"], places.disk.root, anew=into_folder, folder=into_folder or flags["per_prompt"])
    wanted = _Wanted(
        format=chosen,
        selection=chosen_prompts,
        output=target,
        per_prompt=flags["per_prompt"],
        in_bucket=in_bucket,
        links=flags["link"],
    )
    return run_command(lambda: _export(settings, places, wanted))


def _target(output: str, root: Path, *, anew: bool, folder: bool) -> Path:
    try:
        path = checked(output, root, folder=folder)
        if anew:
            require_empty(path)
    except ConfigError as error:  # a path may have any character
        raise ConfigError(one_line(error.message)) from None
    return path


def _check_flags(chosen: Format, *, in_bucket: bool, output: str | None, per_prompt: bool, link: bool) -> None:
    if isinstance(chosen, FolderFormat):
        if output is None:
            raise click.UsageError(f"{chosen.name} is a folder: give --output DIR")
        if per_prompt:
            raise click.UsageError(f"--per-prompt goes with formats that are a file: give {chosen.name} one ID")
    elif output is None and per_prompt:
        raise click.UsageError("--per-prompt needs --output DIR")
    elif output is None and not chosen.is_text and sys.stdout.isatty():
        raise click.UsageError(f"{chosen.name} is nothing for a terminal: give --output PATH, or redirect it")
    if link and (in_bucket or not isinstance(chosen, FolderFormat) or not chosen.links):
        raise click.UsageError("--link goes with bagit from the disk")


async def _export(settings: Settings, places: Places, wanted: _Wanted) -> ExitCode:
    told = _Told()
    holdings = Holdings(places, in_bucket=wanted.in_bucket)
    durable = settings.archive.durability == "full"
    export = Export(holdings, told.absent, links=wanted.links, durable=durable)
    workers = Workers(1, "mirror-export")
    try:
        chosen = wanted.selection
        found = holdings.all() if chosen.is_all else holdings.some(chosen.batches(told.bad_line))
        async with aclosing(found), aclosing(export.given(found)) as prompts:
            await _Writing(wanted, export, workers).write(prompts)
    finally:
        workers.close()
        await places.close()
    click.echo(f"{_many(export.files, 'file')} of {_many(export.prompts, 'prompt')}, {size(export.bytes)}", err=True)
    return ExitCode.INCOMPLETE if told.lines else ExitCode.OK


class _Told:
    """What cannot be exported, a line each on stderr."""

    def __init__(self) -> None:
        self.lines = 0

    def absent(self, absent: Absent) -> None:
        self.bad_line(f"{absent.what}: {absent.why}")

    def bad_line(self, what: str) -> None:
        self.lines += 1
        click.echo(f"mirror: {one_line(what)}", err=True)


class _Writing:
    """Where an export goes to."""

    def __init__(self, wanted: _Wanted, export: Export, workers: Workers) -> None:
        self._wanted = wanted
        self._export = export
        self._workers = workers

    async def write(self, prompts: Prompts) -> None:
        try:
            await self._write(prompts)
        except Obstructed as error:  # not of one prompt: nothing stands where it was to be
            raise StoreUnavailable(error.message) from None

    async def _write(self, prompts: Prompts) -> None:
        form, target = self._wanted.format, self._wanted.output
        if isinstance(form, FolderFormat):
            assert target is not None
            async with self._appearing(target, folder=True) as draft:
                await form.fill(prompts, self._export, draft.path)
        elif target is None:
            await self._pour(form, prompts, _to_stdout)
        elif self._wanted.per_prompt:
            await self._each(form, prompts, target)
        else:
            async with self._appearing(target) as draft:
                await self._pour(form, prompts, lambda data: self._workers.start(partial(draft.write, data)))

    async def _pour(self, form: FileFormat, prompts: Prompts, take: Callable[[bytes], Awaitable[None]]) -> None:
        waiting = bytearray()
        async with aclosing(form.blocks(prompts, self._export)) as blocks:
            async for block in blocks:
                waiting += block
                if len(waiting) >= _BLOCK:
                    await take(bytes(waiting))
                    waiting.clear()
        await take(bytes(waiting))

    async def _each(self, form: FileFormat, prompts: Prompts, folder: Path) -> None:
        """A file for each prompt, each whole or as it was before."""
        durable = self._export.durable

        def put(name: str, data: bytes) -> None:
            draft = Draft(folder / name, durable=durable)
            try:
                draft.begin()
                draft.write(data)
                draft.publish()
            finally:
                draft.discard()

        await self._workers.start(partial(_prepare, folder))
        async for holding in prompts:
            async with aclosing(form.blocks(_only(holding), self._export)) as blocks:
                data = b"".join([block async for block in blocks])
            try:
                await self._workers.start(partial(put, f"{holding.folder}{form.suffix}", data))
            except Obstructed as error:
                self._export.leaves_out(holding, error.message)
        if durable:
            await self._workers.start(partial(sync_folder, folder))
            await self._workers.start(partial(sync_folder, folder.parent))

    @asynccontextmanager
    async def _appearing(self, target: Path, *, folder: bool = False) -> AsyncGenerator[Draft, None]:
        durable = self._export.durable
        draft = Draft(target, durable=durable, folder=folder)
        try:
            await self._workers.start(partial(sweep, target.parent))
            await self._workers.start(draft.begin)
            yield draft
            await self._workers.start(draft.publish)
            if durable:
                await self._workers.start(partial(sync_folder, target.parent))
        except asyncio.CancelledError:
            await self._workers.start(partial(draft.discard, _BRIEF))
            raise
        finally:
            await self._workers.start(draft.discard)


async def _to_stdout(data: bytes) -> None:
    await asyncio.to_thread(streams.write_stdout, data)


async def _only(holding: Holding) -> AsyncGenerator[Holding, None]:
    yield holding


def _prepare(folder: Path) -> None:
    with translated(f"{folder}"):
        folder.mkdir(exist_ok=True)
    sweep(folder)


def _many(count: int, noun: str) -> str:
    return counted(count, noun).replace(str(count), f"{count:,}", 1)
