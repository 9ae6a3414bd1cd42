"""The other commands on a bucket: verify, cleanup, doctor, forget."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored, running
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3_runs_e2e import LARGE, WRITES, Ground, below, named, small_and_large

ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def flaws(out: str) -> list[tuple[str, str, str]]:
    """What verify prints: promptId, where, and the first word of what is wrong."""
    rows = [line.split("\t") for line in out.splitlines()]
    assert all(len(row) == 3 for row in rows)
    return sorted((prompt_id, where, what.partition(":")[0]) for prompt_id, where, what in rows)


# verify


def test_verify_finds_what_is_wrong_in_the_bucket_and_nothing_else(ground: Ground) -> None:
    bodies = small_and_large(ground.origin)
    for prompt_id in ("gone", "other", "short", "unlisted"):
        bodies |= below(f"{prompt_id}/", done_prompt(ground.origin, prompt_id, "a.png").items())
    ids = ["p", "q", "gone", "other", "short", "unlisted"]
    assert mirrored(ground.archive, *ids, s3_prefix="pre").code == 0
    command = ("verify", "--s3", "--bucket", ground.url)
    for deep in (False, True):
        ground.forget()
        well = ground.archive.run(*command, *(["--deep"] if deep else []))
        assert (well.code, well.out, "nothing wrong" in well.err) == (0, "", True)
        read = sum(seen.bytes_down for seen in ground.proxy.requests if not seen.key.endswith(".json"))
        assert read >= sum(map(len, bodies.values())) if deep else read < 10_000
        assert {seen.operation for seen in ground.proxy.requests} & WRITES == set()

    client = ground.bucket.server.client()
    for key in ("pre/gone/a.png", "pre/unlisted/manifest.json"):
        client.delete_object(Bucket=ground.bucket.name, Key=key)
    ground.bucket.put("pre/other/a.png", media.blob(len(bodies["other/a.png"]), seed=2))
    ground.bucket.put("pre/q/large.mp4", media.blob(len(LARGE), seed=3))
    ground.bucket.put("pre/short/a.png", bodies["short/a.png"][:-1])
    ground.bucket.put("pre/p/manifest.json", b"{}")
    where = f"s3://{ground.bucket.name}/pre"
    for options in ((), ("--deep",)):
        done = ground.archive.run(*command, *options)
        assert (done.code, "6 wrong" in done.err) == (3, True)
        assert flaws(done.out) == [
            ("gone", f"{where}/gone/a.png", "missing"),
            ("other", f"{where}/other/a.png", "damaged"),
            ("p", f"{where}/p/manifest.json", "damaged"),
            ("q", f"{where}/q/large.mp4", "damaged"),
            ("short", f"{where}/short/a.png", "damaged"),
            ("unlisted", f"{where}/unlisted/manifest.json", "missing"),
        ]


def test_bytes_that_rot_behind_a_checksum_are_found_by_reading_them(ground: Ground) -> None:
    """The store goes on telling what it was once told."""
    large_prompt(ground.origin, "q", LARGE)
    assert mirrored(ground.archive, "q", s3_only=True).code == 0
    kept = ("etag", "x-amz-checksum-sha256", "x-amz-checksum-type", "content-length")
    before = ground.bucket.server.client().head_object(
        Bucket=ground.bucket.name, Key="q/large.mp4", ChecksumMode="ENABLED"
    )
    told = {name: value for name, value in before["ResponseMetadata"]["HTTPHeaders"].items() if name in kept}
    ground.bucket.put("q/large.mp4", LARGE[:5000] + b"!" + LARGE[5001:])

    def as_before(headers: dict[str, str]) -> dict[str, str]:
        others = {n: v for n, v in headers.items() if n.lower() not in kept and "checksum" not in n.lower()}
        return others | told

    ground.proxy.fault(named("HeadObject", "large.mp4"), faults.edit_response_headers(as_before), times=FOREVER)
    environ = {"MIRROR_S3_ONLY": "true"}
    assert ground.archive.run("verify", "--s3", environ=environ).code == 0
    done = ground.archive.run("verify", "--s3", "--deep", environ=environ)
    assert done.code == 3
    [(prompt_id, where, what)] = flaws(done.out)
    assert (prompt_id, where) == ("q", f"s3://{ground.bucket.name}/q/large.mp4")
    assert what in ("damaged", "unreadable")


@ministack
def test_verify_of_the_disk_does_not_look_at_the_bucket(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png", "c.png")
    assert mirrored(ground.archive, "p").code == 0
    ground.forget()
    (ground.archive.root / "p" / "a.png").unlink()
    (ground.archive.root / "p" / "b.png").write_bytes(media.blob(len(bodies["b.png"])))
    one = ground.archive.run("verify", "p", "nobody", "--s3")
    assert (one.code, flaws(one.out)) == (3, [("nobody", "nobody/manifest.json", "missing")])
    ground.forget()
    done = ground.archive.run("verify")
    assert (done.code, flaws(done.out)) == (3, [("p", "p/a.png", "missing"), ("p", "p/b.png", "damaged")])
    assert ground.origin.requests == []
    assert [seen.operation for seen in ground.proxy.requests if seen.operation != "HeadBucket"] == []


@ministack
@pytest.mark.parametrize(
    ("arguments", "environ", "code", "told"),
    [
        (("verify", "--deep"), {}, 2, "--deep goes with --s3"),
        (("verify", "--s3"), {"MIRROR_S3_BUCKET": ""}, 2, "no bucket is configured"),
        (("doctor", "--policy"), {"MIRROR_S3_BUCKET": ""}, 2, "no bucket is configured"),
        (("verify",), {"MIRROR_S3_ONLY": "true"}, 2, "mirror verify --s3"),
        (("cleanup",), {"AWS_SECRET_ACCESS_KEY": "wrong"}, 4, "check the key"),
    ],
)
def test_what_cannot_be_done_is_said(
    ground: Ground, arguments: tuple[str, ...], environ: dict[str, str], code: int, told: str
) -> None:
    done_prompt(ground.origin, "p", "a.png")
    assert mirrored(ground.archive, "p", s3_bucket="").code == 0
    done = ground.archive.run(*arguments, environ=environ)
    assert (done.code, told in done.out + done.err, "Traceback" in done.err) == (code, True, False)


# cleanup


@pytest.mark.parametrize("held", ["UploadPart", "CreateMultipartUpload"], ids=["its id is known", "its id was lost"])
def test_cleanup_aborts_what_the_journals_name_and_nothing_else(ground: Ground, held: str) -> None:
    client = ground.bucket.server.client()
    foreign = ["pre/q/large.mp4.part", "pre/q/other.mp4", "somewhere/else", "pre/q/large.mp4"]  # even to the same key
    theirs = {client.create_multipart_upload(Bucket=ground.bucket.name, Key=key)["UploadId"] for key in foreign}
    large_prompt(ground.origin, "q", LARGE)
    ground.proxy.fault(held, faults.hold("answer"))
    with running(ground.archive, "fetch", "q", "--s3-only", "--s3", ground.url) as process:
        ground.proxy.wait_for(lambda: any(s.operation == held and s.upstream for s in ground.proxy.requests))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(ground.bucket.uploads()) == len(theirs) + 1

    done = ground.archive.run("cleanup", "--bucket", ground.url)
    assert (done.code, done.out) == (0, "1 multipart upload aborted\n0 partial files removed, 0 B\n")
    assert {upload["UploadId"] for upload in ground.bucket.uploads()} == theirs
    again = ground.archive.run("cleanup", "--bucket", ground.url)
    assert (again.code, again.out) == (0, "0 multipart uploads aborted\n0 partial files removed, 0 B\n")
    assert {upload["UploadId"] for upload in ground.bucket.uploads()} == theirs
    assert mirrored(ground.archive, "q", s3_only=True, s3_prefix="pre").code == 0
    assert ground.media() == {"pre/q/large.mp4": LARGE}


# doctor


def test_doctor_tries_the_bucket_and_leaves_nothing_in_it(ground: Ground) -> None:
    done = ground.archive.run("doctor", "--bucket", ground.url)
    lines = [line for line in done.out.splitlines() if " bucket " in line]
    assert (done.code, [line for line in lines if line.startswith("fail")]) == (0, [])
    for told in (
        "is there",
        "can be written to",
        "can be read",
        "refuses to overwrite",
        "checks what it gets",
        "multipart",
    ):
        assert [line for line in lines if told in line] != [], told
    assert (ground.bucket.keys(), ground.bucket.uploads()) == ([], [])


@ministack
def test_doctor_says_which_right_is_missing(ground: Ground) -> None:
    arn = f"arn:aws:s3:::{ground.bucket.name}"
    allow = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [arn, f"{arn}/*"]}
    reader = ground.bucket.server.user({"Version": "2012-10-17", "Statement": [allow]})
    keys = {"AWS_ACCESS_KEY_ID": reader.access_key, "AWS_SECRET_ACCESS_KEY": reader.secret_key}
    done = ground.archive.run("doctor", environ=keys)
    [failed] = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert (done.code, "the right s3:PutObject is missing" in failed) == (4, True)
    assert "ok    api" in done.out  # the others were looked at all the same


def test_doctor_prints_the_smallest_policy_and_asks_nobody(ground: Ground) -> None:
    done = ground.archive.run("doctor", "--policy", "--bucket", ground.url)
    policy: dict[str, Any] = json.loads(done.out)
    resources = {str(each["Resource"]) for each in policy["Statement"]}
    arn = f"arn:aws:s3:::{ground.bucket.name}"
    assert (done.code, resources, ground.asked) == (0, {arn, f"{arn}/pre/*"}, (0, 0, 0))


# forget


@pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])
def test_forget_deletes_what_is_ours_everywhere_and_the_manifest_first(ground: Ground, only: bool) -> None:
    small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q", s3_only=only).code == 0
    ground.bucket.put("p/notes.txt", b"somebody's")
    others = {key: body for key, body in ground.bucket.read().items() if not key.startswith("p/")}
    ground.forget()
    done = ground.archive.run("forget", "p", "--delete")
    assert done.code == 0
    assert ground.bucket.read() == others | {"p/notes.txt": b"somebody's"}
    assert [path for path in ground.archive.files() if path.startswith("p/")] == []
    deleted = [seen.key for seen in ground.proxy.requests if seen.operation == "DeleteObject"]
    assert (deleted[0], sorted(deleted)) == ("p/manifest.json", ["p/a.png", "p/b.png", "p/manifest.json"])


@ministack
def test_forget_alone_deletes_nothing(ground: Ground) -> None:
    done_prompt(ground.origin, "p", "a.png")
    assert mirrored(ground.archive, "p").code == 0
    objects, files = ground.bucket.read(), ground.archive.files()
    assert ground.archive.run("forget", "p").code == 0
    assert (ground.bucket.read(), ground.archive.files()) == (objects, files)


@ministack
def test_what_may_not_be_deleted_is_not_forgotten(ground: Ground) -> None:
    arn = f"arn:aws:s3:::{ground.bucket.name}"
    allow = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
        "Resource": [arn, f"{arn}/*"],
    }
    writer = ground.bucket.server.user({"Version": "2012-10-17", "Statement": [allow]})
    keys = {"AWS_ACCESS_KEY_ID": writer.access_key, "AWS_SECRET_ACCESS_KEY": writer.secret_key}
    done_prompt(ground.origin, "p", "a.png")
    assert mirrored(ground.archive, "p").code == 0
    done = ground.archive.run("forget", "p", "--delete", environ=keys)
    assert (done.code, "s3:DeleteObject" in done.err, "Traceback" in done.err) == (4, True, False)
    assert sorted(ground.bucket.read()) == ["p/a.png", "p/manifest.json"]
    again = ground.archive.run("forget", "p", "--delete")
    assert (again.code, ground.bucket.read()) == (0, {})
