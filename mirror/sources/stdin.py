"""The bytes that come on standard input."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

from mirror.errors import ConfigError
from mirror.sources.blocking import blocks_of, in_thread


def stdin_blocks(fd: int = 0) -> AsyncGenerator[bytes, None]:
    """What an open file descriptor brings: a pipe, a terminal, a file. It is not closed.

    A block comes as soon as it is there. The next read is made when the one before was taken, so a fast writer has to
    wait. A read that blocks delays neither a cancellation nor the end of the process.

    Raises:
        ConfigError: standard input is closed, or (while iterating) cannot be read.
    """
    # With standard input closed from the start, 0 is whatever file was opened first.
    if fd == 0 and sys.__stdin__ is None:
        raise ConfigError("stdin: cannot be read: it is closed")
    return in_thread(blocks_of(fd, "stdin"))
