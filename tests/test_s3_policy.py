"""The smallest policy: what it says, that it is enough for a whole run, and that nothing of it can be left out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from mirror.errors import Denied
from mirror.settings import S3Settings
from mirror.stores.s3.policy import RIGHTS, on_one_line, smallest
from mirror.stores.s3.store import S3Store
from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored
from tests.origin import answer, task
from tests.s3.bucket import Bucket
from tests.s3.servers import Server
from tests.s3_runs_small import TARGET, as_user, in_bucket, interrupted, settings_for

LARGE = media.mp4(9 << 20, seed=9)
"""Goes in parts where there is as little memory as here."""
ON_BUCKET = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
ON_OBJECTS = ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]

Before: TypeAlias = Callable[[S3Store], Awaitable[None]]
Act: TypeAlias = Callable[[Archive, Bucket], tuple[int, str]]


def allow(actions: list[str], resource: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


@pytest.mark.parametrize(
    ("ours", "statements"),
    [
        ({}, [allow(ON_BUCKET, "arn:aws:s3:::mine"), allow(ON_OBJECTS, "arn:aws:s3:::mine/*")]),
        ({"prefix": "a/b"}, [allow(ON_BUCKET, "arn:aws:s3:::mine"), allow(ON_OBJECTS, "arn:aws:s3:::mine/a/b/*")]),
        ({"prefix": "/a/"}, [allow(ON_BUCKET, "arn:aws:s3:::mine"), allow(ON_OBJECTS, "arn:aws:s3:::mine/a/*")]),
        (
            {"region": "cn-north-1"},
            [allow(ON_BUCKET, "arn:aws-cn:s3:::mine"), allow(ON_OBJECTS, "arn:aws-cn:s3:::mine/*")],
        ),
        (
            {"region": "us-gov-west-1"},
            [allow(ON_BUCKET, "arn:aws-us-gov:s3:::mine"), allow(ON_OBJECTS, "arn:aws-us-gov:s3:::mine/*")],
        ),
        (
            {"tags": {"project": "films"}},
            [
                allow(ON_BUCKET, "arn:aws:s3:::mine"),
                allow([*ON_OBJECTS, "s3:PutObjectTagging"], "arn:aws:s3:::mine/*"),
            ],
        ),
        (
            {"sources": {"cdn.example": "media/a/", "img.example": "media/a", "z.example": "all"}},
            [
                allow(ON_BUCKET, "arn:aws:s3:::mine"),
                allow(ON_OBJECTS, "arn:aws:s3:::mine/*"),
                allow(["s3:GetObject"], ["arn:aws:s3:::all/*", "arn:aws:s3:::media/a/*"]),
            ],
        ),
        (
            {"sources": {"cdn.example": "media"}, "copy": "never"},
            [allow(ON_BUCKET, "arn:aws:s3:::mine"), allow(ON_OBJECTS, "arn:aws:s3:::mine/*")],
        ),
        (
            {"sse": "aws:kms", "kms_key_id": "arn:aws:kms:us-east-1:1:key/k"},
            [
                allow(ON_BUCKET, "arn:aws:s3:::mine"),
                allow(ON_OBJECTS, "arn:aws:s3:::mine/*"),
                allow(["kms:GenerateDataKey", "kms:Decrypt"], "arn:aws:kms:us-east-1:1:key/k"),
            ],
        ),
        (
            {"sse": "aws:kms", "kms_key_id": "alias/mine"},
            [
                allow(ON_BUCKET, "arn:aws:s3:::mine"),
                allow(ON_OBJECTS, "arn:aws:s3:::mine/*"),
                allow(["kms:GenerateDataKey", "kms:Decrypt"], "*"),
            ],
        ),
        ({"sse": "AES256"}, [allow(ON_BUCKET, "arn:aws:s3:::mine"), allow(ON_OBJECTS, "arn:aws:s3:::mine/*")]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_the_smallest_policy(ours: dict[str, Any], statements: list[dict[str, Any]]) -> None:
    found = S3Settings(bucket="mine", **ours)
    assert smallest(found) == {"Version": "2012-10-17", "Statement": statements}
    assert json.loads(on_one_line(found)) == smallest(found)
    assert "\n" not in on_one_line(found)


def test_every_right_that_a_run_needs_is_in_it() -> None:
    """Nothing is deleted by a run, so that right is not asked for."""
    asked = {action for statement in smallest(S3Settings(bucket="b"))["Statement"] for action in statement["Action"]}
    assert {*RIGHTS.values()} - asked == {"s3:DeleteObject"}


# Against a server that enforces it


@pytest.fixture
def place(ministack: Server) -> Bucket:
    return Bucket.new(ministack)


def limited(place: Bucket, without: str = "", **ours: Any) -> Bucket:
    """The same bucket for somebody who has the smallest policy, but for one action."""
    policy = smallest(S3Settings(bucket=place.name, prefix="films", **ours))
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action != without]
    return Bucket(place.server.user(policy), place.name)


async def meant_only(store: S3Store) -> None:
    """A kill between an upload's beginning and its id."""
    await interrupted(store)
    [journal] = store.objects.disk.parts.glob("*.upload")
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])


