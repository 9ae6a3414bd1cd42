"""The catalog: what was done, in SQLite. An index over the manifests, and the memory of failures.

One thread owns the connection. Writes that wait are committed together, and each caller goes on only after its own
commit: a row says that something is durable, never that it will be.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from mirror import names
from mirror.errors import CatalogError
from mirror.models import Failure, ManifestFile, PromptId, PromptState, Role

T = TypeVar("T")
Mode = Literal["write", "read", "scratch"]

MIGRATIONS = (
    """
    CREATE TABLE prompts (
        prompt_id TEXT PRIMARY KEY,
        folder TEXT NOT NULL,
        folder_key TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        unfinished INTEGER NOT NULL,
        error TEXT,
        message TEXT,
        note TEXT,
        tries INTEGER NOT NULL DEFAULT 0,
        first_seen REAL NOT NULL,
        last_tried REAL,
        run TEXT
    );
    CREATE INDEX prompts_state ON prompts(state);
    CREATE TABLE files (
        prompt_id TEXT NOT NULL REFERENCES prompts(prompt_id) ON DELETE CASCADE,
        identity TEXT NOT NULL,
        role TEXT NOT NULL,
        path TEXT,
        bytes INTEGER,
        entry BLOB,
        failure BLOB,
        run TEXT,
        PRIMARY KEY (prompt_id, identity)
    ) WITHOUT ROWID;
    CREATE INDEX files_identity ON files(identity) WHERE entry IS NOT NULL;
    """,
)
"""Scripts that bring a catalog from one version to the next; the file's ``user_version`` counts those that ran."""


class FileRecord(Struct, frozen=True, kw_only=True):
    """A file of a prompt: stored (``entry``), failed (``failure``), or only known to be wanted (neither).

    With both it was stored once, is no longer there, and could not be fetched again: its digest is not forgotten.
    """

    identity: str
    role: Role
    entry: ManifestFile | None = None
    failure: Failure | None = None


class PromptRecord(Struct, frozen=True, kw_only=True):
    """What is known of a prompt.

    ``unfinished`` says that more than its files is open: a task that has not ended, or an answer that could not be
    read whole. ``run`` is the run that dealt with it last; times are Unix seconds.
    """

    prompt_id: PromptId
    folder: str
    state: PromptState = PromptState.UNRESOLVED
    unfinished: bool = True
    error: str | None = None
    message: str | None = None
    note: str | None = None
    tries: int = 0
    last_tried: float | None = None
    run: str | None = None
    files: tuple[FileRecord, ...] = ()

    def stored(self) -> dict[str, ManifestFile]:
        """The entries of the files that are stored, by identity."""
        return {file.identity: file.entry for file in self.files if file.entry is not None and file.failure is None}


