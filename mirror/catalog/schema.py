"""The catalog's file: its tables, how they came to be, and how it is opened."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Literal

from mirror.errors import CatalogError

Mode = Literal["write", "read", "scratch"]
"""``write`` makes or migrates a file as needed; ``read`` leaves it as it is; ``scratch`` is a copy in memory."""

PAGE_SIZE = 8192
"""Bytes; of a new file only. A row of ``files`` that is longer than a quarter of a page takes a page more, of its own.
In SQLite's usual ones of 4096 most files that stand in a bucket do, and the catalog is twice as large."""

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
    "ALTER TABLE prompts ADD COLUMN placed BLOB;",
    """
    ALTER TABLE prompts ADD COLUMN created_at REAL;
    ALTER TABLE prompts ADD COLUMN walk TEXT;
    ALTER TABLE prompts ADD COLUMN given_up REAL;
    ALTER TABLE prompts ADD COLUMN claimed TEXT;
    ALTER TABLE prompts ADD COLUMN changed REAL NOT NULL DEFAULT 0;
    CREATE INDEX files_failed ON files(prompt_id) WHERE failure IS NOT NULL;
    CREATE TABLE forgotten (prompt_id TEXT PRIMARY KEY, at REAL NOT NULL);
    CREATE TABLE histories (url TEXT PRIMARY KEY, floor REAL, top REAL NOT NULL);
    """,
)
"""Scripts that bring a catalog from one version to the next; the file's ``user_version`` counts those that ran."""


def connect(path: Path, durable: bool, mode: Mode) -> sqlite3.Connection:
    """Open a catalog's file. The connection belongs to the thread that calls this.

    Raises:
        CatalogError: a newer mirror wrote it.
        sqlite3.Error: anything else.
    """
    connection = _open(path, mode)
    try:
        if mode == "write":
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        if _version(connection, path) < len(MIGRATIONS):
            _migrate(connection, path)
        if mode == "read":
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path, mode: Mode) -> sqlite3.Connection:
    """The file; or a copy in memory, to work on, or to read in this version's form what an older mirror wrote."""
    if mode == "write":
        return sqlite3.connect(path, isolation_level=None, timeout=10)
    if mode == "scratch" and not path.exists():
        return sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.ExitStack() as closing:
        file = closing.enter_context(contextlib.closing(_read_only(path)))
        if mode == "read" and _version(file, path) == len(MIGRATIONS):
            closing.pop_all()
            return file
        copy = sqlite3.connect(":memory:", isolation_level=None)
        file.backup(copy)
        return copy


def _read_only(path: Path) -> sqlite3.Connection:
    """Opened as a writer would, so that the write-ahead log's files go again at the end; nothing is written."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None, timeout=10)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        # A folder that cannot be written to, and no run under way: the file is all there is, and nobody changes it.
        return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise CatalogError(f"{path} was written by a newer mirror (version {version}): use that one")
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """All of it or nothing; what another process has done meanwhile is not done again."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for script in MIGRATIONS[_version(connection, path) :]:
            for statement in script.split(";"):  # executescript() would commit first
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: where its message quotes damaged text, that is no UTF-8."""

_ADVICE = {
    sqlite3.SQLITE_FULL: ": make room and run again",
    sqlite3.SQLITE_READONLY: ": check who owns it and how it is mounted",
    sqlite3.SQLITE_CANTOPEN: ": check who owns it and its folder, and the limit on open files (ulimit -n)",
    sqlite3.SQLITE_IOERR: ": check the disk and what is free on it, and run again",
}


def damaged(path: Path, error: Exception) -> CatalogError:
    """SQLite's error, or that of its file, as ours, with what to do."""
    if isinstance(error, OSError):
        return CatalogError(f"the catalog {path} cannot be used: {error.strerror}: check the disk and who owns it")
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return CatalogError(f"the catalog {path} is locked by another program: {error}")
    if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
        return CatalogError(f"the catalog {path} cannot be used: {error}{advice}")
    return CatalogError(f"the catalog {path} is damaged ({error}): `mirror rebuild` makes it again from the manifests")


def remove(path: Path) -> None:
    """Delete a catalog's file and what SQLite keeps beside it, as far as they are there. Blocks.

    Raises:
        CatalogError: it cannot be deleted.
    """
    try:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise damaged(path, error) from error


def settle(path: Path) -> bool:
    """Bring the write-ahead log of a catalog into its file, which is whole by itself then. Blocks.

    False where that cannot be done: it is damaged, or no file.

    Raises:
        CatalogError: another program keeps it from being done, or there is no room.
    """
    if not path.is_file() or path.stat().st_size == 0:  # SQLite would delete the log of an empty file
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master")
            [is_busy, *_] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except FAULTS as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            raise damaged(path, error) from error
        return False
    if is_busy:
        raise CatalogError(f"the catalog {path} is locked by another program: run again when that has ended")
    return True
