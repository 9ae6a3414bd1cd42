"""Documents that several runs may write: each replaces only the version that its writer has seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from mirror.errors import StoreUnavailable
from mirror.stores.files import translated
from mirror.stores.s3.checksums import Buffers
from mirror.stores.s3.errors import NoSuchKey, NotSupported, PreconditionFailed, Unreachable
from mirror.stores.s3.objects import Found, Objects

_BLOCK = 1 << 20


class Exchange:
    """Conditional writes (If-Match, If-None-Match) where the store knows them; else it is looked at before."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._conditional = objects.settings.conditional_writes

    async def put(self, key: str, body: Buffers, sha256: str, etag: str | None, content_type: str) -> Found | None:
        """Write a document in the place of the version ``etag`` (None: where there is none).

        Returns None where another version is there.

        Raises:
            StoreError: the store cannot take it.
        """
        settings = self._objects.settings
        headers = {"Content-Type": content_type}
        if settings.sse:
            headers["x-amz-server-side-encryption"] = settings.sse
        if settings.kms_key_id:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = settings.kms_key_id
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        if not self._conditional:
            # The next best thing: look, then write.
            there = await self._objects.find(key)
            if (there.etag if there is not None else None) != etag:
                return None
            condition = {}
        size = sum(map(len, body))
        try:
            return await self._objects.put(key, body, size, sha256, headers | condition)
        except (PreconditionFailed, NoSuchKey):
            return None
        except NotSupported:
            if not condition:
                raise
            self._conditional = False  # some know If-None-Match and not If-Match
            return await self.put(key, body, sha256, etag, content_type)

    async def take(self, key: str, path: Path) -> str | None:
        """Write a document of any size to a file; its ETag. None without one, and then no file is left.

        Raises:
            StoreError: it cannot be read, or not be written here.
        """

        async def once() -> str:
            with translated(f"{path}"), path.open("wb") as file:
                return await self._copy(key, file)

        try:
            return await self._objects.control.patiently(self._objects.where(key), once)
        except NoSuchKey:
            with translated(f"{path}"):
                await self._objects.disk.run(partial(path.unlink, missing_ok=True))
            return None

    async def _copy(self, key: str, file: BinaryIO) -> str:
        async with self._objects.wire.get(key) as response:
            came = 0
            while block := await response.content.read(_BLOCK):
                came += len(block)
                await self._objects.disk.run(partial(file.write, block))
            if response.content_length not in (None, came):
                raise Unreachable(f"{self._objects.where(key)}: {came} bytes came, not {response.content_length}")
            etag = response.headers.get("ETag")
        if not etag:
            raise StoreUnavailable(f"{self._objects.where(key)}: an answer without an ETag: is that a store?")
        return etag
