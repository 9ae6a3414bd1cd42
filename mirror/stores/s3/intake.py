"""Bytes on their way into the bucket: one part is being sent while the next one fills.

Their memory is taken from a budget before a byte is kept, and given back when the part is there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial

from mirror import spans
from mirror.digests import Digests
from mirror.limits import ByteBudget
from mirror.models import Span
from mirror.stores import Head, Source
from mirror.stores.disk import Disk, is_stopped
from mirror.stores.s3.checksums import Buffers, base64_of
from mirror.stores.s3.multipart import MIB, Multipart, part_size
from mirror.stores.s3.shadow import Shadow

LEAST_SINGLE = 8 * MIB
MOST_SINGLE = 32 * MIB
_SINGLES = (MOST_SINGLE, 16 * MIB, LEAST_SINGLE)
"""A body of at most this size is one PUT, the largest one of which three fit into memory: that takes its SHA-256 once,
and a multipart upload twice for all that comes after its first part, and six requests more."""

TINY = 64 << 10
"""Hashed sooner than a thread could be told to."""

Way = Multipart | Shadow


class Part:
    """Bytes that follow one another, at most a part's worth."""

    def __init__(self, start: int, memory: int = 0) -> None:
        self.start = start
        self.size = 0
        self.buffers: list[bytes | memoryview] = []
        self.memory = memory


