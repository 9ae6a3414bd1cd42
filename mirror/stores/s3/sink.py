"""The bucket's sink: a small body in one PUT, a larger one as a multipart upload whose parts are its spans.

One part is being sent while the next one fills; their memory is taken from a budget before a byte is read. A sink that
knows the bytes already (a file that is on disk) is handed all of them again: what the store holds is not sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mirror import spans
from mirror.digests import Digests
from mirror.errors import Changed, ChecksumMismatch, MirrorError, Obstructed, Severity, TooLarge
from mirror.limits import ByteBudget
from mirror.models import Receipt, Span
from mirror.stores import Head, Target
from mirror.stores.s3.checksums import base64_of, composite
from mirror.stores.s3.errors import BadParts, NoSuchUpload, PreconditionFailed
from mirror.stores.s3.multipart import MIB, MOST_PARTS, Multipart, Uploads, part_size
from mirror.stores.s3.objects import Described, Found, Prints, compared
from mirror.times import from_http

T = TypeVar("T")

SINGLE = 8 * MIB
"""A body of at most this size is one PUT."""

_TINY = 64 << 10
"""Hashed sooner than a thread could be told to."""


class Shadow:
    """Stands in for an upload where an object of that size is there already: parts are hashed and not sent."""

    def __init__(self, key: str, size: int, found: Found) -> None:
        self.key = key
        self.part_size = size
        self.found = found
        self._parts: dict[int, tuple[int, str]] = {}

    @property
    def held(self) -> list[Span]:
        return [
            Span((number - 1) * self.part_size, (number - 1) * self.part_size + size)
            for number, (size, _) in self._parts.items()
        ]

    def note(self, number: int, size: int, checksum: str) -> None:
        self._parts[number] = (size, checksum)

    @property
    def size(self) -> int:
        return sum(size for size, _ in self._parts.values())

    @property
    def composite(self) -> str | None:
        return composite(self._parts[number][1] for number in sorted(self._parts))


class _Part:
    """Bytes that follow one another, at most a part's worth."""

    def __init__(self, start: int, memory: int) -> None:
        self.start = start
        self.size = 0
        self.buffers: list[bytes] = []
        self.memory = memory


