"""What a thread takes from a source straight into a partial file: all of it, in order, and nobody else at that file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror.errors import StoreError
from mirror.stores import Head
from mirror.stores.local import LocalStore
from tests import media
from tests.store_runs import TARGET, in_store

MIB = 1 << 20
FILM = media.blob(6 * MIB)
LONG = Head(length=len(FILM), etag='"1"')


class Bytes:
    """A source that has these, so many in one turn; ``gate`` is waited for before each."""

    def __init__(self, content: bytes, turn: int = MIB, pieces: Sequence[bytes] = ()) -> None:
        self.pieces = pieces
        self.gate: threading.Event | None = None
        self.begun = threading.Event()
        self._content = content
        self._turn = turn

    def fill(self, buffer: memoryview, *, patient: bool = True) -> int:
        del patient
        self.begun.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        size = min(len(buffer), self._turn, len(self._content))
        buffer[:size] = self._content[:size]
        self._content = self._content[size:]
        return size


def held(root: Path) -> list[tuple[int, int]]:
    """What the next run takes up, each byte of it compared with the film's."""

    async def act(store: LocalStore) -> list[tuple[int, int]]:
        sink = await store.sink(TARGET)
        spans = [(span.start, span.stop) for span in sink.written()]
        [partial] = (root / ".mirror" / "parts").glob("*.part")
        content = partial.read_bytes()
        assert all(content[start:stop] == FILM[start:stop] for start, stop in spans)
        await sink.close()
        return spans

    return in_store(root, act)


def test_all_that_a_source_has_follows_what_came_before(root: Path) -> None:
    """A turn that fills the buffer is followed by another, one that does not ends it; the buffer is used again."""

    async def act(store: LocalStore) -> str:
        sink = await store.sink(TARGET)
        await sink.begin(LONG)
        await sink.write(0, FILM[:1000])
        source = Bytes(FILM[70_000 : 3 * MIB + 5], pieces=[FILM[2000:3000], FILM[3000:70_000]])
        assert await sink.draw(1000, FILM[1000:2000], source) == 3 * MIB + 5 - 1000
        assert await sink.draw(3 * MIB + 5, FILM[3 * MIB + 5 : 4 * MIB], Bytes(FILM[4 * MIB :], 5)) == MIB
        await sink.write(4 * MIB + 5, FILM[4 * MIB + 5 :])
        receipt = await sink.commit()
        await sink.close()
        return receipt.path

    assert (root / "p" / in_store(root, act)).read_bytes() == FILM


def test_what_was_drawn_is_held_after_a_kill(root: Path) -> None:
    async def act(store: LocalStore) -> None:
        sink = await store.sink(TARGET)
        await sink.begin(LONG)
        await sink.draw(0, FILM[:MIB], Bytes(FILM[MIB : 3 * MIB + 7]))
        assert [(span.start, span.stop) for span in sink.written()] == [(0, 3 * MIB + 7)]
        # neither closed nor flushed

    in_store(root, act)
    assert held(root) == [(0, 3 * MIB + 7)]


def test_a_segment_waits_while_a_thread_draws(root: Path) -> None:
    """One thread at a time writes a file's claims and hashes it: two would tear both."""

    async def act(store: LocalStore) -> str:
        sink = await store.sink(TARGET)
        await sink.begin(LONG)
        source = Bytes(FILM[MIB : 2 * MIB])
        source.gate = threading.Event()
        drawing = asyncio.create_task(sink.draw(0, FILM[:MIB], source))
        assert await asyncio.to_thread(source.begun.wait, 60)
        others = [asyncio.create_task(sink.write(at * MIB, FILM[at * MIB : (at + 1) * MIB])) for at in (3, 4, 5)]
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not any(other.done() for other in others)
        assert [(span.start, span.stop) for span in sink.written()] == [(0, MIB)]
        source.gate.set()
        await asyncio.gather(drawing, *others)
        await sink.write(2 * MIB, FILM[2 * MIB : 3 * MIB])
        receipt = await sink.commit()
        await sink.close()
        return receipt.path

    assert (root / "p" / in_store(root, act)).read_bytes() == FILM


def test_who_is_cancelled_waits_for_the_thread(root: Path) -> None:
    async def act(store: LocalStore) -> None:
        sink = await store.sink(TARGET)
        await sink.begin(LONG)
        source = Bytes(FILM[MIB:])
        source.gate = threading.Event()
        drawing = asyncio.create_task(sink.draw(0, FILM[:MIB], source))
        assert await asyncio.to_thread(source.begun.wait, 60)
        drawing.cancel()
        await asyncio.sleep(0.05)
        assert not drawing.done()
        source.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await drawing
        assert [(span.start, span.stop) for span in sink.written()] == [(0, 2 * MIB)]
        await sink.close()

    in_store(root, act)
    assert held(root) == [(0, 2 * MIB)], "what is there after the stop is not asked for"


def test_a_disk_that_is_full_in_the_middle(root: Path) -> None:
    """What was claimed before stays; the error says which file it is."""

    async def act(store: LocalStore) -> None:
        sink = await store.sink(TARGET)
        await sink.begin(LONG)
        await sink.draw(0, FILM[:MIB], Bytes(b""))
        (root / ".mirror" / "parts").rename(root / ".mirror" / "away")
        other = await store.sink(TARGET)
        await other.begin(LONG)
        with pytest.raises(StoreError, match=r"p/film\.mp4"):
            await other.draw(0, FILM[:MIB], Bytes(FILM[MIB:]))
        (root / ".mirror" / "away").rename(root / ".mirror" / "parts")

    in_store(root, act)
    assert held(root) == [(0, MIB)]
