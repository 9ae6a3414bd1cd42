"""What an archive holds, read from its manifests: for whoever shows it or hands it on. No catalog or lock is needed.

A manifest names only what was durable before, so what is read here while a run is under way is true as well.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path

from msgspec import Struct

from mirror import names
from mirror.errors import ConfigError, MirrorError, Severity, StoreUnavailable
from mirror.manifests.document import decode
from mirror.models import Manifest, ManifestFile, PromptId
from mirror.places import Places
from mirror.stores import MANIFEST, Document
from mirror.stores.local import LocalStore

_PAGE = 200
_FURTHER = 8
"""So many names of a folder are tried for one promptId; a second one is seldom needed."""
_SEEN = 2
"""In so many of them it is looked for one that cannot be read."""
_BLOCK = 1 << 20


class Holding(Struct, frozen=True, kw_only=True):
    """One prompt. ``content`` is its manifest byte for byte, ``folder`` where that and the files stand."""

    folder: str
    manifest: Manifest
    content: bytes


class Absent(Struct, frozen=True, kw_only=True):
    """What was asked for, or stands there, and cannot be told of; ``why`` is for a person."""

    what: str
    why: str


class Holdings:
    """The prompts of one place, the disk or the bucket: in the order of their folders, or as they are asked for."""

    def __init__(self, places: Places, *, in_bucket: bool = False) -> None:
        if in_bucket and places.bucket is None:
            raise ConfigError("no bucket is configured: give [s3] bucket, or --bucket s3://bucket/prefix")
        self._places = places
        self._in_bucket = in_bucket

    @property
    def disk(self) -> LocalStore | None:
        """The local store, where it is the disk that is read."""
        return None if self._in_bucket else self._places.disk

    async def all(self) -> AsyncGenerator[Holding | Absent, None]:
        """Every prompt of the archive; of a folder without a manifest nothing is said, of one that is not read is.

        Raises:
            StoreError: the place cannot be read.
        """
        async with aclosing(self._folders()) as pages:
            async for page in pages:
                for folder, document in zip(page, await self._read(page), strict=True):
                    if document is not None:
                        yield _held(folder, document)
                    elif (unread := await self._unread(folder)) is not None:
                        yield unread

    async def some(self, ids: AsyncIterable[Sequence[PromptId]]) -> AsyncGenerator[Holding | Absent, None]:
        """These prompts, each once.

        Raises:
            StoreError: the place cannot be read.
        """
        seen: set[PromptId] = set()
        async for batch in ids:
            fresh = [each for each in dict.fromkeys(batch) if each not in seen]
            seen.update(fresh)
            for start in range(0, len(fresh), _PAGE):
                for found in await self._look_up(fresh[start : start + _PAGE]):
                    yield found

    def path(self, holding: Holding, file: ManifestFile | None = None) -> str | None:
        """Where a file stands (without one: the manifest), relative to the root, or to the bucket's prefix.

        A key may end in another name than the file's path. None of a file that the manifest does not say to be there.
        """
        if file is None or not self._in_bucket:
            return f"{holding.folder}/{file.path if file is not None else MANIFEST}"
        bucket = self._places.bucket
        assert bucket is not None
        if file.s3 is None or not bucket.owns(file.s3):
            return None
        return file.s3.key.removeprefix(bucket.objects.key(""))

    async def blocks(self, holding: Holding, file: ManifestFile) -> AsyncGenerator[bytes, None]:
        """A file's bytes as they stand there, at most 1 MiB at a time. They are not compared with the manifest.

        Raises:
            StoreError: it is gone, or cannot be read; of ``ITEM`` severity where others may be.
        """
        blocks = self._of_object(file) if self._in_bucket else self._places.disk.read(holding.folder, file)
        async with aclosing(blocks):
            async for block in blocks:
                yield block

    async def _of_object(self, file: ManifestFile) -> AsyncGenerator[bytes, None]:
        from mirror.stores.s3.reading import object_blocks  # noqa: PLC0415 - boto3, for a bucket only

        bucket = self._places.bucket
        assert bucket is not None
        if file.s3 is None or not bucket.owns(file.s3):
            told = f"{file.path}: the manifest names no object of this bucket"
            raise StoreUnavailable(told, severity=Severity.ITEM)
        async with aclosing(object_blocks(bucket.objects.control, file.s3.key, _BLOCK, attempts=5)) as blocks:
            async for block in blocks:
                yield block

    async def _folders(self) -> AsyncGenerator[list[str], None]:
        if self._in_bucket:
            assert self._places.bucket is not None
            await self._places.ready()
            async for page in self._places.bucket.folders():
                yield page
            return
        disk = self._places.disk
        found = await disk.disk.run(lambda: sorted([*disk.folders(), *disk.links()]))
        for start in range(0, len(found), _PAGE):
            yield found[start : start + _PAGE]

    async def _read(self, folders: Sequence[str]) -> list[Document | None]:
        if not self._in_bucket:
            return await self._places.disk.read_manifests(folders)
        assert self._places.bucket is not None
        await self._places.ready()
        return await self._places.bucket.read_manifests(folders)

    async def _unread(self, folder: str) -> Absent | None:
        """The manifest that is there, where none could be read: not to tell of that would be to lose a prompt."""
        if not self._in_bucket:
            disk = self._places.disk
            return await disk.disk.run(_unread_on_disk, disk.root, folder)
        assert self._places.bucket is not None
        objects = self._places.bucket.objects
        try:
            is_there = await objects.find(objects.key(folder, MANIFEST)) is not None
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            is_there = True
        return _unreadable(folder) if is_there else None

    async def _look_up(self, ids: Sequence[PromptId]) -> list[Holding | Absent]:
        """Most stand in the first folder that comes to mind; who had to make room for another, in one of the next."""
        found: dict[PromptId, Holding | Absent] = {
            each: Absent(what=each, why=f"no {MANIFEST} of it is there") for each in ids
        }
        tries = {each: _folders_of(each) for each in ids}
        unread: dict[PromptId, list[str]] = {each: [] for each in ids}
        for turn in range(_FURTHER):
            left = [each for each in ids if isinstance(found[each], Absent) and turn < len(tries[each])]
            documents = await self._read([tries[each][turn] for each in left]) if left else []
            for each, document in zip(left, documents, strict=True):
                if document is None:
                    unread[each].append(tries[each][turn])
                    continue
                held = _held(tries[each][turn], document)
                if isinstance(held, Absent) or held.manifest.prompt_id == each:
                    found[each] = held
        for each in (each for each in ids if isinstance(found[each], Absent)):
            for folder in unread[each][:_SEEN]:
                found[each] = await self._unread(folder) or found[each]
        return [found[each] for each in ids]


def _unread_on_disk(root: Path, folder: str) -> Absent | None:
    is_link = (root / folder).is_symlink()
    if is_link and not os.path.exists(root / folder):  # noqa: PTH110 - it never raises
        return Absent(what=folder, why="is a symlink to nothing: is the disk mounted that it leads to?")
    if not _is_there(root / folder / MANIFEST):
        return None
    return Absent(what=folder, why="is a symlink: nothing is read through it") if is_link else _unreadable(folder)


def _unreadable(folder: str) -> Absent:
    return Absent(what=f"{folder}/{MANIFEST}", why="cannot be read")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # something is, and nobody may look at it
        return True
    return True


def _folders_of(prompt_id: PromptId) -> list[str]:
    plain, suffixed = names.for_prompt(prompt_id)
    return list(dict.fromkeys([plain, *islice(names.candidates(suffixed, prompt_id), _FURTHER - 1)]))


def _held(folder: str, document: Document) -> Holding | Absent:
    try:
        manifest = decode(document.content)
    except StoreUnavailable as error:
        return Absent(what=f"{folder}/{MANIFEST}", why=str(error))
    if not names.may_be_folder(folder, manifest.prompt_id):
        return Absent(what=f"{folder}/{MANIFEST}", why="it is not this folder's: it tells of another prompt")
    return Holding(folder=folder, manifest=manifest, content=document.content)
