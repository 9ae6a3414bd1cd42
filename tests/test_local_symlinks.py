"""Nothing is written through a symlink, wherever it stands in the root; nor through a second name of a file elsewhere.

And nothing is waited for: a pipe in the place of a file is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import CatalogError, Denied, StoreError
from mirror.stores import MANIFEST
from mirror.stores.local import LocalStore
from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored
from tests.origin import Origin, answer, task
from tests.store_runs import (
    AGAIN,
    BODY,
    finished,
    held_after,
    in_store,
    is_right,
    journal,
    part,
    settings,
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "film.mp4").write_bytes(b"theirs")
    return folder


def key_of(text: str) -> str:
    """The name of what is ours for a file or a folder."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def untouched(outside: Path) -> bool:
    return [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("film.mp4", b"theirs")]


@pytest.mark.parametrize("dangling", [False, True])
def test_at_the_name(root: Path, outside: Path, dangling: bool) -> None:
    (root / "p").mkdir(parents=True)
    (root / "p" / "film.mp4").symlink_to(outside / ("new.mp4" if dangling else "film.mp4"))
    receipt = finished(root)
    assert receipt.path == "film-1.mp4"
    assert is_right(root, receipt)
    assert untouched(outside)


def test_at_the_name_of_a_file_that_was_mirrored_before(root: Path, outside: Path) -> None:
    (root / "p").mkdir(parents=True)
    (root / "p" / "film.mp4").symlink_to(outside / "film.mp4")
    assert is_right(root, finished(root, AGAIN))
    assert not (root / "p" / "film.mp4").is_symlink()
    assert untouched(outside)


def test_at_the_folder(root: Path, outside: Path) -> None:
    root.mkdir()
    (root / "p").symlink_to(outside)
    with pytest.raises(StoreError, match="symlink"):
        finished(root)
    assert untouched(outside)


def test_at_the_folder_of_a_manifest(root: Path, outside: Path) -> None:
    root.mkdir()
    (root / "p").symlink_to(outside)
    with pytest.raises(StoreError, match="symlink"):
        in_store(root, lambda store: store.write_manifest("p", b"{}"))
    assert untouched(outside)


def test_at_a_manifest(root: Path, outside: Path) -> None:
    (root / "p").mkdir(parents=True)
    (root / "p" / MANIFEST).symlink_to(outside / "film.mp4")
    assert in_store(root, lambda store: store.read_manifests(["p"])) == [None]
    in_store(root, lambda store: store.write_manifest("p", b"{}"))
    assert (root / "p" / MANIFEST).read_bytes() == b"{}"
    assert untouched(outside)


@pytest.mark.parametrize("name", [".mirror", ".mirror/parts"])
def test_at_our_own_folder(root: Path, outside: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True)
    (root / name).symlink_to(outside)
    with pytest.raises(Denied, match="symlink"):
        LocalStore(settings(root)).open()
    assert untouched(outside)


@pytest.mark.parametrize("suffix", [".part", ".journal", ".journal.new"])
@pytest.mark.parametrize("journaled", [True, False])
@pytest.mark.parametrize("hard", [True, False], ids=["a second name", "a symlink"])
def test_at_a_partial_file(root: Path, outside: Path, suffix: str, journaled: bool, hard: bool) -> None:
    held_after(root, (0, 90_000))
    planted = part(root).with_suffix(suffix)
    if not journaled:
        journal(root).unlink()
    planted.unlink(missing_ok=True)
    if hard:
        planted.hardlink_to(outside / "film.mp4")
    else:
        planted.symlink_to(outside / "film.mp4")
    assert is_right(root, finished(root))
    assert untouched(outside)


def test_a_partial_that_a_copy_by_links_holds_as_well_stays_as_it_is_there(root: Path, outside: Path) -> None:
    """As `cp -al` makes one: what was written to the one would be in the other."""
    held_after(root, (0, 90_000))
    copy = outside.with_name("copy.part")
    copy.hardlink_to(part(root))
    before = copy.read_bytes()
    assert is_right(root, finished(root))
    assert copy.read_bytes() == before == BODY[:90_000]


def test_at_a_manifest_that_is_being_written(root: Path, outside: Path, store: LocalStore) -> None:
    (root / ".mirror" / "parts" / f"{key_of('p')}.manifest").symlink_to(outside / "film.mp4")
    asyncio.run(store.write_manifest("p", b"{}"))
    assert (root / "p" / MANIFEST).read_bytes() == b"{}"
    assert untouched(outside)


