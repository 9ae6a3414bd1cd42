"""CSV (RFC 4180): a header, then a record for each file, with the columns of ``rows``. An empty field is null.

Values stand there as they are, also those that a spreadsheet would take for a formula: a program that reads the table
must get what the manifest says.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from typing import Any

import msgspec

from mirror.manifests.formats import Export, FileFormat, Prompts
from mirror.manifests.rows import Row, rows_of


async def _blocks(prompts: Prompts, export: Export) -> AsyncGenerator[bytes, None]:  # noqa: ARG001
    yield _records([Row.__struct_fields__])
    async for holding in prompts:
        yield _records(map(_cells, rows_of(holding.folder, holding.manifest)))


def _records(records: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(records)
    return text.getvalue().encode()


def _cells(row: Row) -> list[Any]:
    return [_cell(value) for value in msgspec.structs.astuple(row)]


def _cell(value: Any) -> Any:
    """A list of words is joined by spaces; the places that name a file are JSON, and times are as in JSON."""
    if isinstance(value, datetime):
        return msgspec.to_builtins(value)
    if not isinstance(value, tuple):
        return value
    if all(isinstance(each, str) for each in value):
        return " ".join(value)
    return msgspec.json.encode(value).decode()


FORMAT = FileFormat(
    name="csv",
    about="CSV with a header: a record for each file.",
    suffix=".csv",
    blocks=_blocks,
)
