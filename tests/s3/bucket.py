"""A bucket of its own for a test: how to point a command line at it, and what came to be in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.s3.proxy import FaultProxy
from tests.s3.readback import read_all
from tests.s3.servers import Server


@dataclass(frozen=True)
class Bucket:
    """A bucket. What it tells comes from the server itself, also where `environ` points at a proxy."""

    server: Server
    name: str
    endpoint: str = ""  # where a command line should go; "": to the server

    @classmethod
    def new(cls, server: Server) -> Bucket:
        return cls(server, server.new_bucket())

    def through(self, proxy: FaultProxy) -> Bucket:
        """The same bucket, for a command line that is to go through a proxy."""
        return replace(self, endpoint=proxy.endpoint)

    @property
    def environ(self) -> dict[str, str]:
        """All a command line must know to use the bucket."""
        endpoint = self.endpoint or self.server.endpoint
        environ = {
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_REGION": self.server.region,
            "AWS_DEFAULT_REGION": self.server.region,
            "MIRROR_S3_BUCKET": self.name,
            "MIRROR_S3_ENDPOINT_URL": endpoint,
            "MIRROR_S3_ADDRESSING": "path",
        }
        if endpoint.startswith("https:"):
            environ["MIRROR_TRANSFER_CA_FILE"] = str(self.server.ca_file)
        return environ

    def put(self, key: str, body: bytes, **more: Any) -> None:
        self.server.client().put_object(Bucket=self.name, Key=key, Body=body, **more)

    def keys(self, prefix: str = "") -> list[str]:
        """All keys, sorted."""
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def read(self, prefix: str = "") -> dict[str, bytes]:
        """Every object, as a client that is not ours reads it."""
        return read_all(self.server, self.name, prefix)

    def head(self, key: str) -> dict[str, Any]:
        """What HEAD says of an object, in boto3's words, checksums included where the server has any."""
        found = self.server.client().head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        return {name: value for name, value in found.items() if name != "ResponseMetadata"}

    def uploads(self) -> list[dict[str, Any]]:
        """The multipart uploads in progress, in boto3's words: Key, UploadId, …"""
        pages = self.server.client().get_paginator("list_multipart_uploads").paginate(Bucket=self.name)
        return [upload for page in pages for upload in page.get("Uploads", ())]
