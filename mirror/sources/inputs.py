"""Where ids come from by name: a file, an object or standard input, in whatever format, compressed or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import PurePath
from typing import Literal, Protocol, get_args

from msgspec import Struct

from mirror.errors import ConfigError
from mirror.events import Observer
from mirror.settings import Settings
from mirror.sources import Batch
from mirror.sources.args import from_iterable
from mirror.sources.compressed import CODECS, decompressed, require_zstd
from mirror.sources.file import begins_with, file_blocks
from mirror.sources.lines import LineParser, Parser, Report, batches
from mirror.sources.stdin import stdin_blocks

Format = Literal["text", "csv", "tsv", "jsonl", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)

STDIN = "-"

_BUCKET = "s3://"
_BY_SUFFIX: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class Reading(Struct, frozen=True, kw_only=True):
    """How inputs are read: the column of the ids, the format where the name does not tell it, and from which store."""

    settings: Settings = Settings()
    column: str | None = None
    format: Format | None = None


def format_of(name: str) -> Format:
    """What a name says, its ``.gz`` or ``.zst`` left out; text where it says nothing."""
    path = PurePath(name)
    if path.suffix.lower() in CODECS:
        path = path.with_suffix("")
    return _BY_SUFFIX.get(path.suffix.lower(), "text")


def is_local(name: str) -> bool:
    """Whether a name is that of a file."""
    return name != STDIN and not name.startswith(_BUCKET)


class Opener(Protocol):
    """Opens an input by its name, as :func:`open_input` does."""

    def __call__(
        self, name: str, reading: Reading, /, *, on_bad_line: Report, observer: Observer
    ) -> AsyncGenerator[Batch, None]: ...


async def ids_of(
    ids: Sequence[str],
    names: Sequence[str],
    reading: Reading,
    *,
    on_bad_line: Report,
    observer: Observer,
    opener: Opener | None = None,
) -> AsyncGenerator[Batch, None]:
    """The given ids first, then those of each input in turn. What can be checked of all of them is, before the first.

    Raises:
        ConfigError, StoreError: (while iterating) as :func:`check_input` and :func:`open_input` say.
    """
    for name in names:
        await check_input(name, reading, observer)
    sources = [from_iterable(ids)] if ids else []
    opener = opener or open_input
    sources += [opener(name, reading, on_bad_line=on_bad_line, observer=observer) for name in names]
    begun = False
    for source in sources:
        try:
            async with aclosing(source):
                async for batch in source:
                    begun = True
                    yield batch
        except ConfigError as error:
            if not begun:
                raise
            on_bad_line(str(error))  # what was begun goes on: an exit code of 2 would say that nothing was


async def check_input(name: str, reading: Reading, observer: Observer) -> None:
    """Check that an object can be read, and that the libraries are there which a name asks for.

    Raises:
        ConfigError: it cannot, or one is not installed.
        StoreUnavailable: the store cannot be reached.
    """
    if (reading.format or format_of(name)) == "parquet":
        from mirror.sources.parquet import require_pyarrow  # noqa: PLC0415 - one kind of many

        require_pyarrow()
    if CODECS.get(PurePath(name).suffix.lower()) == "zstd":
        require_zstd()
    if name.startswith(_BUCKET):
        from mirror.sources.objects import check_object  # noqa: PLC0415 - boto3 takes its time

        await check_object(name, reading.settings, observer)


def open_input(
    name: str, reading: Reading, *, on_bad_line: Report, observer: Observer, stdin: int = 0
) -> AsyncGenerator[Batch, None]:
    """The ids in one input: ``-`` is standard input, ``s3://bucket/key`` an object, all else a file.

    Its bytes are read as they are needed, 64 KiB at a time; a batch is what so many bytes gave. Of an input of any size
    no more than that is in memory. What is compressed is known by its name or its first bytes. Parquet that is no plain
    file goes to a temporary one.

    Raises:
        ConfigError: standard input is closed, or (while iterating) the input cannot be opened or read, or has no
            column of ids.
        StoreError: (while iterating) the store cannot be reached, or there is no room for a temporary file.
    """
    shown = "stdin" if name == STDIN else name
    form = reading.format or format_of(name)
    raw = _blocks(name, reading, observer, stdin)
    blocks = decompressed(raw, CODECS.get(PurePath(name).suffix.lower()))
    if form == "parquet":
        return _parquet(name, blocks, reading.column, on_bad_line)
    if form == "text":
        return batches(blocks, LineParser(shown, on_bad_line))
    from mirror.sources.tables import CsvParser, JsonLinesParser  # noqa: PLC0415 - text needs neither

    parser: Parser
    if form == "jsonl":
        parser = JsonLinesParser(shown, on_bad_line, column=reading.column)
    else:
        delimiter = "," if form == "csv" else "\t"
        parser = CsvParser(shown, on_bad_line, column=reading.column, delimiter=delimiter)
    return batches(blocks, parser)


def _blocks(name: str, reading: Reading, observer: Observer, stdin: int) -> AsyncGenerator[bytes, None]:
    if name == STDIN:
        return stdin_blocks(stdin)
    if name.startswith(_BUCKET):
        from mirror.sources.objects import s3_blocks  # noqa: PLC0415 - boto3 takes its time

        return s3_blocks(name, reading.settings, observer)
    return file_blocks(name)


async def _parquet(
    name: str, blocks: AsyncGenerator[bytes, None], column: str | None, on_bad_line: Report
) -> AsyncGenerator[Batch, None]:
    from mirror.sources.parquet import from_parquet, from_spooled  # noqa: PLC0415

    if is_local(name) and await asyncio.to_thread(begins_with, name, b"PAR1"):
        source = from_parquet(name, name, column=column, on_bad_line=on_bad_line)
    else:
        shown = "stdin" if name == STDIN else name
        source = from_spooled(shown, blocks, column=column, on_bad_line=on_bad_line)
    async with aclosing(blocks), aclosing(source):
        async for ids in source:
            yield ids