class Intake:
    """Takes in one version of a file. ``digests`` are those of the bytes from 0 on that came by here.

    ``way`` is where parts go: None as long as none had to, then ``choose_way`` is asked. ``part`` is the one that
    fills.
    """

    def __init__(
        self,
        disk: Disk,
        budget: ByteBudget,
        head: Head,
        digests: Digests,
        choose_way: Callable[[], Awaitable[Way]],
        way: Way | None = None,
    ) -> None:
        self.digests = digests
        self.way = way
        self.part: Part | None = None
        self._disk = disk
        self._budget = budget
        self._head = head
        self._choose_way = choose_way
        self._flying: asyncio.Task[None] | None = None
        self._flying_part: Part | None = None

    @property
    def is_whole_in_memory(self) -> bool:
        """True where no part was, or is being, sent."""
        return self.way is None and self._flying is None

    def written(self) -> list[Span]:
        parts = [part for part in (self._flying_part, self.part) if part is not None]
        held = self.way.held if self.way is not None else []
        return spans.merge([*held, *(Span(part.start, part.start + part.size) for part in parts)])

    async def write(self, at: int, data: bytes | memoryview) -> None:
        """Take bytes that go on where the last ones ended, or begin a part. Nobody may change them from now on."""
        while data:
            part = await self._room(at)
            left = self._part_size - part.size
            taken, data = (data, b"") if len(data) <= left else (memoryview(data)[:left], memoryview(data)[left:])
            part.buffers.append(_kept(taken))
            part.size += len(taken)
            at += len(taken)

    async def draw(self, at: int, data: bytes | memoryview, source: Source) -> int:
        """As :meth:`write`, and take what the source has for the part that fills then. Returns how many bytes came."""
        start = at
        for piece in (data, *source.pieces):
            await self.write(at, piece)
            at += len(piece)
        part = await self._room(at)
        for piece in await self._disk.draw(partial(self._drawn, source, self._part_size - part.size, is_stopped())):
            part.buffers.append(_kept(piece))
            part.size += len(piece)
            at += len(piece)
        return at - start

    def _drawn(self, source: Source, most: int, is_stopped: Callable[[], object]) -> list[memoryview]:
        """What a source has at hand, up to so many bytes. Blocks."""
        pieces: list[memoryview] = []
        while most and not is_stopped():
            buffer = memoryview(bytearray(min(MIB, most)))
            size = source.fill(buffer, patient=not self._disk.is_crowded)
            if size:
                pieces.append(buffer[:size])
            if size < len(buffer):
                break
            most -= size
        return pieces

    async def finish(self) -> Way:
        """Send what is left, and wait until it is there."""
        if self.part is not None:
            await self._send()
        await self._landed()
        assert self.way is not None
        return self.way

    async def hash(self, part: Part) -> tuple[Digests, str]:
        """The digests with this part, if it follows them, and the part's own SHA-256."""
        call = partial(_hashed, self.digests, part)
        return call() if part.size <= TINY else await self._disk.run(call)

    async def close(self) -> None:
        """Drop what is not sent."""
        flying, self._flying = self._flying, None
        part, self._flying_part = self._flying_part, None
        try:
            if flying is not None:
                flying.cancel()
                await asyncio.wait({flying})
                if not flying.cancelled():
                    flying.exception()
        finally:
            self.drop()
            if part is not None:
                self._release(part)  # a task that was cancelled before it began did not

    @property
    def _part_size(self) -> int:
        if self.way is not None:
            return self.way.part_size
        length = self._head.length
        single = next((size for size in _SINGLES if 3 * size <= self._budget.size), LEAST_SINGLE)
        return single if length is not None and length <= single else part_size(length)

    async def _room(self, at: int) -> Part:
        """The part that goes on at this offset, with room in it."""
        part = self.part
        if part is not None and part.size == self._part_size:
            await self._send()
            part = None
        if part is None:
            self._raise_failed()
            memory = await self._budget.take(min(self._part_size, self._head.length or self._part_size))
            part = self.part = Part(at, memory)
        assert at == part.start + part.size, "spans of a bucket are written one after the other"
        return part

    async def _send(self) -> None:
        """Hand the part over and go on; one is under way at a time."""
        part, self.part = self.part, None
        assert part is not None
        try:
            await self._landed()
        except BaseException:
            self._release(part)
            raise
        self._flying_part = part
        self._flying = asyncio.create_task(self._fly(part))

    async def _fly(self, part: Part) -> None:
        try:
            way = self.way = self.way or await self._choose_way()
            digests, sha256 = await self.hash(part)
            number, checksum = part.start // way.part_size + 1, base64_of(sha256)
            if isinstance(way, Shadow):
                way.note(number, part.size, checksum)
            elif not await self._holds(way, number, part, checksum):
                await way.put(number, part.buffers, part.size, sha256, checksum)
            self.digests = digests
        finally:
            self._release(part)

    async def _holds(self, way: Multipart, number: int, part: Part, checksum: str) -> bool:
        """Whether the store has this very part already, as far as it tells."""
        held = way.part(number)
        if held is None or held.size != part.size:
            return False
        if held.checksum is not None:
            return held.checksum == checksum
        return held.md5 is not None and held.md5 == await self._disk.run(_md5, part.buffers)

    async def _landed(self) -> None:
        """Wait for the part that is under way."""
        if self._flying is not None:
            await asyncio.wait({self._flying})
            self._raise_failed()

    def _raise_failed(self) -> None:
        """A part that did not get there: what follows it is dropped too, so that the gap goes on to the end."""
        flying = self._flying
        if flying is None or not flying.done():
            return
        self._flying = self._flying_part = None
        if flying.cancelled() or flying.exception() is not None:
            self.drop()
            flying.result()

    def drop(self) -> None:
        """Let go of the part that fills. Who waits for its bytes must not hold memory that others need to go on."""
        part, self.part = self.part, None
        if part is not None:
            self._release(part)

    def _release(self, part: Part) -> None:
        memory, part.memory = part.memory, 0
        part.buffers.clear()
        self._budget.give(memory)


def _hashed(digests: Digests, part: Part) -> tuple[Digests, str]:
    if digests.at == part.start == 0:
        longer = digests.copy()
        for buffer in part.buffers:
            longer.update(buffer)
        return longer, longer.sha256
    own, longer = Digests(), digests.copy()
    running = [own, longer] if digests.at == part.start else [own]
    for buffer in part.buffers:
        for each in running:
            each.update(buffer)
    return longer, own.sha256


def _kept(piece: bytes | memoryview) -> bytes | memoryview:
    """Without a copy where most of the buffer behind a view is in the piece: the budget counts no more than that."""
    return bytes(piece) if isinstance(piece, memoryview) and 2 * piece.nbytes < memoryview(piece.obj).nbytes else piece


def _md5(buffers: Buffers) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()
