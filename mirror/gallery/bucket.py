"""A gallery in the bucket, under the archive's prefix: what :mod:`mirror.gallery.folder` is on disk."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection

from mirror import names
from mirror.errors import ConfigError, Locked
from mirror.gallery.folder import MARK, MARKER, PAGE, is_generation
from mirror.gallery.previews import FOLDER as PREVIEWS
from mirror.stores.s3.control import needed
from mirror.stores.s3.store import S3Store

_AT_ONCE = 16
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webp": "image/webp",
}


class BucketFolder:
    """A :class:`~mirror.gallery.folder.Place` in a bucket that is open."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._home = store.objects.key(names.GALLERY, "")
        self._page: str | None = None

    @property
    def shown(self) -> str:
        return self._store.objects.where(self._home + PAGE)

    @property
    def home(self) -> str:
        """What the keys of the gallery begin with."""
        return self._home

    async def open(self) -> list[str]:
        found = await self._list()
        if found and MARKER not in found:
            told = f"{self._store.objects.where(self._home)} holds objects, and no gallery"
            raise ConfigError(f"{told}: move them away, or give a folder with --output")
        there = await self._store.objects.find(self._home + PAGE)
        self._page = there.etag if there is not None else None
        if MARKER not in found:
            await self._put(MARKER, MARK, "text/plain; charset=utf-8")
        return [name for name, size in found.items() if name.startswith(f"{PREVIEWS}/") and size]

    async def put(self, name: str, content: bytes) -> None:
        await self._put(name, content, _TYPES[name.rpartition(".")[2]])

    async def _put(self, name: str, content: bytes, kind: str) -> None:
        """What stands there under such a name already is the same: the names say what they are of."""
        digest = hashlib.sha256(content).hexdigest()
        await self._store.exchange.put(self._home + name, [content], digest, None, kind)

    async def publish(self, page: bytes) -> None:
        """In the place of the page that was there when we began.

        Raises:
            Locked: another run has published one meanwhile.
        """
        digest = hashlib.sha256(page).hexdigest()
        put = self._store.exchange.put
        if await put(self._home + PAGE, [page], digest, self._page, _TYPES["html"]) is None:
            raise Locked(f"{self.shown}: another run has written this gallery meanwhile: run again")

    async def prune(self, generation: str, previews: Collection[str]) -> None:
        """Generations that are older than ours go; a younger one is another run's, which will find out about us."""
        gone = []
        for name in await self._list():
            folder, _, last = name.partition("/")
            is_old = is_generation(folder) and folder < generation
            if last and (is_old or (folder.startswith("previews-") and name not in previews)):
                gone.append(name)
        room = asyncio.Semaphore(_AT_ONCE)

        async def delete(name: str) -> None:
            async with room:
                await self._store.objects.control.call("DeleteObject", Key=self._home + name)

        await asyncio.gather(*map(delete, gone))

    async def close(self) -> None:
        """The store is not ours to close."""

    async def _list(self) -> dict[str, int]:
        """The names of what is there, with their sizes."""
        found: dict[str, int] = {}
        async for answer in self._store.objects.control.pages("ListObjectsV2", Prefix=self._home):
            for each in answer.get("Contents", ()):
                found[needed(each, "Key", "ListObjectsV2")[len(self._home) :]] = int(each.get("Size") or 0)
        return found
