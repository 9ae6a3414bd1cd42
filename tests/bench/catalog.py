"""`catalog`: what a catalog of ten million rows costs: to look up, to count, to write, and to find nothing left to do.

The archive is in a bucket only, so a run over what is complete needs the catalog and no files. The service and the
store are a port where nobody listens: a single request would fail the run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mirror.catalog import Catalog, Due, FileRecord, PromptRecord
from mirror.models import PromptId, PromptState
from tests.bench.ledger import BUCKET, ENDPOINT, PREFIX, Ledger
from tests.bench.measure import Command, measured
from tests.bench.options import Options
from tests.bench.tools import CHECKOUT

_PAGE = 500
"""Prompts that a run looks up at once."""
_AT_ONCE = 64
"""Prompts that a run works on at once."""


def run(options: Options) -> None:
    """Build it, then print a row for each thing that is asked of it."""
    rows = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory(dir=options.disk, prefix="bench-catalog-") as folder:
        root = Path(folder)
        path = root / ".mirror" / "catalog.sqlite"
        since = time.monotonic()
        ledger = Ledger.of_rows(rows)
        ledger.write(path)
        took, size = time.monotonic() - since, path.stat().st_size
        print(f"catalog: {rows:,} rows of files, {ledger.prompts:,} prompts, written in bulk in {took:.0f} s")
        print(f"on disk: {size / 1e9:.2f} GB, {size / rows:.0f} bytes a file")
        measure(root, ledger, most=1_000 if options.quick else 100_000)


def measure(root: Path, ledger: Ledger, *, most: int) -> None:
    """Print what each thing took. ``most`` is how many ids the run over what is complete is given."""
    path = root / ".mirror" / "catalog.sqlite"
    numbers = random.Random(1)  # a sample, and the same each time
    print(f"{'':<58} {'wall':>10} {'CPU s':>8} {'peak MB':>8}")
    asyncio.run(_read(path, ledger, numbers))
    complete = [ledger.prompt_id(n) for n in numbers.sample(range(ledger.prompts), most) if n % 100 > 2]
    ids = root / "ids.txt"
    ids.write_text("".join(f"{each}\n" for each in complete), "ascii")
    bucket = ("--s3", f"s3://{BUCKET}/{PREFIX}", "--s3-endpoint", ENDPOINT, "--s3-only")
    for words in (["status"], ["status", complete[0]], ["fetch", *bucket, "-q", "-i", str(ids)]):
        for _ in range(2):
            _command(root, words, len(complete))
    asyncio.run(_write(path, ledger, numbers, most // 20))


async def _read(path: Path, ledger: Ledger, numbers: random.Random) -> None:
    def ids() -> list[PromptId]:
        return [ledger.prompt_id(numbers.randrange(ledger.prompts)) for _ in range(_PAGE)]

    _forget_pages(path)
    since = time.perf_counter()
    catalog = Catalog.open(path)
    _say("opened", [time.perf_counter() - since])
    await _timed(f"records of {_PAGE} random prompts, nothing cached", 1, lambda: catalog.records(ids()))
    await _timed(f"records of {_PAGE} random prompts", 20, lambda: catalog.records(ids()))
    await _timed(f"done, of {_PAGE} random prompts", 20, lambda: catalog.done(ids()))
    await _timed(f"records of {_PAGE} that are not there", 20, lambda: catalog.records(_strangers(ledger, numbers)))
    urls = [ledger.identity(numbers.randrange(ledger.prompts), 0) for _ in range(_PAGE)]
    await _timed(f"stored_in, of {_PAGE} files", 5, lambda: catalog.stored_in("none", urls))
    await _timed("counts by state (`status`)", 2, catalog.counts)
    await _timed("how things stand (`status`, `sync`)", 2, catalog.standing)
    await _timed("how many the history named (`sync`, at times)", 2, catalog.heard_of)
    await _timed("what nobody asked about yet (`sync`)", 2, lambda: catalog.untried(0, 200))
    for name, bucket in (("", None), (", with a bucket", (ENDPOINT, BUCKET, f"{PREFIX}/"))):
        await _timed(f"all that is due (`sync`){name}", 2, lambda bucket=bucket: _due(catalog, bucket))  # type: ignore[misc]
    await _timed("the ids of all, in pages of 500", 1, lambda: _all(catalog, failed=False))
    await _timed("the ids of what failed (`status --failed`)", 1, lambda: _all(catalog, failed=True))
    await catalog.close()


async def _due(catalog: Catalog, bucket: tuple[str, str, str] | None) -> int:
    """As a night takes it up."""
    which, found = Due(run="now", bucket=bucket), 0
    for group in which.groups:
        place = (-1.0, 0)
        while due := await catalog.due(which, group, place, 10_000):
            place, found = due[-1][0], found + len(due)
    return found


async def _all(catalog: Catalog, *, failed: bool) -> int:
    return sum([len(page) async for page in catalog.prompt_ids(failed=failed, page=_PAGE)])


async def _write(path: Path, ledger: Ledger, numbers: random.Random, prompts: int) -> None:
    """New prompts with two files each; each call returns when its row is committed."""
    rounds = itertools.product((_record, _take_over), (False, True))
    for place, (record, durable) in enumerate(rounds):
        catalog = Catalog.open(path, durable=durable)
        given = iter(numbers.sample(range(ledger.prompts), prompts))
        since, cpu = time.perf_counter(), time.process_time()

        async def work(catalog: Catalog = catalog, given: Iterator[int] = given, record: Record = record) -> None:
            for number in given:
                entries = [ledger.entry(number, which) for which in (0, 1)]
                new = PromptRecord(
                    prompt_id=PromptId(f"{ledger.stranger(number)[:-1]}{place}"),  # noqa: B023 - awaited below
                    folder=ledger.stranger(number),
                    state=PromptState.COMPLETE,
                    unfinished=False,
                    placed=ledger.placed(number),
                    files=tuple(FileRecord(identity=each.url, role=each.role, entry=each) for each in entries),
                )
                await record(catalog, new)

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        wall, cpu = time.perf_counter() - since, time.process_time() - cpu
        log = path.with_name(path.name + "-wal").stat().st_size
        what = f"{(record.__doc__ or '').rstrip('.')}{'; synced' if durable else ''}"
        print(f"{what:<58} {f'{prompts / wall:,.0f}/s':>10} {cpu:>8.3f}   log {log / 1e6:.0f} MB")
        await catalog.close()


Record = Callable[[Catalog, PromptRecord], Coroutine[Any, Any, None]]


async def _record(catalog: Catalog, new: PromptRecord) -> None:
    """New prompts, two files each, as a run records them."""
    claimed = await catalog.claim(new.prompt_id, "bench")
    await asyncio.gather(*(catalog.save_file(new.prompt_id, file, "bench") for file in new.files))
    await catalog.save_prompt(replace(new, folder=claimed.folder), "bench")


async def _take_over(catalog: Catalog, new: PromptRecord) -> None:
    """New prompts, two files each, as manifests tell them."""
    await catalog.save_prompt(new, "bench")


def _command(root: Path, words: Sequence[str], ids: int) -> None:
    environ = {
        "MIRROR_API_BASE_URL": "http://127.0.0.1:9",
        "MIRROR_API_TOKEN": "bench",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
    }
    argv = [sys.executable, "-m", "mirror", *words, "--root", str(root)]
    ran = measured(Command(argv, CHECKOUT, environ), timeout=600)
    plain = itertools.takewhile(lambda word: not word.startswith("-"), words)
    shown = f"mirror fetch of {ids:,} complete ids, no request" if words[0] == "fetch" else f"mirror {' '.join(plain)}"
    print(f"{shown:<58} {_seconds(ran.wall):>10} {ran.cpu:>8.2f} {ran.peak:>8.0f}")


async def _timed(what: str, times: int, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    took, cpu = [], time.process_time()
    for _ in range(times):
        since = time.perf_counter()
        await call()
        took.append(time.perf_counter() - since)
    _say(what, took, (time.process_time() - cpu) / times)


def _say(what: str, took: Sequence[float], cpu: float = 0.0) -> None:
    slowest = f"   at most {_seconds(max(took))}" if len(took) > 1 else ""
    print(f"{what:<58} {_seconds(statistics.median(took)):>10} {cpu:>8.3f}{slowest}", flush=True)


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


def _strangers(ledger: Ledger, numbers: random.Random) -> list[PromptId]:
    return [ledger.stranger(numbers.randrange(ledger.prompts)) for _ in range(_PAGE)]


def _forget_pages(path: Path) -> None:
    """Have the kernel drop what it holds of the file."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
