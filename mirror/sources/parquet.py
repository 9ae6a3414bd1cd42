"""Ids of one column of a Parquet file, read in batches: no more than that column, and not all of it, is in memory."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import IO, Any

from mirror.errors import ConfigError, Full
from mirror.sources import Batch
from mirror.sources.blocking import in_thread
from mirror.sources.lines import BLOCK, Damaged, Report
from mirror.sources.records import find_column, id_of, no_column, number_of

_ROWS = 4096
"""Rows in a batch."""


def require_pyarrow() -> Any:
    """The library's module for Parquet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigError("Parquet needs the library pyarrow: pip install 'prompt-mirror[tables]'") from None
    return pyarrow


async def from_parquet(
    name: str, file: str | IO[bytes], *, column: str | None, on_bad_line: Report
) -> AsyncGenerator[Batch, None]:
    """The ids in a file, given as a path or open, that can be read from anywhere. It is not closed.

    Raises:
        ConfigError: (while iterating) it is no Parquet, or has no such column; pyarrow is not installed.
    """
    async with aclosing(in_thread(_rows(name, file, column))) as rows:
        async for ids, problems in rows:
            for problem in problems:
                on_bad_line(problem)
            if ids:
                yield ids


async def from_spooled(
    name: str, blocks: AsyncGenerator[bytes, None], *, column: str | None, on_bad_line: Report
) -> AsyncGenerator[Batch, None]:
    """The same from a stream, which goes to a temporary file without a name first: nothing is left of it in any case.

    Raises:
        ConfigError: as above.
        Full: there is no room for it; ``TMPDIR`` says where it is put.
    """
    with tempfile.TemporaryFile(prefix="mirror-") as file:
        try:
            async with aclosing(blocks):
                async for block in blocks:
                    await asyncio.to_thread(file.write, block)
            await asyncio.to_thread(file.flush)
        except Damaged as damage:
            on_bad_line(f"{name}: {damage}")
            if not damage.whole:  # what tells of its columns stands at the end
                return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise Full(f"{name}: no room for a copy in {tempfile.gettempdir()}: set TMPDIR to where there is") from None
        async with aclosing(from_parquet(name, file, column=column, on_bad_line=on_bad_line)) as source:
            async for ids in source:
                yield ids


def _rows(name: str, file: str | IO[bytes], column: str | None) -> Iterator[tuple[Batch, list[str]]]:
    """Batches with what is wrong in them. Blocks."""
    pyarrow = require_pyarrow()
    # Without these two a row group's whole column would be read at once.
    options = {"buffer_size": BLOCK, "pre_buffer": False, "page_checksum_verification": True}
    try:
        opened = pyarrow.parquet.ParquetFile(file, **options)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be read as Parquet: {_first_line(error)}") from None
    with opened:
        names: list[str] = opened.schema_arrow.names
        chosen = _chosen(name, opened.schema_arrow, column)
        first = 1
        for group in range(opened.num_row_groups):
            row = first
            try:
                for batch in opened.iter_batches(_ROWS, row_groups=[group], columns=[names[chosen]], use_threads=False):
                    values = batch.column(batch.schema.names.index(names[chosen])).to_pylist()
                    yield _ids(name, row, values)
                    row += len(values)
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                yield [], [f"{name}:{row}: row group {group + 1} cannot be read on: {_first_line(error)}"]
            first += opened.metadata.row_group(group).num_rows


def _chosen(name: str, schema: Any, column: str | None) -> int:
    """Where the column of ids is: by its name, else by its number."""
    found = find_column(schema.names, column)
    number = number_of(column)
    if found is None and number is not None and number < len(schema.names):
        found = number
    if found is None:
        raise no_column(name, schema.names, column, "Give --column NAME")
    kind = schema.types[found]
    if kind.num_fields:  # a list, a struct, a map
        raise ConfigError(f"{name}: the column {schema.names[found]!r} holds {kind}, not ids")
    return found


def _ids(name: str, first: int, values: list[object]) -> tuple[Batch, list[str]]:
    ids: Batch = []
    problems: list[str] = []
    for row, value in enumerate(values, first):
        try:
            ids.append(id_of(value))
        except ValueError as error:
            problems.append(f"{name}:{row}: {error}")
    return ids, problems


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
