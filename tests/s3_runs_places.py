"""A root and a bucket behind a proxy, and what a run does with both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mirror import Manifest
from mirror.manifests.document import encode
from mirror.models import ManifestApi, ManifestFile, Placed, PromptState, Role
from mirror.places import Places
from mirror.stores import MANIFEST
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_small import in_places, settings_for

T = TypeVar("T")

BODY = b"a film"
URL = "http://o/film.mp4"
KEY = f"films/p/{MANIFEST}"


class Ground(NamedTuple):
    """A root and a bucket, to be used alone or together: ``disk``, ``both`` or ``only`` (the bucket)."""

    root: Path
    bucket: Bucket
    proxy: FaultProxy

    def run(self, use: str, act: Callable[[Places], Awaitable[T]], **values: Any) -> T:
        through = self.bucket.through(self.proxy) if use != "disk" else None
        own = {"s3_prefix": "films", "s3_only": use == "only"} if use != "disk" else {}
        return in_places(settings_for(through, self.root, **{**own, **values}), act)

    def write(self, use: str, content: bytes, known: Placed | None = None, *, changed: bool = True) -> Placed | None:
        """What a run does with the manifest; the requests are counted from here on."""
        self.proxy.clear()
        return self.run(use, lambda places: places.write_manifest("p", content, known, changed=changed))

    @property
    def written(self) -> list[tuple[str, str]]:
        """The conditions of the manifests that were sent, and what was answered."""
        return [
            (seen.headers.get("if-match") or f"none: {seen.headers.get('if-none-match')}", str(seen.status))
            for seen in self.proxy.requests
            if seen.operation == "PutObject"
        ]

    def on_disk(self) -> bytes | None:
        path = self.root / "p" / MANIFEST
        return path.read_bytes() if path.exists() else None

    def in_bucket(self) -> bytes | None:
        return self.bucket.read().get(KEY)


def manifest(*urls: str, prompt_id: str = "p", at: str = "2026-01-29T13:54:20Z") -> bytes:
    files = tuple(
        ManifestFile(path=url.rpartition("/")[2], role=Role.ORIGIN, url=url, bytes=1, sha256="0" * 64) for url in urls
    )
    api = ManifestApi(url="http://o", code=200, msg="SUCCESS")
    return encode(Manifest(prompt_id=prompt_id, state=PromptState.COMPLETE, mirrored_at=at, api=api, files=files))
