"""A destination that is added later, one that has lost something, and one in which something else stands."""

from __future__ import annotations

import pytest

from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored, sha256
from tests.origin import Origin, answer
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import LARGE, Ground, below, small_and_large, told_by_store

one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


# A bucket that comes later


@pytest.mark.parametrize("denied", [False, True], ids=["as before", "the service denies it now"])
def test_a_bucket_that_comes_later_gets_what_is_on_disk_and_nobody_else_is_asked(ground: Ground, denied: bool) -> None:
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q", s3_bucket="").code == 0
    assert ground.bucket.keys() == []
    if denied:
        for prompt_id in ("p", "q"):
            ground.origin.prompt(prompt_id, answer(None, 900, "no data"))
    ground.forget()
    ran = mirrored(ground.archive, "p", "q")
    assert (ran.code, ran.states) == (0, {"p": "complete", "q": "complete"})
    assert ground.origin.requests == []
    assert ground.media() == bodies
    for prompt_id in ("p", "q"):
        assert ground.manifest(prompt_id) == ground.archive.manifest(prompt_id)
        for file in ground.manifest(prompt_id)["files"]:
            assert (file["s3"]["via"], file["s3"]["etag"]) == ("upload", told_by_store(ground.bucket, file)["etag"])


@one
def test_what_is_complete_everywhere_is_told_from_disk(ground: Ground) -> None:
    """The manifests that the run hands out are read there, so the bucket need not even be opened."""
    small_and_large(ground.origin)
    before = mirrored(ground.archive, "p", "q")
    ground.forget()
    again = mirrored(ground.archive, "p", "q")
    assert (again.code, again.manifests) == (0, before.manifests)
    assert ground.asked == (0, 0, 0)


@one
def test_another_bucket_gets_all_of_it_again_and_the_first_one_keeps_it(ground: Ground) -> None:
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q").code == 0
    other = Bucket.new(ground.bucket.server)
    ground.forget()
    assert mirrored(ground.archive, "p", "q", s3_bucket=other.name, s3_prefix="more/").code == 0
    assert ground.origin.requests == []
    assert ground.media() == bodies
    objects = other.read()
    assert {path: objects[f"more/{path}"] for path in bodies} == bodies
    assert ground.archive.manifest("q")["files"][0]["s3"]["bucket"] == other.name


def test_a_file_that_changed_on_disk_does_not_become_an_object(ground: Ground) -> None:
    """Its bytes are not those that the manifest would vouch for."""
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q", s3_bucket="").code == 0
    for path in ("p/a.png", "q/large.mp4"):
        other = media.blob(len(bodies[path]), seed=3)
        (ground.archive.root / path).write_bytes(other)
    ran = mirrored(ground.archive, "p", "q")
    assert (ran.code, ran.errors) == (3, ["ChecksumMismatch", "ChecksumMismatch"])
    assert ground.media() == {"p/b.png": bodies["p/b.png"]}
    assert ground.bucket.uploads() == []


# A disk that comes later


@pytest.mark.parametrize("new_machine", [False, True], ids=["the same root", "an empty root"])
def test_a_disk_that_comes_later_is_filled_from_the_bucket(ground: Ground, new_machine: bool) -> None:
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q", s3_only=True).code == 0
    assert ground.archive.files() == {}
    for prompt_id in ("p", "q"):
        ground.origin.prompt(prompt_id, answer(None, 900, "no data"))
    objects = ground.bucket.read()
    archive = ground.elsewhere() if new_machine else ground.archive
    ground.forget()

    ran = mirrored(archive, "p", "q")
    assert (ran.code, ran.states) == (0, {"p": "complete", "q": "complete"})
    assert (ground.origin.requests, ground.written()) == ([], [])
    assert archive.files() == objects
    assert objects == objects | bodies


def damage(bucket: Bucket, key: str, body: bytes, how: str) -> None:
    if how == "gone":
        bucket.server.client().delete_object(Bucket=bucket.name, Key=key)
    else:
        bucket.put(key, media.blob(len(body), seed=5) if how == "other bytes" else body[:-7])


DAMAGE = {"a.png": "other bytes", "b.png": "cut short", "c.png": "gone", "large.mp4": "other bytes"}


def damaged_archive(ground: Ground) -> dict[str, bytes]:
    """An archive in the bucket alone, with one file after the other damaged; and what they should be."""
    bodies = below("p/", done_prompt(ground.origin, "p", "a.png", "b.png", "c.png", "well.png").items())
    large_prompt(ground.origin, "q", LARGE)
    bodies["q/large.mp4"] = LARGE
    assert mirrored(ground.archive, "p", "q", s3_only=True).code == 0
    for path, body in bodies.items():
        if how := DAMAGE.get(path.partition("/")[2]):
            damage(ground.bucket, path, body, how)
    ground.forget()
    return bodies


