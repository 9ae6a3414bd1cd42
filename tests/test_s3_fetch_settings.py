"""What `[s3]` can be told to do, as the store sees it: how objects are described, proven and addressed."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests import media
from tests.conftest import Archive
from tests.helpers import mirrored, sha256
from tests.origin import answer, task
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault
from tests.s3.proxy import FaultProxy
from tests.s3.seen import Seen
from tests.s3.wire import Head
from tests.s3_runs_e2e import LARGE, Ground, named, small_and_large

ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
both_ways = pytest.mark.parametrize("only", [False, True], ids=["disk and bucket", "bucket only"])


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


@ministack
@both_ways
def test_objects_are_described_as_configured(ground: Ground, monkeypatch: pytest.MonkeyPatch, only: bool) -> None:
    for name, value in {
        "STORAGE_CLASS": "STANDARD_IA",
        "SSE": "AES256",
        "TAGS": "team=film, keep=10 years & more",
        "CACHE_CONTROL": "max-age=31536000, immutable",
    }.items():
        monkeypatch.setenv(f"MIRROR_S3_{name}", value)
    bodies = small_and_large(ground.origin)
    done = ground.archive.run("fetch", "p", "q", *(["--s3-only"] if only else []))
    assert (done.code, ground.media()) == (0, bodies)
    client = ground.bucket.server.client()
    for key in bodies:
        head = ground.bucket.head(key)
        assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
        assert head["CacheControl"] == "max-age=31536000, immutable"
        assert head["ContentType"] == ("video/mp4" if key.endswith("mp4") else "image/png")
        if key.endswith("png"):  # MiniStack drops the tags of multipart uploads
            tags = client.get_object_tagging(Bucket=ground.bucket.name, Key=key)["TagSet"]
            assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "film", "keep": "10 years & more"}
    [begun] = filter(named("CreateMultipartUpload"), ground.proxy.requests)
    assert dict(parse_qsl(begun.headers["x-amz-tagging"])) == {"team": "film", "keep": "10 years & more"}
    manifest = ground.bucket.head("p/manifest.json")
    assert (manifest["ContentType"], manifest["ServerSideEncryption"]) == ("application/json", "AES256")


@both_ways
def test_objects_say_where_they_come_from_without_a_signature(ground: Ground, only: bool) -> None:
    signature = "?v=7&X-Amz-Credential=AKID&X-Amz-Signature=5ec7e7"
    bodies = {"small": media.png(seed=4), "large": LARGE}
    urls = [
        ground.origin.add(f"/{name}.png{signature}", body, content_type="image/png") for name, body in bodies.items()
    ]
    ground.origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    assert mirrored(ground.archive, "p", s3_only=only).code == 0
    for name, body in bodies.items():
        told = ground.bucket.head(f"p/{name}.png")["Metadata"]
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        known = {} if only else {"sha256": sha256(body)}
        assert (
            told
            == {
                "prompt-id": "p",
                "source-url": f"{ground.origin.url}/{name}.png?v=7",
                "source-etag": f'"{etag}"',
            }
            | known
        )
    assert not any(b"5ec7e7" in body for body in ground.bucket.read().values())


PROOFS = {"sha256": "x-amz-checksum-sha256", "crc64nvme": "x-amz-checksum-crc64nvme", "when_required": "content-md5"}


@pytest.mark.parametrize("policy", PROOFS)
def test_every_body_goes_with_its_proof_and_again_where_a_byte_flipped(ground: Ground, policy: str) -> None:
    bodies = small_and_large(ground.origin)
    ground.proxy.fault(named("PutObject", "a.png"), faults.corrupt_upload(400))
    ground.proxy.fault(named("UploadPart"), faults.corrupt_upload(4000))
    ran = mirrored(ground.archive, "p", "q", s3_checksum=policy)
    assert (ran.code, ground.media(), ground.proxy.unused) == (0, bodies, 0)
    sent = [seen for seen in ground.written() if seen.operation in ("PutObject", "UploadPart")]
    assert len(sent) == 6  # two pictures, two parts, two manifests
    for seen in sent:
        told = {name for name in seen.headers if name.startswith("x-amz-checksum-") or name == "content-md5"}
        assert told == {PROOFS[policy]}
    large = ground.manifest("q")["files"][0]
    head = ground.bucket.head("q/large.mp4")
    assert large["s3"]["checksum_sha256"] == head.get("ChecksumSHA256")
    assert large["s3"].get("checksum_crc64nvme") == head.get("ChecksumCRC64NVME")
    if ground.bucket.server.kind == "ministack" and policy != "when_required":
        assert {"sha256": "ChecksumSHA256", "crc64nvme": "ChecksumCRC64NVME"}[policy] in head


def test_without_conditional_writes_no_condition_is_sent_and_still_nothing_overwritten(ground: Ground) -> None:
    bodies = small_and_large(ground.origin)
    strangers = {"p/a.png": b"somebody's", "q/large.mp4": media.blob(len(LARGE), seed=6)}
    for key, body in strangers.items():
        ground.bucket.put(key, body)
    ran = mirrored(ground.archive, "p", "q", s3_conditional_writes=False)
    assert ran.code == 0
    objects = ground.media()
    assert {key: objects.pop(key) for key in strangers} == strangers
    assert sorted(objects.values()) == sorted(bodies.values())
    assert ground.written()
    assert [seen for seen in ground.written() if {"if-match", "if-none-match"} & seen.headers.keys()] == []


class Forwarding(FaultProxy):
    """The kind of proxy that a client is told of: it is asked for whole URLs, and knows where their hosts are."""

    def enter(self, connection: int, head: Head) -> tuple[Seen, Fault]:
        method, target, version = head.first.split()
        head.first = f"{method} {urlsplit(target)._replace(scheme='', netloc='').geturl()} {version}"
        return super().enter(connection, head)


@ministack
def test_a_bucket_can_be_reached_by_a_host_name_of_its_own(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names under localhost do not resolve everywhere, so a proxy does it; signatures are of the name all the same."""
    bodies = small_and_large(ground.origin)
    assert mirrored(ground.archive, "p", "q", s3_bucket="").code == 0
    server = ground.bucket.server.endpoint
    named_host = server.replace("127.0.0.1", "s3.us-east-1.localhost")
    with Forwarding(server) as forwarding:
        monkeypatch.setenv("MIRROR_TRANSFER_PROXY", forwarding.endpoint)
        monkeypatch.setenv("MIRROR_S3_ENDPOINT_URL", named_host)
        monkeypatch.setenv("MIRROR_S3_ADDRESSING", "virtual")
        assert ground.archive.run("fetch", "p", "q").code == 0
        hosts = {seen.headers["host"] for seen in forwarding.requests}
        assert hosts == {f"{ground.bucket.name}.{named_host.removeprefix('http://')}"}
        assert {"PutObject", "UploadPart"} <= {seen.operation for seen in forwarding.requests}
    assert ground.media() == bodies
