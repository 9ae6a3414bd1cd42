"""What a run does with the catalog, from its opening to its end, and what another program finds in the file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from mirror.catalog import Catalog, FileRecord, Mode, PromptRecord
from mirror.models import Failure, ManifestFile, NamedBy, PromptId, PromptState, Role

T = TypeVar("T")

P, Q = PromptId("p"), PromptId("q")
ENTRY = ManifestFile(
    path="film.mp4",
    role=Role.ORIGIN,
    url="http://o/film.mp4",
    bytes=1 << 40,
    sha256="ab" * 32,
    etag='"1"',
    named_by=(NamedBy(prompt_id="p", task_id=1, image_id=None, field="origin"),),
    verified=("length",),
)
FAILURE = Failure(url="http://o/gone.png", role=Role.THUMBNAIL, error="Gone", message="HTTP 404 \u2026", attempts=3)
STORED = FileRecord(identity=ENTRY.url, role=Role.ORIGIN, entry=ENTRY)
FAILED = FileRecord(identity="http://o/gone.png", role=Role.THUMBNAIL, failure=FAILURE)


def in_catalog(path: Path, act: Callable[[Catalog], Awaitable[T]], mode: Mode = "write") -> T:
    """What a process does with the catalog from its opening to its end."""

    async def run() -> T:
        catalog = Catalog.open(path, mode=mode)
        try:
            return await asyncio.wait_for(act(catalog), 120)
        finally:
            await catalog.close()

    return asyncio.run(run())


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.execute(sql))


def change(path: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def is_sound(path: Path) -> bool:
    return rows(path, "PRAGMA integrity_check") == [("ok",)] and rows(path, "PRAGMA foreign_key_check") == []


def prompt(prompt_id: str, *files: FileRecord, state: PromptState = PromptState.COMPLETE) -> PromptRecord:
    return PromptRecord(prompt_id=PromptId(prompt_id), folder=prompt_id, state=state, unfinished=False, files=files)


async def saved(catalog: Catalog, *records: PromptRecord, run: str = "r") -> None:
    for record in records:
        await catalog.claim(record.prompt_id)
        await catalog.save_prompt(record, run)


async def known(catalog: Catalog, *prompt_ids: PromptId) -> dict[PromptId, PromptRecord]:
    return await catalog.records(prompt_ids)
