"""The destinations of a run: the disk, the bucket, or both. A prompt is complete where it is complete in each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from mirror.events import Event, Observer
from mirror.limits import shared_out
from mirror.models import Placed
from mirror.settings import Settings
from mirror.stores import MANIFEST, Document, Store, Wanted
from mirror.stores.desks import Desk
from mirror.stores.local import LocalStore

if TYPE_CHECKING:
    from mirror.stores.s3.store import S3Store


_PAGE = 500


class Where(Struct, frozen=True):
    """Which paths of a prompt are where."""

    on_disk: frozenset[str]
    in_bucket: frozenset[str]


class Places:
    """``only_bucket``: nothing but the catalog and journals is kept on disk."""

    def __init__(self, disk: LocalStore, bucket: S3Store | None, *, only_bucket: bool) -> None:
        self.disk = disk
        self.bucket = bucket
        self.wants_disk = not only_bucket or bucket is None
        self.wants_bucket = bucket is not None

    async def look(self, wanted: Sequence[Wanted]) -> list[Where]:
        """What is where. Files on disk are looked at; of the bucket the records tell."""
        on_disk = await self.disk.present(wanted)
        in_bucket = await self.bucket.present(wanted) if self.bucket is not None else [set[str]() for _ in wanted]
        return [Where(frozenset(here), frozenset(there)) for here, there in zip(on_disk, in_bucket, strict=True)]

    async def keep_all(self, wanted: Sequence[Wanted]) -> list[bool]:
        """Of which prompts everything is in every destination, the manifest too; looked at as :meth:`look` does."""
        stores: list[Store] = [self.disk] if self.wants_disk else []
        stores += [self.bucket] if self.bucket is not None else []
        found = [await store.present(wanted) for store in stores]
        return [
            all(MANIFEST in there and all(file.path in there for file in each.files) for there in somewhere)
            for each, *somewhere in zip(wanted, *found, strict=True)
        ]

    def complete(self, where: Where, path: str) -> bool:
        """Whether a file is in every destination."""
        if self.wants_disk and path not in where.on_disk:
            return False
        return not self.wants_bucket or path in where.in_bucket

    async def ready(self) -> None:
        """The bucket is opened by the first who has work for it: a run with nothing to do asks nobody."""
        if self.bucket is not None:
            await self.bucket.open()

    async def gather(self) -> None:
        """See what workers that have ended left under the root."""
        await self.disk.disk.run(self.disk.gather)
        if self.bucket is not None and self.bucket.is_open:
            await self.bucket.uploads.scan()

    async def folders(self) -> AsyncGenerator[list[str], None]:
        """The names of all folders that could be a prompt's, in pages, from where files go first."""
        if self.wants_disk:
            names = list(await self.disk.disk.run(lambda: list(self.disk.folders())))
            for start in range(0, len(names), _PAGE):
                yield names[start : start + _PAGE]
            return
        assert self.bucket is not None
        await self.ready()
        async for page in self.bucket.folders():
            yield page

    async def only_in_bucket(self) -> int:
        """How many folders the bucket has and the disk, where files go first, has not: a request for each thousand.

        Raises:
            StoreError: one of them cannot be listed.
        """
        if self.bucket is None or not self.wants_disk:
            return 0
        here = set(await self.disk.disk.run(lambda: list(self.disk.folders())))
        await self.ready()
        return sum([len(set(page) - here) async for page in self.bucket.folders()])

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        """Each folder's manifest, from where files go first, else from the other place."""
        found: dict[str, Document | None] = dict.fromkeys(folders)
        for read in self._readers():
            left = [folder for folder, document in found.items() if document is None]
            if left:
                found |= zip(left, await read(left), strict=True)
        return [found[folder] for folder in folders]

    def _readers(self) -> list[Callable[[Sequence[str]], Awaitable[list[Document | None]]]]:
        if self.wants_disk:
            return [self.disk.read_manifests, self._read_from_bucket]
        return [self._read_from_bucket, self.disk.read_manifests]

    async def _read_from_bucket(self, folders: Sequence[str]) -> list[Document | None]:
        if self.bucket is None:
            return [None for _ in folders]
        await self.ready()
        return await self.bucket.read_manifests(folders)

    async def write_manifest(
        self, folder: str, content: bytes, known: Placed | None, *, changed: bool
    ) -> Placed | None:
        """Publish a manifest everywhere, in the bucket last. Returns where in a bucket it stands.

        One that has not ``changed`` goes only where it is missing. Without a bucket, what one has of it from before is
        noted as outdated.
        """
        if self.wants_disk:
            await self.disk.write_manifest(folder, content)
        if self.bucket is not None:
            if not changed and known is not None and self.bucket.is_manifest(known, folder):
                return known
            return await self.bucket.write_manifest(folder, content, known)
        return replace(known, current=False) if known is not None else None

    def has_manifest(self, where: Where) -> bool:
        return self.complete(where, MANIFEST)

    @property
    def shown(self) -> str:
        """The destinations, for a log line."""
        told = [str(self.disk.root)] if self.wants_disk else []
        return " and ".join([*told, *([self.bucket.shown] if self.bucket is not None else [])])

    async def close(self) -> None:
        try:
            if self.bucket is not None:
                await self.bucket.close()
        finally:
            self.disk.close()


def _unobserved(_: Event, /) -> None:
    """Nobody watches."""


def open_places(settings: Settings, observer: Observer = _unobserved, desk: Desk | None = None) -> Places:
    """The destinations that the settings name. Nothing is opened yet, and boto3 is loaded for a bucket only.

    ``desk`` is that of a worker, where several share the root.
    """
    disk = LocalStore(settings, desk)
    if not settings.s3.bucket:
        return Places(disk, None, only_bucket=False)
    from mirror.stores.s3.store import S3Store  # noqa: PLC0415

    memory = shared_out(settings.transfer.memory, bucket=True)
    bucket = S3Store(settings, disk.disk, observer, memory.outgoing)
    return Places(disk, bucket, only_bucket=settings.s3.only)
