"""What stands in the same store already is copied there, if whoever wrote its URL could have read it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import pytest

from mirror import Manifest, Mirror
from tests import media
from tests.conftest import Archive
from tests.helpers import mirrored, running, sha256
from tests.origin import Origin, answer, task
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3.seen import Seen
from tests.s3_runs_e2e import LARGE, Ground, named

ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
swift = pytest.mark.parametrize("bucket", ["swift"], indirect=True)
FILM = media.mp4(500_000, seed=21)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


@pytest.fixture
def source(bucket: Bucket) -> Bucket:
    """Another bucket in the same store, private as it is."""
    return Bucket.new(bucket.server)


def publish(bucket: Bucket) -> None:
    """Let anybody read what is in it."""
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket.name}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    bucket.server.client().delete_public_access_block(Bucket=bucket.name)
    bucket.server.client().put_bucket_policy(Bucket=bucket.name, Policy=policy)


def in_store(ground: Ground, source: Bucket, key: str, body: bytes) -> str:
    """The URL, by the store's own address, of an object of another bucket."""
    source.put(key, body, ContentType="video/mp4", ChecksumAlgorithm="SHA256")
    return f"{ground.proxy.endpoint}/{source.name}/{key}"


def cdn(origin: Origin) -> str:
    """The host that s3.sources names."""
    return urlsplit(origin.url).netloc


def prompt(ground: Ground, *urls: str, prompt_id: str = "p") -> None:
    ground.origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url) for url in urls])))


def copies(ground: Ground) -> list[Seen]:
    return [seen for seen in ground.proxy.requests if seen.operation in ("CopyObject", "UploadPartCopy")]


def passed(ground: Ground) -> int:
    """Bytes of bodies that went through the client, to or from the store or from an origin.

    The few that are read to see what is in a film are not counted.
    """
    manifests = sum(s.bytes_up + s.bytes_down for s in ground.proxy.requests if s.key.endswith("manifest.json"))
    looks = [s.bytes_down for s in ground.proxy.requests if "range" in s.headers]
    assert sum(looks) <= (256 << 10) * len(ground.media())
    return (
        ground.proxy.bytes_up
        + ground.proxy.bytes_down
        - manifests
        - sum(looks)
        + sum(request.bytes_sent for request in ground.origin.media_requests)
    )


def check_copied(ground: Ground, bodies: Mapping[str, bytes]) -> None:
    assert ground.media() == bodies
    for file in ground.manifest("p")["files"]:
        key = f"p/{file['path']}"
        head = ground.bucket.head(key)
        assert file["s3"] == {
            "bucket": ground.bucket.name,
            "key": key,
            "etag": head["ETag"],
            "version_id": None,
            "checksum_sha256": head.get("ChecksumSHA256"),
            "via": "copy",
        }
        assert file["sha256"] == (sha256(bodies[key]) if ground.bucket.server.kind == "ministack" else None)
        assert file["bytes"] == len(bodies[key])
        assert (head["ContentType"], head["Metadata"]["prompt-id"]) == ("video/mp4", "p")


@ministack
def test_a_public_object_is_copied_and_its_bytes_do_not_come_here(ground: Ground, source: Bucket) -> None:
    publish(source)
    prompt(ground, in_store(ground, source, "media/film.mp4", FILM))
    done = ground.archive.run("fetch", "p", "--s3-only")
    assert done.code == 0
    check_copied(ground, {"p/film.mp4": FILM})
    assert (done.summary["bytes_copied"], done.summary["bytes_downloaded"]) == (len(FILM), 0)
    assert passed(ground) < len(FILM) / 100


@pytest.mark.parametrize("prefix", ["", "/deep/down"])
def test_a_cdn_that_is_known_to_stand_before_a_bucket_is_not_gone_to(
    ground: Ground, source: Bucket, prefix: str
) -> None:
    odd = "media/a film [1] +%ü.mp4"
    bodies = {"p/film.mp4": FILM, "p/a film [1] +%ü.mp4": FILM[::-1]}
    for key, body in zip(("media/film.mp4", odd), bodies.values(), strict=True):
        in_store(ground, source, f"{prefix}/{key}".removeprefix("/"), body)
    prompt(ground, f"{ground.origin.url}/media/film.mp4", f"{ground.origin.url}/{quote(odd)}")
    sources = {cdn(ground.origin): source.name + prefix}
    assert mirrored(ground.archive, "p", s3_only=True, s3_sources=sources).code == 0
    check_copied(ground, bodies)
    assert ground.origin.media_requests == []
    assert passed(ground) < len(FILM) / 100


