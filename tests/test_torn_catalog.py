"""What a power cut tears of the catalog and, with `durability = "fast"`, of what has its name: detected and healed.

Every row starts from what a run left that was killed by SIGKILL. It ends in the right bytes, or in exit code 4 and the
name of the command that heals it.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.catalog.schema import PAGE_SIZE
from mirror.errors import CatalogError
from tests import faults
from tests.conftest import Archive
from tests.crash_runs import catalog_copy
from tests.helpers import journaled, mirrored
from tests.torn import ANY, MIB, WHERE, Damage, Torn, chosen, cut, garbled, zeroed

pytestmark = pytest.mark.usefixtures("unmeasured")


def catalog(archive: Archive) -> Path:
    return archive.root / ".mirror" / "catalog.sqlite"


def log(archive: Archive) -> Path:
    """The write-ahead log: what was committed since the last checkpoint."""
    return archive.root / ".mirror" / "catalog.sqlite-wal"


def index(archive: Archive) -> Path:
    """Where in the log which page is: shared memory, that the next who opens the catalog makes again."""
    return archive.root / ".mirror" / "catalog.sqlite-shm"


@pytest.fixture
def killed(archive: Archive) -> Torn:
    """One prompt is complete, and in the catalog's file; the run that was killed has the rest in its log."""
    torn = Torn(archive)
    assert mirrored(archive, "p").code == 0
    torn.serve(faults.hold_after(5 * MIB))
    torn.killed_when(lambda: journaled(archive) > 3 * MIB)
    return torn


def test_a_torn_log_of_the_catalog_loses_rows_and_no_files(killed: Torn) -> None:
    for beside in (log, index):
        for damage in (*ANY.values(), garbled(0.5, 2000), garbled(0, 32)):
            killed.heals((damage, beside))
            assert killed.origin.body_bytes("/p") == 0


def test_wherever_the_log_is_torn(killed: Torn) -> None:
    @chosen
    @given(st.sampled_from([cut, zeroed, garbled]), WHERE)
    def torn_at(how: Callable[[float], Damage], where: float) -> None:
        killed.heals((how(where), log))
        assert killed.origin.body_bytes("/p") == 0

    torn_at()


def page(number: int) -> Damage:
    """One page of the file that was never written."""

    def act(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(number * PAGE_SIZE)
            file.write(bytes(PAGE_SIZE))

    return act


def is_sound(path: Path) -> bool:
    with catalog_copy(path) as connection, contextlib.suppress(sqlite3.DatabaseError):
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return False


def heals_itself(archive: Archive) -> bool:
    """A run; False where it says that the catalog has to be made again."""
    try:
        ran = mirrored(archive, "p", "q")
    except CatalogError as error:
        if "`mirror rebuild`" in str(error):
            return False
        raise
    return ran.code == 0


def test_a_torn_catalog_is_told_and_made_again_from_the_manifests(killed: Torn) -> None:
    pages = catalog(killed.archive).stat().st_size // PAGE_SIZE
    damages = [*(page(number) for number in range(pages)), cut(0.5), cut(0.95), cut(0), Path.unlink, garbled(0, 100)]
    told = 0
    for damage in damages:
        archive = killed.copy()
        log(archive).unlink()  # its pages would hide the damage
        damage(catalog(archive))
        killed.origin.clear()
        if not heals_itself(archive):
            told += 1
            # The damage may have been met in the middle of the run: then a prompt has files and no manifest yet.
            is_whole = all(
                (archive.root / name / "manifest.json").exists()
                for name in ("p", "q")
                if (archive.root / name).exists()
            )
            assert archive.run("rebuild").code == (0 if is_whole else 3)
            assert mirrored(archive, "p", "q").code == 0
        assert killed.origin.body_bytes("/p") == 0
        if not is_sound(catalog(archive)):  # in a page that this run had no need of
            assert archive.run("rebuild").code == 0
        killed.is_right(archive)
        shutil.rmtree(archive.root)
    assert told >= len(damages) // 2


def test_the_command_says_what_heals_a_torn_catalog(killed: Torn) -> None:
    log(killed.archive).unlink()
    garbled(0, 100)(catalog(killed.archive))
    done = killed.archive.run("fetch", "p", "q")
    assert (done.code, "`mirror rebuild`" in done.err, "Traceback" in done.err) == (4, True, False)
    before = killed.archive.files()
    assert killed.archive.run("rebuild").code == 0
    assert killed.archive.files() == before
    assert killed.archive.run("fetch", "p", "q").code == 0
    killed.is_right(killed.archive)


# What `durability = "fast"` leaves: the name came to the disk, and the bytes did not


def test_what_is_torn_and_has_its_size_is_found_by_verify(killed: Torn) -> None:
    archive = killed.archive
    assert mirrored(archive, "p", "q").code == 0
    torn = {"p/a.png": zeroed(0), "p/b.png": zeroed(0.7), "q/large.mp4": garbled(0.5), "q/manifest.json": zeroed(0.5)}
    for name, damage in torn.items():
        damage(archive.root / name)
    found = archive.run("verify")
    assert (found.code, [name for name in torn if f"{name}\tdamaged" not in found.out]) == (3, [])
    assert archive.run("verify", "--repair").code == 0
    killed.is_right(archive)


def test_what_is_torn_and_has_another_size_is_fetched_again(killed: Torn) -> None:
    for damage in (cut(0), cut(0.7), Path.unlink):
        archive = killed.copy()
        assert mirrored(archive, "p", "q").code == 0
        damage(archive.root / "p" / "a.png")
        assert mirrored(archive, "p", "q").code == 0
        killed.is_right(archive)


def test_an_empty_manifest_is_none(killed: Torn) -> None:
    """ext4 leaves one of what was renamed and never synced."""
    archive = killed.copy()
    assert mirrored(archive, "p", "q").code == 0
    cut(0)(archive.root / "p" / "manifest.json")
    killed.origin.clear()
    assert archive.run("fetch", "p", "q").code == 0
    assert killed.origin.media_requests == []
    killed.is_right(archive)
