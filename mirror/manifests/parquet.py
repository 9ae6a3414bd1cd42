"""Parquet: a row for each file, with the columns of ``rows`` and their types stated. Needs the extra ``tables``."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
from msgspec import inspect

from mirror.manifests.formats import Export, FileFormat, Prompts
from mirror.manifests.rows import Row, rows_of
from mirror.sources.parquet import require_pyarrow

_BATCH = 1024
"""Rows that are turned into columns at once: as objects they take ten times the memory."""
_GROUP = 16
"""Batches in a row group: so much is in memory before it is written."""


async def _blocks(prompts: Prompts, export: Export) -> AsyncGenerator[bytes, None]:  # noqa: ARG001
    table = _Table(require_pyarrow())
    async for holding in prompts:
        rows = rows_of(holding.folder, holding.manifest)
        while some := list(islice(rows, _BATCH)):
            if table.add(some):
                yield await asyncio.to_thread(table.write)
    yield await asyncio.to_thread(table.close)


class _Table:
    """The file as it grows. What is written is taken out at once."""

    def __init__(self, pyarrow: Any) -> None:
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema(_fields(pyarrow, Row))
        self._sink = _Sink()
        # Snappy and format 2.6 are what every reader knows. A page's checksum tells of a flipped bit in it.
        self._writer = pyarrow.parquet.ParquetWriter(
            self._sink, self._schema, compression="snappy", version="2.6", write_page_checksum=True
        )
        self._rows: list[Row] = []
        self._batches: list[Any] = []

    def add(self, rows: Sequence[Row]) -> bool:
        """Take rows in; True where there are enough of them for a row group."""
        self._rows.extend(rows)
        if len(self._rows) >= _BATCH:
            self._pack()
        return len(self._batches) >= _GROUP

    def write(self) -> bytes:
        """What there is as a row group. Blocks."""
        self._pack()
        if self._batches:
            group = self._pyarrow.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(group, row_group_size=group.num_rows)
            self._batches.clear()
        return self._sink.taken()

    def close(self) -> bytes:
        """The last rows and the file's end. Blocks."""
        last = self.write()
        self._writer.close()
        return last + self._sink.taken()

    def _pack(self) -> None:
        if self._rows:
            told = msgspec.to_builtins(self._rows, builtin_types=(datetime,))
            self._batches.append(self._pyarrow.RecordBatch.from_pylist(told, schema=self._schema))
            self._rows.clear()


class _Sink(io.RawIOBase):
    """Takes what pyarrow writes, until it is taken out."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _fields(pyarrow: Any, of: type) -> list[Any]:
    told = inspect.type_info(of)
    assert isinstance(told, inspect.StructType)
    return [_field(pyarrow, field.encode_name, field.type) for field in told.fields]


def _field(pyarrow: Any, name: str, told: inspect.Type) -> Any:
    nullable = isinstance(told, inspect.UnionType)
    if isinstance(told, inspect.UnionType):
        (told,) = (each for each in told.types if not isinstance(each, inspect.NoneType))
    return pyarrow.field(name, _type(pyarrow, told), nullable=nullable)


def _type(pyarrow: Any, told: inspect.Type) -> Any:
    if isinstance(told, inspect.VarTupleType):
        return pyarrow.list_(_field(pyarrow, "element", told.item_type))
    if isinstance(told, inspect.StructType):
        return pyarrow.struct(_fields(pyarrow, told.cls))
    return {
        inspect.StrType: pyarrow.string(),
        inspect.IntType: pyarrow.int64(),
        inspect.FloatType: pyarrow.float64(),
        inspect.DateTimeType: pyarrow.timestamp("us", tz="UTC"),
    }[type(told)]


FORMAT = FileFormat(
    name="parquet",
    about="Parquet: a row for each file, typed columns (the extra `tables`).",
    suffix=".parquet",
    blocks=_blocks,
    is_text=False,
)
