"""Looks at what is in a bucket while runs are under way: is every object right, and nothing named that is not there?"""

from __future__ import annotations

import gzip
from collections.abc import Mapping

from tests.crash_runs import Known, check, known
from tests.s3.bucket import Bucket

CATALOG = ".mirror/catalog.sqlite.gz"


class BucketLooker:
    """Looks at the objects below a prefix; one that has not changed since the last look is not read again."""

    def __init__(self, bucket: Bucket, prefix: str, bodies: Mapping[str, bytes]) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._bodies = bodies
        self._contents: dict[tuple[str, str], bytes] = {}
        self._seen: dict[tuple[str, str], Known] = {}
        self.objects = 0

    def look(self) -> tuple[dict[str, bytes], dict[str, Known]]:
        """Manifests by prompt, and files by path; what must hold of them holds."""
        manifests, files = self.found()
        check(manifests, files, self._bodies)
        return manifests, files

    def found(self) -> tuple[dict[str, bytes], dict[str, Known]]:
        """The same, whatever holds. The manifests are listed first: whatever they name is in the second listing."""
        first = self._list()
        manifests = {
            name.rpartition("/")[0]: self._read(name, etag)
            for name, etag in first.items()
            if name.endswith("/manifest.json")
        }
        files = {}
        for name, etag in self._list().items():
            if name.endswith("/manifest.json") or name == CATALOG:
                continue
            if (name, etag) not in self._seen:
                self._seen[name, etag] = known(self._get(name), self._bodies.get(name))
            files[name] = self._seen[name, etag]
        self.objects = len(files) + len(manifests)
        return manifests, files

    def catalog(self) -> bytes | None:
        return gzip.decompress(self._get(CATALOG)) if CATALOG in self._list() else None

    def _list(self) -> dict[str, str]:
        pages = self._bucket.server.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket.name, Prefix=self._prefix)
        return {
            item["Key"].removeprefix(self._prefix): item["ETag"] for page in found for item in page.get("Contents", ())
        }

    def _read(self, name: str, etag: str) -> bytes:
        if (name, etag) not in self._contents:
            self._contents[name, etag] = self._get(name)
        return self._contents[name, etag]

    def _get(self, name: str) -> bytes:
        answer = self._bucket.server.client().get_object(Bucket=self._bucket.name, Key=self._prefix + name)
        content: bytes = answer["Body"].read()
        return content