@pytest.mark.parametrize("same", [True, False], ids=["that very version", "another version"])
def test_what_came_to_disk_is_copied_only_if_the_source_is_that_very_version(
    ground: Ground, source: Bucket, same: bool
) -> None:
    in_store(ground, source, "large.mp4", LARGE if same else LARGE[::-1])
    prompt(ground, ground.origin.add("/large.mp4", LARGE))
    ran = mirrored(ground.archive, "p", s3_sources={cdn(ground.origin): source.name})
    assert (ran.code, ground.media()) == (0, {"p/large.mp4": LARGE})
    [file] = ground.manifest("p")["files"]
    assert (file["sha256"], file["s3"]["via"]) == (sha256(LARGE), "copy" if same else "upload")
    assert ground.archive.files()["p/large.mp4"] == LARGE
    assert (ground.proxy.bytes_up < len(LARGE) / 100) == same


# What is not copied


@pytest.mark.parametrize("ours", [False, True], ids=["another bucket", "the destination itself"])
def test_a_private_object_is_not_copied_for_whoever_knows_its_name(ground: Ground, source: Bucket, ours: bool) -> None:
    """Our credentials could read it, whoever wrote the URL could not."""
    secret = media.mp4(100_000, seed=66)
    url = in_store(ground, ground.bucket if ours else source, "private/film.mp4", secret)
    prompt(ground, url)
    ran = mirrored(ground.archive, "p", s3_only=True)
    assert (ran.code, ran.states) == (3, {"p": "partial"})
    assert copies(ground) == []
    assert {key for key, body in ground.bucket.read().items() if body == secret} == (
        {"private/film.mp4"} if ours else set()
    )
    assert ground.media().keys() == ({"private/film.mp4"} if ours else set())


CLIMBING = (
    *("/../private/1.mp4", "/%2e%2e/private/2.mp4", "/%2E%2e%2Fprivate%2f3.mp4", "/x/../../private/4.mp4"),
    *("/./../private/5.mp4", "/x/..%2f../private/6.mp4", "//private/7.mp4", "/..", "/8.mp4/..", "/.", "/"),
    *("/%2e%2e%5cprivate%5c9.mp4", "/%00/10.mp4"),
)


@ministack
def test_a_path_that_climbs_out_of_the_mapped_prefix_copies_nothing(ground: Ground, source: Bucket) -> None:
    for number in range(11):
        in_store(ground, source, f"private/{number}.mp4", FILM)
    for key in ("public/../private/1.mp4", "public//private/7.mp4", "public/..", "public/", "public/8.mp4/.."):
        in_store(ground, source, key, FILM)
    prompt(ground, *(ground.origin.url + path for path in CLIMBING))
    sources = {cdn(ground.origin): f"{source.name}/public"}
    ran = mirrored(ground.archive, "p", s3_only=True, s3_sources=sources)
    assert (ran.code, ground.media()) == (3, {})
    assert copies(ground) == []
    looked_at = [seen.key for seen in ground.proxy.requests if seen.bucket == source.name]
    assert [key for key in looked_at if not key.startswith("public/") or {"", "..", "."} & set(key.split("/"))] == []


