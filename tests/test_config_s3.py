"""The section [s3]: every key from each place it can come from, and what a wrong one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as at_most
from hypothesis import strategies as st

from mirror.config import load
from mirror.errors import ConfigError
from mirror.settings import S3Settings
from tests.conftest import Archive
from tests.test_config import validator, write

KEYS: dict[str, tuple[Any, str]] = {
    # key: value as in TOML, and as in the environment
    "bucket": ("my-bucket", "my-bucket"),
    "prefix": ("a/b", "a/b"),
    "endpoint_url": ("https://store.example:9000", "https://store.example:9000"),
    "region": ("eu-central-1", "eu-central-1"),
    "addressing": ("virtual", "virtual"),
    "profile": ("films", "films"),
    "role_arn": ("arn:aws:iam::123456789012:role/mirror", "arn:aws:iam::123456789012:role/mirror"),
    "storage_class": ("STANDARD_IA", "STANDARD_IA"),
    "sse": ("aws:kms", "aws:kms"),
    "kms_key_id": ("alias/films", "alias/films"),
    "tags": ({"project": "films", "team": "a=b"}, "project=films, team=a=b"),
    "cache_control": ("max-age=60", "max-age=60"),
    "request_payer": (True, "true"),
    "checksum": ("crc64nvme", "crc64nvme"),
    "conditional_writes": (False, "false"),
    "only": (True, "true"),
    "copy": ("never", "never"),
    "sources": ({"cdn.example:8443": "media/a", "b.example": "media"}, "cdn.example:8443=media/a,b.example=media,"),
    "catalog": (True, "true"),
}
NEEDED = {"kms_key_id": {"sse": "aws:kms"}, "only": {"bucket": "my-bucket"}, "catalog": {"bucket": "my-bucket", "only": True}}
"""What a key cannot stand without."""


def toml(keys: dict[str, Any]) -> str:
    def spelled(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(name)} = {spelled(each)}" for name, each in value.items()) + "}"
        return json.dumps(value)

    return "[s3]\n" + "".join(f"{key} = {spelled(value)}\n" for key, value in keys.items())


def from_file(tmp_path: Path, text: str) -> S3Settings:
    return load(write(tmp_path / "etc" / "a.toml", text), {}, {}).settings.s3


def test_the_table_has_every_key() -> None:
    assert set(KEYS) == set(S3Settings.__struct_fields__)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_can_stand_in_the_file_the_environment_or_a_flag(key: str, tmp_path: Path) -> None:
    value, text = KEYS[key]
    needed = NEEDED.get(key, {})
    flags = {f"s3_{name}": each for name, each in needed.items()}
    environ = {f"MIRROR_S3_{name.upper()}": each for name, each in needed.items()}
    assert getattr(S3Settings(), key) != value, "not the default"
    found = [
        from_file(tmp_path, toml({**needed, key: value})),
        load(None, {}, {**environ, f"MIRROR_S3_{key.upper()}": text}).settings.s3,
        load(None, {**flags, f"s3_{key}": text}, {}).settings.s3,
        load(None, {**flags, f"s3_{key}": value}, {}).settings.s3,
    ]
    assert [getattr(each, key) for each in found] == [value] * 4
    assert validator("config").is_valid({"s3": {**needed, key: value}})


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", toml({"bucket": "file", "prefix": "file", "region": "file", "tags": {"a": "1"}}))
    environ = {"MIRROR_S3_BUCKET": "environment", "MIRROR_S3_PREFIX": "environment", "MIRROR_S3_TAGS": "b=2"}
    found = load(file, {"s3": "s3://flag"}, environ).settings.s3
    assert (found.bucket, found.prefix, found.region) == ("flag", "", "file")
    assert found.tags == {"b": "2"}, "a table is replaced, not mixed"


@pytest.mark.parametrize(
    ("given_", "bucket", "prefix"),
    [
        ("s3://b-1", "b-1", ""),
        ("s3://b-1/", "b-1", ""),
        ("s3://b-1/a", "b-1", "a"),
        ("s3://b-1/a/b/", "b-1", "a/b/"),
        ("s3://My_Bucket.x/ü b", "My_Bucket.x", "ü b"),
    ],
)
def test_the_flag_s3_is_bucket_and_prefix(given_: str, bucket: str, prefix: str) -> None:
    found = load(None, {"s3": given_}, {}).settings.s3
    assert (found.bucket, found.prefix) == (bucket, prefix)
    assert load(None, {"s3": None, "s3_bucket": "other"}, {}).settings.s3.bucket == "other"


def test_the_flags_of_the_command_line() -> None:
    flags = {"s3": "s3://b-1/a", "s3_endpoint": "http://127.0.0.1:9000", "s3_only": True}
    found = load(None, flags, {"MIRROR_S3_ENDPOINT_URL": "https://other.example"}).settings.s3
    assert found == S3Settings(bucket="b-1", prefix="a", endpoint_url="http://127.0.0.1:9000", only=True)
    assert load(None, {"s3_only": None}, {}).settings.s3.only is False


MANY = {f"t{number}": "x" for number in range(11)}
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is in the file → the key that the message names, and what was expected
    "bucket-url": ({"bucket": "s3://b"}, "bucket", "a bucket's name, without s3://"),
    "bucket-path": ({"bucket": "b/c"}, "bucket", "a bucket's name"),
    "bucket-short": ({"bucket": "b"}, "bucket", "a bucket's name"),
    "bucket-blank": ({"bucket": "my bucket"}, "bucket", "a bucket's name"),
    "bucket-arn": ({"bucket": "arn:aws:s3:::b"}, "bucket", "a bucket's name"),
    "bucket-dot": ({"bucket": ".b"}, "bucket", "a bucket's name"),
    "bucket-line": ({"bucket": "bucket\n"}, "bucket", "a bucket's name"),
    "bucket-ü": ({"bucket": "bücket"}, "bucket", "a bucket's name"),
    "bucket-number": ({"bucket": 5}, "bucket", "expected `str`"),
    "prefix-long": ({"prefix": "x" * 701}, "prefix", "at most 700 characters"),
    "prefix-control": ({"prefix": "a\tb"}, "prefix", "a path in the bucket"),
    "endpoint-path": ({"endpoint_url": "https://h/a"}, "endpoint_url", "without a path"),
    "endpoint-query": ({"endpoint_url": "https://h?a"}, "endpoint_url", "without a path"),
    "endpoint-user": ({"endpoint_url": "https://u:s3cr3t@h"}, "endpoint_url", "http:// or https://"),
    "endpoint-bare": ({"endpoint_url": "h:9000"}, "endpoint_url", "http:// or https://"),
    "endpoint-scheme": ({"endpoint_url": "s3://h"}, "endpoint_url", "http:// or https://"),
    "endpoint-host": ({"endpoint_url": "https://"}, "endpoint_url", "a host"),
    "endpoint-blank": ({"endpoint_url": "https://h h"}, "endpoint_url", "a host"),
    "endpoint-port": ({"endpoint_url": "https://h:99999"}, "endpoint_url", "port"),
    "endpoint-no-port": ({"endpoint_url": "https://h:http"}, "endpoint_url", "port"),
    "region": ({"region": "eu central"}, "region", "a region such as eu-central-1"),
    "region-host": ({"region": "evil.example/"}, "region", "a region such as eu-central-1"),
    "addressing": ({"addressing": "dns"}, "addressing", "expected one of auto, path, virtual"),
    "role": ({"role_arn": "mirror"}, "role_arn", "arn:aws:iam::<account>:role/<name>"),
    "class-case": ({"storage_class": "standard_ia"}, "storage_class", "such as STANDARD_IA"),
    "class-blank": ({"storage_class": "STANDARD IA"}, "storage_class", "such as STANDARD_IA"),
    "sse": ({"sse": "yes"}, "sse", "AES256, aws:kms, aws:kms:dsse"),
    "kms-alone": ({"kms_key_id": "alias/a"}, "kms_key_id", 'needs sse = "aws:kms"'),
    "kms-aes": ({"kms_key_id": "alias/a", "sse": "AES256"}, "kms_key_id", 'needs sse = "aws:kms"'),
    "kms-blank": ({"kms_key_id": "a b", "sse": "aws:kms"}, "kms_key_id", "the id, ARN or alias of a key"),
    "tags-list": ({"tags": ["a"]}, "tags", "expected `object`"),
    "tags-number": ({"tags": {"a": 1}}, "tags", "expected `str`"),
    "tags-many": ({"tags": MANY}, "tags", "10 tags at most, got 11"),
    "cache": ({"cache_control": "a\nb"}, "cache_control", "printable ASCII on one line"),
    "payer": ({"request_payer": "yes"}, "request_payer", "expected `bool`"),
    "checksum": ({"checksum": "md5"}, "checksum", "expected one of sha256, crc64nvme, when_required"),
    "conditional": ({"conditional_writes": 1}, "conditional_writes", "expected `bool`"),
    "only-alone": ({"only": True}, "only", "needs a bucket: give --s3 s3://bucket/prefix, or [s3] bucket"),
    "copy": ({"copy": "always"}, "copy", "expected one of auto, never"),
    "sources-list": ({"sources": ["cdn.example"]}, "sources", "expected `object`"),
    "sources-case": ({"sources": {"CDN.example": "b"}}, "sources", "the host in lower case"),
    "sources-url": ({"sources": {"https://cdn.example": "b"}}, "sources", '"host" = "bucket"'),
    "sources-path": ({"sources": {"cdn.example/a": "b"}}, "sources", '"host" = "bucket"'),
    "sources-port": ({"sources": {"cdn.example:http": "b"}}, "sources", '"host" = "bucket"'),
    "sources-to-url": ({"sources": {"cdn.example": "s3://b"}}, "sources", '"bucket" or "bucket/prefix"'),
    "sources-to-nothing": ({"sources": {"cdn.example": ""}}, "sources", '"bucket" or "bucket/prefix"'),
    "sources-to-root": ({"sources": {"cdn.example": "/a"}}, "sources", '"bucket" or "bucket/prefix"'),
    "unknown": ({"bukcet": "b"}, "unknown key bukcet", "expected one of bucket, prefix"),
}


@pytest.mark.parametrize(("keys", "key", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_one_names_the_file_the_key_and_what_was_expected(
    keys: dict[str, Any], key: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path, toml(keys))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'etc' / 'a.toml'}: [s3] {key}")
    assert expected in said
    assert "\n" not in said
    assert "s3cr3t" not in said
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({"BUCKET": "s3://b"}, {}, "environment variable MIRROR_S3_BUCKET: [s3] bucket: expected a bucket's name"),
        ({"TAGS": "a"}, {}, "environment variable MIRROR_S3_TAGS: [s3] tags: expected name=value, name=value, got 'a'"),
        ({"TAGS": "=b"}, {}, "environment variable MIRROR_S3_TAGS: [s3] tags: expected name=value"),
        ({"SOURCES": "cdn.example"}, {}, "environment variable MIRROR_S3_SOURCES: [s3] sources: expected name=value"),
        ({"SOURCES": "A.example=b"}, {}, "environment variable MIRROR_S3_SOURCES: [s3] sources: expected"),
        ({"ONLY": "true"}, {}, "environment variable MIRROR_S3_ONLY: [s3] only: needs a bucket"),
        ({"ONLY": "maybe"}, {}, "environment variable MIRROR_S3_ONLY: [s3] only: expected `bool`"),
        ({"KMS_KEY_ID": "k"}, {}, "environment variable MIRROR_S3_KMS_KEY_ID: [s3] kms_key_id: needs sse"),
        ({}, {"s3": "bucket/prefix"}, "--s3: expected s3://bucket or s3://bucket/prefix, got 'bucket/prefix'"),
        ({}, {"s3": ""}, "--s3: expected s3://bucket"),
        ({}, {"s3": "s3://"}, "--s3: expected s3://bucket"),
        ({}, {"s3": "s3:///a"}, "--s3: expected s3://bucket"),
        ({}, {"s3": "S3://b-1"}, "--s3: expected s3://bucket"),
        ({}, {"s3": "https://b-1/a"}, "--s3: expected s3://bucket"),
        ({}, {"s3": "s3://b-1/a?x"}, "--s3: expected s3://bucket"),
        ({}, {"s3": "s3://my bucket/a"}, "--s3: [s3] bucket: expected a bucket's name"),
        ({}, {"s3": "s3://b-1/a\nb"}, "--s3: [s3] prefix: expected a path in the bucket"),
        ({}, {"s3_only": True}, "--s3-only: [s3] only: needs a bucket: give --s3 s3://bucket/prefix"),
        ({}, {"s3_endpoint": "h"}, "--s3-endpoint: [s3] endpoint_url: expected http:// or https://"),
    ],
)
def test_a_wrong_one_names_the_variable_or_flag(environ: dict[str, str], flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, flags, {f"MIRROR_S3_{name}": value for name, value in environ.items()})
    assert str(caught.value).startswith(expected)


def test_only_in_the_file_is_fine_with_a_bucket_on_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", toml({"only": True}))
    assert load(file, {"s3": "s3://b-1"}, {}).settings.s3.only is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--s3", "bucket"], "--s3: expected s3://bucket or s3://bucket/prefix"),
        (["--s3-only"], "--s3-only: [s3] only: needs a bucket"),
        (["--s3", "s3://b-1", "--s3-endpoint", "https://h/path"], "--s3-endpoint: [s3] endpoint_url"),
    ],
)
def test_the_command_line_ends_before_it_starts(arguments: list[str], said: str, archive: Archive) -> None:
    done = archive.run("fetch", "p", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not archive.root.exists()


@pytest.mark.parametrize(
    ("section", "valid"),
    [
        ({}, True),
        ({"bucket": "b-1", "tags": {}, "sources": {}}, True),
        ({"sources": {"cdn.example": "b/p"}, "copy": "auto"}, True),
        ({"checksum": "when_required", "conditional_writes": False}, True),
        ({"tags": {"a": 1}}, False),
        ({"tags": "a=b"}, False),
        ({"only": "true"}, False),
        ({"addressing": "dns"}, False),
        ({"copy": True}, False),
        ({"bukcet": "b-1"}, False),
    ],
)
def test_the_schema_and_the_loader_agree(section: dict[str, Any], valid: bool, tmp_path: Path) -> None:
    assert validator("config").is_valid({"s3": section}) is valid
    if valid:
        assert from_file(tmp_path, toml(section)) == msgspec.convert(section, S3Settings)
    else:
        with pytest.raises(ConfigError):
            from_file(tmp_path, toml(section))


@at_most(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KEYS)), st.text() | st.text("abA.:/=, -_", max_size=20))
def test_any_text_is_a_value_or_a_clear_error(key: str, text: str) -> None:
    environ = {"MIRROR_S3_BUCKET": "b-1", "MIRROR_S3_SSE": "aws:kms", f"MIRROR_S3_{key.upper()}": text}
    try:
        found = load(None, {}, environ).settings.s3
    except ConfigError as error:
        said = str(error)
        assert f"MIRROR_S3_{key.upper()}: [s3] {key}: " in said
    else:
        assert isinstance(getattr(found, key), type(getattr(S3Settings(), key)))
