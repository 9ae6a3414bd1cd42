"""Ids from standard input, one a line."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

from mirror.errors import ConfigError
from mirror.sources import Batch
from mirror.sources.blocking import blocks_of, in_thread
from mirror.sources.lines import LineParser, Report, batches


def from_stdin(fd: int = 0, *, on_bad_line: Report) -> AsyncGenerator[Batch, None]:
    """The ids in what an open file descriptor brings: a pipe, a terminal, a file. It is not closed.

    Read as :class:`mirror.sources.lines.LineParser` says; an id comes as soon as its line is whole. The next read is
    made when the batch before was taken, so a fast writer has to wait. A read that blocks delays neither a cancellation
    nor the end of the process.

    Raises:
        ConfigError: standard input is closed, or (while iterating) cannot be read.
    """
    # With standard input closed from the start, 0 is whatever file was opened first.
    if fd == 0 and sys.__stdin__ is None:
        raise ConfigError("stdin: cannot be read: it is closed")
    return batches(in_thread(blocks_of(fd, "stdin")), LineParser("stdin", on_bad_line))
