"""What a run does with the local store, from its opening to its end, and what stands on disk after it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from mirror import Settings, load_settings
from mirror.models import Receipt, Span
from mirror.stores import Head, Sink, Target
from mirror.stores.local import LocalStore
from tests import media

T = TypeVar("T")

BODY = media.blob(200_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
HEAD = Head(length=len(BODY), etag='"1"', last_modified="Wed, 28 Jan 2026 10:03:40 GMT", content_type="video/mp4")
TARGET = Target(identity="http://o/film.mp4", folder="p", names=("film.mp4", "film-1.mp4"))
AGAIN = Target(identity=TARGET.identity, folder="p", names=("film.mp4",), sha256=SHA256)
"""The same file where it was mirrored before: only those bytes will do."""


def settings(root: Path, **values: Any) -> Settings:
    return load_settings(root=root, **{"transfer_min_free_space": 0, **values})


def in_store(root: Path, act: Callable[[LocalStore], Awaitable[T]], **values: Any) -> T:
    """What a process does with the store from its opening to its end."""

    async def run() -> T:
        store = LocalStore(settings(root, **values))
        store.open()
        try:
            return await act(store)
        finally:
            store.close()

    return asyncio.run(run())


async def put(sink: Sink, *spans: tuple[int, int]) -> None:
    """Write these spans of the body, one batch each."""
    for start, stop in spans:
        await sink.write(start, BODY[start:stop])
        await sink.flush()


def held_after(root: Path, *spans: tuple[int, int], head: Head = HEAD, target: Target = TARGET) -> None:
    """A run that got these spans, and ended."""

    async def act(store: LocalStore) -> None:
        sink = await store.sink(target)
        await sink.begin(head)
        await put(sink, *spans)
        await sink.close()

    in_store(root, act)


def recovered(root: Path, target: Target = TARGET) -> list[tuple[int, int]]:
    """What the next run finds held, then lets go; each byte of it is right on disk."""

    async def act(store: LocalStore) -> list[tuple[int, int]]:
        sink = await store.sink(target)
        held = [(span.start, span.stop) for span in sink.written()]
        await sink.close()
        return held

    held = in_store(root, act)
    if held:
        on_disk = part(root).read_bytes()
        assert all(on_disk[start:stop] == BODY[start:stop] for start, stop in held)
    return held


def finished(root: Path, target: Target = TARGET) -> Receipt:
    """The receipt of a run that fetches what is missing and commits."""

    async def act(store: LocalStore) -> Receipt:
        sink = await store.sink(target)
        if sink.committed is None:
            await complete(sink)
            await sink.commit()
        await sink.close()
        assert sink.committed is not None
        await store.settle(target.identity)
        return sink.committed

    return in_store(root, act)


async def complete(sink: Sink) -> None:
    """Write what is missing of the body."""
    if sink.head is None:
        await sink.begin(HEAD)
    at = 0
    for span in [*sink.written(), Span(len(BODY), len(BODY))]:
        if at < span.start:
            await put(sink, (at, span.start))
        at = span.stop


def parts(root: Path) -> list[str]:
    return sorted(path.suffix for path in (root / ".mirror" / "parts").iterdir())


def part(root: Path) -> Path:
    [found] = (root / ".mirror" / "parts").glob("*.part")
    return found


def journal(root: Path) -> Path:
    [found] = (root / ".mirror" / "parts").glob("*.journal")
    return found


def is_right(root: Path, receipt: Receipt) -> bool:
    published = (root / "p" / receipt.path).read_bytes()
    return published == BODY and (receipt.bytes, receipt.sha256) == (len(BODY), SHA256) and parts(root) == []
