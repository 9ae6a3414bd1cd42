"""The catalog: what was done, in SQLite. An index over the manifests, and the memory of failures.

One thread owns the connection. Writes that wait are committed together, and each caller goes on only after its own
commit: a row says that something is durable, never that it will be.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from mirror.catalog import queue, rows
from mirror.catalog.merge import merge
from mirror.catalog.queue import Due, Found, GivenUp, Place, Standing
from mirror.catalog.records import (
    Claimed,
    Done,
    FileRecord,
    FileSaved,
    Marked,
    PromptRecord,
    PromptSaved,
    Write,
)
from mirror.catalog.rows import decode, listed, read_done, read_prompts
from mirror.catalog.schema import FAULTS, Mode, connect, damaged
from mirror.endings import ended
from mirror.errors import CatalogError
from mirror.models import Covered, Listed, ManifestFile, PromptId, PromptState

__all__ = [
    "Catalog",
    "Claimed",
    "Done",
    "Due",
    "FileRecord",
    "FileSaved",
    "Found",
    "GivenUp",
    "Marked",
    "Mode",
    "Place",
    "PromptRecord",
    "PromptSaved",
    "Standing",
    "Write",
    "in_pages",
]

T = TypeVar("T")

_Call = Callable[[sqlite3.Connection], Any]

_MOMENT = 0.003
"""Seconds. Who waits for a commit holds no place at a host, so this costs no throughput."""


class Catalog:
    """One catalog file. Open it with :meth:`open`; close it when done."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._waiting: list[tuple[_Call | Sequence[Write], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop  # that of what is committed now

    @classmethod
    def open(cls, path: Path, *, durable: bool = True, mode: Mode = "write") -> Catalog:
        """Open a catalog. Blocks.

        ``write`` makes or migrates it as needed; ``read`` leaves it as it is; ``scratch`` works on a copy in memory,
        which is gone when it is closed.

        Raises:
            CatalogError: it is damaged, of a newer version, or cannot be opened.
        """
        thread = ThreadPoolExecutor(1, "mirror-catalog")
        try:
            connection = thread.submit(connect, path, durable, mode).result()
        except (*FAULTS, OSError) as error:
            thread.shutdown()
            raise damaged(path, error) from None
        except CatalogError:
            thread.shutdown()
            raise
        return cls(path, connection, thread)

    async def close(self) -> None:
        """Commit what waits, and let go."""
        try:
            while self._committing is not None and not self._committing.done():
                await ended({self._committing})
        finally:  # who is cancelled closes it, too
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            try:
                await asyncio.shield(closing)
            finally:
                self._thread.shutdown()

    # Reading -----------------------------------------------------------------------------------

    async def records(self, prompt_ids: Sequence[PromptId]) -> dict[PromptId, PromptRecord]:
        """What is known of these prompts; unknown ones are left out."""
        return await self._read(lambda connection: {r.prompt_id: r for r in read_prompts(connection, prompt_ids)})

    async def done(self, prompt_ids: Sequence[PromptId], only: str | None = None) -> list[Done]:
        """Those of these prompts that are complete, in no order; with ``only``, as far as files of that role go."""
        return await self._read(lambda connection: list(read_done(connection, prompt_ids, only)))

    async def stored_in(self, run: str, identities: Sequence[str]) -> dict[str, tuple[str, ManifestFile]]:
        """Which of these files the run has stored already: for each, a folder and the file's entry."""

        def find(connection: sqlite3.Connection) -> dict[str, tuple[str, ManifestFile]]:
            rows = connection.execute(
                "SELECT identity, folder, entry FROM files JOIN prompts USING (prompt_id)"
                " WHERE identity IN (SELECT value FROM json_each(?))"
                " AND entry IS NOT NULL AND failure IS NULL AND files.run = ?",
                (listed(identities), run),
            )
            return {identity: (folder, decode(entry, ManifestFile)) for identity, folder, entry in rows}

        return await self._read(find)

    async def counts(self) -> dict[str, tuple[int, int, int]]:
        """For each state: prompts, stored files, and their bytes."""
        return await self._read(rows.counts)

    async def standing(self) -> Standing:
        """How things stand beyond the states."""
        return await self._read(queue.standing)

    async def check(self) -> None:
        """Have SQLite check the file.

        Raises:
            CatalogError: it is damaged.
        """

        def check(connection: sqlite3.Connection) -> None:
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said)

        await self._read(check)

    async def prompt_ids(self, *, failed: bool = False, page: int = 200) -> AsyncGenerator[list[PromptId], None]:
        """The ids of all prompts, or of those of which something failed or was never resolved: oldest first, in pages.

        Prompts that come meanwhile come last.
        """
        after = -1
        while True:
            ids, after = await self._read(partial(rows.page_of_ids, after=after, failed=failed, limit=page))
            if not ids:
                return
            yield ids

    async def records_in(self, folders: Sequence[str]) -> list[PromptRecord]:
        """The records of the prompts that these folders belong to."""
        return await self._read(lambda connection: rows.read_folders(connection, folders))

    async def count_files(self, prompt_ids: Sequence[PromptId] = ()) -> int:
        """How many files were stored of these prompts, of all without any; those that are lost again included."""

        def count(connection: sqlite3.Connection) -> int:
            only = " AND prompt_id IN (SELECT value FROM json_each(?))" if prompt_ids else ""
            given = (listed(prompt_ids),) if prompt_ids else ()
            found = connection.execute(f"SELECT count(*) FROM files WHERE entry IS NOT NULL{only}", given)  # noqa: S608  # nosec B608 # our own text
            return int(found.fetchone()[0])

        return await self._read(count)

    async def untried(self, after: int, most: int) -> Found:
        """Prompts that nobody asked about yet, behind a row number."""
        return await self._read(lambda connection: queue.untried(connection, after, most))

    async def due(
        self, which: Due, group: tuple[PromptState, ...], after: Place, most: int
    ) -> list[tuple[Place, PromptId]]:
        """Prompts of these states that are due, behind a place; those tried last come last."""
        return await self._read(lambda connection: queue.due(connection, which, group, after, most))

    async def covered(self, url: str) -> Covered | None:
        """How much of a history stands in the catalog."""
        return await self._read(lambda connection: queue.covered(connection, url))

    async def heard_of(self) -> int:
        """How many prompts the history has named so far."""
        return await self._read(queue.heard_of)

    async def is_news(self, prompt_ids: Sequence[PromptId]) -> bool:
        """Whether one of these never stood in the catalog."""
        return await self._read(lambda connection: queue.is_news(connection, prompt_ids))

    # Writing -----------------------------------------------------------------------------------

    async def claim(self, prompt_id: PromptId, run: str = "") -> PromptRecord:
        """Count a run's try at a prompt, and give it its folder, which stays its own."""
        return await self._write(lambda connection: rows.claim(connection, prompt_id, run))

    async def enroll(self, prompt_ids: Sequence[PromptId]) -> list[PromptRecord]:
        """Have a row, and a folder, for each of these prompts. Returns what is known of them, in order."""
        return await self._write(lambda connection: rows.enroll(connection, prompt_ids))

    async def apply(self, writes: Sequence[Write]) -> None:
        """Make several writes together."""
        await self._write(writes)

    async def save_file(self, prompt_id: PromptId, record: FileRecord, run: str) -> None:
        """Record the outcome of one file. Call it after the file is durable."""
        await self._write([FileSaved(prompt_id=prompt_id, record=record, run=run)])

    async def save_prompt(self, record: PromptRecord, run: str) -> None:
        """Record a prompt's state and its files. Call it after the manifest is durable."""
        await self.apply([PromptSaved(record=record, run=run)])

    async def mark(self, prompt_ids: Sequence[PromptId], run: str) -> None:
        """Note that a run has dealt with these prompts."""
        await self.apply([Marked(prompt_ids=list(prompt_ids), run=run)])

    async def enlist(self, listed: Sequence[Listed], walk: str) -> tuple[int, int]:
        """Put rows of the history in; returns how many this walk, and how many nobody, had seen before."""
        return await self._write(lambda connection: queue.enlist(connection, listed, walk))

    async def cover(self, url: str, stretch: Covered) -> None:
        """Record how much of a history stands in the catalog. Call it after :meth:`enlist`."""
        await self._write(lambda connection: queue.cover(connection, url, stretch))

    async def reopen(self) -> None:
        """Take up again what was given up."""
        await self._write(queue.reopen_all)

    async def give_up(self, which: Due, before: float) -> list[GivenUp]:
        """Leave alone what this run has found unfinished and what has been known since ``before`` (Unix seconds)."""
        return await self._write(lambda connection: queue.give_up(connection, which, before))

    async def merge(self, other: Path) -> None:
        """Take in what another catalog knows; nothing that either knows is lost. Nobody has the other one open.

        Raises:
            CatalogError: the other one is damaged, or of a newer version.
        """
        theirs = await asyncio.to_thread(Catalog.open, other)  # brings it to this version
        await theirs.close()
        await self._read(lambda connection: merge(connection, other))

    async def save_as(self, path: Path) -> bool:
        """Write a copy to a file that is not there yet. False if nothing was changed since this was opened."""

        def save(connection: sqlite3.Connection) -> bool:
            connection.execute("VACUUM INTO ?", (str(path),))
            return connection.total_changes > 0

        return await self._read(save)

    async def forget(self, prompt_id: PromptId) -> bool:
        """Remove a prompt; False if it was not there."""

        def remove(connection: sqlite3.Connection) -> bool:
            # Noted, so that the catalog of a run that was under way meanwhile does not bring it back.
            connection.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (prompt_id, time.time()))
            return connection.execute("DELETE FROM prompts WHERE prompt_id = ?", (prompt_id,)).rowcount > 0

        return await self._write(remove)

    # The one thread ----------------------------------------------------------------------------

    async def _read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            try:
                return call(self._connection)
            except FAULTS as error:
                raise damaged(self.path, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    @overload
    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T: ...
    @overload
    async def _write(self, work: Sequence[Write]) -> None: ...
    async def _write(self, work: _Call | Sequence[Write]) -> Any:
        """Have a call run, or writes made, inside the next transaction; returns after its commit."""
        is_idle = self._committing is None or self._committing.done()
        if is_idle:
            self._loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((work, done))  # first: a task may begin at once
        if is_idle:
            self._committing = self._loop.create_task(self._commit_waiting())
        return await done

    async def _commit_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        size = 1
        while self._waiting:
            if size > 1:  # many write at once: the next group is larger for a moment's wait, and there are fewer
                await asyncio.sleep(_MOMENT)
            group, self._waiting = self._waiting, []
            size = len(group)
            try:
                results = await loop.run_in_executor(self._thread, self._commit, [work for work, _ in group])
            except Exception as error:  # noqa: BLE001  whoever waits must be told, whatever it is
                told = damaged(self.path, error) if isinstance(error, FAULTS) else error
                for _, done in group:
                    if not done.done():
                        done.set_exception(told)
                continue
            for (_, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)

    def _commit(self, group: Iterable[_Call | Sequence[Write]]) -> list[Any]:
        """In order; writes that follow one another are one list for :func:`rows.apply`."""
        connection, results = self._connection, list[Any]()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for are_calls, those in groupby(group, callable):
                if are_calls:
                    results += [cast("_Call", call)(connection) for call in those]
                else:
                    lists = cast("list[Sequence[Write]]", list(those))
                    rows.apply(connection, chain.from_iterable(lists))
                    results += [None] * len(lists)
        return results


async def in_pages(ids: Sequence[PromptId], page: int) -> AsyncGenerator[list[PromptId], None]:
    """Ids that are at hand, in pages as :meth:`Catalog.prompt_ids` gives them."""
    for start in range(0, len(ids), page):
        yield list(ids[start : start + page])
