"""Ids out of CSV, TSV and JSON lines, however the bytes are cut into blocks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from mirror.sources import Batch
from mirror.sources.lines import Report
from mirror.sources.records import DEFAULT_COLUMNS, MAX_RECORD, LineSplitter, find_column, id_of, no_column, number_of

_TOO_LONG = f"longer than {MAX_RECORD:,} bytes"


class _Parser:
    """What the parsers share: whole lines, counted."""

    def __init__(self, name: str, on_bad_line: Report) -> None:
        self._name = name
        self._on_bad_line = on_bad_line
        self._splitter = LineSplitter()
        self._number = 0  # of the last line that was looked at

    def feed(self, block: bytes) -> Batch:
        """The ids of the records that end in ``block``."""
        return self._take(self._splitter.feed(block))

    def finish(self) -> Batch:
        """The id of a last record without a newline."""
        return self._take(self._splitter.finish())

    def interrupt(self, problem: str) -> None:
        """Report that what follows the last whole line cannot be read."""
        self._report(self._number + 1, problem)

    def _take(self, lines: list[bytes | None]) -> Batch:
        raise NotImplementedError

    def _report(self, number: int, problem: str) -> None:
        self._on_bad_line(f"{self._name}:{number}: {problem}")


class CsvParser(_Parser):
    """Ids of one column of CSV or TSV as RFC 4180 and Python's ``csv`` have it: UTF-8, quoted fields, LF or CRLF.

    The first row names the columns. Where ``column`` is a number (from 1) there need not be such a row; one is known by
    the name of a default column in that place. A record, newlines in quotes included, has at most
    :data:`~mirror.sources.records.MAX_RECORD` bytes. Where a quote does not end within that, its line is reported, and
    the next record begins on the line after.
    """

    def __init__(self, name: str, on_bad_line: Report, *, column: str | None = None, delimiter: str = ",") -> None:
        super().__init__(name, on_bad_line)
        self._column = column
        self._delimiter = delimiter
        self._index = number_of(column)
        self._label = f"column {column}"
        self._at_top = True
        self._open: list[bytes] = []  # a record that a quote holds open
        self._size = 0  # of that
        other = re.escape(delimiter.encode())
        # Possessive throughout: the time they take grows with the line and no faster.
        fields = rb'(?:(?:"(?:[^"]|"")*+"[^%b]*+|[^"%b][^%b]*+|)(?:%b|\Z))*+' % (other, other, other, other)
        self._closed = re.compile(fields)
        self._closing = re.compile(rb'(?:[^"]|"")*+"[^%b]*+(?:\Z|%b%b)' % (other, other, fields))

    def finish(self) -> Batch:
        ids = super().finish()
        if self._open:
            self._give_up("a quote is opened and never closed", ids)
        return ids

    def _take(self, lines: list[bytes | None]) -> Batch:
        ids: Batch = []
        run: list[bytes] = []  # records of one line each
        for line in lines:
            if line is not None and not self._open and (b'"' not in line or self._closed.fullmatch(line)):
                run.append(line)
                continue
            self._records(run, ids)
            run = []
            if line is None:
                self._give_up(_TOO_LONG, ids)
                self._number += 1
                self._report(self._number, _TOO_LONG)
            else:
                self._go_on(line, ids)
        self._records(run, ids)
        return ids

    def _go_on(self, line: bytes, ids: Batch) -> None:
        """One more line of a record that is, or becomes, open."""
        closes = bool(self._open) and self._closing.fullmatch(line) is not None
        self._open.append(line)
        self._size += len(line) + 1
        if self._size > MAX_RECORD:
            self._give_up(f"a quote is opened and not closed within {MAX_RECORD:,} bytes", ids)
        elif closes:
            record, self._open, self._size = self._open, [], 0
            self._rows(record, self._number + 1, ids)
            self._number += len(record)

    def _give_up(self, problem: str, ids: Batch) -> None:
        """The open record is none: its first line is bad, and each other stands for itself (so this takes no time)."""
        lines, self._open, self._size = self._open, [], 0
        for at, line in enumerate(lines):
            if at and self._closed.fullmatch(line):
                self._records([line], ids)
            else:
                self._number += 1
                self._report(self._number, "a quote is opened and not closed on this line" if at else problem)

    def _records(self, lines: list[bytes], ids: Batch) -> None:
        """Records of one line each."""
        if lines:
            self._rows(lines, self._number + 1, ids)
            self._number += len(lines)

    def _rows(self, lines: list[bytes], first: int, ids: Batch) -> None:
        try:
            text = b"\n".join(lines).decode().split("\n")
        except UnicodeDecodeError:
            if len(lines) == 1 or self._closed.fullmatch(lines[0]) is None:
                self._report(first, "not UTF-8")
                return
            for at, line in enumerate(lines):
                self._rows([line], first + at, ids)
            return
        for number, row in self._read(text, first):
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if self._at_top:
                self._at_top = False
                if self._is_header(row):
                    continue
            try:
                ids.append(id_of(row[self._index]))  # type: ignore[index]  # the header has set it
            except IndexError:
                self._report(number, f"there is no {self._label}")
            except ValueError as error:
                self._report(number, str(error))

    def _read(self, lines: list[str], first: int) -> Iterator[tuple[int, list[str]]]:
        """The rows, each with the number of its first line."""
        reader = csv.reader([f"{line}\n" for line in lines], delimiter=self._delimiter)
        while True:
            number = first + reader.line_num
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._report(number, f"not {'TSV' if self._delimiter == chr(9) else 'CSV'}: {error}")
            else:
                yield number, row

    def _is_header(self, row: list[str]) -> bool:
        if self._index is None:
            self._index = find_column(row, self._column)
            if self._index is None:
                advice = "Give --column NAME, or its number (from 1) where no row names the columns"
                raise no_column(self._name, row, self._column, advice)
            self._label = f"column {row[self._index].strip()}"
            return True
        return self._index < len(row) and find_column([row[self._index]], None) is not None


_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DIGITS = re.compile(rb"-?\d{1,4000}")


class JsonLinesParser(_Parser):
    """Ids of JSON lines: each line an object with the key ``column`` (a plain name, not a path), or an id by itself."""

    def __init__(self, name: str, on_bad_line: Report, *, column: str | None = None) -> None:
        super().__init__(name, on_bad_line)
        self._column = column
        self._missing = (
            f"there is no key {column or f'{DEFAULT_COLUMNS[0]}, {DEFAULT_COLUMNS[1]} or {DEFAULT_COLUMNS[2]}'}"
        )

    def _take(self, lines: list[bytes | None]) -> Batch:
        ids: Batch = []
        for line in lines:
            self._number += 1
            if line is None:
                self._report(self._number, _TOO_LONG)
            elif text := line.strip():
                try:
                    ids.append(self._id_in(text))
                except msgspec.DecodeError as error:
                    self._report(self._number, f"not a JSON object: {error}")
                except RecursionError:
                    self._report(self._number, "not a JSON object: nested too deep")
                except ValueError as error:
                    self._report(self._number, str(error))
        return ids

    def _id_in(self, text: bytes) -> str:
        raw: Any = text
        if text.startswith(b"{"):
            found = _OBJECT.decode(text)
            raw = found.get(self._column or DEFAULT_COLUMNS[0])
            if raw is None:
                names = list(found)
                index = find_column(names, self._column)
                if index is None:
                    raise ValueError(self._missing)
                raw = found[names[index]]
        value = bytes(raw)
        # Exactly as it is written: a decoder would round what has too many digits.
        return value.decode() if _DIGITS.fullmatch(value) else id_of(msgspec.json.decode(value))