def test_at_the_lock(root: Path, outside: Path) -> None:
    (root / ".mirror").mkdir(parents=True)
    lock = root / ".mirror" / "lock"
    lock.symlink_to(outside / "film.mp4")
    with pytest.raises(Denied, match="lock"):
        LocalStore(settings(root)).open()
    lock.unlink()
    lock.hardlink_to(outside / "film.mp4")
    in_store(root, lambda store: store.settle("x"))
    assert untouched(outside)


@pytest.mark.parametrize("there", ["film.mp4", "new.sqlite"])
def test_at_the_catalog(archive: Archive, outside: Path, there: str) -> None:
    (archive.root / ".mirror").mkdir(parents=True)
    (archive.root / ".mirror" / "catalog.sqlite").symlink_to(outside / there)
    with pytest.raises(CatalogError, match=r"symlink.*archive\.catalog"):
        mirrored(archive, "p")
    assert untouched(outside)


def test_a_catalog_that_the_user_names_may_be_one(archive: Archive, outside: Path, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    named = outside.with_name("catalog.sqlite")
    named.symlink_to(outside.with_name("real.sqlite"))
    assert mirrored(archive, "p", archive_catalog=str(named)).code == 0
    assert named.is_symlink()


def test_a_pipe_anywhere_holds_nothing_up(archive: Archive, origin: Origin) -> None:
    """At a file's name, at a manifest's, and at each file of our own for a prompt."""
    body = media.mp4(1_500_000)  # more than one batch: it has a journal
    suffixes = (".part", ".journal", ".journal.new")
    folder = archive.root / ".mirror" / "parts"
    folder.mkdir(parents=True)
    for prompt_id in ("p", "q", "r"):
        url = large_prompt(origin, prompt_id, body)
        os.mkfifo(folder / (key_of(url) + suffixes["pqr".index(prompt_id)]))
    done_prompt(origin, "s", "a.png")
    (archive.root / "s").mkdir()
    for pipe in (archive.root / "s" / "a.png", archive.root / "s" / MANIFEST, folder / f"{key_of('s')}.manifest"):
        os.mkfifo(pipe)
    done = archive.run("fetch", "p", "q", "r", "s")
    assert done.code == 0, done.err
    assert [archive.files()[f"{prompt_id}/large.mp4"] == body for prompt_id in "pqr"] == [True] * 3
    [file] = archive.manifest("s")["files"]
    assert file["path"] != "a.png"

    (archive.root / ".mirror" / "lock").unlink()
    os.mkfifo(archive.root / ".mirror" / "lock")
    done = archive.run("fetch", "p")
    assert done.code == 4
    assert "lock is no file: move it away" in done.err


@pytest.mark.parametrize("planted", ["pipe", "symlink"])
def test_in_the_place_of_a_file_that_another_prompt_would_take_over(
    archive: Archive, origin: Origin, outside: Path, planted: str
) -> None:
    """The file came for one prompt in this run; what stands in its place now is not linked, nor waited for."""
    body = media.png(seed=3)
    images = [(None, origin.add("/a.png", body))]

    def second(_: int) -> dict[str, Any]:
        origin.wait_for((archive.root / "p" / MANIFEST).exists)
        file = archive.root / "p" / "a.png"
        file.unlink()
        if planted == "pipe":
            os.mkfifo(file)
        else:
            file.symlink_to(outside / "film.mp4")
        return answer(task("q", images=images))

    origin.prompt("p", answer(task("p", images=images)))
    origin.prompt("q", second)
    done = archive.run(
        "fetch", "p", "q", environ={"MIRROR_API_TIMEOUT": "2m"}
    )  # it is asked once, however long p takes
    assert done.code == 0, done.err
    [file] = archive.manifest("q")["files"]
    there = archive.root / "q" / file["path"]
    assert not there.is_symlink()
    assert there.read_bytes() == body
    assert untouched(outside)


def test_a_folder_that_turns_into_one_again_and_again(archive: Archive, origin: Origin, outside: Path) -> None:
    """Whoever may write to the root swaps a prompt's folder while files are put there."""
    bodies = done_prompt(origin, "p", *(f"{number}.png" for number in range(60)))
    folder, away, ended = archive.root / "p", archive.root / "away", threading.Event()

    def swap() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                folder.rename(away)
                folder.symlink_to(outside)
            with contextlib.suppress(OSError):
                folder.unlink()
                away.rename(folder)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        with contextlib.suppress(StoreError):  # as it may well be told
            mirrored(archive, "p")
    finally:
        ended.set()
        swapping.join()
    assert untouched(outside)
    if folder.is_symlink():
        folder.unlink()
    assert mirrored(archive, "p").code == 0
    files = archive.files()
    assert {f"p/{name}": body for name, body in bodies.items()}.items() <= files.items()