@ministack
def test_what_stands_beside_a_mapped_prefix_is_not_of_it(ground: Ground, source: Bucket) -> None:
    """By the store's own address: only what is below the prefix is read with our credentials."""
    beside = ("private/1.mp4", "public-not/2.mp4", "publicity/3.mp4", "public.mp4", "PUBLIC/4.mp4", "a/public/5.mp4")
    below = in_store(ground, source, "public/film.mp4", FILM)
    prompt(ground, below, *(in_store(ground, source, key, FILM[::-1]) for key in beside))
    sources = {cdn(ground.origin): f"{source.name}/public"}
    ran = mirrored(ground.archive, "p", s3_only=True, s3_sources=sources)
    assert (ran.code, ground.media()) == (3, {"p/film.mp4": FILM})
    assert len(copies(ground)) == 1


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "public"])
@ministack
def test_what_is_cut_off_is_not_copied(ground: Ground, source: Bucket, listed: bool) -> None:
    """A few bytes of it tell."""
    publish(source)
    bodies = {"cut.mp4": FILM[:-100], "film.mp4": FILM}
    urls = [in_store(ground, source, name, body) for name, body in bodies.items()]
    if listed:
        urls = [ground.origin.add(f"/{name}", body) for name, body in bodies.items()]
    prompt(ground, *urls)
    sources = {cdn(ground.origin): source.name} if listed else {}
    ran = mirrored(ground.archive, "p", s3_only=True, s3_sources=sources)
    assert (ran.code, ran.errors, ground.media()) == (3, ["NotMedia"], {"p/film.mp4": FILM})
    assert len(copies(ground)) == 1


@ministack
def test_copying_can_be_switched_off(ground: Ground, source: Bucket) -> None:
    publish(source)
    prompt(ground, in_store(ground, source, "film.mp4", FILM))
    assert mirrored(ground.archive, "p", s3_only=True, s3_copy="never").code == 0
    assert ground.media() == {"p/film.mp4": FILM}
    assert copies(ground) == []
    assert [seen.operation for seen in ground.proxy.requests if seen.bucket == source.name] == ["GetObject"]
    assert ground.manifest("p")["files"][0]["s3"]["via"] == "stream"


# What cannot be copied comes another way


def test_a_source_that_changes_under_the_copy_comes_from_its_origin(ground: Ground, source: Bucket) -> None:
    """Between the look at it and the copy another version was put there."""
    later = media.mp4(400_000, seed=22)
    in_store(ground, source, "film.mp4", FILM)
    prompt(ground, ground.origin.add("/film.mp4", later))
    ground.proxy.fault(lambda s: (s.operation, s.bucket) == ("HeadObject", source.name), faults.hold("answer"))
    environ = {"MIRROR_S3_SOURCES": f"{cdn(ground.origin)}={source.name}"}
    with running(ground.archive, "fetch", "p", "--s3-only", environ=environ) as process:
        ground.proxy.wait_for(lambda: any(s.bucket == source.name and s.upstream for s in ground.proxy.requests), 60)
        source.put("film.mp4", later)
        ground.proxy.release()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert ground.media() == {"p/film.mp4": later}
    assert {seen.upstream for seen in copies(ground)} == {412}
    [file] = ground.manifest("p")["files"]
    assert (file["sha256"], file["s3"]["via"]) == (sha256(later), "stream")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidRequest")])
def test_a_bucket_that_may_not_be_copied_from_is_asked_once_a_run(
    ground: Ground, source: Bucket, status: int, code: str
) -> None:
    bodies = {f"{n}/film.mp4": media.mp4(50_000 + n, seed=n) for n in range(3)}
    for path, body in bodies.items():
        in_store(ground, source, path, body)
        prompt(ground, ground.origin.add(f"/{path}", body), prompt_id=path[0])
    ground.proxy.fault(named("CopyObject"), faults.answer(status, code), times=FOREVER)
    settings = ground.archive.settings(s3_only=True, s3_sources={cdn(ground.origin): source.name})

    async def one_after_the_other() -> list[Manifest]:
        async with Mirror(settings) as mirror:
            return [manifest for prompt_id in "012" async for manifest in mirror.fetch([prompt_id])]

    manifests = asyncio.run(one_after_the_other())
    assert [str(manifest.state) for manifest in manifests] == ["complete"] * 3
    assert ground.media() == bodies
    assert {file.s3.via for manifest in manifests for file in manifest.files if file.s3} == {"stream"}
    # A store that does not know the request may be asked once more, without the condition.
    assert 1 <= len(copies(ground)) <= (2 if status == 501 else 1)


@ministack
def test_a_copy_whose_answer_is_lost_is_found_and_not_made_twice(ground: Ground, source: Bucket) -> None:
    publish(source)
    prompt(ground, in_store(ground, source, "film.mp4", FILM))
    ground.proxy.fault(named("CopyObject"), faults.forward_then_reset())
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    check_copied(ground, {"p/film.mp4": FILM})
