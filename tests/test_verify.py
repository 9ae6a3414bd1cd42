"""``mirror verify``: what is missing, damaged, unreadable or unexpected; samples; lines as they come."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from mirror.audit import forget
from mirror.catalog import Catalog
from mirror.checks import Checked
from mirror.errors import StoreUnavailable
from mirror.models import PromptId
from mirror.places import open_places
from mirror.sampling import Sample, parse_sample
from mirror.verification import Verify, _as_they_end
from tests import faults
from tests.catalog_runs import change, in_catalog, prompt, saved
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored
from tests.origin import Origin


def flaws(out: str) -> list[tuple[str, str, str]]:
    """What verify prints: promptId, where, and the first word of what is wrong."""
    rows = [line.split("\t") for line in out.splitlines()]
    assert all(len(row) == 3 for row in rows)
    return sorted((prompt_id, where, what.partition(":")[0]) for prompt_id, where, what in rows)


def many(origin: Origin, archive: Archive, count: int) -> list[str]:
    ids = [f"p{number:04}" for number in range(count)]
    for prompt_id in ids:
        done_prompt(origin, prompt_id, "a.png", "b.png")
    assert mirrored(archive, *ids).code == 0
    origin.clear()
    return ids


def test_all_is_looked_at_over_many_pages(origin: Origin, archive: Archive) -> None:
    ids = many(origin, archive, 230)
    done = archive.run("verify")
    assert (done.code, done.out) == (0, "")
    assert "690 files" in done.err
    assert "nothing wrong" in done.err
    for prompt_id in (ids[0], ids[150], ids[-1]):
        (archive.root / prompt_id / "b.png").unlink()
    done = archive.run("verify")
    assert (done.code, flaws(done.out)) == (3, [(i, f"{i}/b.png", "missing") for i in (ids[0], ids[150], ids[-1])])
    some = archive.run("verify", ids[0], ids[1])
    assert (some.code, "6 files" in some.err, flaws(some.out)) == (3, True, [(ids[0], f"{ids[0]}/b.png", "missing")])
    assert origin.requests == []


def test_a_flaw_is_told_while_others_are_still_looked_at(origin: Origin, archive: Archive) -> None:
    """The last file is so large, and full of holes, that hashing it takes long; the flaw is told before."""
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "q", "b.png")
    assert mirrored(archive, "p").code == 0
    assert mirrored(archive, "q").code == 0
    (archive.root / "p" / "a.png").unlink()
    size = 1 << 40
    os.truncate(archive.root / "q" / "b.png", size)
    catalog = archive.root / ".mirror" / "catalog.sqlite"
    manifest = archive.root / "q" / "manifest.json"
    told = archive.manifest("q")["files"][0]["bytes"]
    manifest.write_text(manifest.read_text().replace(f'"bytes": {told}', f'"bytes": {size}'))
    change(
        catalog,
        f"UPDATE files SET entry = replace(entry, '\"bytes\":{told}', '\"bytes\":{size}') WHERE prompt_id = 'q'",
    )
    process = archive.start("verify")
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("p\tp/a.png\tmissing")
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.communicate()


def test_the_unexpected_is_told_left_alone_and_no_flaw(origin: Origin, archive: Archive) -> None:
    many(origin, archive, 3)
    root = archive.root
    (root / "p0001" / "notes.txt").write_text("mine")
    (root / "p0001" / "folder").mkdir()
    (root / "stranger").mkdir()
    (root / "stranger" / "x.png").write_bytes(b"x")
    (root / "summary.json").write_text("{}")  # what was exported there is nobody's prompt
    before = archive.files()
    done = archive.run("verify")
    assert (done.code, archive.files()) == (0, before)
    assert flaws(done.out) == [
        ("-", "stranger/", "unexpected"),
        ("p0001", "p0001/folder", "unexpected"),
        ("p0001", "p0001/notes.txt", "unexpected"),
    ]
    assert "nothing wrong, 3 unexpected" in done.err
    named = archive.run("verify", "p0000")
    assert (named.code, named.out) == (0, "")
    assert archive.run("verify", "--repair").code == 0
    assert archive.files() == before


def test_what_was_lost_by_the_catalog_s_word_is_missing(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "b.png").unlink()
    origin.add("/p/b.png", b"", fault=faults.status(404, times=faults.FOREVER))
    assert archive.run("fetch", "p").code == 3
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png"]
    done = archive.run("verify")
    assert (done.code, flaws(done.out)) == (3, [("p", "p/b.png", "missing")])


def test_files_are_looked_at_where_their_manifest_is_gone(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    done_prompt(origin, "q", "a.png")
    assert mirrored(archive, "p", "q").code == 0
    shutil.rmtree(archive.root / "q")
    (archive.root / "p" / "manifest.json").write_bytes(b"{}")
    (archive.root / "p" / "b.png").write_bytes(b"other")
    assert flaws(archive.run("verify").out) == [
        ("p", "p/b.png", "damaged"),
        ("p", "p/manifest.json", "damaged"),
        ("q", "q/a.png", "missing"),
        ("q", "q/manifest.json", "missing"),
    ]


def test_what_is_forgotten_meanwhile_is_not_missing(origin: Origin, archive: Archive) -> None:
    """A page of rows is read at once: when the turn of its last ones comes, they and their files may be gone."""
    ids = many(origin, archive, 40)
    (archive.root / ids[30] / "a.png").unlink()

    async def verified() -> list[tuple[str, str, str | None]]:
        places = open_places(archive.settings())
        catalog = Catalog.open(archive.root / ".mirror" / "catalog.sqlite")
        try:
            async with contextlib.aclosing(Verify(places, catalog).on_disk()) as found:
                told = [await anext(found)]
                for prompt_id in ids[31:]:
                    await forget(catalog, places, PromptId(prompt_id), delete=True)
                told += [each async for each in found]
        finally:
            await catalog.close()
            await places.close()
        return [(each.prompt_id, each.where, each.flaw) for each in told if each.flaw]

    assert asyncio.run(verified()) == [(ids[30], f"{ids[30]}/a.png", "missing")]


def test_another_prompt_s_manifest_is_no_manifest(origin: Origin, archive: Archive) -> None:
    many(origin, archive, 2)
    shutil.copy(archive.root / "p0000" / "manifest.json", archive.root / "p0001" / "manifest.json")
    done = archive.run("verify")
    assert (done.code, flaws(done.out)) == (3, [("p0001", "p0001/manifest.json", "damaged")])


def test_flaws_as_json(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").write_bytes(bodies["a.png"][:-1])
    (archive.root / "p" / "b.png").unlink()
    done = archive.run("verify", "--json")
    size = len(bodies["a.png"])
    assert done.code == 3
    assert sorted(done.lines, key=lambda line: str(line["where"])) == [
        {"prompt_id": "p", "where": "p/a.png", "flaw": "damaged", "detail": f"{size - 1} bytes, not {size}"},
        {"prompt_id": "p", "where": "p/b.png", "flaw": "missing", "detail": ""},
    ]
    assert "2 wrong" in done.err
    repaired = archive.run("verify", "--json", "--repair")
    assert [json.loads(line)["repaired"] for line in repaired.out.splitlines()] == [True, True]


def test_a_sample_is_repeated_by_its_seed(origin: Origin, archive: Archive) -> None:
    ids = many(origin, archive, 120)
    for prompt_id in ids:
        (archive.root / prompt_id / "a.png").unlink()
    exact = archive.run("verify", "--sample", "30")
    found = re.search(r"a sample of 30 of 240 files \(--seed (\d+)\)", exact.err)
    assert found, exact.err
    assert 0 < len(flaws(exact.out)) <= 30
    again = archive.run("verify", "--sample", "30", "--seed", found[1])
    assert flaws(again.out) == flaws(exact.out)
    share = archive.run("verify", "--sample", "100%")
    assert ("a sample of 240 of 240 files" in share.err, len(flaws(share.out))) == (True, 120)
    mended = archive.run("verify", "--sample", "30", "--seed", found[1], "--repair")
    assert (mended.code, len(origin.media_requests)) == (0, len(flaws(exact.out)))


def test_every_file_has_the_same_chance() -> None:
    hits = [0] * 20
    for seed in range(2000):
        sample = Sample(count=5, seed=seed)
        sample.begin(20)
        taken = [sample.takes_next() for _ in range(20)]
        assert sum(taken) == 5
        hits = [hit + got for hit, got in zip(hits, taken, strict=True)]
    assert all(400 < hit < 600 for hit in hits), hits
    sample = Sample(share=0.01, seed=1)
    sample.begin(100_000)
    assert 800 < sum(sample.takes_next() for _ in range(100_000)) < 1200


@pytest.mark.parametrize("text", ["", "0", "-1", "0%", "101%", "nan%", "many", "1.5"])
def test_what_is_no_sample_is_refused(archive: Archive, text: str) -> None:
    with pytest.raises(ValueError, match="expected a percentage"):
        parse_sample(text)
    assert archive.run("verify", f"--sample={text}").code == 2


@pytest.mark.parametrize("arguments", [("--seed", "1"), ("--wait-lock",), ("--deep",)])
def test_flags_that_go_with_others_only(archive: Archive, arguments: tuple[str, ...]) -> None:
    assert archive.run("verify", *arguments).code == 2


def test_ids_come_in_pages(tmp_path: Path) -> None:
    async def act(catalog: Catalog) -> list[list[str]]:
        await saved(catalog, *(prompt(f"p{number}") for number in (3, 1, 2, 5, 4)))
        return [list(page) async for page in catalog.prompt_ids(page=2)]

    assert in_catalog(tmp_path / "c.sqlite", act) == [["p3", "p1"], ["p2", "p5"], ["p4"]]


def test_errors_after_the_first_are_heard() -> None:
    """Several looks fail together; asyncio has nothing to say of the others."""

    async def fails() -> list[Checked]:
        raise StoreUnavailable("no more files")

    async def jobs() -> AsyncGenerator[Callable[[], Awaitable[list[Checked]]], None]:
        for _ in range(3):
            yield fails

    async def look() -> list[str]:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        with pytest.raises(StoreUnavailable):
            [_ async for _ in _as_they_end(jobs())]
        gc.collect()
        return told

    assert asyncio.run(look()) == []
