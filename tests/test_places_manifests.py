"""When a prompt's manifest is written, to which places, and over which one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror import FetchOptions
from mirror.errors import Denied, Obstructed
from mirror.places import Places
from mirror.stores import MANIFEST
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_places import KEY, URL, Ground, manifest
from tests.s3_runs_small import as_user

pytestmark = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(root: Path, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    as_user(bucket.server, monkeypatch)
    return Ground(root, bucket, proxy)


@pytest.mark.parametrize("use", ["both", "only"])
def test_a_manifest_goes_everywhere_and_one_that_has_not_changed_not_again(use: str, ground: Ground) -> None:
    content = manifest(URL)
    placed = ground.write(use, content)
    assert placed is not None
    assert (placed.bucket, placed.key, placed.current) == (ground.bucket.name, KEY, True)
    assert placed.etag.strip('"') == ground.bucket.head(KEY)["ETag"].strip('"')
    assert ground.written == [("none: *", "200")]
    assert ground.on_disk() == (content if use == "both" else None)
    assert ground.in_bucket() == content
    assert ground.write(use, content, placed, changed=False) == placed
    assert ground.written == []


def test_one_that_has_not_changed_still_goes_where_it_is_missing(ground: Ground) -> None:
    content = manifest(URL)
    placed = ground.write("both", content)
    shutil.rmtree(ground.root / "p")
    ground.write("both", content, placed, changed=False)
    assert ground.on_disk() == content
    other = ground._replace(bucket=Bucket.new(ground.bucket.server))
    other.write("both", content, placed, changed=False)
    assert other.written == [("none: *", "200")]
    assert other.in_bucket() == content


def test_a_later_one_replaces_the_very_one_that_is_known(ground: Ground) -> None:
    placed = ground.write("both", manifest(URL))
    assert placed is not None
    later = manifest(URL, "http://o/b.mp4")
    again = ground.write("both", later, placed)
    assert ground.written == [(placed.etag, "200")]
    assert again is not None
    assert again.etag != placed.etag
    assert ground.on_disk() == ground.in_bucket() == later


def test_a_run_without_the_bucket_leaves_word_that_its_manifest_is_outdated(ground: Ground) -> None:
    placed = ground.write("both", manifest(URL))
    assert placed is not None
    later = manifest(URL, "http://o/b.mp4")
    outdated = ground.write("disk", later, placed)
    assert outdated == replace(placed, current=False)
    assert ground.write("disk", later) is None
    assert ground.in_bucket() == manifest(URL)
    again = ground.write("both", later, outdated, changed=False)
    assert ground.written == [(placed.etag, "200")]
    assert again is not None
    assert again.current
    assert ground.in_bucket() == later


@pytest.mark.parametrize("known", [False, True], ids=["nothing is known of it", "another one is known"])
def test_an_earlier_state_of_it_is_replaced_after_a_look(known: bool, ground: Ground) -> None:
    placed = ground.write("only", manifest(URL))
    assert placed is not None
    later = manifest(URL, "http://o/b.mp4")
    ground.write("only", later, replace(placed, etag='"0123456789abcdef0123456789abcdef"') if known else None)
    assert [status for _, status in ground.written] == ["412", "200"]
    assert ground.written[1][0] == placed.etag
    assert ground.in_bucket() == later


def test_what_is_no_earlier_state_of_it_is_not_overwritten(ground: Ground) -> None:
    async def act(places: Places) -> None:
        for there in (manifest("http://o/gone.mp4"), manifest(URL, prompt_id="q"), b"notes", b"", b"{}"):
            ground.bucket.put(KEY, there)
            with pytest.raises(Obstructed, match="move it away"):
                await places.write_manifest("p", manifest(URL), None, changed=True)
            assert ground.in_bucket() == there

    ground.run("only", act)


@pytest.mark.parametrize("lost", [faults.forward_then_reset(), faults.forward_then_answer(503, "SlowDown")])
def test_a_lost_answer_to_it_is_found_out(lost: faults.Fault, ground: Ground) -> None:
    ground.proxy.fault("PutObject", lost)
    placed = ground.write("both", manifest(URL))
    assert placed is not None
    assert placed.etag.strip('"') == ground.bucket.head(KEY)["ETag"].strip('"')
    assert [status for _, status in ground.written][1:] == ["412"]
    assert ground.in_bucket() == manifest(URL)


def test_one_that_is_gone_from_the_bucket_is_written_anew(ground: Ground) -> None:
    placed = ground.write("both", manifest(URL))
    ground.bucket.server.client().delete_object(Bucket=ground.bucket.name, Key=KEY)
    ground.write("both", manifest(URL), placed)
    assert ground.in_bucket() == manifest(URL)


def test_the_disk_has_it_before_the_bucket_refuses_it(ground: Ground) -> None:
    ground.proxy.fault("PutObject", faults.answer(403, "AccessDenied"))
    with pytest.raises(Denied):
        ground.write("both", manifest(URL))
    assert ground.on_disk() == manifest(URL)
    assert ground.in_bucket() is None


def test_from_run_to_run(ground: Ground, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bucket, without it, and with it again: then its manifest is the latest, and nothing else was sent."""
    for name, value in ground.bucket.through(ground.proxy).environ.items():
        monkeypatch.setenv(name, value)
    bodies = done_prompt(archive.origin, "p", "a.png")
    assert mirrored(archive, "p", s3_prefix="films").code == 0
    bodies |= done_prompt(archive.origin, "p", "a.png", "b.png")
    ground.proxy.clear()
    assert mirrored(archive, "p", s3_bucket="", options=FetchOptions(refresh=True)).code == 0
    assert ground.proxy.requests == []
    first = ground.bucket.head(KEY)["ETag"]
    assert mirrored(archive, "p", s3_prefix="films").code == 0
    assert [seen.key for seen in ground.proxy.requests if seen.operation == "PutObject"] == ["films/p/b.png", KEY]
    assert ground.written[1] == (first, "200")
    assert {name: ground.bucket.read()[f"films/p/{name}"] for name in bodies} == bodies
    assert ground.in_bucket() == (archive.root / "p" / MANIFEST).read_bytes()
    ground.proxy.clear()
    assert mirrored(archive, "p", s3_prefix="films").code == 0
    assert ground.written == []


def test_one_that_tells_of_more_stays_and_is_taken_for_ours(ground: Ground) -> None:
    """Two archives write one bucket: who was told of less takes nothing back."""
    more = manifest(URL, "http://o/b.mp4")
    ground.bucket.put(KEY, more)
    placed = ground.write("only", manifest(URL))
    assert placed is not None
    assert placed.current
    assert ground.in_bucket() == more
