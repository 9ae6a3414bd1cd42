"""The S3 servers and the fault proxy do what they say, so that a test which relies on them tells of the mirror."""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3.seen import Seen
from tests.s3.servers import Server

BODY = bytes(range(256)) * 400

both = pytest.mark.parametrize("bucket", ["swift", "ministack"], indirect=True)
all_three = pytest.mark.parametrize("bucket", ["swift", "swift_tls", "ministack"], indirect=True)
one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


class Plain:
    """A client that does nothing of its own: one connection, and signed addresses."""

    def __init__(self, bucket: Bucket, proxy: FaultProxy) -> None:
        self._bucket = bucket
        self._signer = bucket.server.at(proxy.endpoint).client(signature_version="s3v4")
        self.connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=60)

    def begin(self, method: str, key: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        operation = {"GET": "get_object", "PUT": "put_object", "HEAD": "head_object"}[method]
        url = self._signer.generate_presigned_url(operation, Params={"Bucket": self._bucket.name, "Key": key})
        parts = urlsplit(url)
        self.connection.request(method, f"{parts.path}?{parts.query}", body, headers)
        return self.connection.getresponse()

    def ask(self, method: str, key: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        answer = self.begin(method, key, body, **headers)
        return answer.status, answer.read()


@pytest.fixture
def plain(bucket: Bucket, proxy: FaultProxy) -> Iterator[Plain]:
    client = Plain(bucket, proxy)
    yield client
    client.connection.close()


def refused(function: Any, **arguments: Any) -> tuple[int, str]:
    """Status and code with which a server refuses."""
    with pytest.raises(ClientError) as caught:
        function(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


# The servers


@all_three
def test_what_is_put_is_read_back_by_a_client_that_is_not_ours(bucket: Bucket) -> None:
    objects = {"a/b.bin": BODY, "a": b"no folder", "a/ü +%*'\".txt": b"name", "top": b""}
    for key, body in objects.items():
        bucket.put(key, body)
    assert bucket.read() == objects
    assert bucket.read("a/b") == {"a/b.bin": BODY}
    assert bucket.read("none") == {}
    assert bucket.keys() == sorted(objects)
    assert bucket.head("a/b.bin")["ContentLength"] == len(BODY)
    assert bucket.environ["MIRROR_S3_ENDPOINT_URL"] == bucket.server.endpoint


@all_three
def test_a_wrong_secret_and_a_wrong_checksum_are_refused(bucket: Bucket) -> None:
    stranger = replace(bucket.server, secret_key="wrong").client()
    assert refused(stranger.put_object, Bucket=bucket.name, Key="k", Body=b"x") == (403, "SignatureDoesNotMatch")
    client = bucket.server.client()
    wrong = {"ChecksumSHA256": "A" * 43 + "="}, {"ContentMD5": "A" * 22 + "=="}
    for checksum in wrong:
        status, code = refused(client.put_object, Bucket=bucket.name, Key="k", Body=b"x", **checksum)
        assert (status, code) in {(400, "BadDigest"), (400, "InvalidRequest"), (400, "InvalidDigest")}
    assert bucket.keys() == []


@both
def test_uploads_in_progress_are_listed_until_they_are_done(bucket: Bucket) -> None:
    client, named = bucket.server.client(), {"Bucket": bucket.name, "Key": "big"}
    upload = client.create_multipart_upload(**named)["UploadId"]
    assert [found["UploadId"] for found in bucket.uploads()] == [upload]
    part = client.upload_part(**named, UploadId=upload, PartNumber=1, Body=BODY)
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    client.complete_multipart_upload(**named, UploadId=upload, MultipartUpload={"Parts": parts})
    assert bucket.uploads() == []
    assert bucket.read() == {"big": BODY}


def test_tls_is_trusted_by_its_own_authority_alone(swift_tls: Server) -> None:
    bucket = Bucket.new(swift_tls)
    assert bucket.environ["MIRROR_TRANSFER_CA_FILE"] == str(swift_tls.ca_file)
    connection = http.client.HTTPSConnection(urlsplit(swift_tls.endpoint).netloc, timeout=60)
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/")
    connection.close()


def test_a_user_may_do_what_the_policy_says_and_no_more(ministack: Server) -> None:
    bucket = Bucket.new(ministack)
    bucket.put("k", BODY)
    arn = f"arn:aws:s3:::{bucket.name}"
    allow = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [arn, f"{arn}/*"]}
    reader = ministack.user({"Version": "2012-10-17", "Statement": [allow]}).client()
    assert reader.get_object(Bucket=bucket.name, Key="k")["Body"].read() == BODY
    assert refused(reader.put_object, Bucket=bucket.name, Key="k", Body=b"") == (403, "AccessDenied")
    assert refused(reader.delete_object, Bucket=bucket.name, Key="k") == (403, "AccessDenied")


@pytest.mark.parametrize("module", ["mirror.demo.swift", "tests.s3.ministack"])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_server_dies_with_who_started_it(tmp_path: Path, module: str) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", module, "--dir", str(tmp_path / "node")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as server:
        assert server.stdout
        assert server.stdout.readline()
        serving = [server.pid, *children(server.pid)]
        assert len(serving) == {"mirror.demo.swift": 3, "tests.s3.ministack": 1}[module]
        server.send_signal(signal.SIGKILL)
    gone = time.monotonic() + 60
    while alive := [pid for pid in serving if is_running(pid)]:
        assert time.monotonic() < gone, alive
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The proxy


@all_three
def test_the_proxy_passes_signed_requests_on_and_keeps_a_record(bucket: Bucket, proxy: FaultProxy) -> None:
    client = bucket.server.at(proxy.endpoint).client()
    client.put_object(Bucket=bucket.name, Key="a b", Body=BODY)
    assert client.get_object(Bucket=bucket.name, Key="a b")["Body"].read() == BODY
    client.head_object(Bucket=bucket.name, Key="a b")
    assert refused(client.get_object, Bucket=bucket.name, Key="none") == (404, "NoSuchKey")
    put, get, head, none = proxy.requests
    assert [seen.operation for seen in proxy.requests] == ["PutObject", "GetObject", "HeadObject", "GetObject"]
    assert (put.bucket, put.key, put.path) == (bucket.name, "a b", f"/{bucket.name}/a%20b")
    assert put.headers["host"] == urlsplit(proxy.endpoint).netloc
    assert (put.bytes_up, get.bytes_down, head.bytes_down) == (len(BODY), len(BODY), 0)
    assert (put.status, put.upstream, none.status) == (200, 200, 404)
    assert [put.started, put.ended, get.started, get.ended] == [1, 2, 3, 4]
    assert len({seen.connection for seen in proxy.requests}) == proxy.most_at_once == 1
    assert proxy.bytes_up == len(BODY)
    assert proxy.bytes_down == len(BODY) + none.bytes_down
    assert bucket.through(proxy).environ["MIRROR_S3_ENDPOINT_URL"] == proxy.endpoint


@both
@pytest.mark.parametrize("early", [False, True])
def test_answer_stands_in_for_the_server(bucket: Bucket, proxy: FaultProxy, plain: Plain, early: bool) -> None:
    busy = faults.answer(503, "SlowDown", headers={"Retry-After": "1"}, early=early)
    proxy.fault(lambda seen: seen.key == "k", busy, times=2)
    answer = plain.begin("PUT", "k", BODY)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert b"<Code>SlowDown</Code>" in answer.read()
    assert plain.ask("HEAD", "k") == (503, b"")
    assert proxy.unused == 0
    assert bucket.keys() == []
    assert plain.ask("PUT", "k", BODY)[0] == 200
    assert [(seen.status, seen.upstream) for seen in proxy.requests] == [(503, 0), (503, 0), (200, 200)]
    assert proxy.requests[0].bytes_up == (0 if early else len(BODY))


@one
def test_resets_before_the_server_hears_of_it(bucket: Bucket, proxy: FaultProxy, plain: Plain) -> None:
    proxy.fault("PutObject", faults.reset_before())
    with pytest.raises(ConnectionError):
        plain.ask("PUT", "k", BODY)
    assert bucket.keys() == []


@both
def test_loses_or_swaps_the_answer_to_what_was_carried_out(bucket: Bucket, proxy: FaultProxy, plain: Plain) -> None:
    proxy.fault("PutObject", faults.forward_then_reset())
    proxy.fault("PutObject", faults.forward_then_answer(500, "InternalError"))
    with pytest.raises(ConnectionResetError):
        plain.ask("PUT", "lost", BODY)
    plain.connection.close()
    status, told = plain.ask("PUT", "swapped", BODY)
    assert status == 500
    assert b"InternalError" in told
    assert bucket.keys() == ["lost", "swapped"]
    assert [(seen.upstream, seen.status) for seen in proxy.requests] == [(200, 0), (200, 500)]


@both
def test_cuts_an_answer(bucket: Bucket, proxy: FaultProxy, plain: Plain) -> None:
    bucket.put("k", BODY)
    proxy.fault("GetObject", faults.cut_answer(1000))
    with pytest.raises(http.client.IncompleteRead) as caught:
        plain.ask("GET", "k")
    assert caught.value.partial == BODY[:1000]
    assert proxy.bytes_down == 1000
    plain.connection.close()
    assert plain.ask("GET", "k") == (200, BODY)


class Pauses(threading.Event):
    """What a proxy waits for between two steps: it notes how long each pause was to be, and makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.told.append(timeout or 0)
        return super().wait(timeout)


@one
def test_slows_and_delays(bucket: Bucket, proxy: FaultProxy, plain: Plain) -> None:
    """By a quarter of a second: at least that long it takes, and no longer pause is made."""
    bucket.put("k", BODY)
    proxy.closing = pauses = Pauses()
    for fault in (faults.slow(4 * len(BODY)), faults.delay(0.25), faults.slow_upload(4 * len(BODY))):
        proxy.fault(lambda _: True, fault)
    for method, body in (("GET", None), ("GET", None), ("PUT", BODY)):
        began = time.monotonic()
        assert plain.ask(method, "k", body)[0] == 200
        assert time.monotonic() - began > 0.2
        proxy.wait_for(lambda: sum(pauses.told) == pytest.approx(0.25))  # the last one follows the last byte
        pauses.told.clear()


@both
def test_a_byte_flipped_on_the_way_does_not_pass_a_checksum(bucket: Bucket, proxy: FaultProxy) -> None:
    client = bucket.server.at(proxy.endpoint).client()
    proxy.fault("PutObject", faults.corrupt_upload(len(BODY) - 1))
    assert refused(client.put_object, Bucket=bucket.name, Key="k", Body=BODY)[0] == 400
    assert bucket.keys() == []


@one
@pytest.mark.parametrize("what", ["request", "answer"])
def test_holds_until_released(bucket: Bucket, proxy: FaultProxy, plain: Plain, what: Any) -> None:
    proxy.fault("PutObject", faults.hold(what))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(plain.ask, "PUT", "k", BODY)
        proxy.wait_for(lambda: proxy.count("PutObject") == 1)
        if what == "answer":
            proxy.wait_for(lambda: proxy.requests[0].upstream == 200)
        assert not asked.done()
        assert bucket.keys() == (["k"] if what == "answer" else [])
        proxy.release()
        assert asked.result(60)[0] == 200


@one
def test_edits_the_headers_of_an_answer(bucket: Bucket, proxy: FaultProxy, plain: Plain) -> None:
    def edit(headers: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.lower() != "etag"} | {"X-New": "1"}

    proxy.fault("PutObject", faults.edit_response_headers(edit))
    answer = plain.begin("PUT", "k", BODY)
    assert answer.read() == b""
    assert (answer.headers["ETag"], answer.headers["X-New"]) == (None, "1")
    assert "etag" in proxy.requests[0].answer_headers


@both
def test_an_early_refusal_arrives_although_the_body_is_still_on_its_way(bucket: Bucket, proxy: FaultProxy) -> None:
    client = bucket.server.at(proxy.endpoint).client()
    arguments = {"Bucket": f"{bucket.name}-none", "Key": "k", "Body": bytes(12_000_000)}
    assert refused(client.put_object, **arguments) == (404, "NoSuchBucket")


@one
def test_closing_ends_all_threads_at_once(bucket: Bucket) -> None:
    bucket.put("k", BODY)
    proxy = FaultProxy(bucket.server.endpoint)
    proxy.fault("GetObject", faults.hold())
    proxy.fault("GetObject", faults.slow(10))
    plains = [Plain(bucket, proxy) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(plain.ask, "GET", "k") for plain in plains]
        proxy.wait_for(lambda: proxy.unused == 0)
        began = time.monotonic()
        proxy.close()
        assert time.monotonic() - began < 30, "the slow one had three hours to go"
        assert all(isinstance(one.exception(60), http.client.HTTPException | OSError) for one in asked)
    for plain in plains:
        plain.connection.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("proxy-", "fault-proxy"))]


@pytest.mark.parametrize(
    ("method", "target", "header", "operation"),
    [
        ("PUT", "/b/k?partNumber=1&uploadId=u", "", "UploadPart"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "x-amz-copy-source", "UploadPartCopy"),
        ("PUT", "/b/k", "x-amz-copy-source", "CopyObject"),
        ("POST", "/b/k?uploads", "", "CreateMultipartUpload"),
        ("POST", "/b/k?uploadId=u", "", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", "", "AbortMultipartUpload"),
        ("GET", "/b/?uploads", "", "ListMultipartUploads"),
        ("GET", "/b?list-type=2", "", "ListObjectsV2"),
        ("HEAD", "/b", "", "HeadBucket"),
    ],
)
def test_an_operation_has_the_name_that_s3_gives_it(method: str, target: str, header: str, operation: str) -> None:
    path, _, query = target.partition("?")
    assert Seen(1, method, path, query, {header: "x"} if header else {}, 1).operation == operation


def test_radosgw_serves_where_it_is_installed(radosgw: Server) -> None:
    bucket = Bucket.new(radosgw)
    bucket.put("k", BODY)
    assert bucket.read() == {"k": BODY}
