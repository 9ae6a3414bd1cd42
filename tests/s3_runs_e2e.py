"""What the end-to-end tests of the bucket share: an archive, a bucket, and a proxy between the two that keeps watch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt
from tests.origin import Origin
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3.seen import Seen

MIB = 1 << 20
LARGE = media.mp4(9 * MIB, seed=9)
"""Just large enough for a multipart upload, of two parts, where there is as little memory as here."""

WRITES = frozenset(
    {"PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject"}
)


@dataclass(frozen=True)
class Ground:
    """All that a test works with; the environment points every run at the bucket, through the proxy."""

    archive: Archive
    bucket: Bucket
    proxy: FaultProxy

    @classmethod
    def prepared(cls, archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
        for name, value in bucket.through(proxy).environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MIRROR_TRANSFER_MEMORY", "64M")
        return cls(archive, bucket, proxy)

    @property
    def origin(self) -> Origin:
        return self.archive.origin

    @property
    def url(self) -> str:
        """What goes after --s3."""
        return f"s3://{self.bucket.name}/pre"

    def elsewhere(self) -> Archive:
        """An archive on a machine that knows nothing yet."""
        return Archive(self.archive.root.with_name("elsewhere"), self.origin)

    def media(self) -> dict[str, bytes]:
        """All objects but the manifests, by key."""
        return {key: body for key, body in self.bucket.read().items() if not key.endswith("/manifest.json")}

    def manifest(self, prompt_id: str, prefix: str = "") -> dict[str, Any]:
        """The manifest in the bucket as plain JSON."""
        found = json.loads(self.bucket.read(f"{prefix}{prompt_id}/manifest.json")[f"{prefix}{prompt_id}/manifest.json"])
        assert isinstance(found, dict)
        return found

    def written(self) -> list[Seen]:
        """The requests that changed something in the bucket, in the order of their ends."""
        done = [seen for seen in self.proxy.requests if seen.operation in WRITES and seen.upstream == 200]
        return sorted(done, key=lambda seen: seen.ended or 0)

    def forget(self) -> None:
        """Count from here."""
        self.origin.clear()
        self.proxy.clear()

    @property
    def asked(self) -> tuple[int, int, int]:
        """How many requests there were: of the API, of media, of the bucket."""
        return len(self.origin.api_requests), len(self.origin.media_requests), len(self.proxy.requests)


def named(operation: str, key: str = "") -> Callable[[Seen], bool]:
    """Requests of this operation on this key, or on any key that ends so."""
    return lambda seen: seen.operation == operation and seen.key.endswith(key)


def small_and_large(origin: Origin) -> dict[str, bytes]:
    """Serve two done prompts, p with two pictures and q with a large file; path → bytes."""
    small = {f"p/{name}": body for name, body in done_prompt(origin, "p", "a.png", "b.png").items()}
    large_prompt(origin, "q", LARGE)
    return {**small, "q/large.mp4": LARGE}


def below(prefix: str, files: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """The same with the prefix before each path."""
    return {f"{prefix}{path}": body for path, body in files}


def told_by_store(bucket: Bucket, file: dict[str, Any]) -> dict[str, Any]:
    """What the store itself says of the object that a manifest's file names, as the manifest would say it."""
    head = bucket.head(file["s3"]["key"])
    version = head.get("VersionId")
    return {
        "bucket": bucket.name,
        "key": file["s3"]["key"],
        "etag": head["ETag"],
        "version_id": version if version != "null" else None,
        "checksum_sha256": head.get("ChecksumSHA256"),
    }
