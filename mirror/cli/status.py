"""``mirror status``: what the catalog knows. Reads only, and works while a run is under way."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from mirror.catalog import PromptRecord, Standing, in_pages
from mirror.cli.common import prompt_ids, settings_for
from mirror.cli.streams import write_stdout
from mirror.custody import reading, require_catalog
from mirror.errors import ExitCode
from mirror.models import PromptId
from mirror.observers.log import LogObserver
from mirror.observers.text import counted, one_line, size
from mirror.settings import Settings

_PAGE = 500


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--failed", is_flag=True, help="List what is not complete because something failed: id, reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line (without ids: one for the whole).")
@click.pass_context
def status(ctx: click.Context, ids: tuple[str, ...], root: str | None, failed: bool, as_json: bool) -> int:
    """Say what the catalog knows: counts by state, or of each ID its state, files and failures."""
    settings = settings_for(ctx, {"root": root})
    require_catalog(settings)
    return asyncio.run(_status(settings, prompt_ids(ids), failed=failed, as_json=as_json))


async def _status(settings: Settings, ids: list[PromptId], *, failed: bool, as_json: bool) -> int:
    async with reading(settings, LogObserver()) as (_, catalog):
        if not ids and not failed:
            _print_counts(await catalog.counts(), await catalog.standing(), as_json=as_json)
            return ExitCode.OK
        unknown = False
        pages = in_pages(ids, _PAGE) if ids else catalog.prompt_ids(failed=True, page=_PAGE)
        async with contextlib.aclosing(pages):
            async for page in pages:
                known = await catalog.records(page)
                unknown = unknown or len(known) < len(set(page))
                lines = [_line(known.get(i), i, failed=failed, as_json=as_json) for i in page]
                write_stdout("".join(lines).encode())
        return ExitCode.INCOMPLETE if unknown else ExitCode.OK


def _print_counts(counts: dict[str, tuple[int, int, int]], standing: Standing, *, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {s: {"prompts": p, "files": f, "bytes": b} for s, (p, f, b) in counts.items()}
        told["sync"] = {
            "listed": standing.listed,
            "given_up": standing.given_up,
            "last_tried": _time(standing.last_tried),
            "watermark": _time(standing.watermark),
        }
        write_stdout(msgspec.json.encode(told) + b"\n")
        return
    rows = [("state", "prompts", "files", "size")]
    rows += [(state, str(prompts), str(files), size(total)) for state, (prompts, files, total) in counts.items()]
    totals = [sum(row[at] for row in counts.values()) for at in range(3)]
    rows.append(("all", str(totals[0]), str(totals[1]), size(totals[2])))
    lines = [f"{name:<12}" + "".join(f"{number:>12}" for number in numbers) + "\n" for name, *numbers in rows]
    write_stdout("".join([*lines, *_told(standing)]).encode())


def _told(standing: Standing) -> Iterator[str]:
    if standing.listed:
        yield f"not asked about yet: {counted(standing.listed, 'unresolved prompt')}\n"
    if standing.given_up:
        yield f"given up, left alone by sync: {counted(standing.given_up, 'prompt')}\n"
    if standing.watermark is not None:
        yield f"the history was read up to {_time(standing.watermark)}\n"
    if standing.last_tried is not None:
        yield f"last tried: {_time(standing.last_tried)}\n"


def _line(record: PromptRecord | None, prompt_id: PromptId, *, failed: bool, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(_as_dict(record, prompt_id)).decode() + "\n"
    if record is None:
        return f"{one_line(prompt_id)}\tnot in the catalog\n"
    if failed:
        # The rest is a comment to whatever reads ids: the list can be piped into `fetch -i -` as it is.
        return f"{record.prompt_id}\t# {record.state}: {one_line('; '.join(_reasons(record)))}\n"
    stored = record.stored().values()
    when = _time(record.last_tried)
    total = size(sum(file.bytes for file in stored))
    tried = f"tried {counted(record.tries, 'time')}" + (f", last {when}" if when else "")
    lines = [f"{record.prompt_id}  {record.state}, {len(stored)} files, {total}, {tried}"]
    lines += [f"  {one_line(reason)}" for reason in _reasons(record)]
    lines += [f"  note: {one_line(record.note)}"] if record.note else []
    lines += [f"  given up {_time(record.given_up)}: sync leaves it alone"] if record.given_up else []
    return "\n".join(lines) + "\n"


def _reasons(record: PromptRecord) -> Iterator[str]:
    told = [file.failure for file in record.files if file.failure is not None]
    for failure in told:
        yield f"{failure.error}: {failure.message}"
    if record.error and not any(failure.error == record.error for failure in told):
        yield f"{record.error}: {record.message}"


def _as_dict(record: PromptRecord | None, prompt_id: PromptId) -> dict[str, Any]:
    if record is None:
        return {"prompt_id": prompt_id, "state": None}
    stored = record.stored().values()
    return {
        "prompt_id": record.prompt_id,
        "state": record.state,
        "folder": record.folder,
        "files": len(stored),
        "bytes": sum(file.bytes for file in stored),
        "tries": record.tries,
        "last_tried": _time(record.last_tried),
        "reasons": list(_reasons(record)),
        "note": record.note,
        "given_up": _time(record.given_up),
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
