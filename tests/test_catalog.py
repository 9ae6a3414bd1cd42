"""The catalog's file: made, migrated, read beside a writer, damaged, and left behind by a kill."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.catalog import Catalog, Mode
from mirror.catalog.schema import MIGRATIONS, PAGE_SIZE
from mirror.errors import CatalogError
from mirror.models import PromptId
from tests import media
from tests.catalog_runs import STORED, P, Q, change, in_catalog, is_sound, known, prompt, rows, saved


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


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
    @pytest.mark.parametrize("size", [4096, PAGE_SIZE])
    def test_pages_stay_of_their_size(self, path: Path, mode: Mode, size: int) -> None:
        if size != PAGE_SIZE:
            change(path, f"PRAGMA page_size = {size}; VACUUM")  # as an earlier mirror made it
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        assert set(in_catalog(path, lambda catalog: known(catalog, P), mode=mode)) == {P}
        assert rows(path, "PRAGMA page_size") == [(size,)]

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
        content[4096:] = media.blob(len(content) - 4096)
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
            "UPDATE files SET entry = 7",
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

    def test_reading_what_is_not_there_makes_nothing(self, path: Path) -> None:
        with pytest.raises(CatalogError):
            in_catalog(path, lambda catalog: known(catalog, P), mode="read")
        assert not path.exists()

    @pytest.mark.parametrize("version", range(len(MIGRATIONS)))
    def test_reading_what_an_earlier_version_wrote_leaves_it_as_it_is(self, path: Path, version: int) -> None:
        path.touch()  # so far came a run that was killed, or had no more descriptors
        for number, script in enumerate(MIGRATIONS[:version], 1):
            change(path, f"{script}; PRAGMA user_version = {number}")
        if version:
            row = "prompt_id, folder, folder_key, state, unfinished, first_seen"
            change(path, f"INSERT INTO prompts ({row}) VALUES ('p', 'p', 'p', 'pending', 1, 7.0)")
        before = path.read_bytes()

        async def act(catalog: Catalog) -> set[PromptId]:
            await catalog.check()
            await catalog.standing()
            with pytest.raises(CatalogError, match="readonly"):
                await catalog.claim(P)
            return set(await known(catalog, P))

        assert in_catalog(path, act, mode="read") == ({P} if version else set())
        assert path.read_bytes() == before

    def test_brought_up_all_the_way_or_not_at_all(self, path: Path) -> None:
        change(path, f"{MIGRATIONS[0]}; PRAGMA user_version = 1; CREATE TABLE histories (url TEXT)")
        before = rows(path, "SELECT sql FROM sqlite_master")
        with pytest.raises(CatalogError, match="already exists"):
            Catalog.open(path)
        assert rows(path, "SELECT sql FROM sqlite_master") == before
        assert rows(path, "PRAGMA user_version") == [(1,)]

    def test_many_bring_it_up_at_the_same_time(self, path: Path) -> None:
        for _ in range(3):
            path.unlink(missing_ok=True)
            with ThreadPoolExecutor(8) as pool:
                opened = list(pool.map(Catalog.open, [path] * 8))
            for catalog in opened:
                asyncio.run(catalog.close())

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
