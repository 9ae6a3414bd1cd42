"""Where the catalog is between runs: in its file, or, for a machine that keeps no disk, in the bucket.

In the bucket it is ``<prefix>/.mirror/catalog.sqlite.gz``: taken when a run starts, put back at its end if nobody else
has put one there meanwhile, else merged with theirs first. The file here is a working copy, which goes when it was put
back: one that is found was left by a run that died, and what it knows is taken in.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mmap
import shutil
import zlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.adoption import record_from
from mirror.catalog import Catalog, Mode
from mirror.catalog.schema import remove
from mirror.errors import CatalogError, ConfigError, StoreUnavailable
from mirror.events import Noted, Observer
from mirror.places import Places, open_places
from mirror.settings import Settings
from mirror.stores.disk import INTERNAL
from mirror.stores.files import translated

if TYPE_CHECKING:
    from mirror.stores.s3.exchange import Taken
    from mirror.stores.s3.store import S3Store

_OBJECT = "catalog.sqlite.gz"
_MAGIC = b"SQLite format 3\0"
_HURRY = 1.5
"""Seconds that the way back may take when the run was told to stop."""
_ATTEMPTS = 8
"""Each lost race means that another run has put its catalog there."""


def catalog_path(settings: Settings) -> Path:
    """Where the catalog of an archive stands on disk."""
    return Path(settings.archive.catalog or Path(settings.archive.root) / INTERNAL / "catalog.sqlite")


def has_catalog(settings: Settings) -> bool:
    """Whether there is a catalog on disk.

    Raises:
        StoreError: nobody can tell.
    """
    path = catalog_path(settings)
    with translated(f"the catalog {path}"):
        return path.exists()


def require_catalog(settings: Settings) -> None:
    """Check that there is a catalog to work with.

    Raises:
        ConfigError: there is none.
        StoreError: nobody can tell.
    """
    if not settings.s3.catalog and not has_catalog(settings):
        told = f"{catalog_path(settings)}: there is no catalog; is --root right?"
        raise ConfigError(f"{told} (`mirror rebuild` makes one from manifests)")


@contextlib.asynccontextmanager
async def reading(settings: Settings, observer: Observer) -> AsyncIterator[tuple[Places, Catalog]]:
    """The places of an archive, and its catalog as it stands, for what changes nothing and takes no lock.

    Raises:
        CatalogError, StoreError: they cannot be read.
    """
    places = open_places(settings, observer)
    try:
        async with catalog_of(settings, places, observer, "read") as catalog:
            yield places, catalog
    finally:
        await places.close()


@contextlib.asynccontextmanager
async def catalog_of(
    settings: Settings, places: Places, observer: Observer, mode: Mode = "write", *, anew: bool = False
) -> AsyncIterator[Catalog]:
    """The catalog of an archive, open. For ``write`` the caller holds the root's lock.

    ``anew`` makes one that stands in the bucket from the manifests, whatever is there.

    Raises:
        CatalogError, StoreError: it cannot be worked with; or, at the end, not be put back (its file stays then).
    """
    path = catalog_path(settings)
    with translated(f"the catalog {path}"):
        is_elsewhere = not settings.archive.catalog and path.is_symlink()
    if is_elsewhere:
        raise CatalogError(f"{path} is a symlink: if the catalog is to stand elsewhere, name that as archive.catalog")
    if mode == "write":
        with translated(f"the folder of the catalog {path}"):
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    durable = settings.archive.durability == "full"
    if not settings.s3.catalog or places.bucket is None:
        async with contextlib.AsyncExitStack() as stack:
            catalog = await _opened(places, path, durable=durable, mode=mode)
            stack.push_async_callback(catalog.close)
            yield catalog
        return
    custody = _InBucket(places, places.bucket, path, observer)
    async with custody.taken(mode, anew=anew) as catalog:
        yield catalog


async def _opened(places: Places, path: Path, *, durable: bool = True, mode: Mode = "write") -> Catalog:
    """A catalog, opened in a thread; who is cancelled meanwhile leaves none open behind."""
    opening = places.disk.disk.start(partial(Catalog.open, path, durable=durable, mode=mode))
    try:
        return await opening
    except asyncio.CancelledError:
        if opening.exception() is None:
            await opening.result().close()
        raise


class _InBucket:
    def __init__(self, places: Places, bucket: S3Store, path: Path, observer: Observer) -> None:
        self._places = places
        self._bucket = bucket
        self._path = path
        self._observer = observer
        self._key = bucket.objects.key(INTERNAL, _OBJECT)
        self._etag: str | None = None
        self._is_back = False

    @contextlib.asynccontextmanager
    async def taken(self, mode: Mode, *, anew: bool) -> AsyncIterator[Catalog]:
        await self._places.ready()
        if mode != "write":
            async with self._to_look_at() as catalog:
                yield catalog
            return
        taken = self._beside("taken")
        if anew:
            remove(self._path)
            found = await self._bucket.objects.find(self._key)
            self._etag = found.etag if found is not None else None
        is_there = not anew and await self._take(taken)
        catalog = await _opened(self._places, self._path, durable=False)
        try:
            if is_there:
                await catalog.merge(taken)
                remove(taken)
            else:
                await self._rebuild(catalog)
            try:
                yield catalog
            except asyncio.CancelledError:
                await self._put_back_soon(catalog)
                raise
            except BaseException:
                await self._put_back(catalog)
                raise
            await self._put_back(catalog)
        finally:
            await catalog.close()
            if self._is_back:
                remove(self._path)

    async def _put_back_soon(self, catalog: Catalog) -> None:
        """A stop may take two seconds. What cannot be put back by then stays here."""
        try:
            async with asyncio.timeout(_HURRY):
                await self._put_back(catalog)
        except TimeoutError:
            self._note("the bucket does not take the catalog back so soon: it stays here for the next run")

    @contextlib.asynccontextmanager
    async def _to_look_at(self) -> AsyncIterator[Catalog]:
        """A copy that is not put back, and stands in nobody's way."""
        with translated("a temporary folder for the catalog"):
            folder = await asyncio.to_thread(_scratch)
        try:
            path = folder / "catalog.sqlite"
            await self._take(path)
            catalog = await _opened(self._places, path)
            try:
                yield catalog
            finally:
                await catalog.close()
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _take(self, path: Path) -> bool:
        """Have the bucket's catalog in a file; False where it has none."""
        remove(path)
        packed = path.with_name(path.name + ".gz")
        found = await self._bucket.exchange.take(self._key, packed)
        self._etag = found.etag if found is not None else None
        if found is None:
            return False
        try:
            with translated(f"{path}"):
                await asyncio.to_thread(_unpack, packed, path)
        except (EOFError, zlib.error) as error:
            raise self._damaged(error, found) from None
        finally:
            remove(packed)
        with translated(f"{path}"), path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise self._damaged("it is no catalog", found)
        return True

    def _damaged(self, why: object, found: Taken) -> CatalogError:
        where = self._bucket.objects.where(self._key)
        if not found.is_proven:
            return CatalogError(
                f"the catalog {where}, as it came, is damaged ({why}), and the store tells no digest of it: look at it "
                "by another way first; if it is damaged there, too, `mirror rebuild` makes it again from the manifests"
            )
        return CatalogError(
            f"the catalog {where} is damaged ({why}): delete it, and the next run makes it again from the manifests"
        )

    async def _put_back(self, catalog: Catalog) -> None:
        for _ in range(_ATTEMPTS):
            if await self._put(catalog):
                self._is_back = True
                return
            self._note("another run has put its catalog there meanwhile: ours is merged with it")
            taken = self._beside("taken")
            if await self._take(taken):
                await catalog.merge(taken)
                remove(taken)
        raise StoreUnavailable(f"{self._bucket.objects.where(self._key)}: other runs write it all the time")

    async def _put(self, catalog: Catalog) -> bool:
        copy, packed = self._beside("copy"), self._beside("copy.gz")
        try:
            remove(copy)
            changed = await catalog.save_as(copy)
            if not changed and self._etag is not None:
                return True
            with translated(f"{packed}"):
                await asyncio.to_thread(_pack, copy, packed)
            return await self._send(packed)
        finally:
            remove(copy)
            remove(packed)

    async def _send(self, packed: Path) -> bool:
        with translated(f"{packed}"):
            sha256 = await asyncio.to_thread(_sha256_of, packed)
            with packed.open("rb") as file:
                # From the page cache: a large catalog costs no memory. It is unmapped when its last view is gone.
                body: Any = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = await self._bucket.exchange.put(self._key, [body], sha256, self._etag, "application/gzip")
        return found is not None

    async def _rebuild(self, catalog: Catalog) -> None:
        came_back, _ = await fill(catalog, self._places)
        if came_back:
            self._note(f"the catalog was made again: {came_back} prompts came back from the bucket's manifests")

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")

    def _note(self, message: str) -> None:
        self._observer(Noted(level="warning", message=message))


