"""Ids that a program or a command line names."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing

from mirror.sources import Batch
from mirror.sources.blocking import in_thread

BATCH = 500
"""Ids in a batch cut from a list."""


def from_iterable(ids: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[Batch, None]:
    """The given ids. A list or tuple is cut into batches of :data:`BATCH`.

    From anything else each id is passed on before the next one is asked for: it may take its time to make one, or make
    it from what became of the last. Another iterable is iterated in a thread of its own, so it may block, and must not
    depend on the thread it was made in (a cursor of sqlite3 does: give ``cursor.fetchall()``).

    Raises:
        TypeError: one string instead of several, or (while iterating) an id that is no string.
    """
    _refuse_one(ids)
    if isinstance(ids, list | tuple):
        return _cut(ids)
    if isinstance(ids, AsyncIterable):
        return _awaited(ids)
    return _one_by_one(ids)


def listed(ids: Iterable[str]) -> list[str]:
    """The given ids, each once.

    Raises:
        TypeError: one string instead of several, or an id that is no string.
    """
    _refuse_one(ids)
    return list(dict.fromkeys(map(_checked, ids)))


def _refuse_one(ids: object) -> None:
    if isinstance(ids, str | bytes):
        raise TypeError(f"expected several ids, got one {type(ids).__name__}; put it into a list")


async def _cut(ids: Sequence[str]) -> AsyncGenerator[Batch, None]:
    for start in range(0, len(ids), BATCH):
        yield [_checked(found) for found in ids[start : start + BATCH]]


async def _awaited(ids: AsyncIterable[str]) -> AsyncGenerator[Batch, None]:
    async for found in ids:
        yield [_checked(found)]


async def _one_by_one(ids: Iterable[str]) -> AsyncGenerator[Batch, None]:
    async with aclosing(in_thread(iter(ids))) as passed:
        async for found in passed:
            yield [_checked(found)]


def _checked(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError(f"expected each id to be a string, got {type(found).__name__}")
    return found
