"""Rows of the catalog: they come back as they were saved, and only after their commit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror import names
from mirror.catalog import Catalog, Done, FileRecord, PromptRecord
from mirror.errors import CatalogError
from mirror.models import ManifestFile, Placed, PromptId, PromptState, Role, S3Object
from mirror.stores import Kept, Wanted
from tests.catalog_runs import ENTRY, FAILED, FAILURE, STORED, P, Q, in_catalog, is_sound, known, prompt, rows, saved

LEFT = FileRecord(identity="http://o/left.png", role=Role.THUMBNAIL)
LOST = replace(STORED, failure=FAILURE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


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
        async def act(catalog: Catalog) -> list[dict[str, tuple[int, int, int]]]:
            found = [await catalog.counts()]
            await saved(catalog, prompt("p", STORED), prompt("q", STORED, FAILED, state=PromptState.PARTIAL))
            await saved(catalog, prompt("r", STORED), prompt("s", state=PromptState.FAILED))
            found.append(await catalog.counts())
            await saved(catalog, *(prompt(which, FAILED, state=PromptState.PARTIAL) for which in "tuv"))
            return [*found, await catalog.counts()]

        complete, failed = (2, 2, 2 << 40), (1, 0, 0)
        assert in_catalog(path, act) == [
            {},
            {"complete": complete, "failed": failed, "partial": (1, 1, 1 << 40)},
            {"complete": complete, "failed": failed, "partial": (4, 1, 1 << 40)},
        ]

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


class TestDone:
    """What a run has nothing to do for, as far as the catalog goes."""

    @pytest.mark.parametrize(
        ("files", "state", "unfinished", "only", "done"),
        [
            ((STORED,), PromptState.COMPLETE, False, None, True),
            ((), PromptState.COMPLETE, False, None, True),
            ((STORED,), PromptState.COMPLETE, True, None, False),
            ((STORED,), PromptState.PARTIAL, False, None, False),
            ((STORED, FAILED), PromptState.COMPLETE, False, None, False),
            ((STORED, LEFT), PromptState.COMPLETE, False, None, False),
            ((STORED, LEFT), PromptState.PARTIAL, False, Role.ORIGIN, True),
            ((STORED, LEFT), PromptState.PARTIAL, False, Role.THUMBNAIL, False),
            ((STORED, LEFT), PromptState.PARTIAL, True, Role.ORIGIN, False),
            ((STORED,), PromptState.FAILED, False, Role.ORIGIN, False),
            ((LOST,), PromptState.COMPLETE, False, None, False),
        ],
    )
    def test_is_what_is_complete_with_all_its_files(
        self,
        path: Path,
        files: tuple[FileRecord, ...],
        state: PromptState,
        unfinished: bool,
        only: Role | None,
        done: bool,
    ) -> None:
        async def act(catalog: Catalog) -> list[Done]:
            await saved(catalog, replace(prompt("p", *files, state=state), unfinished=unfinished), run="now")
            return await catalog.done([P, Q], only)

        kept = tuple(Kept(path=ENTRY.path, bytes=ENTRY.bytes, s3=ENTRY.s3) for file in files if file is STORED)
        wanted = Wanted(folder="p", files=kept)
        expected = [Done(prompt_id=P, state=state, run="now", wanted=wanted)]
        assert in_catalog(path, act) == (expected if done else [])

    def test_tells_where_manifest_and_files_stand_in_a_bucket(self, path: Path) -> None:
        s3 = S3Object(bucket="b", key="p/a.png", etag='"1"', via="stream")
        placed = Placed(endpoint="", bucket="b", key="p/manifest.json", etag='"2"')
        file = FileRecord(identity=ENTRY.url, role=ENTRY.role, entry=replace(ENTRY, s3=s3))

        async def act(catalog: Catalog) -> list[Done]:
            await saved(catalog, replace(prompt("p", file), placed=placed))
            return await catalog.done([P])

        [done] = in_catalog(path, act)
        kept = Kept(path=ENTRY.path, bytes=ENTRY.bytes, s3=s3)
        assert done.wanted == Wanted(folder="p", files=(kept,), manifest=placed)

    def test_an_entry_that_cannot_be_read_is_no_file(self, path: Path) -> None:
        in_catalog(path, lambda catalog: saved(catalog, prompt("p", STORED)))
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE files SET entry = ?", (b'{"path": "a.png"}',))
        with pytest.raises(CatalogError, match="damaged"):
            in_catalog(path, lambda catalog: catalog.done([P]))


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


def test_what_is_complete_is_so_for_the_catalog_and_for_a_worker_alike(path: Path) -> None:
    """The catalog asks with SQL, a worker its shard's record: of every kind of prompt both must say the same."""
    wanted = FileRecord(identity="http://o/wanted.png", role=Role.THUMBNAIL)
    lost = FileRecord(identity="http://o/lost.mp4", role=Role.ORIGIN, entry=ENTRY, failure=FAILURE)
    kinds = [(), (STORED,), (FAILED,), (wanted,), (lost,), (STORED, FAILED), (STORED, wanted), (STORED, lost)]
    made = [
        replace(prompt(f"{state}-{unfinished}-{number}", *files, state=state), unfinished=unfinished)
        for state in PromptState
        for unfinished in (False, True)
        for number, files in enumerate(kinds)
    ]

    async def compare(catalog: Catalog) -> int:
        await saved(catalog, *made)
        ids = [record.prompt_id for record in made]
        records, found = await known(catalog, *ids), 0
        for only in (None, "origin", "thumbnail"):
            by_sql = {done.prompt_id: done for done in await catalog.done(ids, only)}
            by_record = {each: done for each in ids if (done := records[each].done(only)) is not None}
            assert {each: shown(done) for each, done in by_sql.items()} == {
                each: shown(done) for each, done in by_record.items()
            }
            found += len(by_sql)
        return found

    assert in_catalog(path, compare) > 10


def shown(done: Done) -> tuple[PromptState, str | None, str, list[str]]:
    return done.state, done.run, done.wanted.folder, sorted(file.path for file in done.wanted.files)