def test_it_is_enough_for_a_whole_run(place: Bucket, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    small = done_prompt(archive.origin, "small", "a.png", "b.png")
    large_prompt(archive.origin, "large", LARGE)
    user = limited(place, tags={"project": "films"})
    environ = {**user.environ, "MIRROR_S3_TAGS": "project=films", "MIRROR_TRANSFER_MEMORY": "64M"}
    url = f"s3://{place.name}/films"
    assert archive.run("fetch", "small", "large", "--s3", url, environ=environ).code == 0
    only = Archive(archive.root.with_name("only"), archive.origin)
    done = only.run("fetch", "small", "large", "--s3", f"{url}/only", "--s3-only", environ=environ)
    assert (done.code, list(only.files())) == (0, [])
    as_user(user.server, monkeypatch)
    in_bucket(settings_for(user, archive.root, s3=url), interrupted)
    cleaned = archive.run("cleanup", environ={**environ, "MIRROR_S3_PREFIX": "films"})
    assert (cleaned.code, cleaned.out) == (0, "1 multipart upload aborted\n0 partial files removed, 0 B\n")
    for root, prefix in ((archive, "films"), (only, "films/only")):
        place_of = {**environ, "MIRROR_S3_PREFIX": prefix, "MIRROR_S3_ONLY": str(root is only).lower()}
        verified = root.run("verify", "--s3", environ=place_of)
        # The archive below stands in the folder of the one above, which does not know it.
        told = [line.split("\t") for line in verified.out.splitlines()]
        assert (verified.code, {what for *_, what in told}) == (0, {"unexpected"} if root is archive else set())
        assert all("/films/only/" in where for _, where, _ in told), verified.err
        assert "5 files" in verified.err
    expected = {f"small/{name}": body for name, body in small.items()} | {"large/large.mp4": LARGE}
    there = place.read()
    for prefix in ("films", "films/only"):
        assert {name: there[f"{prefix}/{name}"] for name in expected} == expected
    assert place.uploads() == []


def by_command(*arguments: str) -> Act:
    def act(archive: Archive, user: Bucket) -> tuple[int, str]:
        done = archive.run(*arguments, environ={**user.environ, "MIRROR_S3_PREFIX": "films"})
        return done.code, done.err

    return act


def in_process(work: Callable[[S3Store], Awaitable[object]]) -> Act:
    def act(archive: Archive, user: Bucket) -> tuple[int, str]:
        with pytest.raises(Denied) as caught:
            in_bucket(settings_for(user, archive.root, s3_prefix="films"), work)
        return caught.value.exit_code, str(caught.value)

    return act


@pytest.mark.parametrize(
    ("action", "before", "act"),
    [
        ("s3:ListBucket", None, by_command("fetch", "small")),
        ("s3:PutObject", None, in_process(interrupted)),
        ("s3:GetObject", None, in_process(lambda store: store.read_manifests(["p"]))),
        ("s3:GetObject", None, in_process(interrupted)),
        ("s3:ListMultipartUploadParts", interrupted, in_process(lambda store: store.sink(TARGET))),
        ("s3:AbortMultipartUpload", interrupted, by_command("cleanup")),
        ("s3:ListBucketMultipartUploads", meant_only, in_process(lambda store: store.cleanup())),
    ],
)
def test_without_any_of_its_rights_the_run_stops_and_names_it(
    action: str, before: Before | None, act: Act, place: Bucket, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_prompt(archive.origin, "small", "a.png")
    as_user(place.server, monkeypatch)
    if before is not None:
        in_bucket(settings_for(place, archive.root, s3_prefix="films"), before)
    user = limited(place, without=action)
    as_user(user.server, monkeypatch)
    code, said = act(archive, user)
    assert code == 4, said
    assert f"the right {action} is missing" in said
    assert on_one_line(S3Settings(bucket=place.name, prefix="films")) in said


@pytest.mark.parametrize("versioned", [False, True])
def test_it_is_enough_for_a_copy_within_the_store(
    versioned: bool, place: Bucket, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Bucket.new(place.server)
    source.put("in/film.mp4", LARGE, ContentType="video/mp4")
    if versioned:
        place.server.client().put_bucket_versioning(Bucket=place.name, VersioningConfiguration={"Status": "Enabled"})
    host = place.server.endpoint.partition("//")[2]
    sources = {"cdn.example": f"{source.name}/in"}
    user = limited(place, sources=sources)
    for name, value in user.environ.items():
        monkeypatch.setenv(name, value)
    url = f"http://{host}/{source.name}/in/film.mp4"
    archive.origin.prompt("p", answer(task("p", images=[(None, url)])))
    ran = mirrored(archive, "p", s3_prefix="films", s3_only=True, s3_sources=sources)
    assert ran.states == {"p": "complete"}
    [file] = ran.manifests["p"].files
    assert file.s3 is not None
    assert file.s3.via == "copy"
    assert place.read("films/p/film") == {"films/p/film.mp4": LARGE}
