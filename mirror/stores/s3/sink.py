"""The bucket's sink: a small body in one PUT, a larger one as a multipart upload whose parts are its spans.

A sink that knows the bytes already (a file that is on disk) is handed all of them again: what the store holds is not
sent twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import msgspec

from mirror.digests import Digests
from mirror.errors import Changed, ChecksumMismatch, Obstructed, TooLarge
from mirror.limits import ByteBudget
from mirror.models import Receipt, Span
from mirror.stores import Head, Source, Target
from mirror.stores.finished import Content, Finished
from mirror.stores.journal import Journal
from mirror.stores.judgement import UNFIT, judge, look_for
from mirror.stores.s3.checksums import base64_of, same_etag
from mirror.stores.s3.errors import BadParts, NoSuchUpload, PreconditionFailed
from mirror.stores.s3.intake import LEAST_SINGLE, MOST_SINGLE, TINY, Intake, Part, Way
from mirror.stores.s3.multipart import MOST_PARTS, Multipart, Record, Uploads, part_size
from mirror.stores.s3.objects import Described, Found, Prints, compared
from mirror.stores.s3.shadow import Shadow
from mirror.times import from_http

T = TypeVar("T")


class ObjectSink:
    """A Sink in the bucket. ``via`` says how its bytes come here."""

    segmented = False

    def __init__(self, uploads: Uploads, budget: ByteBudget, target: Target, name: str, via: str) -> None:
        self.head: Head | None = None
        self.committed: Receipt | None = None
        self.remark = ""
        self._uploads = uploads
        self._objects = uploads.objects
        self._budget = budget
        self._target = target
        self._names = list(target.names)
        self._name = name
        self._opened: Journal[Record] | None = None
        self._via = via
        self._intake: Intake | None = None

    # What an earlier run left ------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up the multipart upload of an earlier run, or find that it was completed."""
        meant, begun = await self._hop(lambda: self._uploads.read(self._journal))
        if meant is None:
            return
        keys = [self._key(name) for name in self._names]
        ours = self._objects.settings
        is_ours = (meant.identity, meant.endpoint, meant.bucket) == (
            self._target.identity,
            ours.endpoint_url,
            ours.bucket,
        )
        if not is_ours:  # a journal's name says what it is about: no run of ours wrote this
            await self._uploads.remove(self._journal)
            return
        if begun is not None and meant.key in keys and self._may_resume(begun.checksum):
            self._names = self._names[keys.index(meant.key) :]
            way = await self._uploads.take_up(self._journal, meant, begun)
            if way is not None:
                self._take_in(begun.head, way)
                await self._hop(lambda: self._reopen(meant, begun))
                return
            self.committed = await self._find_completed(meant.key, begun.head)
            if self.committed is not None:
                self._uploads.completed.add(self._journal.path.stem)
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
        digests = await self._objects.read_back(key, found, Digests(head.checks, look_for(self._target)))
        try:
            self._check(digests, head)
        except UNFIT:
            return None
        return self._receipt(key, found, head, digests.sha256)

    def _is_ours(self, found: Found, head: Head) -> bool:
        told = self._described(head).metadata
        return bool(told.get("source-etag") or told.get("sha256")) and all(
            found.metadata.get(name) == value for name, value in told.items()
        )

    # Taking bytes in ---------------------------------------------------------------------------

    def written(self) -> list[Span]:
        return self._intake.written() if self._intake is not None else []

    async def begin(self, head: Head) -> None:
        await self.abort()
        if part_size(head.length) > max(LEAST_SINGLE, self._budget.size):
            raise TooLarge(f"{head.length} bytes in {MOST_PARTS} parts need more memory: raise transfer.memory")
        self._take_in(head)

    def _take_in(self, head: Head, way: Multipart | None = None) -> None:
        self.head = head
        checks = [*head.checks, *(["crc64nvme"] if self._takes_crc else [])]
        digests = Digests(checks, look_for(self._target))
        self._intake = Intake(self._objects.disk, self._budget, head, digests, self._choose_way, way)

    async def write(self, at: int, data: bytes | memoryview) -> None:
        assert self._intake is not None
        await self._intake.write(at, data)

    async def draw(self, at: int, data: bytes | memoryview, source: Source) -> int:
        assert self._intake is not None
        return await self._intake.draw(at, data, source)

    async def flush(self) -> None:
        """Nothing is written before a part is full: memory is bounded by the budget."""

    async def _choose_way(self) -> Way:
        """Begin an upload under the first name that is free, or stand by where an object is that may be this one."""
        assert self.head is not None
        head = self.head
        while self._names:
            key = self._key(self._names[0])
            found = await self._objects.find(key)
            if found is None:
                identity = self._target.identity
                return await self._uploads.begin(self._journal, identity, key, head, self._described(head))
            if head.length in (None, found.size):
                return Shadow(key, part_size(head.length))
            self._names.pop(0)
        raise self._all_taken()

    # Publishing --------------------------------------------------------------------------------

    async def commit(self) -> Receipt:
        intake, head = self._intake, self.head
        assert intake is not None
        assert head is not None
        if intake.is_whole_in_memory:
            receipt = await self._commit_small(intake, head)
        else:
            receipt = await self._commit_large(intake, await intake.finish(), head)
        await intake.close()
        self.committed = receipt
        return receipt

    async def _commit_small(self, intake: Intake, head: Head) -> Receipt:
        part = intake.part or Part(0)
        self._check_length(part.size, head)
        digests, _ = await intake.hash(part)
        await self._check_or_drop(digests, head)
        return await self._put(part.buffers, self._prints(digests, part.size), head)

    async def post(self, head: Head, sha256: str | None, file: Finished) -> Receipt | None:
        """A file that is on disk in one PUT, from the disk to the socket; nobody looks at its bytes on their way. That
        is for a store that looks at them, compares them with their SHA-256, and says so. None where they must be
        written.

        What an earlier run stored is looked at first: disks rot, and a store may say what it has not done.
        """
        if sha256 is None or self._target.sha256 != sha256 or not self._may_post(head):
            return None
        if not file.is_new:
            await file.check()
        self.committed = await self._put(file, Prints(size=head.length or 0, sha256=sha256), head)
        return self.committed

    def _may_post(self, head: Head) -> bool:
        """Whether the store looks, by what it is told; and a body of this size may be a file, sent whole."""
        objects = self._objects
        looks = objects.attests and objects.settings.checksum == "sha256"
        is_one_put = TINY < (head.length or 0) <= MOST_SINGLE and self.head is None and not head.checks
        return looks and is_one_put and objects.wire.is_direct

    async def _put(self, content: Content, prints: Prints, head: Head) -> Receipt:
        assert prints.sha256 is not None
        while self._names:
            key = self._key(self._names[0])
            found = await self._objects.write(key, content, prints, self._described(head))
            if found is not None:
                return self._receipt(key, found, head, prints.sha256)
            self._names.pop(0)
        raise self._all_taken()

    async def _commit_large(self, intake: Intake, way: Way, head: Head) -> Receipt:
        digests, key = intake.digests, way.key
        self._check_length(way.size, head)
        if digests.at == way.size:
            await self._check_or_drop(digests, head)
        made = isinstance(way, Multipart) and await self._complete(way)
        found = await self._objects.find(key)
        if found is None:
            raise Changed(f"{self._objects.where(key)}: its multipart upload was ended by somebody: it starts over")
        prints = self._prints(digests, way.size, way)
        if not made and not await self._objects.same(key, found, prints):
            self._give_way(key)
        if not made and isinstance(way, Multipart):
            await way.abort()  # where it was somebody else's success, ours stands about
        if prints.sha256 is None or (made and not compared(found, prints)):
            digests = await self._read_back(way, found, head, prints.sha256)
        return self._receipt(key, found, head, digests.sha256)

    async def _complete(self, way: Multipart) -> bool:
        """True where the object was made by this very call; False where one has to look: it may have been."""
        if not self._objects.settings.conditional_writes and await self._objects.find(way.key) is not None:
            return False
        try:
            await way.complete()
        except (NoSuchUpload, PreconditionFailed):
            return False
        except BadParts as error:
            raise Changed(f"{error}: it starts over") from None
        return True

    def _prints(self, digests: Digests, size: int, way: Way | None = None) -> Prints:
        """What we know of the object: its digests only where all of its bytes came by here."""
        etag = way.etag if isinstance(way, Multipart) else None
        known = Prints(size=size, composite=way.composite if way is not None else None, etag=etag)
        if digests.at != size:
            return known
        crc = base64_of(digests.hex("crc64nvme")) if self._takes_crc else None
        return msgspec.structs.replace(known, sha256=digests.sha256, crc64nvme=crc)

    def _give_way(self, key: str) -> NoReturn:
        """Another object stands there: once more, under the next name."""
        self._names.pop(0)
        raise Changed(f"{self._objects.where(key)}: another object stands there: it goes beside it")

    async def _read_back(self, way: Way, found: Found, head: Head, sha256: str | None) -> Digests:
        """Read an object of ours once: for its digest, where several processes sent it (hash states cannot be saved),
        or for certainty, where the store's own word about it is not what we expect.
        """
        digests = await self._objects.read_back(way.key, found, Digests(head.checks, look_for(self._target)))
        try:
            self._check(digests, head)
            if digests.at != way.size or sha256 not in (None, digests.sha256):
                raise ChecksumMismatch(f"{self._objects.where(way.key)}: other bytes are there than were sent")
        except UNFIT:
            if not isinstance(way, Multipart) or not way.etag or not same_etag(found.etag, way.etag):
                self._give_way(way.key)
            await self._objects.take_out(way.key, found.version_id)
            await self.abort()
            raise
        return digests

    def _check_length(self, size: int, head: Head) -> None:
        if head.length not in (None, size):
            raise Changed(f"{size} bytes are here, not the {head.length} that the origin stated: it starts over")

    async def _check_or_drop(self, digests: Digests, head: Head) -> None:
        try:
            self._check(digests, head)
        except UNFIT:
            await self.abort()
            raise

    def _check(self, digests: Digests, head: Head) -> None:
        self.remark = judge(digests, head, self._target)

    def _receipt(self, key: str, found: Found, head: Head, sha256: str) -> Receipt:
        told = ["length"] if head.length is not None else []
        return Receipt(
            path=self._names[0],
            bytes=found.size,
            sha256=sha256,
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

    async def pause(self) -> None:
        if self._intake is not None:
            self._intake.drop()

    async def abort(self) -> None:
        intake, self._intake = self._intake, None
        self.head = None
        if intake is not None:
            await intake.close()
            if isinstance(intake.way, Multipart):
                await intake.way.abort()

    async def close(self) -> None:
        try:
            if self._intake is not None:
                await self._intake.close()
        finally:
            if self._opened is not None:
                self._opened.close()

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
    def _journal(self) -> Journal[Record]:
        """Made when it is needed: most files never have one."""
        self._opened = self._opened or self._uploads.journal(self._name)
        return self._opened

    @property
    def _takes_crc(self) -> bool:
        return self._objects.settings.checksum == "crc64nvme"

    async def _hop(self, call: Callable[[], T]) -> T:
        return await self._uploads.hop(self._journal, call)
