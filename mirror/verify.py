"""Compares what the manifests say with what is there: on disk by hashing, in the bucket by the store's checksums."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct

from mirror.catalog import Catalog
from mirror.digests import Digests
from mirror.errors import MirrorError, Severity
from mirror.manifests.document import decode_if_sound, says_more
from mirror.models import ManifestFile, PromptId, PromptState
from mirror.places import Places
from mirror.stores import MANIFEST, Document

if TYPE_CHECKING:
    from mirror.stores.s3.objects import Found

_PAGE = 200
_AT_ONCE = 16


class Checked(Struct, frozen=True, kw_only=True):
    """What was found of one file: ``flaw`` is None where all is well, else ``missing``, ``damaged`` or ``unreadable``.

    ``where`` is the path on disk, or the object's URL.
    """

    prompt_id: str
    where: str
    bytes: int = 0
    flaw: str | None = None
    detail: str = ""


class Verify:
    """``deep`` reads every object back; without it the store's own checksums are compared."""

    def __init__(self, places: Places, catalog: Catalog, *, deep: bool = False) -> None:
        self._places = places
        self._catalog = catalog
        self._deep = deep

    async def on_disk(self, prompt_ids: Sequence[PromptId] = ()) -> AsyncGenerator[Checked, None]:
        """Every file of these prompts (of all, without any), hashed.

        Raises:
            CatalogError, StoreError: nothing more can be checked.
        """
        async for checked in self._each(
            prompt_ids, self._disk_file, self._disk_manifest, self._places.disk.read_manifests
        ):
            yield checked

    async def in_bucket(self, prompt_ids: Sequence[PromptId] = ()) -> AsyncGenerator[Checked, None]:
        """The same of the bucket."""
        await self._places.ready()
        async for checked in self._each(
            prompt_ids, self._bucket_file, self._bucket_manifest, self._places.read_manifests
        ):
            yield checked

    async def _each(
        self,
        prompt_ids: Sequence[PromptId],
        look: Callable[[str, str, ManifestFile], Awaitable[Checked]],
        look_at_manifest: Callable[[str, str, bytes], Awaitable[Checked]],
        read: Callable[[Sequence[str]], Awaitable[list[Document | None]]],
    ) -> AsyncIterator[Checked]:
        ids = prompt_ids or await self._catalog.prompt_ids()
        room = asyncio.Semaphore(_AT_ONCE)

        async def held(checked: Awaitable[Checked]) -> Checked:
            async with room:
                return await checked

        for page in _pages(ids):
            checks: list[Awaitable[Checked]] = []
            async for prompt_id, folder, content in self._manifests(page, read):
                manifest = decode_if_sound(content)
                if content is None or manifest is None:
                    flaw = "missing" if content is None else "damaged"
                    yield Checked(prompt_id=prompt_id, where=f"{folder}/{MANIFEST}", flaw=flaw)
                    continue
                checks += [look(prompt_id, folder, file) for file in manifest.files]
                checks.append(look_at_manifest(prompt_id, folder, content))
            for checked in await asyncio.gather(*map(held, checks)):
                yield checked

    async def _manifests(
        self, page: Sequence[PromptId], read: Callable[[Sequence[str]], Awaitable[list[Document | None]]]
    ) -> AsyncIterator[tuple[str, str, bytes | None]]:
        records = await self._catalog.records(page)
        written = [
            record
            for record in (records[prompt_id] for prompt_id in page if prompt_id in records)
            if record.state not in (PromptState.UNKNOWN, PromptState.UNRESOLVED) or record.stored()
        ]
        for prompt_id in page:
            if prompt_id not in records:
                yield prompt_id, prompt_id, None
        documents = await read([record.folder for record in written])
        for record, document in zip(written, documents, strict=True):
            yield record.prompt_id, record.folder, document.content if document is not None else None

    # On disk -----------------------------------------------------------------------------------

    async def _disk_file(self, prompt_id: str, folder: str, file: ManifestFile) -> Checked:
        where = f"{folder}/{file.path}"
        digests = Digests()
        try:
            async with contextlib.aclosing(self._places.disk.read(folder, file.path)) as blocks:
                async for block in blocks:
                    await self._places.disk.disk.run(digests.update, block)
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            gone = isinstance(error.__cause__, FileNotFoundError)
            return Checked(
                prompt_id=prompt_id, where=where, flaw="missing" if gone else "unreadable", detail=str(error)
            )
        wrong = _difference(digests, file)
        return Checked(
            prompt_id=prompt_id, where=where, bytes=digests.at, flaw="damaged" if wrong else None, detail=wrong
        )

    async def _disk_manifest(self, prompt_id: str, folder: str, content: bytes) -> Checked:
        return Checked(prompt_id=prompt_id, where=f"{folder}/{MANIFEST}", bytes=len(content))

    # In the bucket -----------------------------------------------------------------------------

    async def _bucket_file(self, prompt_id: str, folder: str, file: ManifestFile) -> Checked:
        bucket = self._places.bucket
        assert bucket is not None
        if file.s3 is None or not bucket.owns(file.s3):
            where = bucket.objects.where(bucket.objects.key(folder, file.path))
            return Checked(prompt_id=prompt_id, where=where, flaw="missing", detail="the manifest names no object")
        where = f"s3://{file.s3.bucket}/{file.s3.key}"
        try:
            found = await bucket.objects.find(file.s3.key)
            if found is None:
                return Checked(prompt_id=prompt_id, where=where, flaw="missing")
            wrong = await self._compare(file, found)
            if self._deep and not wrong:
                wrong = _difference(await bucket.objects.read_back(file.s3.key, found, Digests()), file)
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            return Checked(prompt_id=prompt_id, where=where, flaw="unreadable", detail=str(error))
        size = found.size if wrong or not self._deep else file.bytes
        return Checked(prompt_id=prompt_id, where=where, bytes=size, flaw="damaged" if wrong else None, detail=wrong)

    async def _compare(self, file: ManifestFile, found: Found) -> str:
        """What is wrong with an object; empty where nothing is."""
        bucket = self._places.bucket
        assert bucket is not None
        assert file.s3 is not None
        if found.size != file.bytes:
            return f"{found.size} bytes, not {file.bytes}"
        expected = {"checksum_sha256": file.s3.checksum_sha256, "checksum_crc64nvme": file.s3.checksum_crc64nvme}
        known = {name: value for name, value in expected.items() if value not in (None, UNSET)}
        if known and not any(getattr(found, name) for name in known):
            found = await bucket.objects.with_attributes(file.s3.key, found)
        for name, value in known.items():
            told = getattr(found, name)
            if told is not None:
                return "" if told == value else f"its {name} is {told}, not {value}"
        if bucket.objects.is_of(found, file.sha256):
            return ""
        if found.etag.strip('"') != file.s3.etag.strip('"'):
            return f"its ETag is {found.etag}, not {file.s3.etag}: another object was put there"
        return ""

    async def _bucket_manifest(self, prompt_id: str, folder: str, content: bytes) -> Checked:
        bucket = self._places.bucket
        assert bucket is not None
        where = bucket.objects.where(bucket.objects.key(folder, MANIFEST))
        [document] = await bucket.read_manifests([folder])
        if document is None:
            return Checked(prompt_id=prompt_id, where=where, flaw="missing")
        there, here = decode_if_sound(document.content), decode_if_sound(content)
        same = there is not None and here is not None and says_more(there, here)
        detail = "" if same else "it does not say what the one on disk says"
        return Checked(
            prompt_id=prompt_id, where=where, bytes=len(content), flaw=None if same else "damaged", detail=detail
        )


def _difference(digests: Digests, file: ManifestFile) -> str:
    if digests.at != file.bytes:
        return f"{digests.at} bytes, not {file.bytes}"
    if file.sha256 is not None and digests.sha256 != file.sha256:
        return f"its SHA-256 is {digests.sha256}, not {file.sha256}"
    return ""


def _pages(ids: Sequence[PromptId]) -> list[Sequence[PromptId]]:
    return [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
