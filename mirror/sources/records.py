"""What tables of any format share: lines of bounded length, the column that holds the ids, and values as ids. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from mirror.errors import ConfigError

MAX_RECORD = 1 << 20
"""Longest record of a table in bytes; longer ones are reported."""

DEFAULT_COLUMNS = ("promptId", "prompt_id", "id")
"""The column taken where none is named: the first of these that is there, in upper or lower case."""

_BOM = b"\xef\xbb\xbf"


class LineSplitter:
    """Whole lines of bytes without their LF, however the bytes are cut into blocks; None for one that is too long.

    A BOM before the first is gone. Holds at most :data:`MAX_RECORD` bytes between two calls.
    """

    def __init__(self) -> None:
        self._begun = bytearray()
        self._too_long = False
        self._first = True

    def feed(self, block: bytes) -> list[bytes | None]:
        """The lines that end in ``block``."""
        *ended, rest = block.split(b"\n")
        lines: list[bytes | None] = []
        if ended:
            self._begin(ended[0])
            lines.append(self._end())
            lines += ended[1:] if len(block) <= MAX_RECORD else map(_bounded, ended[1:])
        self._begin(rest)
        return lines

    def finish(self) -> list[bytes | None]:
        """A last line without LF."""
        return [self._end()] if self._begun or self._too_long else []

    def _begin(self, part: bytes) -> None:
        if len(self._begun) + len(part) > MAX_RECORD:
            self._too_long = True
            self._begun.clear()
        if not self._too_long:
            self._begun += part

    def _end(self) -> bytes | None:
        line = None if self._too_long else bytes(self._begun)
        if line is not None and self._first:
            line = line.removeprefix(_BOM)
        self._first = self._too_long = False
        self._begun.clear()
        return line


def _bounded(line: bytes) -> bytes | None:
    return line if len(line) <= MAX_RECORD else None


def find_column(names: Sequence[str], wanted: str | None) -> int | None:
    """Where among ``names`` the ids stand; None where no column fits. The exact name goes before another case."""
    folded = [name.strip().casefold() for name in names]
    for candidate in DEFAULT_COLUMNS if wanted is None else (wanted,):
        for given, sought in ((list(names), candidate), (folded, candidate.casefold())):
            if sought in given:
                return given.index(sought)
    return None


def no_column(name: str, found: Sequence[str], wanted: str | None, advice: str) -> ConfigError:
    """No column fits: the message lists those that are there."""
    sought = (
        f"named {wanted!r}" if wanted is not None else f"{', '.join(DEFAULT_COLUMNS[:-1])} or {DEFAULT_COLUMNS[-1]}"
    )
    listed = ", ".join(repr(each[:80]) for each in found[:50]) or "none"
    return ConfigError(f"{name}: there is no column {sought}; its columns are: {listed}. {advice}")


def number_of(column: str | None) -> int | None:
    """The place, from 0, of a column given as its number from 1; None for a name."""
    return int(column) - 1 if column and column.isascii() and column.isdigit() and 0 < int(column[:9]) < 10**6 else None


def id_of(value: object) -> str:
    """A table's value as an id: text without the white space around it, or a whole number.

    Raises:
        ValueError: it is neither; the message says what it is.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("the id is empty")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bool):
        raise ValueError("the id is a truth value")
    try:
        whole = int(value)  # type: ignore[call-overload]  # floats and decimals are numbers that may be whole
        if whole == value:
            return str(whole)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"the id is neither text nor a whole number ({type(value).__name__})")
