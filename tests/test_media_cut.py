"""Pictures and films that are cut off at their origin, over real sockets: to the disk, and into a bucket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mirror.errors import NotMedia, Truncated
from mirror.events import Noted, Retrying
from mirror.stores import Head, Target
from mirror.stores.local import LocalStore
from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER, Fault, Reply
from tests.helpers import journaled, large_prompt, mirrored, picture, running, sha256
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground

MIB = 1 << 20
FILM = media.mp4(3 * MIB, seed=1)
PICTURE = media.png(seed=2)
CUT = {
    "a small picture": PICTURE[:-1],
    "a large picture": media.png(1200, 1200)[:-5],
    "a film": FILM[:-100],
    "a small film": media.mp4(20_000)[:600],
    "a jpeg": media.jpeg(size=5000)[:-2],
    "a webp": media.webp(size=5000)[:4000],
}


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def body_of(body: bytes) -> Fault:
    return Fault("other body", lambda _f, _r: Reply(200, {"Content-Type": "video/mp4"}, body), FOREVER)


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_off_at_its_origin_is_no_media(archive: Archive, origin: Origin, name: str) -> None:
    urls = [origin.add("/p/cut", CUT[name]), picture(origin, "/p/a.png")[0]]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    done = archive.run("fetch", "p")
    assert done.code == 3
    [error] = archive.manifest("p")["errors"]
    assert (error["error"], error["attempts"]) == ("NotMedia", 1)
    assert "file that is cut off: it" in error["message"]
    assert list(archive.files()) == ["p/a.png", "p/manifest.json"]
    assert archive.partials() == []


def test_what_has_no_length_and_is_cut_off_is_asked_for_again(archive: Archive, origin: Origin) -> None:
    large_prompt(origin, "p", FILM, [faults.no_length(MIB), faults.no_length(2 * MIB), faults.chunked()])
    ran = mirrored(archive, "p")
    assert (ran.code, archive.files()["p/large.mp4"]) == (0, FILM)
    assert [event.cause for event in ran.events if isinstance(event, Retrying)] == ["Truncated"] * 2
    assert archive.partials() == []


def test_what_stays_cut_off_fails_in_the_end(archive: Archive, origin: Origin) -> None:
    large_prompt(origin, "p", FILM, faults.no_length(2 * MIB, times=FOREVER))
    ran = mirrored(archive, "p", transfer_attempts=2)
    assert (ran.code, ran.errors) == (3, ["Truncated"])
    assert (list(archive.files()), archive.partials()) == (["p/manifest.json"], [])


@pytest.mark.parametrize("body", [FILM, FILM[:-100]], ids=["whole", "cut off"])
def test_a_look_goes_on_where_an_earlier_run_was_killed(archive: Archive, origin: Origin, body: bytes) -> None:
    large_prompt(origin, "p", body, faults.hold_after(2 * MIB + 5))
    with running(archive, "fetch", "p") as process:
        archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= MIB))
    origin.clear()
    done = archive.run("fetch", "p")
    assert any(request.headers.get("range") for request in origin.media_requests)
    if body == FILM:
        assert (done.code, archive.files()["p/large.mp4"]) == (0, FILM)
    else:
        assert (done.code, archive.manifest("p")["errors"][0]["error"]) == (3, "NotMedia")
        assert archive.partials() == []


def test_segments_that_come_in_any_order_are_looked_at_in_theirs(archive: Archive, origin: Origin) -> None:
    for name, body in {"whole": FILM, "cut": FILM[:-9]}.items():
        large_prompt(origin, name, body)
    ran = mirrored(archive, "whole", "cut", transfer_segment_size=MIB // 2)
    assert (ran.states, ran.errors) == ({"whole": "complete", "cut": "partial"}, ["NotMedia"])


def test_bytes_after_a_picture_are_noted_and_no_more(archive: Archive, origin: Origin) -> None:
    body = PICTURE + b"and more"
    origin.prompt("p", answer(task("p", images=[(None, origin.add("/p/a.png", body))])))
    ran = mirrored(archive, "p")
    assert (ran.code, archive.files()["p/a.png"]) == (0, body)
    [noted] = [event for event in ran.events if isinstance(event, Noted)]
    assert (noted.level, noted.prompt_id) == ("debug", "p")
    assert noted.message.startswith("8 bytes follow the end of a PNG file: http://")


# Into a bucket


@pytest.mark.parametrize("name", CUT)
def test_into_a_bucket_the_same(ground: Ground, name: str) -> None:
    url = ground.origin.add("/p/cut", CUT[name])
    ground.origin.prompt("p", answer(task("p", images=[(None, url), (None, picture(ground.origin, "/p/a.png")[0])])))
    ran = mirrored(ground.archive, "p", s3_only=True)
    assert (ran.code, ran.errors) == (3, ["NotMedia"])
    assert list(ground.media()) == ["p/a.png"]


def test_in_several_parts_nothing_is_left_of_what_is_cut_off(ground: Ground) -> None:
    large_prompt(ground.origin, "p", media.mp4(18 * MIB)[:-1])
    ran = mirrored(ground.archive, "p", s3_only=True)
    assert (ran.code, ran.errors, ground.media()) == (3, ["NotMedia"], {})
    assert ground.bucket.uploads() == []


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut off"])
def test_an_upload_that_was_killed_is_looked_at_when_it_is_read_back(ground: Ground, cut: int) -> None:
    body = media.mp4(26 * MIB)
    body = body[: len(body) - cut]
    large_prompt(ground.origin, "p", body, faults.hold_after(20 * MIB))

    def sent() -> bool:
        return any(seen.operation == "UploadPart" and seen.status == 200 for seen in ground.proxy.requests)

    with running(ground.archive, "fetch", "p", "--s3-only") as process:
        ground.archive.kill_when(process, lambda: ground.proxy.wait_for(sent))
    ground.origin.clear()
    ran = mirrored(ground.archive, "p", s3_only=True)
    assert any(request.headers.get("range") for request in ground.origin.media_requests)
    if not cut:
        assert (ran.code, ground.media()) == (0, {"p/large.mp4": body})
    else:
        assert (ran.code, ran.errors, ground.media()) == (3, ["NotMedia"], {})
    assert ground.bucket.uploads() == []


def test_into_a_bucket_what_has_no_length_is_asked_for_again(ground: Ground) -> None:
    large_prompt(ground.origin, "p", FILM, [faults.no_length(MIB), faults.chunked()])
    ran = mirrored(ground.archive, "p", s3_only=True)
    assert (ran.code, ground.media()) == (0, {"p/large.mp4": FILM})
    assert [event.cause for event in ran.events if isinstance(event, Retrying)] == ["Truncated"]


# What was mirrored before


def kept(store: LocalStore, body: bytes, length: int | None, **told: Any) -> str:
    """The name under which a store takes a body; there is none of it before."""

    async def put() -> str:
        sink = await store.sink(Target(identity="http://o/f.mp4", folder="p", names=("f.mp4", "g.mp4"), **told))
        try:
            await sink.begin(Head(length=length))
            await sink.write(0, body)
            return (await sink.commit()).path
        finally:
            await sink.close()

    return asyncio.run(put())


def test_what_was_mirrored_once_comes_back_as_it_was(store: LocalStore) -> None:
    body = CUT["a film"]
    with pytest.raises(NotMedia, match="MP4 file that is cut off: its box mdat tells of 100 more bytes"):
        kept(store, body, len(body))
    with pytest.raises(Truncated):
        kept(store, body, None)
    assert kept(store, body, len(body), known=True) == "f.mp4"
    assert kept(store, body, len(body), sha256=sha256(body)) == "f.mp4"
