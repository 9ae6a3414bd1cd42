"""The local store with real files: what it publishes is whole and right, and what it keeps it can prove."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import ChecksumMismatch, Denied, Full, Locked, Severity, StoreError
from mirror.models import ManifestFile, Receipt, Role
from mirror.stores import Head, Sink, Target, Wanted
from mirror.stores.local import LocalStore
from tests.store_runs import (
    AGAIN,
    BODY,
    HEAD,
    SHA256,
    TARGET,
    finished,
    held_after,
    in_store,
    is_right,
    parts,
    put,
    settings,
)


class TestCommit:
    def test_a_small_body_at_once(self, root: Path, store: LocalStore) -> None:
        async def act() -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(HEAD)
            await sink.write(0, BODY)
            assert parts(root) == []
            receipt = await sink.commit()
            await sink.close()
            return receipt

        receipt = asyncio.run(act())

        assert is_right(root, receipt)
        assert receipt == Receipt(
            path="film.mp4",
            bytes=len(BODY),
            sha256=SHA256,
            content_type="video/mp4",
            etag='"1"',
            last_modified="2026-01-28T10:03:40Z",
            verified=("length",),
        )

    def test_an_empty_body(self, root: Path) -> None:
        async def act(store: LocalStore) -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(Head(length=0))
            return await sink.commit()

        assert in_store(root, act).bytes == 0
        assert (root / "p" / "film.mp4").read_bytes() == b""

    def test_nothing_stands_under_the_name_before(self, root: Path) -> None:
        held_after(root, (0, 200_000))
        assert not (root / "p").exists()
        assert parts(root) == [".journal", ".part"]

    def test_segments_out_of_order_are_hashed_again(self, root: Path) -> None:
        async def act(store: LocalStore) -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(HEAD)
            await put(sink, (150_000, 200_000), (0, 50_000), (100_000, 150_000), (50_000, 100_000))
            receipt = await sink.commit()
            await store.settle(TARGET.identity)
            return receipt

        assert is_right(root, in_store(root, act))

    @pytest.mark.parametrize("check", ["etag-md5", "sha256", "sha1", "crc32"])
    @pytest.mark.parametrize("batches", [[(0, 200_000)], [(0, 90_000), (90_000, 200_000)]], ids=["whole", "batches"])
    def test_a_wrong_digest_drops_the_partial(self, root: Path, check: str, batches: list[tuple[int, int]]) -> None:
        async def act(store: LocalStore) -> None:
            sink = await store.sink(TARGET)
            await sink.begin(Head(length=len(BODY), checks={check: "00"}))
            await put(sink, *batches)
            with pytest.raises(ChecksumMismatch, match=check):
                await sink.commit()
            assert (sink.written(), sink.committed) == ([], None)
            await sink.close()

        in_store(root, act)
        assert parts(root) == []
        assert not (root / "p").exists()

    def test_right_digests_are_told(self, root: Path) -> None:
        checks = {"etag-md5": hashlib.md5(BODY).hexdigest(), "sha1": hashlib.sha1(BODY).hexdigest()}

        async def act(store: LocalStore) -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(Head(length=None, checks=checks))
            await put(sink, (0, 200_000))
            return await sink.commit()

        assert in_store(root, act).verified == ("etag-md5", "sha1")

    def test_a_digest_is_checked_over_what_an_earlier_run_got(self, root: Path) -> None:
        head = Head(length=len(BODY), etag='"1"', checks={"md5": hashlib.md5(BODY).hexdigest()})
        held_after(root, (0, 90_000), head=head)
        receipt = finished(root)
        assert is_right(root, receipt)
        assert receipt.verified == ("length", "md5")

    def test_begin_drops_what_was_held(self, root: Path) -> None:
        held_after(root, (0, 90_000))

        async def act(store: LocalStore) -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(Head(length=10, etag='"2"'))
            assert sink.written() == []
            await sink.write(0, b"0123456789")
            return await sink.commit()

        assert in_store(root, act).bytes == 10
        assert (root / "p" / "film.mp4").read_bytes() == b"0123456789"


class TestExpectedBytes:
    """The file was mirrored before: only those bytes will do, and they go under its name."""

    def test_a_damaged_file_is_replaced(self, root: Path) -> None:
        (root / "p").mkdir(parents=True)
        (root / "p" / "film.mp4").write_bytes(b"damaged")
        assert is_right(root, finished(root, AGAIN))

    def test_other_bytes_are_refused(self, root: Path) -> None:
        async def act(store: LocalStore) -> None:
            sink = await store.sink(AGAIN)
            await sink.begin(Head(length=5))
            await sink.write(0, b"other")
            with pytest.raises(ChecksumMismatch, match="mirror forget"):
                await sink.commit()

        (root / "p").mkdir(parents=True)
        (root / "p" / "film.mp4").write_bytes(b"damaged")
        in_store(root, act)
        assert (root / "p" / "film.mp4").read_bytes() == b"damaged"
        assert parts(root) == []


class TestNames:
    """A name that is taken: never overwritten with something else."""

    @pytest.mark.parametrize("held", [(), ((0, 90_000),)], ids=["at once", "resumed"])
    def test_by_the_same_bytes(self, root: Path, held: tuple[tuple[int, int], ...]) -> None:
        held_after(root, *held)
        (root / "p").mkdir()
        (root / "p" / "film.mp4").write_bytes(BODY)
        receipt = finished(root)
        assert receipt.path == "film.mp4"
        assert is_right(root, receipt)

    @pytest.mark.parametrize("other", [b"another film", BODY[:-1] + b"\0"], ids=["shorter", "as long"])
    def test_by_other_bytes(self, root: Path, other: bytes) -> None:
        (root / "p").mkdir(parents=True)
        (root / "p" / "film.mp4").write_bytes(other)
        receipt = finished(root)
        assert receipt.path == "film-1.mp4"
        assert is_right(root, receipt)
        assert (root / "p" / "film.mp4").read_bytes() == other

    def test_by_a_folder(self, root: Path) -> None:
        (root / "p" / "film.mp4").mkdir(parents=True)
        assert finished(root).path == "film-1.mp4"

    def test_all_of_them(self, root: Path) -> None:
        (root / "p").mkdir(parents=True)
        for name in TARGET.names:
            (root / "p" / name).write_bytes(b"another film")
        with pytest.raises(StoreError, match="taken"):
            finished(root)
        assert {path.read_bytes() for path in (root / "p").iterdir()} == {b"another film"}


class TestStore:
    def test_present_tells_files_by_name_and_size(self, root: Path, store: LocalStore) -> None:
        (root / "p" / "folder").mkdir(parents=True)
        (root / "p" / "a").write_bytes(b"12")
        (root / "p" / "link").symlink_to("a")
        (root / "linked").symlink_to("p")
        (root / "p" / "manifest.json").write_bytes(b"{}")
        asked = tuple(stored(name, size) for name, size in [("a", 2), ("b", 0), ("folder", 4096), ("link", 2)])
        folders = [Wanted(folder=name, files=asked) for name in ("p", "none", "linked")]
        found = asyncio.run(store.present([*folders, Wanted(folder="p", files=(stored("a", 3),))]))
        assert found == [{"a", "manifest.json"}, set(), set(), {"manifest.json"}]

    def test_manifests_come_back_as_written(self, root: Path, store: LocalStore) -> None:
        async def act() -> list[bytes | None]:
            await store.write_manifest("p", b'{"old": 1}')
            await store.write_manifest("p", b"{}")
            return [found.content if found else None for found in await store.read_manifests(["p", "none"])]

        assert asyncio.run(act()) == [b"{}", None]
        assert parts(root) == []

    def test_delete_removes_what_is_named_and_says_what_is_left(self, root: Path, store: LocalStore) -> None:
        asyncio.run(store.write_manifest("p", b"{}"))
        for name in ("a", "b", "theirs"):
            (root / "p" / name).write_bytes(b"1")
        assert store.delete("p", ["a", "b", "gone before"]) == ["theirs"]
        (root / "p" / "theirs").unlink()
        assert store.delete("p", []) == []
        assert not (root / "p").exists()
        assert store.delete("p", ["a"]) == []

    def test_folders_are_those_of_prompts(self, root: Path, store: LocalStore) -> None:
        (root / "p").mkdir()
        (root / "file").write_bytes(b"")
        (root / "link").symlink_to("p")
        assert list(store.folders()) == ["p"]

    @pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
    def test_adopt(self, root: Path, store: LocalStore, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not links:
            monkeypatch.setattr(os, "link", _without_links)
        (root / "p").mkdir()
        (root / "p" / "film.mp4").write_bytes(BODY)
        target = Target(identity=TARGET.identity, folder="q", names=TARGET.names)
        assert adopted(store, target) == "film.mp4"
        assert (root / "q" / "film.mp4").read_bytes() == BODY
        assert (root / "q" / "film.mp4").samefile(root / "p" / "film.mp4") == links
        assert adopted(store, target) == "film.mp4"
        assert [path.name for path in (root / "q").iterdir()] == ["film.mp4"]
        assert parts(root) == []

    def test_adopt_leaves_other_files_alone(self, root: Path, store: LocalStore) -> None:
        for folder, content in (("p", BODY), ("q", b"another film")):
            (root / folder).mkdir()
            (root / folder / "film.mp4").write_bytes(content)
        target = Target(identity=TARGET.identity, folder="q", names=TARGET.names)
        assert adopted(store, target) == "film-1.mp4"
        assert (root / "q" / "film.mp4").read_bytes() == b"another film"
        assert (root / "q" / "film-1.mp4").read_bytes() == BODY

    def test_adopt_of_what_is_not_there(self, root: Path, store: LocalStore) -> None:
        target = Target(identity=TARGET.identity, folder="q", names=TARGET.names)
        assert adopted(store, target) is None
        assert not (root / "q" / "film.mp4").exists()


def stored(path: str, size: int) -> ManifestFile:
    return ManifestFile(path=path, role=Role.ORIGIN, url=TARGET.identity, bytes=size, sha256=SHA256)


def adopted(store: LocalStore, target: Target) -> str | None:
    """The name that a file of prompt p gets."""
    receipt = asyncio.run(store.adopt(("p", stored("film.mp4", len(BODY))), target))
    if receipt is None:
        return None
    assert (receipt.bytes, receipt.sha256, receipt.s3) == (len(BODY), SHA256, None)
    return receipt.path


def _without_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class TestRefusals:
    def test_a_second_run_is_told_who_holds_the_root(self, root: Path, store: LocalStore) -> None:
        second = LocalStore(settings(root))
        with pytest.raises(Locked, match=f"pid {os.getpid()}"):
            second.open()
        second.close()
        store.close()
        second = LocalStore(settings(root))
        second.open()
        second.close()

    def test_a_root_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreError, match="file/archive"):
            LocalStore(settings(tmp_path / "file" / "archive")).open()

    def test_a_root_that_is_read_only(self, tmp_path: Path) -> None:
        denied = LocalStore(settings(tmp_path / "archive"))
        tmp_path.chmod(0o555)
        uid = os.geteuid()
        try:
            if uid == 0:
                os.seteuid(65534)  # root cannot be denied
            with pytest.raises(Denied):
                denied.open()
        finally:
            os.seteuid(uid)
            tmp_path.chmod(0o755)

    def test_too_little_room_for_anything(self, root: Path) -> None:
        async def act(store: LocalStore) -> None:
            sink = await store.sink(TARGET)
            await sink.begin(HEAD)
            await sink.write(0, BODY)
            await sink.commit()

        with pytest.raises(Full, match="min_free_space"):
            in_store(root, act, transfer_min_free_space=1 << 60)
        assert parts(root) == []

    def test_too_little_room_for_one_file(self, root: Path) -> None:
        async def take_in(sink: Sink) -> None:
            await sink.begin(Head(length=1 << 60))
            await sink.write(0, BODY)
            await sink.flush()

        async def act(store: LocalStore) -> None:
            sink = await store.sink(TARGET)
            with pytest.raises(Full, match="do not fit") as refused:
                await take_in(sink)
            assert refused.value.severity is Severity.ITEM
            await sink.close()

        in_store(root, act)
        assert parts(root) == []
