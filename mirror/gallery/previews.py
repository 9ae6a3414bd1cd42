"""Small pictures of the mirrored thumbnails, made in processes of their own and kept. Originals are never read.

A preview is named after its thumbnail's SHA-256 and its own size: one look at the names says what there is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from importlib.util import find_spec

from msgspec import Struct

from mirror.errors import MirrorError, Severity, first_error
from mirror.gallery.worker import ASK, READY, TOLD
from mirror.media.confinement import environ_without_secrets
from mirror.media.helper import end
from mirror.models import ManifestFile

FOLDER = "previews-1"
"""The number is the version of how they are made: another one, and all are made anew."""

LARGEST = 16 << 20
"""Bytes of a thumbnail that is looked at."""

_HELPERS = 4
_UNDER_WAY = 16
"""So many thumbnails are read, or their previews written, at once: a bucket takes its time for each."""
_PATIENCE = 20.0
"""Seconds for one picture, on a machine that has other work, too."""
_NAME = re.compile(r"([0-9a-f]{64})-([1-9]\d{0,3})x([1-9]\d{0,3})\.webp", re.ASCII)

Put = Callable[[str, bytes], Awaitable[None]]
Blocks = Callable[[], AsyncGenerator[bytes, None]]


class Preview(Struct, frozen=True, kw_only=True):
    """``name`` is relative to the page, ``width`` and ``height`` are in pixels."""

    name: str
    width: int
    height: int


class Previews:
    """Those that are there (by their names), and more as they are asked for. Use it as a context manager.

    Without Pillow there are no new ones.
    """

    def __init__(self, names: Iterable[str], put: Put) -> None:
        self._known: dict[str, Preview] = {}
        for name in names:
            if found := _NAME.fullmatch(name.removeprefix(f"{FOLDER}/")):
                self._known[found[1]] = Preview(name=f"{FOLDER}/{found[0]}", width=int(found[2]), height=int(found[3]))
        self._put = put
        self.is_off = find_spec("PIL") is None
        self._free: list[_Helper] = []
        self._under_way = asyncio.Semaphore(_UNDER_WAY)
        self._room = asyncio.Semaphore(min(_HELPERS, os.cpu_count() or 1))
        self.used: set[str] = set()
        self.made = 0

    async def __aenter__(self) -> Previews:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._free:
            await self._free.pop().close()

    async def all_of(self, wanted: Mapping[str, tuple[ManifestFile, Blocks]]) -> dict[str, Preview]:
        """The previews of these thumbnails by their keys, as far as they can be had."""
        keys = list(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._of(key, *wanted[key])) for key in keys]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        found = {key: task.result() for key, task in zip(keys, tasks, strict=True)}
        return {key: preview for key, preview in found.items() if preview is not None}

    async def _of(self, key: str, file: ManifestFile, blocks: Blocks) -> Preview | None:
        preview = self._known.get(key)
        if preview is None and not self.is_off and file.bytes <= LARGEST:
            async with self._under_way:
                preview = await self._make(key, file, blocks)
        if preview is not None:
            self.used.add(preview.name)
        return preview

    async def _make(self, key: str, file: ManifestFile, blocks: Blocks) -> Preview | None:
        body = await _whole(file, blocks)
        told = await self._ask(body) if body is not None else None
        if told is None:
            return None
        content, width, height = told
        preview = Preview(name=f"{FOLDER}/{key}-{width}x{height}.webp", width=width, height=height)
        await self._put(preview.name, content)
        self._known[key] = preview
        self.made += 1
        return preview

    async def _ask(self, body: bytes) -> tuple[bytes, int, int] | None:
        async with self._room:
            if self.is_off:
                return None
            helper = self._free.pop() if self._free else _Helper()
            try:
                told = await helper.ask(body)
            except _CannotStartError:
                self.is_off = True
                return None
            except BaseException:
                await helper.close()
                raise
            self._free.append(helper)
            return told


def key_of(file: ManifestFile) -> str:
    """What a thumbnail's preview is found by: its SHA-256; of one that has none, a digest of which object it is."""
    if file.sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", file.sha256, re.ASCII):
        return file.sha256
    told = [file.url, str(file.bytes), *((file.s3.bucket, file.s3.key, file.s3.etag) if file.s3 is not None else ())]
    return hashlib.sha256("\n".join(told).encode("utf-8", "surrogatepass")).hexdigest()


async def _whole(file: ManifestFile, blocks: Blocks) -> bytes | None:
    """A thumbnail's bytes; None where they are not to be had, or are not those that the manifest tells of."""
    parts: list[bytes] = []
    size = 0
    try:
        async with aclosing(blocks()) as coming:
            async for block in coming:
                parts.append(block)
                size += len(block)
                if size > file.bytes:
                    return None
    except MirrorError as error:
        if error.severity is Severity.FATAL:
            raise
        return None
    body = b"".join(parts)
    return body if file.sha256 is None or hashlib.sha256(body).hexdigest() == file.sha256 else None


class _CannotStartError(Exception):
    """No helper can be had, whatever it would be asked."""


class _Helper:
    """A process that makes previews one after the other; a new one takes its place where it died or took too long."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, body: bytes) -> tuple[bytes, int, int] | None:
        """A preview, its width and height; None of what cannot be read."""
        try:
            async with asyncio.timeout(_PATIENCE):
                process = self._process or await self._start()
                return await _exchange(process, body)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            await self.close()
            return None

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environ_without_secrets(os.environ),
                start_new_session=True,  # Ctrl-C is for us; it ends when its stdin does
            )
            assert process.stdout is not None
            await process.stdout.readexactly(len(READY))
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            raise _CannotStartError from None
        return process

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end(process)


_COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "mirror.gallery.worker")
"""``-P``: the working directory, which may be anybody's, is not where modules come from."""


async def _exchange(process: asyncio.subprocess.Process, body: bytes) -> tuple[bytes, int, int] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(ASK.pack(len(body)) + body)
    await process.stdin.drain()
    size, width, height = TOLD.unpack(await process.stdout.readexactly(TOLD.size))
    if not size:
        return None
    if size > LARGEST or not (0 < width < 10_000 and 0 < height < 10_000):
        raise OSError("that is no answer")
    return await process.stdout.readexactly(size), width, height
