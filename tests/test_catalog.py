"""The catalog: what it says was committed, and a file that is not a catalog is called one by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mirror import names
from mirror.catalog import Catalog, FileRecord, Mode, PromptRecord
from mirror.catalog.schema import MIGRATIONS
from mirror.errors import CatalogError
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def in_catalog(path: Path, act: Callable[[Catalog], Awaitable[T]], mode: Mode = "write") -> T:
    """What a process does with the catalog from its opening to its end."""

    async def run() -> T:
        catalog = Catalog.open(path, mode=mode)
        try:
            return await asyncio.wait_for(act(catalog), 5)
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


class TestFile:
    def test_made_from_nothing(self, path: Path) -> None:
        assert in_catalog(path, lambda catalog: known(catalog, P)) == {}
        assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
        assert is_sound(path)

    @pytest.mark.parametrize("version", range(len(MIGRATIONS)))
    def test_brought_up_from_any_earlier_version(self, path: Path, version: int) -> None:
        for number, script in enumerate(MIGRATIONS[:version], 1):
            change(path, f"{script}; PRAGMA user_version = {number}")
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        assert in_catalog(path, lambda catalog: known(catalog, P))[P].files == (STORED,)
        assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]

    def test_opened_again_as_it_was(self, path: Path) -> None:
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        schema = rows(path, "SELECT sql FROM sqlite_master ORDER BY name")
        assert set(in_catalog(path, lambda catalog: known(catalog, P))) == {P}
        assert rows(path, "SELECT sql FROM sqlite_master ORDER BY name") == schema

    @pytest.mark.parametrize("mode", ["write", "read", "scratch"])
    def test_of_a_newer_version(self, path: Path, mode: Mode) -> None:
        in_catalog(path, lambda catalog: known(catalog, P))
        change(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        before = path.read_bytes()
        with pytest.raises(CatalogError, match="newer mirror"):
            Catalog.open(path, mode=mode)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("mode", ["write", "read", "scratch"])
    def test_that_is_none(self, path: Path, mode: Mode) -> None:
        path.write_bytes(b"This is no database. " * 500)
        with pytest.raises(CatalogError, match="`mirror rebuild`"):
            Catalog.open(path, mode=mode)
        assert path.read_bytes() == b"This is no database. " * 500

    def test_that_is_damaged_inside(self, path: Path) -> None:
        in_catalog(path, lambda catalog: saved(catalog, *(prompt(f"p{n}", STORED) for n in range(50))))
        assert rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(CatalogError, match="`mirror rebuild`"):
            in_catalog(path, lambda catalog: catalog.check())
        with pytest.raises(CatalogError, match="`mirror rebuild`"):
            in_catalog(path, lambda catalog: saved(catalog, prompt("new")))

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE files SET entry = x'7b22'",
            "UPDATE files SET entry = '{}'",
            "UPDATE files SET role = 'another'",
            "UPDATE prompts SET state = 'another'",
        ],
    )
    def test_with_a_row_that_cannot_be_read(self, path: Path, damage: str) -> None:
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        change(path, damage)
        with pytest.raises(CatalogError, match="`mirror rebuild`"):
            in_catalog(path, lambda catalog: known(catalog, P))
        with pytest.raises(CatalogError, match="`mirror rebuild`"):
            in_catalog(path, lambda catalog: catalog.claim(P))

    def test_in_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="cannot be used"):
            Catalog.open(tmp_path / "none" / "catalog.sqlite")

    def test_that_another_program_writes_to_is_waited_for(self, path: Path) -> None:
        in_catalog(path, lambda catalog: known(catalog, P))

        async def act(catalog: Catalog) -> None:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                writing = asyncio.create_task(saved(catalog, prompt("p", STORED)))
                await asyncio.sleep(0.1)
                assert not writing.done()
                other.execute("COMMIT")
                await writing

        in_catalog(path, act)
        assert set(in_catalog(path, lambda catalog: known(catalog, P))) == {P}


class TestClaim:
    def claimed(self, path: Path, *prompt_ids: str) -> list[str]:
        async def act(catalog: Catalog) -> list[str]:
            return [(await catalog.claim(PromptId(prompt_id))).folder for prompt_id in prompt_ids]

        return in_catalog(path, act)

    def suffixed(self, prompt_id: str) -> str:
        digest = hashlib.sha256(prompt_id.encode()).hexdigest()
        return f"{prompt_id}-{digest[:8]}"

    def test_a_folder_of_its_own_name(self, path: Path) -> None:
        assert self.claimed(path, "p", "q") == ["p", "q"]

    def test_which_it_keeps(self, path: Path) -> None:
        first = self.claimed(path, "abc", "ABC")
        assert self.claimed(path, "ABC", "abc") == first[::-1]

    @pytest.mark.parametrize(("one", "other"), [("abc", "ABC"), ("strasse", "stra\u00dfe"), ("\ufb01n", "FIN")])
    def test_names_that_some_file_systems_hold_for_one(self, path: Path, one: str, other: str) -> None:
        folders = self.claimed(path, one, other)
        assert len({names.key(folder) for folder in folders}) == 2
        assert folders[1] == self.suffixed(other)

    def test_even_if_a_promptid_looks_like_what_another_would_get(self, path: Path) -> None:
        folders = self.claimed(path, "abc", self.suffixed("ABC"), "ABC")
        assert folders[:2] == ["abc", self.suffixed("ABC")]
        assert len({names.key(folder) for folder in folders}) == 3

    @pytest.mark.parametrize("prompt_id", ["a/b", "..", ".mirror", "manifest.json", "con", "a\\b", "x" * 250])
    def test_what_is_no_name_is_made_one(self, path: Path, prompt_id: str) -> None:
        [folder] = self.claimed(path, prompt_id)
        assert folder == names.safe(folder) != prompt_id
        assert "/" not in folder

    def test_tries_are_counted(self, path: Path) -> None:
        self.claimed(path, "p", "p", "p", "q")
        found = in_catalog(path, lambda catalog: known(catalog, P, Q))
        assert (found[P].tries, found[Q].tries) == (3, 1)
        assert found[P].state is PromptState.UNRESOLVED


class TestRecords:
    def test_come_back_as_they_were_saved(self, path: Path) -> None:
        record = PromptRecord(
            prompt_id=P,
            folder="p",
            state=PromptState.PARTIAL,
            unfinished=True,
            error="Gone",
            message="HTTP 404 \u2026",
            note="noted",
            files=(STORED, FAILED, FileRecord(identity="http://o/left.png", role=Role.THUMBNAIL)),
        )
        in_catalog(path, lambda catalog: saved(catalog, record, run="run-1"))

        [found] = in_catalog(path, lambda catalog: known(catalog, P, Q)).values()

        for field in ("prompt_id", "folder", "state", "unfinished", "error", "message", "note"):
            assert getattr(found, field) == getattr(record, field), field
        assert {file.identity: file for file in found.files} == {file.identity: file for file in record.files}
        assert (found.run, found.stored()) == ("run-1", {ENTRY.url: ENTRY})

    def test_a_file_that_was_lost_keeps_its_entry(self, path: Path) -> None:
        lost = FileRecord(identity=ENTRY.url, role=Role.ORIGIN, entry=ENTRY, failure=FAILURE)

        async def act(catalog: Catalog) -> PromptRecord:
            await saved(catalog, prompt("p", STORED))
            await catalog.save_file(P, lost, "r")
            return (await known(catalog, P))[P]

        found = in_catalog(path, act)
        assert (found.files, found.stored()) == ((lost,), {})

    def test_files_that_a_save_does_not_mention_stay(self, path: Path) -> None:
        async def act(catalog: Catalog) -> PromptRecord:
            await saved(catalog, prompt("p", STORED))
            await catalog.save_prompt(prompt("p", FAILED, state=PromptState.PARTIAL), "r")
            return (await known(catalog, P))[P]

        assert {file.identity for file in in_catalog(path, act).files} == {STORED.identity, FAILED.identity}

    def test_what_a_run_has_stored_is_found_by_identity(self, path: Path) -> None:
        async def act(catalog: Catalog) -> list[dict[str, tuple[str, ManifestFile]]]:
            await saved(catalog, prompt("p", STORED, FAILED), run="now")
            await saved(catalog, prompt("q", STORED), run="before")
            wanted = [STORED.identity, FAILED.identity, "http://o/none.png"]
            return [await catalog.stored_in(run, wanted) for run in ("now", "before", "never")]

        entry = {ENTRY.url: ENTRY}
        assert in_catalog(path, act) == [
            {url: ("p", found) for url, found in entry.items()},
            {url: ("q", found) for url, found in entry.items()},
            {},
        ]

    def test_counts(self, path: Path) -> None:
        async def act(catalog: Catalog) -> dict[str, tuple[int, int, int]]:
            await saved(catalog, prompt("p", STORED), prompt("q", STORED, FAILED, state=PromptState.PARTIAL))
            await saved(catalog, prompt("r", STORED))
            return await catalog.counts()

        assert in_catalog(path, act) == {"complete": (2, 2, 2 << 40), "partial": (1, 1, 1 << 40)}

    def test_forgetting_takes_the_files_along(self, path: Path) -> None:
        async def act(catalog: Catalog) -> list[bool]:
            await saved(catalog, prompt("p", STORED), prompt("q", FAILED))
            return [await catalog.forget(P), await catalog.forget(P)]

        assert in_catalog(path, act) == [True, False]
        assert rows(path, "SELECT DISTINCT prompt_id FROM files") == [("q",)]
        assert is_sound(path)

    def test_many_ids_at_once(self, path: Path) -> None:
        ids = [PromptId(f"p{number}") for number in range(40_000)]
        in_catalog(path, lambda catalog: saved(catalog, prompt("p7")))
        assert set(in_catalog(path, lambda catalog: catalog.records(ids))) == {PromptId("p7")}


class TestGroupCommit:
    def test_every_writer_goes_on_after_its_own_commit(self, path: Path) -> None:
        async def act(catalog: Catalog) -> list[bool]:
            async def write(number: int) -> bool:
                await catalog.claim(PromptId(f"p{number}"))
                return bool(rows(path, f"SELECT 1 FROM prompts WHERE prompt_id = 'p{number}'"))

            return list(await asyncio.gather(*(write(number) for number in range(200))))

        assert in_catalog(path, act) == [True] * 200
        assert rows(path, "SELECT count(*) FROM prompts") == [(200,)]

    def test_those_that_wait_share_one(self, path: Path) -> None:
        async def act(catalog: Catalog) -> int:
            await asyncio.gather(*(catalog.claim(PromptId(f"p{number}")) for number in range(400)))
            return path.with_name(path.name + "-wal").stat().st_size

        # Each commit appends a page of 4 KiB to the write-ahead log, at least.
        assert in_catalog(path, act) < 200 * 4096

    def test_a_writer_that_gives_up_takes_nobody_along(self, path: Path) -> None:
        async def act(catalog: Catalog) -> list[bool]:
            writers = [asyncio.create_task(catalog.claim(PromptId(f"p{number}"))) for number in range(20)]
            await asyncio.sleep(0)
            for writer in writers[::2]:
                writer.cancel()
            await asyncio.wait(writers)
            return [writer.cancelled() for writer in writers]

        assert in_catalog(path, act) == [True, False] * 10
        assert {(f"p{number}",) for number in range(1, 20, 2)} <= set(rows(path, "SELECT prompt_id FROM prompts"))

    def test_closing_commits_what_waits(self, path: Path) -> None:
        async def act(catalog: Catalog) -> asyncio.Future[list[PromptRecord]]:
            waiting = asyncio.gather(*(catalog.claim(PromptId(f"p{number}")) for number in range(50)))
            await asyncio.sleep(0)
            return waiting

        in_catalog(path, act)
        assert rows(path, "SELECT count(*) FROM prompts") == [(50,)]


class TestModes:
    def test_reading_while_another_writes(self, path: Path) -> None:
        async def act(writer: Catalog) -> list[set[PromptId]]:
            seen = []
            await saved(writer, prompt("p"))
            reader = await asyncio.to_thread(Catalog.open, path, mode="read")
            seen.append(set(await known(reader, P, Q)))
            await saved(writer, prompt("q"))
            seen.append(set(await known(reader, P, Q)))
            with pytest.raises(CatalogError, match="readonly"):
                await reader.claim(P)
            await reader.close()
            return seen

        assert in_catalog(path, act) == [{P}, {P, Q}]

    @pytest.mark.parametrize("content", [None, b""])
    def test_reading_what_is_not_there_makes_nothing(self, path: Path, content: bytes | None) -> None:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CatalogError):
            in_catalog(path, lambda catalog: known(catalog, P), mode="read")
        assert (path.read_bytes() if path.exists() else None) == content

    def test_scratch_leaves_the_file_as_it_is(self, path: Path) -> None:
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        before = path.read_bytes(), path.stat().st_mtime_ns

        async def act(catalog: Catalog) -> set[PromptId]:
            await saved(catalog, prompt("q", STORED))
            await catalog.forget(P)
            return set(await known(catalog, P, Q))

        assert in_catalog(path, act, mode="scratch") == {Q}
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before

    def test_scratch_without_a_file_makes_none(self, path: Path) -> None:
        in_catalog(path, lambda catalog: saved(catalog, prompt("q", STORED)), mode="scratch")
        assert not path.exists()


WRITER = """
import asyncio, sys
from pathlib import Path
from mirror.catalog import Catalog, FileRecord
from mirror.models import Role

async def write(catalog, worker):
    for number in range(1_000_000):
        prompt_id = f"{worker}-{number}"
        await catalog.claim(prompt_id)
        await catalog.save_file(prompt_id, FileRecord(identity="http://o/" + "x" * number, role=Role.ORIGIN), "r")
        print(prompt_id, flush=True)

async def main():
    catalog = Catalog.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(catalog, worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("committed", [1, 100, 700])
def test_a_killed_writer_leaves_a_sound_file_with_all_that_was_committed(path: Path, committed: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip() for _ in range(committed)]
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.read().split()

    assert set(told[:-1]) <= {prompt_id for (prompt_id,) in rows(path, "SELECT prompt_id FROM files")}
    assert is_sound(path)
    found = in_catalog(path, lambda catalog: known(catalog, PromptId(told[0]), P))
    assert [len(record.files) for record in found.values()] == [1]
    in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
    assert is_sound(path)