async def fill(catalog: Catalog, places: Places) -> tuple[int, list[str]]:
    """Put in what the manifests tell; how many prompts that were, and the folders whose manifest cannot be read."""
    prompts, unreadable = 0, []
    async for folders in places.folders():
        documents = await places.read_manifests(folders)
        told = [
            record_from(document, folder) if document is not None else None
            for folder, document in zip(folders, documents, strict=True)
        ]
        unreadable += [folder for folder, record in zip(folders, told, strict=True) if record is None]
        records = [record for record in told if record is not None]
        await asyncio.gather(*(catalog.save_prompt(record, "") for record in records))  # one commit for all of them
        prompts += len(records)
    return prompts, unreadable


def _scratch() -> Path:
    import tempfile  # noqa: PLC0415 - as the next two, for a catalog in the bucket only

    return Path(tempfile.mkdtemp(prefix="mirror-catalog-"))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(source: Path, target: Path) -> None:
    import gzip  # noqa: PLC0415

    with source.open("rb") as plain, target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)


def _unpack(source: Path, target: Path) -> None:
    import gzip  # noqa: PLC0415

    with gzip.open(source) as packed, target.open("wb") as plain:
        try:
            shutil.copyfileobj(packed, plain, 1 << 20)
        except gzip.BadGzipFile as error:  # an OSError, and none of the disk
            raise EOFError(str(error)) from None
