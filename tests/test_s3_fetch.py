"""`mirror fetch` into a bucket, beside the disk or alone: what is there afterwards, and what was asked for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Archive
from tests.faults import hold_after
from tests.helpers import done_prompt, mirrored, picture, running, sha256
from tests.origin import answer, task
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground, below, named, small_and_large, told_by_store

one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


@pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])
def test_the_bucket_holds_what_was_fetched_and_a_second_run_asks_nobody(ground: Ground, only: bool) -> None:
    bodies = small_and_large(ground.origin)
    command = ("fetch", "p", "q", "--s3", ground.url, *(["--s3-only"] if only else []))

    done = ground.archive.run(*command)
    assert (done.code, done.err.count("Traceback")) == (0, 0)
    objects = ground.bucket.read()
    manifests = {key: objects.pop(key) for key in ("pre/p/manifest.json", "pre/q/manifest.json")}
    assert objects == below("pre/", bodies.items())
    on_disk = {} if only else bodies | {key.removeprefix("pre/"): text for key, text in manifests.items()}
    assert ground.archive.files() == on_disk

    for prompt_id in ("p", "q"):
        for file in json.loads(manifests[f"pre/{prompt_id}/manifest.json"])["files"]:
            check_entry(ground, file, bodies[f"{prompt_id}/{file['path']}"], "stream" if only else "upload")
        last = [seen.key for seen in ground.written() if seen.key.startswith(f"pre/{prompt_id}/")][-1]
        assert last == f"pre/{prompt_id}/manifest.json"
    sent = sum(seen.bytes_up for seen in ground.written() if seen.operation in ("PutObject", "UploadPart"))
    assert (done.summary["bytes_uploaded"], done.summary["bytes_copied"]) == (sent, 0)
    assert done.summary["bytes_downloaded"] == ground.origin.body_bytes("/p/") + ground.origin.body_bytes("/q/")
    assert ground.bucket.uploads() == []

    ground.forget()
    again = ground.archive.run(*command)
    assert (again.code, again.summary["prompts"]) == (0, {"complete": 2})
    assert ground.asked == (0, 0, 0)


def check_entry(ground: Ground, file: dict[str, Any], body: bytes, via: str) -> None:
    assert (file["bytes"], file["sha256"], file["s3"]["via"]) == (len(body), sha256(body), via)
    told = told_by_store(ground.bucket, file)
    named = {name: value for name, value in file["s3"].items() if name != "via"}
    if named["checksum_sha256"] is None:  # MiniStack's answer to PutObject tells none: what is not told is not claimed
        told["checksum_sha256"] = None
        answers = [seen.answer_headers for seen in ground.written() if seen.key == named["key"]]
        assert not any("x-amz-checksum-sha256" in headers for headers in answers)
    assert named == told


@one
@pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])
def test_a_file_is_in_the_bucket_while_the_next_one_still_comes(ground: Ground, only: bool) -> None:
    first, body = picture(ground.origin, "/p/first.png")
    second, late = picture(ground.origin, "/p/second.png", fault=hold_after(100))
    ground.origin.prompt("p", answer(task("p", images=[(first, second)])))
    with running(ground.archive, "fetch", "p", *(["--s3-only"] if only else [])) as process:
        ground.proxy.wait_for(lambda: "p/first.png" in [seen.key for seen in ground.written()], timeout=60)
        assert ground.bucket.read() == {"p/first.png": body}
        ground.origin.release(second)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert ground.media() == {"p/first.png": body, "p/second.png": late}


@pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])
def test_a_file_of_two_prompts_is_sent_once_and_copied_in_the_bucket(ground: Ground, only: bool) -> None:
    url, body = picture(ground.origin, "/shared.png")
    for prompt_id in ("p", "q"):
        ground.origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    done = ground.archive.run("fetch", "p", "q", *(["--s3-only"] if only else []))
    assert (done.code, len(ground.origin.media_requests)) == (0, 1)
    assert ground.media() == {"p/shared.png": body, "q/shared.png": body}
    media = [seen for seen in ground.written() if seen.key.endswith(".png")]
    assert [seen.operation for seen in media] == ["PutObject", "CopyObject"]
    assert done.summary["bytes_copied"] == len(body)
    files = [ground.manifest(prompt_id)["files"][0] for prompt_id in ("p", "q")]
    assert {file["s3"]["via"] for file in files} == {"stream" if only else "upload", "copy"}
    assert {file["sha256"] for file in files} == {sha256(body)}
    for file in files:
        assert file["s3"]["etag"] == told_by_store(ground.bucket, file)["etag"]


def test_children_come_in_and_the_manifest_grows_with_them(ground: Ground) -> None:
    urls = [picture(ground.origin, f"/p/{name}.png") for name in ("root", "one", "two")]
    states = [(30, 20), (30, 30)]
    grown = [
        answer(
            task(
                "p",
                images=[(None, urls[0][0])],
                children=[
                    task("c1", images=[(None, urls[1][0])]),
                    task("c2", state=second, images=[(None, urls[2][0])] if second == first else []),
                ],
            )
        )
        for first, second in states
    ]
    ground.origin.prompt("p", grown)
    pending = ground.archive.run("fetch", "p")
    assert (pending.code, ground.manifest("p")["state"]) == (5, "pending")
    etag = ground.bucket.head("p/manifest.json")["ETag"]
    assert sorted(ground.media()) == ["p/one.png", "p/root.png"]

    ground.forget()
    assert ground.archive.run("fetch", "p").code == 0
    assert ground.media() == {
        f"p/{name}.png": body for name, (_, body) in zip(("root", "one", "two"), urls, strict=True)
    }
    manifest = ground.bucket.read("p/manifest.json")["p/manifest.json"]
    assert json.loads(manifest)["state"] == "complete"
    assert manifest == (ground.archive.root / "p" / "manifest.json").read_bytes()
    asked = list(filter(named("PutObject", "p/manifest.json"), ground.proxy.requests))
    assert asked[0].headers["if-match"] == etag
    if ground.bucket.server.kind == "ministack":
        assert len(asked) == 1


def test_the_slower_of_two_archives_does_not_take_back_what_the_other_wrote(ground: Ground) -> None:
    """One was told of less, and comes to write its manifest after the other has told of more."""
    (first, _), (second, _) = (picture(ground.origin, f"/p/{name}.png") for name in ("one", "two"))
    ground.origin.prompt(
        "p",
        [
            answer(task("p", state=20, images=[(None, first)])),
            answer(task("p", images=[(None, first), (None, second)])),
        ],
    )
    ground.proxy.fault(named("PutObject", "p/manifest.json"), faults.hold("request"))
    with running(ground.archive, "fetch", "p") as slow:
        ground.proxy.wait_for(lambda: ground.proxy.unused == 0, timeout=60)
        assert mirrored(ground.elsewhere(), "p").states == {"p": "complete"}
        whole = ground.bucket.read()
        ground.proxy.release()
        slow.communicate(timeout=60)
    assert slow.returncode == 5, "it was told of less, and the manifest that tells of more stays"
    assert ground.bucket.read() == whole
    assert mirrored(ground.archive, "p").states == {"p": "complete"}
    for file, before in zip(ground.manifest("p")["files"], json.loads(whole["p/manifest.json"])["files"], strict=True):
        assert (file["url"], file["sha256"], file["s3"]["key"]) == (
            before["url"],
            before["sha256"],
            before["s3"]["key"],
        )


@one
def test_a_dry_run_writes_nothing(ground: Ground, tmp_path: Path) -> None:
    bodies = small_and_large(ground.origin)
    done = ground.archive.run("fetch", "p", "q", "--dry-run")
    assert (done.code, len(done.out.splitlines())) == (0, len(bodies))
    assert (ground.bucket.keys(), ground.bucket.uploads(), ground.written()) == ([], [], [])
    assert not ground.archive.root.exists()


@one
def test_no_secret_is_told(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the key's secret, not the session's token, not the signature of a URL: logs, errors and manifests alike."""
    session = ground.bucket.server.client("sts").get_session_token()["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", session["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", session["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", session["SessionToken"])
    bodies = below("p/", done_prompt(ground.origin, "p", "a.png", "b.png").items())
    texts = told_in_run(ground, {"PutObject p/a.png": 503}, "--s3-only", "-v")
    texts += told_in_run(ground, {"GetObject p/a.png": 503, "GetObject p/b.png": 403}, "-v", "--log-format", "json")
    files = ground.archive.files()
    assert {path: files[path] for path in bodies} == ground.media() == bodies  # of b the origin was asked again
    texts += [text.decode() for key, text in ground.bucket.read().items() if key.endswith(".json")]
    texts += [path.read_bytes().decode("latin-1") for path in ground.archive.root.rglob("*") if path.is_file()]
    signed = [seen.params["X-Amz-Signature"] for seen in ground.proxy.requests if "X-Amz-Signature" in seen.query]
    assert len(signed) == 3
    for secret in (session["SecretAccessKey"], session["SessionToken"], *signed):
        assert [text for text in texts if secret[:12] in text] == []  # long messages are cut: not even its beginning


def told_in_run(ground: Ground, wrong: dict[str, int], *options: str) -> list[str]:
    """All that a run says while these requests are answered so, each once."""
    for request, status in wrong.items():
        ground.proxy.fault(named(*request.split()), faults.answer(status, "SlowDown"))
    done = ground.archive.run("fetch", "p", "--json", *options)
    assert (done.code, ground.proxy.unused) == (0, 0)
    assert '"retries": {}' not in json.dumps(done.summary)
    return [done.out, done.err, json.dumps(done.summary)]
