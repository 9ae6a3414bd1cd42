"""What a hostile user broke once, with a bucket: each stays mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mirror import FetchOptions
from tests import faults as origin_faults
from tests import media
from tests.conftest import Archive, Done
from tests.faults import Reply
from tests.helpers import done_prompt, large_prompt, mirrored
from tests.origin import FOREVER, Origin, answer, task
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3.servers import Server


class Ground:
    """An origin, an archive and a bucket behind a proxy."""

    def __init__(self, archive: Archive, bucket: Bucket, proxy: FaultProxy) -> None:
        self.archive = archive
        self.bucket = bucket
        self.proxy = proxy
        self.environ = bucket.through(proxy).environ

    def fetch(self, *arguments: str, archive: Archive | None = None, **environ: str) -> Done:
        return (archive or self.archive).run("fetch", *arguments, environ={**self.environ, **environ})

    def manifest(self, prompt_id: str = "p") -> dict[str, Any]:
        found = json.loads(self.bucket.read()[f"{prompt_id}/manifest.json"])
        assert isinstance(found, dict)
        return found

    def names(self, prompt_id: str = "p") -> list[str]:
        return sorted(file["path"] for file in self.manifest(prompt_id)["files"])


@pytest.fixture
def ground(archive: Archive, ministack: Server, tmp_path: Path) -> Iterator[Ground]:
    bucket = Bucket.new(ministack)
    with FaultProxy(ministack.endpoint) as proxy:
        yield Ground(archive, bucket, proxy)


def test_a_restore_that_fails_forgets_nothing_in_the_bucket(origin: Origin, ground: Ground) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert ground.fetch("p", "--s3-only").code == 0
    for name in bodies:
        origin.add(f"/p/{name}", b"", fault=None)
    ground.proxy.fault(
        lambda seen: seen.operation == "GetObject" and seen.key.endswith(".png"), faults.answer(503), FOREVER
    )

    assert ground.fetch("p", MIRROR_TRANSFER_ATTEMPTS="1").code == 3

    assert ground.names() == ["a.png", "b.png"]
    assert {key.removeprefix("p/") for key in list(ground.bucket.keys())} == {*bodies, "manifest.json"}


def test_a_bucket_of_that_name_in_another_store_is_believed_to_hold_nothing(
    origin: Origin, ground: Ground, swift: Server
) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert ground.fetch("p").code == 0
    client = swift.client()
    client.create_bucket(Bucket=ground.bucket.name)
    with FaultProxy(swift.endpoint) as proxy:
        there = replace(ground.bucket, server=swift).through(proxy)
        proxy.fault(
            lambda seen: seen.operation == "PutObject" and seen.key == "p/b.png", faults.answer(400, "InvalidRequest")
        )
        assert ground.archive.run("fetch", "p", environ=there.environ).code == 3
        listed = json.loads(there.read()["p/manifest.json"])["files"]
        assert {file["path"]: file["s3"] is not None for file in listed} == {"a.png": True, "b.png": False}
        assert ground.archive.run("fetch", "p", environ=there.environ).code == 0
        assert {key: body for key, body in there.read().items() if key.endswith(".png")} == {
            f"p/{name}": body for name, body in bodies.items()
        }


def test_other_bytes_of_another_archive_are_not_forgotten(origin: Origin, ground: Ground, tmp_path: Path) -> None:
    done_prompt(origin, "p", "x.png")
    assert ground.archive.run("fetch", "p").code == 0  # disk only
    origin.add("/p/x.png", media.png(seed=99))
    other = Archive(tmp_path / "other", origin)
    assert ground.fetch("p", archive=other).code == 0
    before = ground.bucket.read()["p/manifest.json"]

    done = ground.fetch("p")

    assert (done.code, "give each a prefix of its own" in done.err) == (3, True)
    assert ground.bucket.read()["p/manifest.json"] == before


@pytest.mark.parametrize("body", ["small", "large"])
def test_an_answer_without_an_etag_is_no_success(origin: Origin, ground: Ground, body: str) -> None:
    large_prompt(origin, "p", media.mp4(20_000 if body == "small" else 17 << 20))

    def without(headers: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.lower() != "etag"}

    operation = "PutObject" if body == "small" else "UploadPart"
    ground.proxy.fault(
        lambda seen: seen.operation == operation and "large" in seen.key, faults.edit_response_headers(without), FOREVER
    )
    done = ground.fetch("p", "--s3-only", MIRROR_TRANSFER_ATTEMPTS="1", MIRROR_TRANSFER_MEMORY="64M")
    assert done.code == 3
    assert ground.manifest()["files"] == []


def test_a_prefix_that_is_a_prompts_id_is_another_place(origin: Origin, ground: Ground) -> None:
    bodies = done_prompt(origin, "p", "a.png")
    assert ground.fetch("p", MIRROR_S3_PREFIX="p").code == 0
    assert ground.fetch("p").code == 0
    assert ground.bucket.read()["p/a.png"] == bodies["a.png"]
    assert ground.names() == ["a.png"]


def test_a_length_that_is_only_claimed_takes_no_memory(origin: Origin, ground: Ground) -> None:
    body = media.mp4(20_000)
    head = {"Content-Length": str(10 << 40), "ETag": '"1"', "Content-Type": "video/mp4", "Accept-Ranges": "bytes"}
    large_prompt(origin, "p", body)
    origin.handle("/p/large.mp4", lambda _: Reply(200, body=body, headers=head, ending="stall"))
    origin._api_paths.discard("/p/large.mp4")
    ran = mirrored_in(ground, "p")
    assert ran.errors == ["TooLarge"]


def mirrored_in(ground: Ground, prompt_id: str) -> Any:
    told = {
        "s3": f"s3://{ground.bucket.name}/",
        "s3_endpoint": ground.environ["MIRROR_S3_ENDPOINT_URL"],
        "s3_only": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, ground.environ[name])
        return mirrored(ground.archive, prompt_id, options=FetchOptions(), **told)


def test_refresh_puts_back_what_the_bucket_lost(origin: Origin, ground: Ground) -> None:
    bodies = done_prompt(origin, "p", "a.png")
    assert ground.fetch("p").code == 0
    ground.bucket.server.client().delete_object(Bucket=ground.bucket.name, Key="p/a.png")
    origin.clear()

    assert ground.fetch("p", "--refresh").code == 0

    assert ground.bucket.read()["p/a.png"] == bodies["a.png"]
    assert origin.media_requests == []


def test_delete_touches_no_bucket_that_is_not_named_and_no_object_that_is_not_ours(
    origin: Origin, ground: Ground
) -> None:
    done_prompt(origin, "p", "a.png")
    assert ground.fetch("p").code == 0
    done = ground.archive.run("forget", "p", "--delete")
    assert (done.code, "--bucket" in done.err) == (2, True)
    assert (ground.archive.root / "p" / "a.png").exists()

    ground.bucket.put("p/a.png", b"somebody else's by now")
    done = ground.archive.run("forget", "p", "--delete", environ=ground.environ)
    assert (done.code, "p/a.png" in done.out) == (0, True)
    assert ground.bucket.read() == {"p/a.png": b"somebody else's by now"}


def test_files_that_broke_off_hold_no_memory_that_others_need(origin: Origin, ground: Ground) -> None:
    """One request at a time, memory for one part: who waits for the request must not keep the memory."""
    bodies = {f"f{number}.mp4": media.mp4(9 << 20, seed=number) for number in range(3)}
    urls = [origin.add(f"/p/{name}", body, fault=origin_faults.close_after(3 << 20)) for name, body in bodies.items()]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))

    done = ground.fetch("p", "--s3-only", "--concurrency", "1", MIRROR_TRANSFER_MEMORY="16M")

    assert done.code == 0, done.err
    assert {key: body for key, body in ground.bucket.read().items() if key.endswith(".mp4")} == {
        f"p/{name}": body for name, body in bodies.items()
    }
