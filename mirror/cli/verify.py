"""``mirror verify``: is there what the manifests say? With ``--repair``: is there again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import click
import msgspec

from mirror.checks import Checked
from mirror.cli.common import (
    prompt_ids,
    require_bucket,
    run_command,
    s3_flags,
    settings_for,
    wait_lock_flag,
)
from mirror.cli.streams import write_stdout
from mirror.client import Mirror
from mirror.config import require_api
from mirror.custody import require_catalog
from mirror.errors import ExitCode
from mirror.models import PromptId
from mirror.observers.log import LogObserver
from mirror.observers.text import counted, one_line, size
from mirror.sampling import Sample, parse_sample
from mirror.settings import Settings


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3", "bucket", is_flag=True, help="Check the bucket, by its own checksums: nothing is downloaded.")
@click.option("--deep", is_flag=True, help="With --s3: read every object back and hash it.")
@click.option("--decode", is_flag=True, help="Decode each sound picture and film whole (needs the extra media).")
@click.option("--repair", is_flag=True, help="Fetch again what is missing or damaged: only the very same bytes.")
@click.option("--sample", metavar="N|N%", help="Look at so many files only, chosen at random (1%, 200).")
@click.option("--seed", type=int, metavar="N", help="With --sample: choose as the run that told this seed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each flaw.")
@wait_lock_flag
@s3_flags
@click.pass_context
def verify(ctx: click.Context, /, ids: tuple[str, ...], bucket: bool, deep: bool, repair: bool, **flags: Any) -> int:
    """Compare what is there with the manifests: files on disk by hashing them, with --s3 the bucket instead.

    Prints a line for each file that is missing, damaged, unreadable, undecodable or unexpected: promptId, place, what
    is wrong. What is unexpected is left alone. Exit code 3 if something is wrong and was not repaired.
    """
    if deep and not bucket:
        raise click.UsageError("--deep goes with --s3: what is on disk is always hashed")
    if flags["wait_lock"] is not None and not repair:
        raise click.UsageError("--wait-lock goes with --repair: to verify takes no lock")
    sample = _sample(flags["sample"], flags["seed"])
    settings = settings_for(ctx, {key: flags[key] for key in ("root", "s3", "s3_endpoint")})
    if bucket:
        require_bucket(settings)
    elif settings.s3.only:
        raise click.UsageError("this archive stands in its bucket only: mirror verify --s3")
    if repair:
        require_api(settings.api)
    require_catalog(settings)
    told = _Told(as_json=flags["as_json"], repair=repair, sample=sample)
    how = _How(bucket=bucket, deep=deep, decode=flags["decode"], sample=sample)
    work = _Work(settings, list(dict.fromkeys(prompt_ids(ids))), how)
    return run_command(lambda: work.run(work.repair(flags["wait_lock"]) if repair else work.verify(), told))


def _sample(text: str | None, seed: int | None) -> Sample | None:
    if text is None:
        if seed is not None:
            raise click.UsageError("--seed goes with --sample")
        return None
    try:
        return parse_sample(text, seed)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--sample") from None


class _How(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at, and how closely."""

    bucket: bool
    deep: bool
    decode: bool
    sample: Sample | None


class _Work:
    def __init__(self, settings: Settings, ids: list[PromptId], how: _How) -> None:
        self._settings = settings
        self._ids = ids
        self._how = how

    def verify(self) -> AsyncGenerator[Checked, None]:
        """Without a lock, without the API, and without a change."""
        mirror = Mirror(self._settings, observers=[LogObserver()])
        return mirror.verify(self._ids, **msgspec.structs.asdict(self._how))

    async def repair(self, wait_lock: float | None) -> AsyncGenerator[Checked, None]:
        async with (
            Mirror(self._settings, observers=[LogObserver(heartbeat=30.0)]) as mirror,
            contextlib.aclosing(
                mirror.repair(self._ids, **msgspec.structs.asdict(self._how), wait_lock=wait_lock)
            ) as found,
        ):
            async for checked in found:
                yield checked

    async def run(self, found: AsyncGenerator[Checked, None], told: _Told) -> ExitCode:
        async with contextlib.aclosing(found):
            async for checked in found:
                if told.count(checked):
                    await asyncio.to_thread(told.tell, checked)
        click.echo(told.summary, err=True)
        if told.wrong > told.repaired + told.intact and not told.is_repair:
            click.echo("`mirror verify --repair` fetches again what is missing or damaged", err=True)
        return ExitCode.INCOMPLETE if told.wrong > told.repaired else ExitCode.OK


class _Told:
    def __init__(self, *, as_json: bool, repair: bool, sample: Sample | None) -> None:
        self.files = self.bytes = self.wrong = self.repaired = self.unexpected = 0
        self.intact = self._decoded = self._no_media = 0
        self.is_repair = repair
        self._as_json = as_json
        self._sample = sample
        self._media = 0

    def count(self, checked: Checked) -> bool:
        """True for what is to be told."""
        if checked.flaw == "unexpected":
            self.unexpected += 1
            return True
        self.files += 1
        self._media += checked.file is not None
        self.bytes += checked.bytes
        self.wrong += checked.flaw is not None
        self.repaired += bool(checked.repaired)
        self.intact += checked.intact
        self._decoded += checked.decoded is True
        self._no_media += checked.decoded is False
        return checked.flaw is not None

    def tell(self, checked: Checked) -> None:
        """A line on stdout. Blocks."""
        assert checked.flaw is not None
        if self._as_json:
            line = {name: getattr(checked, name) for name in ("prompt_id", "where", "flaw", "detail")}
            if self.is_repair:
                line["repaired"] = bool(checked.repaired)
            write_stdout(msgspec.json.encode(line) + b"\n")
            return
        what = ": ".join(filter(None, ["repaired" if checked.repaired else "", checked.flaw, checked.detail]))
        write_stdout("\t".join(map(one_line, (checked.prompt_id or "-", checked.where, what))).encode() + b"\n")

    @property
    def summary(self) -> str:
        looked = counted(self.files, "file")
        if self._sample is not None:
            looked = f"a sample of {self._media} of {counted(self._sample.total, 'file')} (--seed {self._sample.seed})"
        told = [looked, size(self.bytes)]
        told += [f"{self._decoded} decoded"] if self._decoded or self._no_media else []
        told += [f"{self._no_media} of no format that can be decoded"] if self._no_media else []
        told += [f"{self.wrong or 'nothing'} wrong"]
        told += [f"{self.repaired} repaired"] if self.is_repair else []
        told += [f"{self.unexpected} unexpected"] if self.unexpected else []
        return ", ".join(told)
