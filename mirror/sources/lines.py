"""Ids out of text, one a line, however the text is cut into blocks."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from mirror.sources import Batch

BLOCK = 64 << 10
"""How many bytes are read at once."""

MAX_LINE = 64 << 10
"""Longest line in bytes, its newline not counted; longer ones are reported."""

Report = Callable[[str], None]
"""Told of each line that cannot be used, as ``ids.txt:17: not UTF-8``."""

_BOM = b"\xef\xbb\xbf"
_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)


class Damaged(Exception):
    """A stream of bytes cannot be read on; ``whole`` where everything up to there is sure to have come."""

    def __init__(self, problem: str, *, whole: bool = False) -> None:
        super().__init__(problem)
        self.whole = whole


class Parser(Protocol):
    """Makes ids of blocks of bytes."""

    def feed(self, block: bytes) -> Batch: ...

    def finish(self) -> Batch: ...

    def interrupt(self, problem: str) -> None: ...


class LineParser:
    """Ids from UTF-8 text, before which a BOM may stand: one a line, without the white space around it.

    A ``#`` that begins a line or stands after white space begins a comment. Lines without an id are passed over.
    Lines end with LF or CRLF. The ids and reports are the same wherever the blocks were cut. Holds at most one line of
    :data:`MAX_LINE` bytes between two calls.
    """

    def __init__(self, name: str, on_bad_line: Report) -> None:
        self._name = name
        self._on_bad_line = on_bad_line
        self._begun = bytearray()  # the line that the next block goes on with
        self._too_long = False  # that line's bytes are not kept any more
        self._number = 0  # of the last line that ended

    def feed(self, block: bytes) -> Batch:
        """The ids of the lines that end in ``block``."""
        end = block.rfind(b"\n")
        if end < 0:
            self._begin(block)
            return []
        ids = self._lines(block[:end])
        self._begin(block[end + 1 :])
        return ids

    def finish(self) -> Batch:
        """The id of a last line without a newline."""
        return self._lines(b"") if self._begun or self._too_long else []

    def interrupt(self, problem: str) -> None:
        """Report that what follows the last whole line cannot be read."""
        self._on_bad_line(f"{self._name}:{self._number + 1}: {problem}")

    def _begin(self, part: bytes) -> None:
        if len(self._begun) + len(part) > MAX_LINE:
            self._too_long = True
            self._begun.clear()
        if not self._too_long:
            self._begun += part

    def _lines(self, part: bytes) -> Batch:
        """The ids of whole lines: of the one begun before, and of ``part``, which goes on with it."""
        ids: Batch = []
        if self._too_long:
            self._too_long = False
            self._number += 1
            self._report_length()
            _, newline, part = part.partition(b"\n")
            if not newline:
                return ids
        text = bytes(self._begun) + part
        self._begun.clear()
        lines = _decoded(text)
        if lines is None or self._number == 0:  # one by one, where something is odd or a BOM may stand
            for raw in text.split(b"\n"):
                self._line(raw, ids)
        else:
            self._number += len(lines)
            ids += [found for line in lines if (found := _id_in(line))]
        return ids

    def _line(self, raw: bytes, ids: Batch) -> None:
        self._number += 1
        if len(raw) > MAX_LINE:
            self._report_length()
            return
        try:
            found = _id_in((raw.removeprefix(_BOM) if self._number == 1 else raw).decode())
        except UnicodeDecodeError:
            self._report("not UTF-8")
        else:
            if found:
                ids.append(found)

    def _report_length(self) -> None:
        self._report(f"longer than {MAX_LINE:,} bytes")

    def _report(self, problem: str) -> None:
        self._on_bad_line(f"{self._name}:{self._number}: {problem}")


async def batches(blocks: AsyncGenerator[bytes, None], parser: Parser) -> AsyncGenerator[Batch, None]:
    """The ids of each block as soon as its lines are whole. Closes ``blocks``.

    Where they are :class:`Damaged` that is reported, and a last line that was cut off is no id.
    """
    try:
        async with aclosing(blocks):
            async for block in blocks:
                if ids := parser.feed(block):
                    yield ids
    except Damaged as damage:
        parser.interrupt(str(damage))
        if not damage.whole:
            return
    if ids := parser.finish():
        yield ids


def _decoded(text: bytes) -> list[str] | None:
    """The lines, all at once; None where one of them needs a closer look."""
    if len(text) > MAX_LINE and any(len(raw) > MAX_LINE for raw in text.split(b"\n")):
        return None
    try:
        return text.decode().split("\n")
    except UnicodeDecodeError:
        return None


def _id_in(line: str) -> str:
    return (_COMMENT.sub("", line) if "#" in line else line).strip()
