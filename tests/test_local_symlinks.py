"""Nothing is written through a symlink, wherever it stands in the root."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from mirror.errors import Denied, StoreError
from mirror.stores import MANIFEST
from mirror.stores.local import LocalStore
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
def test_at_a_partial_file(root: Path, outside: Path, suffix: str, journaled: bool) -> None:
    held_after(root, (0, 90_000))
    planted = part(root).with_suffix(suffix)
    if not journaled:
        journal(root).unlink()
    planted.unlink(missing_ok=True)
    planted.symlink_to(outside / "film.mp4")
    try:
        receipt = finished(root)
    except StoreError:
        pass
    else:
        assert (root / "p" / receipt.path).read_bytes() == BODY
    assert untouched(outside)


def test_at_a_manifest_that_is_being_written(root: Path, outside: Path, store: LocalStore) -> None:
    key = hashlib.sha256(b"p").hexdigest()[:32]
    (root / ".mirror" / "parts" / f"{key}.manifest").symlink_to(outside / "film.mp4")
    with pytest.raises(Denied):
        asyncio.run(store.write_manifest("p", b"{}"))
    assert untouched(outside)
