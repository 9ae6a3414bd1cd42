"""A Store in a bucket: the same tree as on disk, under ``s3://<bucket>/<prefix>/``."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from mirror import names
from mirror.errors import MirrorError, Obstructed, Severity, StoreUnavailable
from mirror.events import Observer
from mirror.http import read_most
from mirror.limits import ByteBudget, open_files_cap
from mirror.manifests.document import decode_if_sound, receipt, says_more
from mirror.models import ManifestFile, Placed, Receipt, S3Object
from mirror.settings import Settings
from mirror.stores import LARGEST_MANIFEST, MANIFEST, Document, Target, Wanted
from mirror.stores.disk import INTERNAL, Disk
from mirror.stores.s3.checksums import same_etag
from mirror.stores.s3.control import Control, needed
from mirror.stores.s3.copy import Copier
from mirror.stores.s3.errors import NoSuchKey
from mirror.stores.s3.exchange import Exchange
from mirror.stores.s3.multipart import Uploads
from mirror.stores.s3.objects import Found, Objects, Prints
from mirror.stores.s3.sink import ObjectSink
from mirror.stores.s3.wire import Wire

_MANIFESTS_AT_ONCE = 64
_LOOKS_AT_ONCE = 16
_PRESIGNED = 3600

_ABNORMAL = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|[\x00-\x1f\x7f-\x9f]")
"""In a key: a segment that is empty, ``.`` or ``..``, or a control character. None of ours has one."""


class S3Store:
    """A Store under ``[s3] bucket`` and ``prefix``. Journals of what is under way stand on ``disk``."""

    def __init__(self, settings: Settings, disk: Disk, observer: Observer, memory: int) -> None:
        self.settings = settings.s3
        self._control = Control(settings, observer)
        self._wire = Wire(settings, self._control, observer, open_files_cap())
        self.objects = Objects(settings, self._control, self._wire, disk)
        self.uploads = Uploads(self.objects)
        self._copier = Copier(settings, self.objects, observer)
        self._budget = ByteBudget(memory)
        self._opening = asyncio.Lock()
        self.is_open = False
        self.exchange = Exchange(self.objects)
        self._destination = "\n".join(("", *self.home))

    async def open(self) -> None:
        """Find credentials, bucket and region. Does so once.

        Raises:
            ConfigError, StoreError: it cannot be worked with, and why.
        """
        async with self._opening:
            if not self.is_open:
                await self._control.open()
                await self.uploads.scan()
                self.is_open = True

    async def close(self) -> None:
        async with contextlib.AsyncExitStack() as closing:  # each, even where one is cancelled
            closing.callback(self._control.close)
            closing.push_async_callback(self._copier.close)
            closing.push_async_callback(self._wire.close)

    @property
    def shown(self) -> str:
        """The destination, for a log line."""
        return self.objects.where(self.objects.key("")).rstrip("/")

    @property
    def home(self) -> tuple[str, str, str]:
        """Endpoint, bucket, and what all keys begin with: what tells this destination from another."""
        return (self.settings.endpoint_url, self.settings.bucket, self.objects.key(""))

    @property
    def region(self) -> str:
        """Where the bucket is, as far as it is known."""
        return self._control.region

    def owns(self, where: S3Object | Placed | None) -> bool:
        """Whether an object of a manifest or row stands in this destination, under a key that we could have given.

        A manifest is not trusted: ``prefix/../x`` is another place for whoever takes keys for paths.
        """
        if where is None or (isinstance(where, Placed) and where.endpoint != self.settings.endpoint_url):
            return False
        if where.bucket != self.settings.bucket or not where.key.startswith(self.objects.key("")):
            return False
        return _ABNORMAL.search(where.key.removeprefix(self.objects.key(""))) is None

    def _placed(self, key: str, etag: str, version_id: str | None = None) -> Placed:
        return Placed(
            endpoint=self.settings.endpoint_url,
            bucket=self.settings.bucket,
            key=key,
            etag=etag,
            version_id=version_id,
        )

    # The Store protocol ------------------------------------------------------------------------

    async def sink(self, target: Target, via: str = "stream") -> ObjectSink:
        name = self._name(target.identity)
        sink = ObjectSink(self.uploads, self._budget, target, name, via)
        try:
            if self.uploads.has(name):
                await self.uploads.take_left(name)
                await sink.recover()
        except BaseException:
            await sink.close()
            raise
        return sink

    async def settle(self, identity: str) -> None:
        name = self._name(identity)
        if not self.uploads.has(name):
            return
        await self.uploads.take_left(name)
        journal = self.uploads.journal(name)
        if name not in self.uploads.completed:  # the file came another way: what was begun is not left about
            await self.uploads.abort(*await self.uploads.hop(journal, partial(self.uploads.read, journal)))
        await self.uploads.remove(journal)

    async def present(self, wanted: Sequence[Wanted]) -> list[set[str]]:
        """What the records say: a bucket loses nothing, and to ask would cost a request a file."""
        return [self._present_in(each) for each in wanted]

    def _present_in(self, wanted: Wanted) -> set[str]:
        manifest = wanted.manifest
        if manifest is not None and manifest.endpoint != self.settings.endpoint_url:
            return set()  # a bucket of this name, in another store
        folder = self.objects.key(wanted.folder, "")
        there = {
            file.path
            for file in wanted.files
            if file.s3 is not None and self.owns(file.s3) and file.s3.key.rpartition("/")[0] == folder[:-1]
        }
        return there | {MANIFEST} if manifest is not None and self.is_manifest(manifest, wanted.folder) else there

    def is_manifest(self, placed: Placed, folder: str) -> bool:
        """Whether the current manifest of a folder stands where it should, as far as we know."""
        return placed.current and self.owns(placed) and placed.key == self.objects.key(folder, MANIFEST)

    async def find_again(self, target: Target, file: ManifestFile) -> Receipt | None:
        """By the object's own checksum, else by reading it back: a request for what is gone."""
        known = file.s3 if self.owns(file.s3) else None
        prints = Prints(size=file.bytes, sha256=file.sha256, etag=known.etag if known is not None else None)
        first = known.key.rpartition("/")[2] if known is not None else file.path
        try:
            for name in dict.fromkeys((first, *target.names)):
                key = self.objects.key(target.folder, name)
                found = await self.objects.find(key)
                if found is None:
                    return None
                if await self.objects.same(key, found, prints):
                    via = known.via if known is not None else "stream"
                    return receipt(file, path=name, s3=found.as_object(self.settings.bucket, key, via))
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
        return None

    async def adopt(self, source: tuple[str, ManifestFile], target: Target) -> Receipt | None:
        _, file = source
        if file.s3 is None or not self.owns(file.s3):
            return None
        made = await self._copier.again(file.s3.key, file.s3.etag, file.sha256, target)
        if made is None:
            return None
        return receipt(file, path=made.path, s3=made.s3)

    async def copy(self, url: str, target: Target, etag: str | None = None) -> Receipt | None:
        """A server-side copy of what a URL names; None where that is not possible or not allowed."""
        return await self._copier.copy(url, target, etag)

    async def write_manifest(self, folder: str, content: bytes, known: Placed | None = None) -> Placed | None:
        key = self.objects.key(folder, MANIFEST)
        etag = known.etag if known is not None and self.owns(known) else None
        for _ in range(3):
            found = await self._put_manifest(key, content, etag)
            if found is not None:
                return self._placed(key, found.etag, found.version_id)
            there = await self.objects.find(key)
            if there is None:
                etag = None
                continue
            before = await self._read(key)
            if before == content:
                return self._placed(key, there.etag, there.version_id)
            theirs, ours = decode_if_sound(before), decode_if_sound(content)
            if theirs is None or ours is None or not (says_more(theirs, ours) or says_more(ours, theirs)):
                raise Obstructed(
                    f"{self.objects.where(key)}: another archive mirrored other files or bytes of this prompt there: "
                    "give each a prefix of its own, or move it away"
                )
            if not says_more(ours, theirs):
                return self._placed(key, there.etag, there.version_id)  # another archive has come further
            etag = there.etag
        raise StoreUnavailable(f"{self.objects.where(key)}: another run writes it too", severity=Severity.ITEM)

    async def _put_manifest(self, key: str, content: bytes, etag: str | None) -> Found | None:
        """None where the manifest that is there is not the one that we know of."""
        sha256 = hashlib.sha256(content).hexdigest()
        return await self.exchange.put(key, [content], sha256, etag, "application/json")

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        room = asyncio.Semaphore(_MANIFESTS_AT_ONCE)

        async def read(folder: str) -> Document | None:
            async with room:
                try:
                    return await self._document(folder)
                except MirrorError as error:
                    if error.severity is Severity.FATAL:
                        raise
                    return None  # who writes there will be told why it cannot be read

        return list(await asyncio.gather(*(read(folder) for folder in folders)))

    async def _document(self, folder: str) -> Document | None:
        key = self.objects.key(folder, MANIFEST)
        etag: list[str] = []
        content = await self._read(key, etag)
        if content is None:
            return None
        return Document(content=content, placed=self._placed(key, etag[0]))

    async def _read(self, key: str, etag: list[str] | None = None) -> bytes | None:
        async def once() -> bytes | None:
            async with self._wire.get(key) as response:
                if (response.content_length or 0) > LARGEST_MANIFEST:
                    return None
                if etag is not None:
                    etag[:] = [response.headers.get("ETag", "")]
                content = await read_most(response, LARGEST_MANIFEST)
                return content if len(content) <= LARGEST_MANIFEST else None

        try:
            return await self._control.patiently(self.objects.where(key), once)
        except NoSuchKey:
            return None

    # For what comes from here ------------------------------------------------------------------

    async def has(self, file: ManifestFile) -> bool:
        """Whether the object of a file is there, by its own word: to be asked for is a request."""
        if file.s3 is None:
            return False
        found = await self.objects.find(file.s3.key)
        return found is not None and found.size == file.bytes and same_etag(found.etag, file.s3.etag)

    async def still_has(self, files: Sequence[ManifestFile]) -> list[ManifestFile]:
        """Those of these files whose objects are there, a request each."""
        room = asyncio.Semaphore(_LOOKS_AT_ONCE)

        async def look(file: ManifestFile) -> bool:
            async with room:
                return await self.has(file)

        there = await asyncio.gather(*map(look, files))
        return [file for file, is_there in zip(files, there, strict=True) if is_there]

    async def folders(self) -> AsyncGenerator[list[str], None]:
        """The names of all folders that could be a prompt's, in pages of at most a thousand: a request each."""
        prefix = self.objects.key("")
        async for answer in self._control.pages("ListObjectsV2", Prefix=prefix, Delimiter="/"):
            told = [needed(each, "Prefix", "ListObjectsV2") for each in answer.get("CommonPrefixes", ())]
            found = [name[len(prefix) : -1] for name in told]
            yield [folder for folder in found if folder not in (INTERNAL, names.GALLERY)]

    async def keys(self) -> AsyncGenerator[list[str], None]:
        """All keys under the prefix, in pages of at most a thousand: a request each."""
        async for answer in self._control.pages("ListObjectsV2", Prefix=self.objects.key("")):
            yield [needed(each, "Key", "ListObjectsV2") for each in answer.get("Contents", ())]

    async def url(self, key: str) -> str:
        """A URL to fetch an object of ours by, signed, good for an hour."""
        identity = await self._control.fresh_identity()
        return identity.presigned(self._control.address.url(key), self._control.region, _PRESIGNED)

    async def read_span(self, where: S3Object, start: int, stop: int) -> bytes:
        """Bytes of an object of ours, of the very version that was put there.

        Raises:
            StoreError: it is gone, is another one, or cannot be read.
        """

        async def once() -> bytes:
            headers = {"Range": f"bytes={start}-{stop - 1}", "If-Match": where.etag}
            async with self._wire.get(where.key, headers) as response:
                data = await read_most(response, stop - start)
                if response.status != 206 or len(data) != stop - start:
                    told = f"{self.objects.where(where.key)}: the store serves no ranges"
                    raise StoreUnavailable(told, severity=Severity.ITEM)
                return data

        return await self._control.patiently(self.objects.where(where.key), once)

    async def delete(self, placed: Sequence[S3Object | Placed]) -> list[str]:
        """Delete objects, in this order. Returns the URLs of those that are not what we put there: they stay."""
        left = []
        for each in placed:
            found = await self.objects.find(each.key)
            if found is not None and same_etag(found.etag, each.etag):
                await self._control.call("DeleteObject", Key=each.key)
            elif found is not None:
                left.append(self.objects.where(each.key))
        return left

    async def cleanup(self) -> int:
        """Abort the multipart uploads that the journals on disk name, and only those; returns how many."""
        aborted = 0
        for name in self.uploads.names:
            journal = self.uploads.journal(name)
            meant, begun = await self.uploads.hop(journal, partial(self.uploads.read, journal))
            here = (self.settings.endpoint_url, self.settings.bucket)
            if meant is not None and (meant.endpoint, meant.bucket) != here:
                continue  # another bucket's: named until that one is configured
            aborted += await self.uploads.abort(meant, begun)
            await self.uploads.remove(journal)
        return aborted

    def _name(self, identity: str) -> str:
        """A journal's name: one file in one destination."""
        return hashlib.sha256(f"{identity}{self._destination}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