class ObjectSink:
    """A Sink in the bucket. ``via`` says how its bytes come here."""

    segmented = False

    def __init__(self, uploads: Uploads, budget: ByteBudget, target: Target, name: str, via: str) -> None:
        self.head: Head | None = None
        self.committed: Receipt | None = None
        self._uploads = uploads
        self._objects = uploads.objects
        self._budget = budget
        self._target = target
        self._names = list(target.names)
        self._journal = uploads.journal(name)
        self._via = via
        self._way: Multipart | Shadow | None = None
        self._part: _Part | None = None
        self._flying: asyncio.Task[None] | None = None
        self._flying_part: _Part | None = None
        self._digests = Digests()

    # What an earlier run left ------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up the multipart upload of an earlier run, or find that it was completed."""
        meant, begun = await self._hop(lambda: self._uploads.read(self._journal))
        if meant is None:
            return
        keys = [self._key(name) for name in self._names]
        if begun is not None and meant.key in keys and self._may_resume(begun.checksum):
            self._names = self._names[keys.index(meant.key) :]
            way = await self._uploads.take_up(self._journal, meant, begun)
            if way is not None:
                self.head, self._way = begun.head, way
                self._digests = self._new_digests(begun.head)
                await self._hop(lambda: self._reopen(meant, begun))
                return
            self.committed = await self._find_completed(meant.key, begun.head)
            if self.committed is not None:
                return
        await self._uploads.abort(meant, begun)
        await self._uploads.remove(self._journal)

    def _reopen(self, *records: object) -> None:
        self._journal.rewrite(list(records))  # type: ignore[arg-type]
        self._journal.sync()

    def _may_resume(self, checksum: str) -> bool:
        """Parts under another checksum policy do not go together; an archive class could not be read back."""
        settings = self._objects.settings
        archived = settings.storage_class in ("GLACIER", "DEEP_ARCHIVE") and self._target.sha256 is None
        return checksum == settings.checksum and not archived

    async def _find_completed(self, key: str, head: Head) -> Receipt | None:
        """The receipt, if a kill came between the object and its row: it was made from this version of the source."""
        found = await self._objects.find(key)
        if found is None or found.size != head.length or not self._is_ours(found, head):
            return None
        digests = await self._objects.read_back(key, found, Digests(head.checks))
        try:
            self._check(digests, head)
        except ChecksumMismatch:
            return None
        self.head, self._digests = head, digests
        return self._receipt(key, found)

    def _is_ours(self, found: Found, head: Head) -> bool:
        told = self._described(head).metadata
        return bool(told.get("source-etag") or told.get("sha256")) and all(
            found.metadata.get(name) == value for name, value in told.items()
        )

    # Taking bytes in ---------------------------------------------------------------------------

    def written(self) -> list[Span]:
        parts = [part for part in (self._flying_part, self._part) if part is not None]
        held = self._way.held if self._way is not None else []
        return spans.merge([*held, *(Span(part.start, part.start + part.size) for part in parts)])

    async def begin(self, head: Head) -> None:
        await self.abort()
        self.head = head
        self._digests = self._new_digests(head)
        if (head.length or 0) > MOST_PARTS * 5 * 1024 * MIB:
            raise TooLarge(f"{head.length} bytes are more than an object can have")

    async def write(self, at: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            part = await self._room(at)
            taken = rest[: self._part_size - part.size]
            part.buffers.append(bytes(taken) if len(taken) < len(data) else data)
            part.size += len(taken)
            at += len(taken)
            rest = rest[len(taken) :]

    async def _room(self, at: int) -> _Part:
        """The part that goes on at this offset, with room in it."""
        part = self._part
        if part is not None and part.size == self._part_size:
            await self._send()
            part = None
        if part is None:
            assert self.head is not None
            self._raise_failed()
            memory = await self._budget.take(min(self._part_size, self.head.length or self._part_size))
            part = self._part = _Part(at, memory)
        assert at == part.start + part.size, "spans of a bucket are written one after the other"
        return part

    @property
    def _part_size(self) -> int:
        assert self.head is not None
        if self._way is not None:
            return self._way.part_size
        return max(SINGLE, part_size(self.head.length)) if self._is_small else part_size(self.head.length)

    @property
    def _is_small(self) -> bool:
        return self.head is not None and self.head.length is not None and self.head.length <= SINGLE

    async def flush(self) -> None:
        """Nothing is written before a part is full: memory is bounded by the budget."""

    async def _send(self) -> None:
        """Hand the full part over and go on; one is under way at a time."""
        part, self._part = self._part, None
        assert part is not None
        try:
            await self._landed()
        except BaseException:
            self._release(part)
            raise
        self._flying_part = part
        self._flying = asyncio.create_task(self._fly(part))

    async def _landed(self) -> None:
        """Wait for the part that is under way."""
        flying = self._flying
        if flying is None:
            return
        await asyncio.wait({flying})
        self._raise_failed()

    def _raise_failed(self) -> None:
        """A part that did not get there: what follows it is dropped too, so that the gap goes on to the end."""
        flying = self._flying
        if flying is None or not flying.done():
            return
        self._flying = self._flying_part = None
        if flying.cancelled() or flying.exception() is not None:
            self._drop_part()
            flying.result()

    async def _fly(self, part: _Part) -> None:
        try:
            way = self._way or await self._choose_way()
            digests, sha256 = await self._hash(part)
            number, checksum = part.start // way.part_size + 1, base64_of(sha256)
            if isinstance(way, Shadow):
                way.note(number, part.size, checksum)
            elif not way.holds(number, checksum):
                await way.put(number, part.buffers, part.size, sha256, checksum)
            self._digests = digests
        finally:
            self._release(part)

    async def _choose_way(self) -> Multipart | Shadow:
        """Begin an upload under the first name that is free, or stand by where an object is that may be this one."""
        assert self.head is not None
        while self._names:
            key = self._key(self._names[0])
            found = await self._objects.find(key)
            if found is None:
                self._way = await self._uploads.begin(
                    self._journal, self._target.identity, key, self.head, self._described(self.head)
                )
                return self._way
            if self.head.length in (None, found.size):
                self._way = Shadow(key, part_size(self.head.length), found)
                return self._way
            self._names.pop(0)
        raise self._all_taken()

    # Publishing --------------------------------------------------------------------------------

    async def commit(self) -> Receipt:
        assert self.head is not None
        if self._way is None and self._flying is None:
            receipt = await self._commit_small()
        else:
            if self._part is not None:
                await self._send()
            await self._landed()
            receipt = await self._commit_large()
        self._drop_part()
        self.committed = receipt
        return receipt

    async def _commit_small(self) -> Receipt:
        assert self.head is not None
        part = self._part or _Part(0, 0)
        digests, _ = await self._hash(part)
        self._check_length(part.size)
        await self._check_or_drop(digests)
        self._digests = digests
        prints = self._prints(part.size)
        while self._names:
            key = self._key(self._names[0])
            found = await self._objects.write(key, part.buffers, prints, self._described(self.head))
            if found is not None:
                return self._receipt(key, found)
            self._names.pop(0)
        raise self._all_taken()

    async def _commit_large(self) -> Receipt:
        way = self._way
        assert way is not None
        assert self.head is not None
        self._check_length(way.size)
        if self._digests.at == way.size:
            await self._check_or_drop(self._digests)
        if isinstance(way, Shadow):
            return await self._adopt(way)
        try:
            await way.complete()
            made = True
        except (NoSuchUpload, PreconditionFailed):  # perhaps our own success: look
            made = False
        except BadParts as error:
            raise Changed(f"{error}: it starts over") from None
        found = await self._objects.find(way.key)
        prints = self._prints(way.size, composite=way.composite, etag=way.etag)
        if found is None:
            raise Changed(f"{self._objects.where(way.key)}: its multipart upload was ended by somebody: it starts over")
        if not made and not await self._objects.same(way.key, found, prints):
            return self._give_way(way.key)
        if prints.sha256 is None or (made and not compared(found, prints)):
            await self._read_back(way, found, prints.sha256)
        return self._receipt(way.key, found)

    async def _adopt(self, shadow: Shadow) -> Receipt:
        prints = self._prints(shadow.size, composite=shadow.composite)
        if not await self._objects.same(shadow.key, shadow.found, prints):
            return self._give_way(shadow.key)
        return self._receipt(shadow.key, shadow.found)

    def _prints(self, size: int, composite: str | None = None, etag: str | None = None) -> Prints:
        """What we know of the object: its digests only where all of its bytes came by here."""
        if self._digests.at != size:
            return Prints(size=size, composite=composite, etag=etag)
        crc = base64_of(self._digests.hex("crc64nvme")) if self._takes_crc else None
        return Prints(size=size, sha256=self._digests.sha256, crc64nvme=crc, composite=composite, etag=etag)

    def _give_way(self, key: str) -> Receipt:
        """Another object stands there: once more, under the next name."""
        self._names.pop(0)
        raise Changed(f"{self._objects.where(key)}: another object stands there: it goes beside it")

    async def _read_back(self, way: Multipart, found: Found, sha256: str | None) -> None:
        """Read an object of ours once: for its digest, where several processes sent it (hash states cannot be saved),
        or for certainty, where the store's own word about it is not what we expect.
        """
        assert self.head is not None
        digests = await self._objects.read_back(way.key, found, Digests(self.head.checks))
        try:
            self._check(digests, self.head)
            if digests.at != way.size or sha256 not in (None, digests.sha256):
                raise ChecksumMismatch(f"{self._objects.where(way.key)}: other bytes are there than were sent")
        except ChecksumMismatch:
            # It was published unproven, by us, a moment ago: it goes again.
            version = {"VersionId": found.version_id} if found.version_id else {}
            with contextlib.suppress(MirrorError):
                await self._objects.control.call("DeleteObject", Key=way.key, **version)
            await self.abort()
            raise
        self._digests = digests

    def _check_length(self, size: int) -> None:
        assert self.head is not None
        if self.head.length is not None and size != self.head.length:
            raise Changed(f"{size} bytes are here, not the {self.head.length} that the origin stated: it starts over")

    async def _check_or_drop(self, digests: Digests) -> None:
        assert self.head is not None
        try:
            self._check(digests, self.head)
        except ChecksumMismatch:
            await self.abort()
            raise

    def _check(self, digests: Digests, head: Head) -> None:
        for check, expected in head.checks.items():
            if digests.hex(check) != expected:
                raise ChecksumMismatch(f"the bytes that came do not have the {check} that the origin states")
        if self._target.sha256 and digests.sha256 != self._target.sha256:
            raise ChecksumMismatch(
                "the origin serves other bytes than those mirrored before; `mirror forget` the prompt to take them",
                severity=Severity.ITEM,
            )

    def _receipt(self, key: str, found: Found) -> Receipt:
        assert self.head is not None
        head = self.head
        told = ["length"] if head.length is not None else []
        return Receipt(
            path=self._names[0],
            bytes=found.size,
            sha256=self._digests.sha256,
            content_type=head.content_type,
            etag=head.etag,
            last_modified=from_http(head.last_modified),
            verified=(*told, *head.checks),
            s3=found.as_object(self._objects.settings.bucket, key, self._via),
        )

    def _all_taken(self) -> Obstructed:
        where = self._objects.where(self._key(self._target.names[0]))
        return Obstructed(f"{where}: all its names are taken by other objects")

    # Letting go --------------------------------------------------------------------------------

    async def abort(self) -> None:
        await self._cancel_flying()
        self._drop_part()
        way, self._way = self._way, None
        self.head = None
        if isinstance(way, Multipart):
            await way.abort()

    async def close(self) -> None:
        try:
            await self._cancel_flying()
        finally:
            self._drop_part()
            self._journal.close()

    async def _cancel_flying(self) -> None:
        flying, self._flying, self._flying_part = self._flying, None, None
        if flying is not None:
            flying.cancel()
            await asyncio.wait({flying})
            if not flying.cancelled():
                flying.exception()

    def _drop_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            self._release(part)

    def _release(self, part: _Part) -> None:
        memory, part.memory = part.memory, 0
        part.buffers.clear()
        self._budget.give(memory)

    # Small words -------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self._objects.key(self._target.folder, name)

    def _described(self, head: Head) -> Described:
        return Described(
            prompt_id=self._target.prompt_id,
            source=self._target.identity,
            source_etag=head.etag,
            content_type=head.content_type,
            sha256=self._target.sha256,
        )

    @property
    def _takes_crc(self) -> bool:
        return self._objects.settings.checksum == "crc64nvme"

    def _new_digests(self, head: Head) -> Digests:
        return Digests([*head.checks, *(["crc64nvme"] if self._takes_crc else [])])

    async def _hash(self, part: _Part) -> tuple[Digests, str]:
        call = partial(_hashed, self._digests, part)
        return call() if part.size <= _TINY else await self._hop(call)

    async def _hop(self, call: Callable[[], T]) -> T:
        return await self._objects.disk.run(call)


def _hashed(digests: Digests, part: _Part) -> tuple[Digests, str]:
    """The running digests, gone on if the part follows them, and the part's own SHA-256."""
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