class Catalog:
    """One catalog file. Open it with :meth:`open`; close it when done."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

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
            connection = thread.submit(_connect, path, durable, mode).result()
        except sqlite3.Error as error:
            thread.shutdown()
            raise _damaged(path, error) from None
        except CatalogError:
            thread.shutdown()
            raise
        return cls(path, connection, thread)

    async def close(self) -> None:
        """Commit what waits, and let go."""
        while self._committing is not None and not self._committing.done():
            await asyncio.wait({self._committing})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    # Reading -----------------------------------------------------------------------------------

    async def records(self, prompt_ids: Sequence[PromptId]) -> dict[PromptId, PromptRecord]:
        """What is known of these prompts; unknown ones are left out."""
        return await self._read(lambda connection: {r.prompt_id: r for r in _records(connection, prompt_ids)})

    async def stored_in(self, run: str, identities: Sequence[str]) -> dict[str, tuple[str, ManifestFile]]:
        """Which of these files the run has stored already: for each, a folder and the file's entry."""

        def find(connection: sqlite3.Connection) -> dict[str, tuple[str, ManifestFile]]:
            rows = connection.execute(
                "SELECT identity, folder, entry FROM files JOIN prompts USING (prompt_id)"
                " WHERE identity IN (SELECT value FROM json_each(?))"
                " AND entry IS NOT NULL AND failure IS NULL AND files.run = ?",
                (_listed(identities), run),
            )
            return {identity: (folder, _decode(entry, ManifestFile)) for identity, folder, entry in rows}

        return await self._read(find)

    async def counts(self) -> dict[str, tuple[int, int, int]]:
        """For each state: prompts, stored files, and their bytes."""

        def count(connection: sqlite3.Connection) -> dict[str, tuple[int, int, int]]:
            rows = connection.execute(
                "SELECT state, count(*), coalesce(sum(n), 0), coalesce(sum(size), 0) FROM prompts LEFT JOIN"
                " (SELECT prompt_id, count(entry) AS n, sum(bytes) AS size FROM files"
                " WHERE failure IS NULL GROUP BY prompt_id)"
                " USING (prompt_id) GROUP BY state ORDER BY state"
            )
            return {state: (prompts, files, size) for state, prompts, files, size in rows}

        return await self._read(count)

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

    async def prompt_ids(self, *, failed: bool = False) -> list[PromptId]:
        """The ids of all prompts, or of those of which something failed or was never resolved."""

        def find(connection: sqlite3.Connection) -> list[PromptId]:
            rows = connection.execute(
                "SELECT prompt_id FROM prompts WHERE NOT ? OR error IS NOT NULL OR state = 'unresolved'"
                " ORDER BY first_seen, prompt_id",
                (failed,),
            )
            return [PromptId(row[0]) for row in rows]

        return await self._read(find)

    # Writing -----------------------------------------------------------------------------------

    async def claim(self, prompt_id: PromptId) -> PromptRecord:
        """Count a try at a prompt, and give it its folder, which stays its own."""
        return await self._write(lambda connection: _claim(connection, prompt_id))

    async def save_file(self, prompt_id: PromptId, record: FileRecord, run: str) -> None:
        """Record the outcome of one file. Call it after the file is durable."""
        await self._write(lambda connection: _save_file(connection, prompt_id, record, run))

    async def save_prompt(self, record: PromptRecord, run: str) -> None:
        """Record a prompt's state and its files. Call it after the manifest is durable."""

        def save(connection: sqlite3.Connection) -> None:
            _save_prompt(connection, record, run)

        await self._write(save)

    async def mark(self, prompt_ids: Sequence[PromptId], run: str) -> None:
        """Note that a run has dealt with these prompts."""

        def mark(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE prompts SET run = ? WHERE prompt_id IN (SELECT value FROM json_each(?))",
                (run, _listed(prompt_ids)),
            )

        await self._write(mark)

    async def forget(self, prompt_id: PromptId) -> bool:
        """Remove a prompt; False if it was not there."""

        def remove(connection: sqlite3.Connection) -> bool:
            return connection.execute("DELETE FROM prompts WHERE prompt_id = ?", (prompt_id,)).rowcount > 0

        return await self._write(remove)

    # The one thread ----------------------------------------------------------------------------

    async def _read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            try:
                return call(self._connection)
            except sqlite3.Error as error:
                raise _damaged(self.path, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    async def _write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``call`` run inside the next transaction; returns after its commit."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_waiting())
        return await done

    async def _commit_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                results = await loop.run_in_executor(self._thread, self._commit, [call for call, _ in group])
            except sqlite3.Error as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(_damaged(self.path, error))
                continue
            for (_, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)

    def _commit(self, calls: Iterable[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return [call(self._connection) for call in calls]


def _connect(path: Path, durable: bool, mode: Mode) -> sqlite3.Connection:
    if mode == "read":
        connection = _read_only(path)
    elif mode == "scratch":
        connection = sqlite3.connect(":memory:", isolation_level=None)
        if path.exists():
            with contextlib.closing(_read_only(path)) as file:
                file.backup(connection)
    else:
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA foreign_keys = ON")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        connection.close()
        raise CatalogError(f"{path} was written by a newer mirror (version {version}): use that one")
    if version < len(MIGRATIONS) and mode != "read":
        _migrate(connection, version)
    return connection


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


def _records(connection: sqlite3.Connection, prompt_ids: Sequence[PromptId]) -> Iterator[PromptRecord]:
    wanted = (_listed(prompt_ids),)
    files: dict[str, list[FileRecord]] = {}
    for prompt_id, identity, role, entry, failure in connection.execute(
        "SELECT prompt_id, identity, role, entry, failure FROM files"
        " WHERE prompt_id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        files.setdefault(prompt_id, []).append(
            FileRecord(
                identity=identity,
                role=Role(role),
                entry=_decode(entry, ManifestFile) if entry else None,
                failure=_decode(failure, Failure) if failure else None,
            )
        )
    for row in connection.execute(
        "SELECT prompt_id, folder, state, unfinished, error, message, note, tries, last_tried, run FROM prompts"
        " WHERE prompt_id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        yield PromptRecord(
            prompt_id=PromptId(row[0]),
            folder=row[1],
            state=PromptState(row[2]),
            unfinished=bool(row[3]),
            error=row[4],
            message=row[5],
            note=row[6],
            tries=row[7],
            last_tried=row[8],
            run=row[9],
            files=tuple(files.get(row[0], ())),
        )


def _listed(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()


def _claim(connection: sqlite3.Connection, prompt_id: PromptId) -> PromptRecord:
    now = time.time()
    known = next(_records(connection, [prompt_id]), None)
    if known is None:
        folder = _free_folder(connection, prompt_id)
        connection.execute(
            "INSERT INTO prompts (prompt_id, folder, folder_key, state, unfinished, tries, first_seen, last_tried)"
            " VALUES (?, ?, ?, ?, 1, 1, ?, ?)",
            (prompt_id, folder, names.key(folder), PromptState.UNRESOLVED, now, now),
        )
        return PromptRecord(prompt_id=prompt_id, folder=folder, tries=1, last_tried=now)
    connection.execute("UPDATE prompts SET tries = tries + 1, last_tried = ? WHERE prompt_id = ?", (now, prompt_id))
    return known


def _free_folder(connection: sqlite3.Connection, prompt_id: PromptId) -> str:
    plain, suffixed = names.for_prompt(prompt_id)
    taken = connection.execute("SELECT 1 FROM prompts WHERE folder_key = ?", (names.key(plain),)).fetchone()
    return suffixed if taken else plain


def _save_file(connection: sqlite3.Connection, prompt_id: PromptId, record: FileRecord, run: str) -> None:
    entry = record.entry
    connection.execute(
        "INSERT OR REPLACE INTO files (prompt_id, identity, role, path, bytes, entry, failure, run)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            prompt_id,
            record.identity,
            record.role,
            entry.path if entry else None,
            entry.bytes if entry else None,
            msgspec.json.encode(entry) if entry else None,
            msgspec.json.encode(record.failure) if record.failure else None,
            run,
        ),
    )


def _save_prompt(connection: sqlite3.Connection, record: PromptRecord, run: str) -> None:
    connection.execute(
        "INSERT INTO prompts (prompt_id, folder, folder_key, state, unfinished, error, message, note, first_seen, run)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (prompt_id) DO UPDATE SET state = excluded.state,"
        " unfinished = excluded.unfinished, error = excluded.error, message = excluded.message,"
        " note = excluded.note, run = excluded.run",
        (
            record.prompt_id,
            record.folder,
            names.key(record.folder),
            record.state,
            record.unfinished,
            record.error,
            record.message,
            record.note,
            time.time(),
            run,
        ),
    )
    for file in record.files:
        _save_file(connection, record.prompt_id, file, run)


def _decode(blob: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(blob, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise sqlite3.DatabaseError(f"a row cannot be read: {error}") from error


def _damaged(path: Path, error: sqlite3.Error) -> CatalogError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return CatalogError(f"the catalog {path} is locked by another program: {error}")
    if isinstance(error, sqlite3.OperationalError):
        return CatalogError(f"the catalog {path} cannot be used: {error}")
    return CatalogError(f"the catalog {path} is damaged ({error}): `mirror rebuild` makes it again from the manifests")
