"""The places that the store contract is tested on: each a real store, and what an outsider sees of it.

How the stores differ by design stands here, as properties of a place; the tests ask for them and know no place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mirror.errors import Obstructed
from mirror.models import Placed, S3Object
from mirror.settings import ArchiveSettings, S3Settings, Settings, TransferSettings
from mirror.stores import MANIFEST, Store
from mirror.stores.local import LocalStore
from mirror.stores.s3.store import S3Store
from tests.s3.bucket import Bucket

T = TypeVar("T")

MIB = 1 << 20
PART = 5 * MIB
SINGLE = 8 * MIB
"""A bucket takes no more than that in one request."""


@contextlib.contextmanager
def credentials(bucket: Bucket) -> Iterator[None]:
    """The environment that has the bucket's keys, and nothing of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("MIRROR_", "AWS_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        nothing = str(Path(os.devnull))
        theirs = {name: value for name, value in bucket.environ.items() if name.startswith("AWS_")}
        ours = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing}
        for name, value in (theirs | ours).items():
            patch.setenv(name, value)
        yield


def settings_for(
    root: Path, bucket: Bucket | None = None, s3: dict[str, Any] | None = None, **transfer: Any
) -> Settings:
    """Settings with this root and bucket; ``transfer`` is of that section."""
    told = bucket.environ if bucket is not None else {}
    of_bucket = {
        "bucket": told.get("MIRROR_S3_BUCKET", ""),
        "endpoint_url": told.get("MIRROR_S3_ENDPOINT_URL", ""),
        "addressing": "path",
    }
    given = {"min_free_space": 0, "ca_file": told.get("MIRROR_TRANSFER_CA_FILE", ""), **transfer}
    return Settings(
        archive=ArchiveSettings(root=str(root)),
        transfer=TransferSettings(**given),
        s3=S3Settings(**{**of_bucket, **(s3 or {})}),
    )


