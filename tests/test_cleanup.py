"""``mirror cleanup`` on disk: stale partials go, what may be the only proof of a file stays."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests import faults, media
from tests.catalog_runs import change
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, journaled, large_prompt, mirrored, running
from tests.origin import Origin

BODY = media.mp4(6 << 20)


def parts(archive: Archive) -> Path:
    return archive.root / ".mirror" / "parts"


def age(archive: Archive, days: float, pattern: str = "*") -> None:
    then = time.time() - days * 86400
    for path in parts(archive).glob(pattern):
        os.utime(path, (then, then))


def interrupted(origin: Origin, archive: Archive, prompt_id: str = "p") -> None:
    """A fetch that was killed with a partial file on disk."""
    large_prompt(origin, prompt_id, BODY, faults.hold_after(4 << 20))
    before = journaled(archive)
    with running(archive, "fetch", prompt_id) as process:
        archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= before + (2 << 20)))
    assert any(name.endswith(".part") for name in archive.partials())


def test_what_is_not_stale_stays_and_is_resumed(origin: Origin, archive: Archive) -> None:
    interrupted(origin, archive)
    before = archive.partials()
    age(archive, 6.9)
    age(archive, 30, "*.part")  # its journal was touched later
    done = archive.run("cleanup")
    assert (done.code, done.out, archive.partials()) == (0, "0 partial files removed, 0 B\n", before)
    origin.add("/p/large.mp4", BODY)
    origin.clear()
    assert archive.run("fetch", "p").code == 0
    assert origin.body_bytes("/p/large.mp4") < len(BODY)


@pytest.mark.parametrize(("days", "options"), [(8, ()), (2, ("--older-than", "1d")), (0, ("--older-than", "0"))])
def test_what_is_stale_goes_and_the_next_fetch_starts_over(
    origin: Origin, archive: Archive, days: float, options: tuple[str, ...]
) -> None:
    interrupted(origin, archive)
    for name in ("0123.manifest", "4567.copy", "89ab.journal.new"):
        (parts(archive) / name).write_bytes(b"x" * 10)
    foreign = parts(archive) / "notes.txt"
    foreign.write_text("mine")
    upload = parts(archive) / "cdef.upload"
    upload.write_text("an upload that somebody pays for")
    age(archive, days)
    before = archive.partials()
    tried = archive.run("cleanup", *options, "--dry-run")
    assert (tried.code, archive.partials()) == (0, before)
    assert tried.out.startswith("5 partial files would be removed, ")
    done = archive.run("cleanup", *options)
    assert (done.code, archive.partials()) == (0, ["cdef.upload", "notes.txt"])
    assert done.out == tried.out.replace("would be ", "")
    assert "1 multipart upload left" in done.err
    origin.add("/p/large.mp4", BODY)
    assert archive.run("fetch", "p").code == 0
    assert archive.files()["p/large.mp4"] == BODY


def committed_and_not_recorded(origin: Origin, archive: Archive) -> None:
    """As a kill between a file's final name and its row in the catalog leaves it."""
    interrupted(origin, archive)
    url = origin.add("/p/large.mp4", BODY, fault=faults.hold_after(1000))
    kept: dict[str, bytes] = {}
    journal = next(parts(archive).glob("*.journal"))

    def committed() -> bool:
        found = journal.read_bytes() if journal.exists() else b""
        if b'"committed"' in found:
            kept[journal.name] = found
        return bool(kept) or process.poll() is not None

    # Its row cannot be written while somebody holds the catalog: the journal stays as long.
    catalog = archive.root / ".mirror" / "catalog.sqlite"
    with contextlib.closing(sqlite3.connect(catalog, isolation_level=None, timeout=60)) as connection:
        with running(archive, "fetch", "p") as process:
            origin.wait_for(lambda: origin.count("/p/large.mp4") >= 2)
            connection.execute("BEGIN IMMEDIATE")
            origin.release(url)
            origin.wait_for(committed)
            origin.wait_for((archive.root / "p" / "large.mp4").exists)
            process.kill()
            process.communicate()
        connection.execute("ROLLBACK")
    assert kept


def test_the_only_proof_of_a_file_stays(origin: Origin, archive: Archive) -> None:
    committed_and_not_recorded(origin, archive)
    age(archive, 100)
    before = archive.partials()
    for options in ((), ("--older-than", "0")):
        done = archive.run("cleanup", *options)
        assert (done.code, archive.partials()) == (0, before)
        assert "1 journal kept" in done.out
    # What it is good for: the file is found by it, and not fetched again.
    origin.clear()
    assert archive.run("fetch", "p").code == 0
    assert (asked(origin), origin.media_requests, archive.partials()) == (["p"], [], [])


def test_a_proof_that_proves_nothing_goes(origin: Origin, archive: Archive) -> None:
    committed_and_not_recorded(origin, archive)
    journal = next(parts(archive).glob("*.journal"))
    proof = journal.read_bytes()
    origin.clear()
    assert archive.run("fetch", "p").code == 0
    journal.write_bytes(proof)  # the catalog has the file now
    assert archive.run("cleanup", "--older-than", "0").code == 0
    assert archive.partials() == []
    change(archive.root / ".mirror" / "catalog.sqlite", "DELETE FROM files")
    (archive.root / "p" / "large.mp4").unlink()
    journal.write_bytes(proof)  # the file is not there any more
    assert archive.run("cleanup", "--older-than", "0").code == 0
    assert archive.partials() == []


def test_nothing_to_clean_up(origin: Origin, archive: Archive) -> None:
    assert archive.run("cleanup").code == 2
    assert not archive.root.exists()
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    before = archive.files()
    done = archive.run("cleanup", "--older-than", "0")
    assert (done.code, done.out, archive.files()) == (0, "0 partial files removed, 0 B\n", before)