def test_what_was_damaged_in_the_bucket_comes_from_its_origin(ground: Ground) -> None:
    bodies = damaged_archive(ground)
    damaged = ground.media()
    archive = ground.elsewhere()
    assert mirrored(archive, "p", "q").code == 0
    files = archive.files()
    assert {path: files[path] for path in bodies} == bodies
    assert sorted(request.path.rpartition("/")[2] for request in ground.origin.media_requests) == sorted(DAMAGE)
    # What was put there by somebody stays, and what is right stands beside it.
    objects = ground.media()
    assert {key: objects[key] for key in damaged} == damaged
    for prompt_id in ("p", "q"):
        for file in archive.manifest(prompt_id)["files"]:
            assert sha256(objects[file["s3"]["key"]]) == file["sha256"] == sha256(bodies[f"{prompt_id}/{file['path']}"])


@one
def test_what_was_damaged_and_cannot_be_had_again_fails_and_no_wrong_byte_lands(ground: Ground) -> None:
    bodies = damaged_archive(ground)
    for path in bodies:
        ground.origin.add(f"/{path}", media.png(seed=77))  # the origin has something else there now
    archive = ground.elsewhere()
    ran = mirrored(archive, "p", "q")
    assert (ran.code, ran.errors) == (3, ["ChecksumMismatch"] * len(DAMAGE))
    assert [body for path, body in archive.files().items() if not path.endswith(".json")] == [bodies["p/well.png"]]


# Something else stands there


@pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])
def test_a_stranger_at_our_key_is_left_alone_and_ours_goes_beside_it(ground: Ground, only: bool) -> None:
    bodies = below("p/", done_prompt(ground.origin, "p", "a.png", "b.png", "c.png").items())
    for prompt_id in ("q", "r"):
        bodies[f"{prompt_id}/large.mp4"] = LARGE[::-1] if prompt_id == "r" else LARGE
        large_prompt(ground.origin, prompt_id, bodies[f"{prompt_id}/large.mp4"])
    sizes = {"p/a.png": 10, "p/b.png": len(bodies["p/b.png"]), "q/large.mp4": len(LARGE), "r/large.mp4": len(LARGE) - 1}
    strangers = {path: media.blob(size, seed=8) for path, size in sizes.items()}
    for key, body in strangers.items():
        ground.bucket.put(key, body)
    assert mirrored(ground.archive, "p", "q", "r", s3_only=only).code == 0
    objects = ground.media()
    assert {key: objects.pop(key) for key in strangers} == strangers
    assert sorted(objects.values()) == sorted(bodies.values())
    files = {f["url"].removeprefix(f"{ground.origin.url}/"): f for p in "pqr" for f in ground.manifest(p)["files"]}
    for path, body in bodies.items():
        key, folder = files[path]["s3"]["key"], path.partition("/")[0]
        assert objects[key] == body
        stem, _, suffix = path.rpartition(".")
        assert (key == path) == (path not in strangers)
        assert (key.startswith(stem), key.endswith(suffix)) == (True, True)
        assert f"{folder}/{files[path]['path']}" == (key if only else path)
    assert ground.bucket.uploads() == []


def test_the_very_same_bytes_at_our_key_are_taken_for_ours(ground: Ground) -> None:
    bodies = small_and_large(ground.origin)
    for key, body in bodies.items():
        ground.bucket.put(key, body)
    before = {key: ground.bucket.head(key)["LastModified"] for key in bodies}
    assert mirrored(ground.archive, "p", "q", s3_only=True).code == 0
    assert ground.media() == bodies
    assert {key: ground.bucket.head(key)["LastModified"] for key in bodies} == before
    large = ground.manifest("q")["files"][0]
    assert large["sha256"] == sha256(LARGE)
    assert large["s3"]["etag"] == ground.bucket.head("q/large.mp4")["ETag"]


def test_a_manifest_that_is_none_of_ours_is_not_overwritten(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png")
    ground.bucket.put("p/manifest.json", b'{"name": "an app"}')
    ran = mirrored(ground.archive, "p")
    assert ran.code == 3
    assert ground.bucket.read() == {"p/manifest.json": b'{"name": "an app"}', "p/a.png": bodies["a.png"]}


def test_a_versioned_bucket_gives_versions(ground: Ground) -> None:
    client = ground.bucket.server.client()
    client.put_bucket_versioning(Bucket=ground.bucket.name, VersioningConfiguration={"Status": "Enabled"})
    small_and_large(ground.origin)
    for prompt_id in ("p", "q"):
        assert mirrored(ground.archive, prompt_id).code == 0
        for file in ground.manifest(prompt_id)["files"]:
            assert file["s3"]["version_id"]
            assert file["s3"]["version_id"] == told_by_store(ground.bucket, file)["version_id"]


@one
@pytest.mark.parametrize("other", [True, False], ids=["another service", "the same"])
def test_what_another_service_s_archive_wrote_here_is_taken_with_a_warning(ground: Ground, other: bool) -> None:
    for name in ("p", "q"):
        done_prompt(ground.origin, name, "a.png")
    assert ground.archive.run("fetch", "p", "q", "--s3", ground.url).code == 0
    with Origin() as second:
        archive = Archive(ground.archive.root.with_name("other"), second if other else ground.origin)
        done = archive.run("fetch", "p", "q", "--s3", ground.url)
        assert done.code == 0, done.err
        assert done.err.count("give each archive a root and a prefix of its own") == (1 if other else 0)
        assert done.err.count(f"is of {ground.origin.url}") == (1 if other else 0)