class Place(ABC):
    """A store and its root. It is opened at first use; :meth:`restart` is the end of a process and the next one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runner = asyncio.Runner()
        self._store: Store | None = None

    def run(self, act: Callable[[Store], Awaitable[T]]) -> T:
        """Have something done with the store."""

        async def acted() -> T:
            if self._store is None:
                self._store = await self._open()
            async with asyncio.timeout(180):
                return await act(self._store)

        return self._runner.run(acted())

    def restart(self) -> None:
        """Nothing is carried over to the next process but what stands on disk and in the bucket."""
        if self._store is not None:
            self._runner.run(self._close())
            self._store = None

    def close(self) -> None:
        self.restart()
        self._runner.close()

    @abstractmethod
    async def _open(self) -> Store: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def files(self, folder: str) -> dict[str, bytes]:
        """What stands there, by name: read past the store."""

    def read_back(self, folder: str) -> dict[str, bytes]:
        """The same, by a program that shares no line with ours, where there is one."""
        return self.files(folder)

    @abstractmethod
    def put(self, folder: str, name: str, body: bytes) -> None:
        """Somebody else puts something there."""

    @abstractmethod
    def unfinished(self) -> list[str]:
        """Everything that is not published: partial files, journals, multipart uploads."""

    @abstractmethod
    def wait_until_begun(self, folder: str, size: int) -> None:
        """Return when a body of this size that is coming in has chosen its name, where that is before the commit."""

    @abstractmethod
    def least_kept(self, written: int) -> int:
        """How much of so many bytes, written in order, a close keeps at least."""

    @abstractmethod
    def placed(self, folder: str, name: str) -> S3Object | None:
        """What a receipt must say of where a published file stands."""

    @abstractmethod
    def where(self, folder: str) -> Placed | None:
        """What must be said of where a published manifest stands."""

    @abstractmethod
    def repaired(self, name: str, damaged: bytes, body: bytes, beside: str) -> dict[str, bytes]:
        """What stands there when a file that was damaged has been stored anew."""

    @abstractmethod
    def refuses_to_replace(self) -> AbstractContextManager[Any]:
        """What comes of writing a manifest where one stands that is no earlier state of it."""

    @abstractmethod
    def replaced(self, before: bytes, after: bytes) -> bytes:
        """The manifest that stands there after that."""


class OnDisk(Place):
    """Buffers by the MiB and writes out the rest when it is closed. The archive's root is its own to repair."""

    async def _open(self) -> Store:
        self._local = LocalStore(settings_for(self.root))
        self._local.open()
        return self._local

    async def _close(self) -> None:
        self._local.close()

    def files(self, folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / folder).glob("*")}

    def put(self, folder: str, name: str, body: bytes) -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / folder / name).write_bytes(body)

    def unfinished(self) -> list[str]:
        return sorted(path.name for path in (self.root / ".mirror" / "parts").glob("*"))

    def wait_until_begun(self, folder: str, size: int) -> None:
        pass

    def least_kept(self, written: int) -> int:
        return written

    def placed(self, folder: str, name: str) -> S3Object | None:
        return None

    def where(self, folder: str) -> Placed | None:
        return None

    def repaired(self, name: str, damaged: bytes, body: bytes, beside: str) -> dict[str, bytes]:
        return {name: body}

    def refuses_to_replace(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def replaced(self, before: bytes, after: bytes) -> bytes:
        return after


class InBucket(Place):
    """Buffers by the part, one being sent while the next one fills. Nothing that stands in a bucket is overwritten."""

    prefix = "some/where"

    def __init__(self, root: Path, bucket: Bucket) -> None:
        super().__init__(root)
        self.bucket = bucket

    async def _open(self) -> Store:
        settings = settings_for(self.root, self.bucket, {"prefix": self.prefix})
        self._local = LocalStore(settings)
        self._local.open()
        self._remote = S3Store(settings, self._local.disk, lambda _: None, 32 * MIB)
        with credentials(self.bucket):
            await self._remote.open()
        return self._remote

    async def _close(self) -> None:
        await self._remote.close()
        self._local.close()

    def files(self, folder: str) -> dict[str, bytes]:
        prefix, client = self._key(folder, ""), self.bucket.server.client()
        found = {key: client.get_object(Bucket=self.bucket.name, Key=key) for key in self.bucket.keys(prefix)}
        return {key.removeprefix(prefix): answer["Body"].read() for key, answer in found.items()}

    def read_back(self, folder: str) -> dict[str, bytes]:
        prefix = self._key(folder, "")
        return {key.removeprefix(prefix): body for key, body in self.bucket.read(prefix).items()}

    def put(self, folder: str, name: str, body: bytes) -> None:
        self.bucket.put(self._key(folder, name), body)

    def unfinished(self) -> list[str]:
        on_disk = (path.name for path in (self.root / ".mirror" / "parts").glob("*"))
        return sorted([*on_disk, *(upload["Key"] for upload in self.bucket.uploads())])

    def wait_until_begun(self, folder: str, size: int) -> None:
        end = time.monotonic() + 60
        while size > SINGLE and not any(
            upload["Key"].startswith(self._key(folder, "")) for upload in self.bucket.uploads()
        ):
            assert time.monotonic() < end, "no multipart upload was begun"
            time.sleep(0.01)

    def least_kept(self, written: int) -> int:
        return max(0, (written - 1) // PART - 1) * PART

    def placed(self, folder: str, name: str) -> S3Object | None:
        there = self.bucket.head(self._key(folder, name))
        return S3Object(
            bucket=self.bucket.name,
            key=self._key(folder, name),
            etag=there["ETag"],
            checksum_sha256=there.get("ChecksumSHA256"),
            via="stream",
        )

    def where(self, folder: str) -> Placed | None:
        key = self._key(folder, MANIFEST)
        endpoint = self.bucket.environ["MIRROR_S3_ENDPOINT_URL"]
        return Placed(endpoint=endpoint, bucket=self.bucket.name, key=key, etag=self.bucket.head(key)["ETag"])

    def repaired(self, name: str, damaged: bytes, body: bytes, beside: str) -> dict[str, bytes]:
        return {name: damaged, beside: body}

    def refuses_to_replace(self) -> AbstractContextManager[Any]:
        return pytest.raises(Obstructed, match="move it away")

    def replaced(self, before: bytes, after: bytes) -> bytes:
        return before

    def _key(self, folder: str, name: str) -> str:
        return f"{self.prefix}/{folder}/{name}"


@contextlib.contextmanager
def opened(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Iterator[Place]:
    """The place that a fixture's parameter names: the disk, or a new bucket on one of the servers."""
    root = folders.mktemp(request.param) / "archive"
    on_disk = request.param == "disk"
    made = OnDisk(root) if on_disk else InBucket(root, Bucket.new(request.getfixturevalue(request.param)))
    with contextlib.closing(made):
        yield made


def _on(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", kinds, indirect=True, scope="module")


everywhere = _on("disk", "swift", "swift_tls", "ministack")
on_each_kind = _on("disk", "swift", "ministack")
"""For what is the same over TLS, where that is slow."""
