"""Documents that several runs may write: each replaces only the version that its writer has seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from mirror.digests import Digests
from mirror.errors import StoreUnavailable
from mirror.stores.files import translated
from mirror.stores.s3.checksums import Buffers, same_etag
from mirror.stores.s3.errors import NoSuchKey, NotSupported, PreconditionFailed, Unreachable
from mirror.stores.s3.objects import Found, Objects, Prints, compared

_BLOCK = 1 << 20


class Taken(Struct, frozen=True, kw_only=True):
    """The version of a document that was read; ``is_proven`` where the store's own digest is that of what came."""

    etag: str
    is_proven: bool


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

    async def take(self, key: str, path: Path) -> Taken | None:
        """Write a document of any size to a file. None without one, and then no file is left.

        What came is compared with what HEAD tells of the object, and asked for again where that is something else.

        Raises:
            StoreError: it cannot be read, or not be written here.
        """

        async def once() -> Taken:
            with translated(f"{path}"), path.open("wb") as file:
                etag, prints = await self._copy(key, file)
            found = await self._objects.find(key)
            told = compared(found, prints) if found is not None else False
            if found is None or told is False or (found.etag and not same_etag(found.etag, etag)):
                raise Unreachable(f"{self._objects.where(key)}: what came is not what stands there")
            return Taken(etag=etag, is_proven=told is True)

        try:
            return await self._objects.control.patiently(self._objects.where(key), once)
        except NoSuchKey:
            with translated(f"{path}"):
                await self._objects.disk.run(partial(path.unlink, missing_ok=True))
            return None

    async def _copy(self, key: str, file: BinaryIO) -> tuple[str, Prints]:
        async with self._objects.wire.get(key) as response:
            digests = Digests(["md5"])
            response.batch = _BLOCK
            while block := await response.read():
                await self._objects.disk.run(partial(_write, file, digests, block))
            came, length = digests.at, response.content_length
            if length not in (None, came):
                raise Unreachable(f"{self._objects.where(key)}: {came} bytes came, not {length}")
            etag = response.headers.get("ETag")
        if not etag:
            raise StoreUnavailable(f"{self._objects.where(key)}: an answer without an ETag: is that a store?")
        return etag, Prints(size=came, sha256=digests.sha256, etag=digests.hex("md5"))


def _write(file: BinaryIO, digests: Digests, block: bytes | memoryview) -> None:
    file.write(block)
    digests.update(block)
