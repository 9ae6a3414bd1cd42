"""Writes that are committed together: whole, in order, each with its own answer."""

from __future__ import annotations

import asyncio
import sqlite3
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mirror.catalog import Catalog, FileRecord, FileSaved, PromptRecord
from mirror.catalog.rows import apply
from mirror.catalog.schema import connect
from mirror.models import Role
from tests.catalog_runs import P, in_catalog, prompt, saved


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def of(number: int, role: Role = Role.ORIGIN) -> FileSaved:
    return FileSaved(prompt_id=P, record=FileRecord(identity=f"http://o/{number}.png", role=role), run="r")


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 129])
def test_a_group_of_any_size_is_written_whole(path: Path, count: int) -> None:
    async def act(catalog: Catalog) -> set[str]:
        await saved(catalog, prompt("p"))
        await catalog.apply([of(number) for number in range(count)])
        return {file.identity for file in (await catalog.records([P]))[P].files}

    assert in_catalog(path, act) == {f"http://o/{number}.png" for number in range(count)}


def test_no_statement_has_more_values_than_every_sqlite_takes(path: Path) -> None:
    in_catalog(path, lambda catalog: saved(catalog, prompt("p")))
    connection = connect(path, durable=False, mode="write")
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)  # before SQLite 3.32 that was all
    apply(connection, [of(number) for number in range(1000)])
    assert connection.execute("SELECT count(*) FROM files").fetchone() == (1000,)
    connection.close()


@pytest.mark.parametrize("apart", [1, 3, 64, 100])
def test_of_two_rows_for_one_file_in_a_group_the_later_one_stays(path: Path, apart: int) -> None:
    async def act(catalog: Catalog) -> Role:
        await saved(catalog, prompt("p"))
        between = [of(number) for number in range(1, apart)]
        await catalog.apply([of(0, Role.ORIGIN), *between, of(0, Role.THUMBNAIL)])
        return next(f.role for f in (await catalog.records([P]))[P].files if f.identity == of(0).record.identity)

    assert in_catalog(path, act) is Role.THUMBNAIL


def test_calls_and_writes_of_a_group_keep_their_order_and_each_gets_its_own(path: Path) -> None:
    async def act(catalog: Catalog) -> list[object]:
        await saved(catalog, prompt("p"))
        writes = [catalog.apply([of(number)]) for number in range(4)]
        told = await asyncio.gather(*writes[:2], catalog.claim(P), *writes[2:], catalog.claim(P))
        return [len(one.files) if isinstance(one, PromptRecord) else one for one in told]

    assert in_catalog(path, act) == [None, None, 2, None, None, 4]


def eager(loop: asyncio.AbstractEventLoop, coro: Any, **_: Any) -> Any:
    """What Python 3.12's asyncio.eager_task_factory does: the first step is taken at once, and it may be the last."""
    try:
        awaited = coro.send(None)
    except StopIteration as end:
        done = loop.create_future()
        done.set_result(end.value)
        return done
    awaited._asyncio_future_blocking = False

    @types.coroutine
    def rest() -> Generator[Any, Any, Any]:
        yield from awaited.__await__()
        return (yield from coro)

    return asyncio.Task(rest(), loop=loop)


def test_a_program_whose_tasks_start_at_once_is_told_of_its_commit(path: Path) -> None:
    async def act(catalog: Catalog) -> None:
        asyncio.get_running_loop().set_task_factory(eager)
        async with asyncio.timeout(60):
            await catalog.apply([])

    in_catalog(path, act)
