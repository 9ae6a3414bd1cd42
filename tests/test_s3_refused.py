"""A bucket that refuses: one line that says what to do, the right exit code, and nothing on disk lost."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Archive, Done
from tests.helpers import done_prompt, mirrored, running
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3.seen import Seen
from tests.s3.servers import Server
from tests.s3_runs_e2e import Ground, below, named, small_and_large

ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def keys_of(server: Server) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}


def limited(ground: Ground, *actions: str) -> Server:
    """A user who may do this in the bucket, and nothing else."""
    arn = f"arn:aws:s3:::{ground.bucket.name}"
    allow = {"Effect": "Allow", "Action": list(actions), "Resource": [arn, f"{arn}/*"]}
    return ground.bucket.server.user({"Version": "2012-10-17", "Statement": [allow]})


def complaint(done: Done) -> str:
    """The one line on stderr that says why the run stopped; there is no traceback, and no second such line."""
    assert "Traceback" not in done.err
    lines = done.err.splitlines()
    told = [line for line in lines if "run stopped" in line or line.startswith("mirror: ")]
    assert len(told) == 1, done.err
    return told[0]


# Who comes in


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ("SignatureDoesNotMatch", "check the key, its secret")),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY0000000000"}, ("check the key, its secret",)),
        ({"MIRROR_S3_BUCKET": "nobody-has-made-this"}, ("there is no bucket nobody-has-made-this", "create it")),
    ],
    ids=["secret", "key", "no bucket"],
)
def test_who_cannot_come_in_is_told_what_to_do(ground: Ground, wrong: dict[str, str], told: tuple[str, ...]) -> None:
    done_prompt(ground.origin, "p", "a.png")
    done = ground.archive.run("fetch", "p", environ=wrong)
    line = complaint(done)
    assert (done.code, [word for word in told if word not in line]) == (4, [])
    assert ground.written() == []
    assert mirrored(ground.archive, "p").code == 0


@ministack
def test_an_endpoint_where_nobody_listens_ends_the_run(ground: Ground) -> None:
    small_and_large(ground.origin)
    with socket.socket() as taken:  # and nobody can come to listen there meanwhile
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environ = {"MIRROR_S3_ENDPOINT_URL": endpoint, "MIRROR_TRANSFER_ATTEMPTS": "2"}
        done = ground.archive.run("fetch", "p", environ=environ)
    line = complaint(done)
    assert (done.code, "endpoint_url" in line, "no answer" in line) == (4, True, True)


@ministack
@pytest.mark.parametrize(
    ("arguments", "environ", "code", "told"),
    [
        (
            (),
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            4,
            "no credentials for the bucket were found: set",
        ),
        ((), {"MIRROR_S3_PROFILE": "nobody"}, 2, "[s3] profile"),
        ((), {"MIRROR_S3_ENDPOINT_URL": "ftp://store"}, 2, "expected http://"),
        (("--s3-only",), {"MIRROR_S3_BUCKET": ""}, 2, "needs a bucket: give --s3"),
        (("--s3", "bucket/prefix"), {}, 2, "expected s3://bucket"),
        (("--s3", "s3://b ad/prefix"), {}, 2, "a bucket's name"),
    ],
)
def test_a_bucket_that_cannot_be_gone_to_is_told_of_before_anything_is_sent(
    ground: Ground, arguments: tuple[str, ...], environ: dict[str, str], code: int, told: str
) -> None:
    done = ground.archive.run("fetch", "p", *arguments, environ=environ)
    assert (done.code, told in complaint(done)) == (code, True)
    assert ground.asked == (0, 0, 0)


# What the credentials may not do


@ministack
@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        (("s3:GetObject", "s3:ListBucket"), "s3:PutObject"),
        (("s3:PutObject", "s3:AbortMultipartUpload"), "s3:ListBucket"),
        (("s3:PutObject", "s3:ListBucket"), "s3:GetObject"),
    ],
    ids=["read only", "write only", "no reading"],
)
def test_a_missing_right_is_named_with_the_policy_that_gives_it(
    ground: Ground, rights: tuple[str, ...], missing: str
) -> None:
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", s3_bucket="").code == 0
    before = ground.archive.files()
    done = ground.archive.run("fetch", "p", "q", environ=keys_of(limited(ground, *rights)))
    line = complaint(done)
    assert (done.code, done.summary["exit_code"]) == (4, 4)
    assert f"the right {missing} is missing" in line
    policy = json.loads(line[line.index("{") : line.rindex("}") + 1])
    assert missing in json.dumps(policy)
    assert {path: ground.archive.files()[path] for path in before} == before  # nothing is lost

    ground.forget()
    cured = limited(ground, *(action for each in policy["Statement"] for action in each["Action"]))
    assert ground.archive.run("fetch", "p", "q", environ=keys_of(cured)).code == 0
    assert ground.media() == bodies
    assert [request.path for request in ground.origin.media_requests if request.path.startswith("/p/")] == []


@ministack
def test_what_was_downloaded_before_the_refusal_is_used_by_the_next_run(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png")
    ground.proxy.fault(named("PutObject"), faults.answer(403, "AccessDenied"), times=100)
    done = ground.archive.run("fetch", "p", "--concurrency", "1")
    assert (done.code, "s3:PutObject" in complaint(done)) == (4, True)
    got = {path for path in ground.archive.files() if path.endswith(".png")}
    assert got
    with FaultProxy(ground.bucket.server.endpoint) as well:
        ground.forget()
        assert mirrored(ground.archive, "p", s3_endpoint_url=well.endpoint).code == 0
    assert ground.media() == below("p/", bodies.items())
    asked = {request.path.removeprefix("/") for request in ground.origin.media_requests}
    # One that had its name when the run was stopped, and no row yet, is fetched again.
    assert below("p/", bodies.items()).keys() - got <= asked < below("p/", bodies.items()).keys()


@ministack
def test_a_bucket_that_is_taken_away_in_the_middle_stops_the_run_and_keeps_what_is_there(ground: Ground) -> None:
    """--s3-only: what is in the bucket already is not sent again once the right is back."""
    bodies = done_prompt(ground.origin, "p", "a.png")
    more = done_prompt(ground.origin, "q", "b.png")
    ground.proxy.fault(named("PutObject", "q/b.png"), faults.answer(403, "AccessDenied"))
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    done = ground.archive.run("fetch", "p", "q", "--s3-only")
    assert (done.code, "s3:PutObject" in complaint(done)) == (4, True)
    ground.forget()
    assert mirrored(ground.archive, "p", "q", s3_only=True).code == 0
    assert ground.media() == below("p/", bodies.items()) | below("q/", more.items())
    assert [request.path for request in ground.origin.media_requests] == ["/q/b.png"]


# A signal while the bucket does not answer

HELD: list[tuple[Callable[[Seen], bool], signal.Signals]] = [
    (named("HeadBucket"), signal.SIGINT),
    (named("PutObject", "a.png"), signal.SIGTERM),
    (named("CreateMultipartUpload"), signal.SIGTERM),
    (named("UploadPart"), signal.SIGINT),
    (named("CompleteMultipartUpload"), signal.SIGTERM),
    (named("PutObject", "manifest.json"), signal.SIGTERM),
]


@ministack
@pytest.mark.parametrize(("held", "sig"), HELD, ids=["opening", "body", "beginning", "part", "completing", "manifest"])
def test_a_signal_ends_the_run_though_the_bucket_does_not_answer(
    ground: Ground, held: Callable[[Seen], bool], sig: signal.Signals
) -> None:
    bodies = small_and_large(ground.origin)
    ground.proxy.fault(held, faults.hold("request"))
    with running(ground.archive, "fetch", "p", "q") as process:
        ground.proxy.wait_for(lambda: ground.proxy.unused == 0)
        process.send_signal(sig)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (128 + sig, False)
    ground.proxy.release()
    # What was on hold comes to the bucket before the next run does: whose upload that begins is looked for once.
    ground.proxy.wait_for(lambda: all(seen.ended for seen in ground.proxy.requests))
    assert mirrored(ground.archive, "p", "q").code == 0
    assert ground.media() == bodies
    assert ground.bucket.uploads() == []


def test_a_profile_that_is_there_is_used(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ground.bucket.server
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "keys").write_text(
        f"[film]\naws_access_key_id={server.access_key}\naws_secret_access_key={server.secret_key}\n"
        "[half]\naws_access_key_id=only\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    done_prompt(ground.origin, "p", "a.png")
    half = ground.archive.run("fetch", "p", environ={"MIRROR_S3_PROFILE": "half"})
    assert (half.code, "incomplete" in complaint(half)) == (4, True)
    assert mirrored(ground.archive, "p", s3_profile="film").code == 0
    assert sorted(ground.bucket.read()) == ["p/a.png", "p/manifest.json"]
