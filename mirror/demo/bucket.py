"""The demo's bucket: a real object store, OpenStack Swift, in processes of its own, where its package is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess  # nosec B404 # below, and nothing from elsewhere in it
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from msgspec import Struct

from mirror.errors import ConfigError, StoreUnavailable

BUCKET = "demo"


class DemoBucket(Struct, frozen=True, kw_only=True):
    """Where the store answers, and the keys that it takes."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    @property
    def environ(self) -> dict[str, str]:
        """What makes the command line use it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "MIRROR_S3_BUCKET": BUCKET,
            "MIRROR_S3_PREFIX": "archive",
            "MIRROR_S3_ENDPOINT_URL": self.endpoint,
        }

    def objects(self) -> dict[str, bytes]:
        """Every object, read back by boto3 alone."""
        client = self._client()
        listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def make(self) -> None:
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[DemoBucket]:
    """A store with an empty bucket, until the block is left.

    Raises:
        ConfigError: Swift is not installed.
        StoreUnavailable: it does not start.
    """
    if importlib.util.find_spec("swift") is None:
        raise ConfigError("demo --s3 needs OpenStack Swift for its bucket: pip install 'prompt-mirror[test]'")
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(  # noqa: S603  # nosec B603 # our own module
        [sys.executable, "-m", "mirror.demo.swift", "--dir", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin
    assert process.stdout
    try:
        told = process.stdout.readline()
        if not told:
            raise StoreUnavailable(f"Swift does not start: can {folder} take extended attributes (user xattrs)?")
        bucket = DemoBucket(**json.loads(told))
        bucket.make()
        yield bucket
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)
