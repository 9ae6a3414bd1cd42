"""The catalog's file: its tables, how they came to be, and how it is opened."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Literal

from mirror.errors import CatalogError

Mode = Literal["write", "read", "scratch"]
"""``write`` makes or migrates a file as needed; ``read`` leaves it as it is; ``scratch`` is a copy in memory."""

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
    connection = _read_only(path) if mode == "read" else _own(path, mode)
    try:
        if mode == "scratch" and path.exists():
            with contextlib.closing(_read_only(path)) as file:
                file.backup(connection)
        _prepare(connection, path, durable, mode)
    except BaseException:
        connection.close()
        raise
    return connection


def _own(path: Path, mode: Mode) -> sqlite3.Connection:
    return sqlite3.connect(":memory:" if mode == "scratch" else path, isolation_level=None, timeout=10)


def _prepare(connection: sqlite3.Connection, path: Path, durable: bool, mode: Mode) -> None:
    if mode == "write":
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA foreign_keys = ON")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise CatalogError(f"{path} was written by a newer mirror (version {version}): use that one")
    if version < len(MIGRATIONS) and mode != "read":
        _migrate(connection, version)


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


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


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
