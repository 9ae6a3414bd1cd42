"""What the tests of the sources share: an input read to its end, and the tables that hold some ids."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from io import BytesIO, FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mirror.sources import Batch
from mirror.sources.inputs import Format, Reading, open_input
from mirror.sources.lines import Parser


def nobody(event: object) -> None:
    """Nobody needs to know."""


async def collected(source: AsyncGenerator[Batch, None]) -> list[str]:
    async with aclosing(source):
        return [found async for batch in source for found in batch]


def read(path: str | Path, *, stdin: int = 0, **reading: Any) -> tuple[list[str], list[str]]:
    """The ids of an input, and what was reported, the folder left out."""
    bad: list[str] = []
    source = open_input(str(path), Reading(**reading), on_bad_line=bad.append, observer=nobody, stdin=stdin)
    ids = asyncio.run(collected(source))
    return ids, [report.removeprefix(f"{Path(path).parent}/") for report in bad]


def read_bytes(data: bytes, form: Format, **reading: Any) -> tuple[list[str], list[str]]:
    """The same for bytes on standard input."""
    with BytesIO(data) as feed, pipe() as (fd, write):
        return asyncio.run(_pumped(feed, fd, write, Reading(format=form, **reading)))


async def _pumped(feed: BytesIO, fd: int, write: FileIO, reading: Reading) -> tuple[list[str], list[str]]:
    bad: list[str] = []

    def pump() -> None:
        while block := feed.read(1 << 12):
            write.write(block)
        write.close()

    source = open_input("-", reading, on_bad_line=bad.append, observer=nobody, stdin=fd)
    ids, _ = await asyncio.gather(collected(source), asyncio.to_thread(pump))
    return ids, bad


@contextmanager
def pipe() -> Iterator[tuple[int, FileIO]]:
    """A pipe: the descriptor to read from, and the end to write to."""
    fd, write = os.pipe()
    with FileIO(fd, "r"), FileIO(write, "w") as end:
        yield fd, end


def fed(parser: Parser, blocks: Iterable[bytes]) -> list[str]:
    """What a parser makes of some blocks."""
    return [found for block in blocks for found in parser.feed(block)] + parser.finish()


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    edges = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """A Parquet file."""
    file = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file, **options)
    return file.getvalue()
