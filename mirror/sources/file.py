"""The bytes of a file."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from mirror.errors import ConfigError
from mirror.sources.blocking import blocks_of, in_thread
from mirror.sources.lines import BLOCK


async def file_blocks(path: str) -> AsyncGenerator[bytes, None]:
    """What a file holds, a block of 64 KiB at a time.

    A named pipe or a device is read as standard input is: it may block.

    Raises:
        ConfigError: (while iterating) the file cannot be opened or read.
    """
    import aiofiles  # noqa: PLC0415 - ids that are named need no file
    import aiofiles.os  # noqa: PLC0415

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


def begins_with(path: str, magic: bytes) -> bool:
    """Whether it is a regular file that begins with these bytes. Blocks."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(len(magic)) == magic
    except OSError:  # whoever reads it will say so
        return False


def _special(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        yield from blocks_of(fd, path)
    finally:
        os.close(fd)
