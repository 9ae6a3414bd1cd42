"""Disk, bucket, or both: what is where, and which manifest counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mirror.catalog import FileRecord, PromptRecord
from mirror.manifests.document import encode
from mirror.models import ManifestFile, Placed, PromptId, PromptState, Role, S3Object
from mirror.places import Places
from mirror.stock import Stock
from mirror.stores import MANIFEST, Head, Store, Target, Wanted
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_places import BODY, KEY, URL, Ground, manifest
from tests.s3_runs_small import as_user

pytestmark = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(root: Path, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    as_user(bucket.server, monkeypatch)
    return Ground(root, bucket, proxy)


def record(**values: Any) -> PromptRecord:
    """What the catalog knows of the prompt."""
    return PromptRecord(prompt_id=PromptId("p"), folder="p", **values)


async def stored(store: Store, path: str = "film.mp4") -> ManifestFile:
    """A file that a run has stored."""
    url = f"http://o/{path}"
    sink = await store.sink(Target(identity=url, folder="p", names=(path,), prompt_id="p"))
    await sink.begin(Head(length=len(BODY), etag='"1"'))
    await sink.write(0, BODY)
    receipt = await sink.commit()
    await sink.close()
    await store.settle(url)
    told = {name: getattr(receipt, name) for name in receipt.__struct_fields__}
    return ManifestFile(role=Role.ORIGIN, url=url, **told)


def everywhere(ground: Ground) -> ManifestFile:
    """A file that stands on disk, and in the bucket by its record, which is all that is looked at there."""
    file = ground.run("disk", lambda places: stored(places.disk))
    there = S3Object(bucket=ground.bucket.name, key="films/p/film.mp4", etag='"1"', via="upload")
    return replace(file, s3=there)


# What is where


COMPLETE = {  # in which use of the two places a file that stands there may be named, and is complete
    "nowhere": {"disk": (False, False), "both": (False, False), "only": (False, False)},
    "on disk": {"disk": (True, True), "both": (True, False), "only": (False, False)},
    "in the bucket": {"disk": (False, False), "both": (True, False), "only": (True, True)},
    "in both": {"disk": (True, True), "both": (True, True), "only": (True, True)},
}


@pytest.mark.parametrize("use", ["disk", "both", "only"])
def test_a_file_is_complete_where_it_is_in_every_place_and_named_where_it_is_in_one(use: str, ground: Ground) -> None:
    whole = everywhere(ground)
    path = ground.root / "p" / "film.mp4"

    async def look(places: Places) -> None:
        ground.proxy.clear()
        for stands, expected in COMPLETE.items():
            path.unlink(missing_ok=True)
            if stands in ("on disk", "in both"):
                path.write_bytes(BODY)
            file = whole if stands in ("in the bucket", "in both") else replace(whole, s3=None)
            await check(places, file, stands, *expected[use])
        assert ground.proxy.count("HeadObject") == 0, "of the bucket the records tell"

    async def check(places: Places, file: ManifestFile, stands: str, named: bool, complete: bool) -> None:
        [where] = await places.look([Wanted(folder="p", files=(file,))])
        assert places.complete(where, "film.mp4") == complete, stands
        manifest_only = Wanted(folder="p")
        assert await places.keep_all([Wanted(folder="p", files=(file,)), manifest_only]) == [False, False], stands
        assert not places.has_manifest(where)
        row = FileRecord(identity=URL, role=Role.ORIGIN, entry=file)
        stock = Stock(places, record(state=PromptState.COMPLETE, files=(row,)))
        await stock.take()
        assert stock.known == {URL: file}
        assert (stock.entries, stock.lost) == (({URL: file}, {}) if named else ({}, {URL: file})), stands
        assert stock.is_whole(URL) is stock.is_all_whole is complete
        assert stock.bytes_before == (len(BODY) if complete else 0)
        assert stock.lacks_disk(URL) is (use != "only" and stands in ("nowhere", "in the bucket"))
        assert stock.absent == (frozenset() if complete else frozenset({URL}))

    ground.run(use, look)


@pytest.mark.parametrize("prefix", ["films", "other", "film", "films/p", ""])
def test_what_stands_under_another_prefix_is_not_in_this_destination(prefix: str, ground: Ground) -> None:
    """Not under one above or below it either: the tree would not be the one on disk."""
    file = everywhere(ground)
    placed = Placed(
        endpoint=ground.bucket.through(ground.proxy).environ["MIRROR_S3_ENDPOINT_URL"],
        bucket=ground.bucket.name,
        key=KEY,
        etag='"1"',
    )

    async def look(places: Places) -> frozenset[str]:
        [where] = await places.look([Wanted(folder="p", files=(file,), manifest=placed)])
        return where.in_bucket

    expected = {"film.mp4", MANIFEST} if prefix == "films" else set()
    assert ground.run("both", look, s3_prefix=prefix) == expected


def test_what_stands_in_a_bucket_of_another_name_is_not_in_this_destination(ground: Ground) -> None:
    file = everywhere(ground)
    other = ground._replace(bucket=Bucket.new(ground.bucket.server))

    async def look(places: Places) -> frozenset[str]:
        [where] = await places.look([Wanted(folder="p", files=(file,))])
        return where.in_bucket

    assert other.run("both", look) == frozenset()


@pytest.mark.parametrize(
    ("use", "current", "expected"),
    [("both", True, True), ("both", False, False), ("only", True, True), ("disk", True, True)],
)
def test_a_manifest_counts_where_it_is_the_latest(use: str, current: bool, expected: bool, ground: Ground) -> None:
    placed = ground.write("both", manifest(URL))
    assert placed is not None

    async def look(places: Places) -> bool:
        wanted = Wanted(folder="p", manifest=replace(placed, current=current))
        [where] = await places.look([wanted])
        [kept] = await places.keep_all([wanted])
        assert kept == places.has_manifest(where)
        return kept

    assert ground.run(use, look) is expected


# Which manifest counts


@pytest.mark.parametrize(
    ("use", "on_disk", "in_bucket", "read"),
    [
        ("disk", True, True, "disk"),
        ("disk", False, True, None),
        ("both", True, True, "disk"),
        ("both", True, False, "disk"),
        ("both", False, True, "bucket"),
        ("both", False, False, None),
        ("only", True, True, "bucket"),
        ("only", False, True, "bucket"),
        ("only", True, False, "disk"),
    ],
)
def test_a_manifest_is_read_where_files_go_first_else_from_the_other_place(
    use: str, on_disk: bool, in_bucket: bool, read: str | None, ground: Ground
) -> None:
    contents = {"disk": manifest(URL, at="2026-01-29T13:54:21Z"), "bucket": manifest(URL)}
    if in_bucket:
        ground.bucket.put(KEY, contents["bucket"])
    etag = ground.bucket.head(KEY)["ETag"] if in_bucket else ""
    if on_disk:
        ground.write("disk", contents["disk"])

    async def act(places: Places) -> None:
        found, missing = await places.read_manifests(["p", "no-such"])
        assert missing is None
        assert (found.content if found else None) == (contents[read] if read else None)
        assert (found.placed.etag if found and found.placed else None) == (etag if read == "bucket" else None)
        stock = Stock(places, record(state=PromptState.COMPLETE))
        await stock.take()
        assert (encode(stock.prior) if stock.prior else None) == (contents[read] if read else None)
        assert stock.placed == (found.placed if found else None)

    ground.run(use, act)


def test_a_manifest_that_is_damaged_or_anothers_is_none(ground: Ground) -> None:
    async def act(places: Places) -> None:
        for content in (b"", b"{", b"[]", b"\xff\xfe", manifest(URL, prompt_id="q"), manifest(URL)[:-20]):
            ground.bucket.put(KEY, content)
            stock = Stock(places, record(state=PromptState.COMPLETE))
            await stock.take()
            assert stock.prior is None, content

    ground.run("only", act)


def test_of_a_prompt_that_was_never_seen_nobody_is_asked(ground: Ground) -> None:
    async def act(places: Places) -> None:
        ground.proxy.clear()
        stock = Stock(places, record())
        await stock.take()
        assert (stock.prior, stock.known, stock.is_all_whole, stock.has_manifest) == (None, {}, True, False)
        assert ground.proxy.requests == []

    ground.run("both", act)
