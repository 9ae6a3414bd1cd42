"""A bag (RFC 8493): the files beside their digests, as the manifests know them, for whoever keeps it.

``data/`` is laid out as the archive is. Nothing is hashed again on the way, so whoever validates the bag compares it
with what was mirrored.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from mirror import __version__
from mirror.copying import Copy, copied, linked
from mirror.errors import Severity, StoreError, first_error
from mirror.holdings import Holding
from mirror.manifests.formats import Export, FolderFormat, Prompts
from mirror.models import ManifestFile
from mirror.outputs import sync_folder
from mirror.stores import MANIFEST
from mirror.stores.files import translated
from mirror.stores.local import LocalStore
from mirror.stores.workers import Workers
from mirror.times import now

T = TypeVar("T")

_AT_ONCE = 8
_AHEAD = 64
"""Prompts that are under way; their lines stand in the manifest in the order in which they came."""
_BUFFER = 1 << 16
_DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


async def _fill(prompts: Prompts, export: Export, folder: Path) -> None:
    workers = Workers(_AT_ONCE, "mirror-bag")
    try:
        await _Bag(export, folder, workers).fill(prompts)
    except ExceptionGroup as errors:
        raise first_error(errors) from None
    finally:
        workers.close()


class _Taken(Struct, frozen=True):
    """What came into the bag of one prompt: its lines of the manifest, how many files and bytes."""

    lines: str
    files: int
    bytes: int


class _Bag:
    def __init__(self, export: Export, folder: Path, workers: Workers) -> None:
        self._export = export
        self._folder = folder
        self._data = folder / "data"
        self._workers = workers
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._payload = _TagFile(folder / "manifest-sha256.txt")
        self._first: str | None = None
        self._prompts = self._files = self._bytes = 0

    async def fill(self, prompts: Prompts) -> None:
        """Bring all prompts in, several at once, and then the tag files."""
        await self._run(self._data.mkdir)
        under_way: deque[asyncio.Task[_Taken]] = deque()
        async with asyncio.TaskGroup() as group:
            async for holding in prompts:
                self._first = self._first or holding.manifest.prompt_id
                under_way.append(group.create_task(self._take(holding)))
                if len(under_way) == _AHEAD:
                    await self._note(await under_way.popleft())
            while under_way:
                await self._note(await under_way.popleft())
        await self._run(self._finish)

    async def _note(self, taken: _Taken) -> None:
        self._prompts += 1
        self._files += taken.files
        self._bytes += taken.bytes
        if self._payload.add(taken.lines):
            await self._run(partial(self._payload.write, durable=False))

    def _finish(self) -> None:
        durable = self._export.durable
        declaration, info = _TagFile(self._folder / "bagit.txt"), _TagFile(self._folder / "bag-info.txt")
        declaration.add(_DECLARATION)
        info.add("".join(f"{name}: {value}\n" for name, value in self._info()))
        tags = _TagFile(self._folder / "tagmanifest-sha256.txt")
        for each in (declaration, info, self._payload):
            each.write(durable=durable)
            tags.add(_line(each.digest, each.path.name))
        tags.write(durable=durable)
        if durable:
            sync_folder(self._data)
            sync_folder(self._folder)

    def _info(self) -> Iterator[tuple[str, str]]:
        yield "Bag-Software-Agent", f"mirror {__version__}"
        yield "Bagging-Date", now()[:10]
        yield "Payload-Oxum", f"{self._bytes}.{self._files}"
        yield "Bag-Size", _about(self._bytes)
        if self._prompts == 1 and self._first is not None and self._first.isprintable():
            yield "External-Identifier", self._first

    # One prompt --------------------------------------------------------------------------------

    async def _take(self, holding: Holding) -> _Taken:
        """A prompt with its files, durable."""
        folder = self._data / holding.folder
        await self._run(folder.mkdir)
        async with asyncio.TaskGroup() as group:
            files = [(file, group.create_task(self._put(holding, file, folder))) for file in holding.manifest.files]
        await self._run(partial(self._end, folder, holding.content))
        there = [(digest, file) for file, task in files if (digest := task.result()) is not None]
        lines = [_line(digest, f"data/{holding.folder}/{file.path}") for digest, file in there]
        lines.append(_line(hashlib.sha256(holding.content).hexdigest(), f"data/{holding.folder}/{MANIFEST}"))
        return _Taken("".join(lines), len(lines), sum(file.bytes for _, file in there) + len(holding.content))

    def _end(self, folder: Path, manifest: bytes) -> None:
        """The manifest as it was read: the archive's may be another by now."""
        with (folder / MANIFEST).open("xb") as file:
            file.write(manifest)
            file.flush()
            if self._export.durable:
                os.fsync(file.fileno())
        if self._export.durable:
            sync_folder(folder)

    async def _put(self, holding: Holding, file: ManifestFile, folder: Path) -> str | None:
        """Bring a file in. Returns its digest; None where it cannot be had: that is told, and the bag goes without."""
        disk = self._export.disk
        async with self._room:
            try:
                if disk is None:
                    return await self._receive(holding, file, folder / file.path)
                return await self._copy(disk, holding.folder, file, folder / file.path)
            except StoreError as error:
                if error.severity is Severity.FATAL:
                    raise
                self._export.lacks(holding, file, error.message)
                return None

    async def _copy(self, disk: LocalStore, folder: str, file: ManifestFile, target: Path) -> str:
        links = self._export.links and file.sha256 is not None
        if links and await self._run(partial(linked, disk, folder, file, target)):
            return str(file.sha256)
        with closing(copied(disk, folder, file, target, durable=self._export.durable)) as steps:
            digest = None
            while digest is None:
                digest = await self._run(steps.__next__)
        return digest

    async def _receive(self, holding: Holding, file: ManifestFile, target: Path) -> str:
        copy = await self._run(partial(Copy, file, target, durable=self._export.durable))
        try:
            async with aclosing(self._export.blocks(holding, file)) as blocks:
                async for block in blocks:
                    await self._run(partial(copy.write, block))
            return await self._run(copy.end)
        finally:
            copy.drop()

    async def _run(self, call: Callable[[], T]) -> T:
        def translating() -> T:
            with translated(f"{self._folder}"):
                return call()

        return await self._workers.start(translating)


class _TagFile:
    """A text that grows, and its digest. :meth:`write` blocks, and what was added before is not kept after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._pending: list[str] = []
        self._size = 0

    @property
    def digest(self) -> str:
        """Of what was written."""
        return self._hash.hexdigest()

    def add(self, text: str) -> bool:
        """True where so much has come that it should be written."""
        self._pending.append(text)
        self._size += len(text)
        return self._size >= _BUFFER

    def write(self, *, durable: bool) -> None:
        data = "".join(self._pending).encode()
        self._pending.clear()
        self._size = 0
        self._hash.update(data)
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())


def _line(digest: str, path: str) -> str:
    """A line of a manifest: of a path these three characters are spelled, and no others (RFC 8493, 2.1.3)."""
    spelled = path.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"{digest}  {spelled}\n"


def _about(size: int) -> str:
    """Bytes as Bag-Size has them: ``1.2 GB``."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


FORMAT = FolderFormat(
    name="bagit",
    about="A bag (RFC 8493): a folder with the files and their digests.",
    fill=_fill,
    links=True,
)
