"""Ids from an object in a bucket: real stores, real rights, connections that break."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import ConfigError
from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import Origin
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_small import as_user, settings_for
from tests.source_runs import parquet, read

one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def reading(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    as_user(bucket.server, monkeypatch)
    return {"settings": settings_for(bucket, tmp_path, s3_bucket="another-one")}


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("ids.txt", b"a\nb\n"),
        ("in/one folder/ids.csv.gz", gzip.compress(b"x,id\n1,a\n2,b\n")),
        ("no name at all", gzip.compress(b"a\nb\n")),
        ("ids.jsonl", b'{"id":"a"}\n"b"'),
        ("é/ids.parquet", parquet({"id": ["a", "b"]})),
    ],
    ids=["text", "gzipped csv", "gzip by its bytes", "jsonl", "parquet"],
)
def test_an_object_is_read(bucket: Bucket, reading: dict[str, Any], key: str, body: bytes) -> None:
    bucket.put(key, body)
    assert read(f"s3://{bucket.name}/{key}", **reading) == (["a", "b"], [])


@one
def test_an_empty_object_has_no_ids(bucket: Bucket, reading: dict[str, Any]) -> None:
    bucket.put("ids.txt", b"")
    assert read(f"s3://{bucket.name}/ids.txt", **reading) == ([], [])


@one
@pytest.mark.parametrize("name", ["s3://{}", "s3://{}/", "s3:///x", "s3://"])
def test_a_name_that_is_no_object(bucket: Bucket, reading: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match="expected s3://bucket/key"):
        read(name.format(bucket.name), **reading)


@one
def test_a_bad_line_is_named_by_its_object(bucket: Bucket, reading: dict[str, Any]) -> None:
    bucket.put("ids.txt", b"a\n\xff\nb\n")
    name = f"s3://{bucket.name}/ids.txt"
    assert read(name, **reading) == (["a", "b"], [f"{name}:2: not UTF-8"])


@one
def test_a_connection_that_breaks_is_taken_up(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(bucket.server, monkeypatch)
    ids = [f"{number:032x}" for number in range(20_000)]
    bucket.put("ids.txt", "\n".join(ids).encode())
    for after in (100_000, 0, 200_000):
        proxy.fault("GetObject", faults.cut_answer(after))
    settings = settings_for(bucket.through(proxy), tmp_path)
    assert read(f"s3://{bucket.name}/ids.txt", settings=settings) == (ids, [])
    ranges = [seen.headers.get("range") for seen in proxy.requests if seen.method == "GET"]
    assert (len(ranges), ranges[0]) == (4, None)
    assert all(str(later).startswith("bytes=") for later in ranges[2:])


@one
def test_an_object_that_changes_while_it_is_read_is_told_of(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(bucket.server, monkeypatch)
    # The first part of the one and the second of the other are no list of anybody's.
    body = b"".join(b"%032x\n" % number for number in range(20_000))
    bucket.put("ids.txt", body)

    def changed(seen: Any) -> bool:
        if seen.operation == "GetObject":
            bucket.put("ids.txt", body[::-1])
        return False

    proxy.fault("GetObject", faults.cut_answer(100_000))
    proxy.fault(changed, faults.delay(0))
    name = f"s3://{bucket.name}/ids.txt"
    ids, bad = read(name, settings=settings_for(bucket.through(proxy), tmp_path))
    assert 0 < len(ids) < 20_000
    assert body.startswith("\n".join(ids).encode())
    assert bad == [f"{name}:{len(ids) + 1}: {name}: it was changed while it was read"]


@one
def test_a_right_to_that_object_alone_is_enough(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("ids.txt", b"a\n")
    bucket.put("secret.txt", b"b\n")
    allow = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": f"arn:aws:s3:::{bucket.name}/ids.txt"}
    as_user(bucket.server.user({"Version": "2012-10-17", "Statement": [allow]}), monkeypatch)
    settings = settings_for(bucket, tmp_path)
    assert read(f"s3://{bucket.name}/ids.txt", settings=settings) == (["a"], [])
    with pytest.raises(ConfigError) as caught:
        read(f"s3://{bucket.name}/secret.txt", settings=settings)
    assert str(caught.value).startswith(f"s3://{bucket.name}/secret.txt: cannot be read: ")
    assert str(caught.value).endswith("the right s3:GetObject is missing")


@one
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("s3://{}/absent.txt", "s3://{}/absent.txt: there is no such object"),
        ("s3://no-such-bucket-at-all/ids.txt", "there is no bucket no-such-bucket-at-all"),
    ],
)
def test_what_is_not_there_stops_before_anything_is_fetched(
    origin: Origin, archive: Archive, bucket: Bucket, name: str, told: str
) -> None:
    done_prompt(origin, "p", "1.png")
    environ = {**bucket.environ, "MIRROR_S3_BUCKET": ""}
    done = archive.run("fetch", "p", "-i", name.format(bucket.name), environ=environ)
    assert (done.code, told.format(bucket.name) in done.err) == (2, True)
    assert origin.requests == []


@one
def test_without_credentials(origin: Origin, archive: Archive, bucket: Bucket) -> None:
    done = archive.run("fetch", "-i", f"s3://{bucket.name}/ids.txt")
    assert (done.code, f"s3://{bucket.name}/ids.txt: cannot be read: no credentials" in done.err) == (2, True)


@one
def test_a_store_that_is_not_there(origin: Origin, archive: Archive, bucket: Bucket) -> None:
    environ = {**bucket.environ, "MIRROR_S3_ENDPOINT_URL": "http://127.0.0.1:1", "MIRROR_TRANSFER_ATTEMPTS": "1"}
    done = archive.run("fetch", "-i", f"s3://{bucket.name}/ids.txt", environ=environ)
    assert (done.code, f"s3://{bucket.name}/ids.txt: cannot be read" in done.err) == (4, True)


def test_a_run_takes_its_ids_from_an_object(origin: Origin, archive: Archive, bucket: Bucket) -> None:
    done_prompt(origin, "p", "1.png")
    bucket.put("ids.csv.gz", gzip.compress(b"promptId,x\np,1\n"))
    environ = {**bucket.environ, "MIRROR_S3_BUCKET": ""}
    done = archive.run("fetch", "-i", f"s3://{bucket.name}/ids.csv.gz", environ=environ)
    assert (done.code, done.summary["prompts"]) == (0, {"complete": 1})
    assert bucket.keys() == ["ids.csv.gz"]
