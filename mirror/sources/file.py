"""Ids from a text file, one a line."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import aiofiles
import aiofiles.os

from mirror.errors import ConfigError
from mirror.sources import Batch
from mirror.sources.blocking import blocks_of, in_thread
from mirror.sources.lines import BLOCK, LineParser, Report, batches


def from_file(path: str | os.PathLike[str], *, on_bad_line: Report) -> AsyncGenerator[Batch, None]:
    """The ids in a file, read as :class:`mirror.sources.lines.LineParser` says, a block of 64 KiB a batch.

    Of a file of any size no more than a block's ids are in memory. A named pipe or a device is read as standard input
    is: it may block.

    Raises:
        ConfigError: (while iterating) the file cannot be opened or read.
    """
    name = os.fspath(path)
    return batches(_blocks(name), LineParser(name, on_bad_line))


async def _blocks(path: str) -> AsyncGenerator[bytes, None]:
    try:
        if stat.S_ISREG((await aiofiles.os.stat(path)).st_mode):
            async with aiofiles.open(path, "rb", buffering=0) as file:
                while block := await file.read(BLOCK):  # one change of threads a block
                    yield block
            return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    # Opening a named pipe blocks until somebody writes to it, and the pool's threads are waited for at exit.
    async with aclosing(in_thread(_special(path))) as blocks:
        async for block in blocks:
            yield block


def _special(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        yield from blocks_of(fd, path)
    finally:
        os.close(fd)
