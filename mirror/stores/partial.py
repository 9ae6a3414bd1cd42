"""The local sink: a partial file and its journal, until the whole is published.

A body that is small enough to be here at once is written, hashed, made durable and renamed together with others
(:mod:`mirror.stores.publishing`). Larger ones go in batches, a hop to a thread each, while the network reads on; every
batch is claimed in the journal.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable
from functools import cached_property, partial
from typing import TypeVar

from mirror import spans
from mirror.digests import Digests, are_known
from mirror.errors import Changed, Obstructed, StoreError, StoreUnavailable
from mirror.models import Receipt, Span
from mirror.stores import Head, Target
from mirror.stores.disk import Disk
from mirror.stores.files import (
    READ,
    create,
    is_file,
    is_ours_alone,
    let_go,
    read_span,
    same_bytes,
    stat_file,
    store_error,
    write_all,
)
from mirror.stores.journal import VERSION, Claim, Committed, Journal, Record, Started, journal_of
from mirror.stores.judgement import UNFIT, judge, look_for
from mirror.stores.publishing import Publisher
from mirror.stores.recovery import Check, hash_on, in_batches, open_committed
from mirror.stores.workers import Uninterrupted
from mirror.times import from_http

T = TypeVar("T")

BATCH = 1 << 20
"""Bytes that are collected before they are written in one hop; a slow body is written every second."""

_SMALL = 64 << 10
"""Bytes of a file that is written, hashed and published in less time than a thread is woken in."""

_UNTOLD = 128 << 20
"""Bytes that must be free beyond what is written of a file of unknown length: it is the first to be given up."""

_HOP = 64 << 20
"""Bytes that are read back in one hop at most, so that a stop never waits long."""


class _Run:
    """Bytes that follow one another, not yet written."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.size = 0
        self.buffers: list[bytes | memoryview] = []
        self.since = time.monotonic()

    def add(self, data: bytes | memoryview) -> None:
        self.buffers.append(data)
        self.size += len(data)

    @property
    def due(self) -> bool:
        return self.size >= BATCH or time.monotonic() - self.since > 1.0


class PartialFile:
    """A Sink on the local disk. ``is_new`` says for certain that no earlier try has left anything of this file."""

    segmented = True

    def __init__(
        self,
        disk: Disk,
        publisher: Publisher,
        target: Target,
        key: str,
        *,
        is_new: bool,
        on_commit: Callable[[], None],
        on_left: Callable[[], None],
    ) -> None:
        self.head: Head | None = None
        self.committed: Receipt | None = None
        self.remark = ""
        self._disk = disk
        self._publisher = publisher
        self._target = target
        self._path = f"{disk.parts}/{key}.part"
        self._key = key
        self._on_commit = on_commit
        self._on_left = on_left
        self._fd: int | None = None
        self._has_journal = not is_new  # it may have
        self._claims: list[Claim] = []
        self._held: list[Span] = []
        self._runs: dict[int, _Run] = {}
        self._digests: Digests
        self._writing: Uninterrupted[None] | None = None
        self._flying: _Run | None = None

    @cached_property
    def _journal(self) -> Journal[Record]:
        return journal_of(self._disk.parts / f"{self._key}.journal")

    # What an earlier run left ------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up the partial of an earlier try, as far as its bytes are what the journal says."""
        try:
            records = await self._hop(self._journal.read)
        except StoreUnavailable:
            return  # it costs the bytes that it claims, and no more
        started, last = (records[0], records[-1]) if records else (None, None)
        if not isinstance(started, Started) or started.identity != self._target.identity:
            return
        if not are_known(started.head.checks):
            return
        if isinstance(last, Committed):
            self.committed = await self._find_committed(last)
        if self.committed is not None or not await self._hop(self._open_existing):
            return
        assert self._fd is not None
        check = Check(self._fd, Digests(started.head.checks, look_for(self._target)))
        for batch in in_batches([record for record in records if isinstance(record, Claim)], _HOP):
            await self._hop(partial(check.check, batch))
        self.head, self._digests, self._claims = started.head, check.digests, check.good
        self._held = spans.merge(Span(claim.start, claim.stop) for claim in self._claims)
        await self._hop(lambda: self._journal.rewrite([started, *self._claims]))
        await self._check_room(started.head)

    async def _find_committed(self, record: Committed) -> Receipt | None:
        """The receipt, if a kill came between the file's final name and the catalog, and its bytes are all there."""
        fd = await self._hop(partial(open_committed, self._disk, self._target, record))
        if fd is None:
            return None
        try:
            digests, size = Digests(), record.receipt.bytes
            while digests.at <= size and await self._hop(partial(hash_on, fd, digests, _HOP)):
                pass
            return record.receipt if (digests.at, digests.sha256) == (size, record.receipt.sha256) else None
        finally:
            let_go(fd)

    def _open_existing(self) -> bool:
        """A partial with another name elsewhere is left there, as it is: a copy of the archive by links may hold it."""
        try:
            if not is_ours_alone(os.lstat(self._path)):
                return False
        except FileNotFoundError:
            return False
        self._fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return True

    # Taking bytes in ---------------------------------------------------------------------------

    def written(self) -> list[Span]:
        if not self._held and not self._runs and not self._flying:
            return []
        pending = [*self._runs.values(), *([self._flying] if self._flying else [])]
        return spans.merge([*self._held, *(Span(run.start, run.start + run.size) for run in pending)])

    async def begin(self, head: Head) -> None:
        await self._idle()
        self._let_go()
        self.head = head
        self._runs.clear()
        self._flying = None
        self._claims, self._held = [], []
        self._digests = Digests(head.checks, look_for(self._target))
        await self._check_room(head)

    async def _check_room(self, head: Head) -> None:
        """Whether what is missing fits. A short file finds that out when it is written, in the same hop."""
        missing = (head.length or 0) - spans.size(self._held)
        if missing > BATCH:
            await self._hop(partial(self._disk.reserve, missing))

    async def write(self, at: int, data: bytes | memoryview) -> None:
        run = self._runs.pop(at, None) or _Run(at)
        run.add(data)
        if run.due:
            await self._start_writing(run)
        else:
            self._runs[at + len(data)] = run

    async def flush(self) -> None:
        await self._idle()
        runs, self._runs = sorted(self._runs.values(), key=lambda run: run.start), {}
        for run in runs:
            await self._start_writing(run)
            await self._idle()

    async def _start_writing(self, run: _Run) -> None:
        """Hand a run to a thread and go on; one is under way at a time, so two batches of memory are the bound."""
        await self._idle()
        self._flying = run
        self._writing = self._disk.start(partial(self._translating, partial(self._write_and_claim, run)))

    async def _idle(self) -> None:
        while (writing := self._writing) is not None:
            try:
                await writing
            finally:
                if self._writing is writing:
                    self._writing = None

    def _write_and_claim(self, run: _Run) -> None:
        if not self._journal.is_open:
            self._create()
            assert self.head is not None
            self._has_journal = True
            self._journal.rewrite([Started(version=VERSION, identity=self._target.identity, head=self.head)])
        assert self.head is not None
        in_order = self._write(run, further=0 if self.head.length is not None else _UNTOLD)
        claim = Claim(
            start=run.start,
            stop=run.start + run.size,
            sha256=self._digests.sha256 if in_order else None,
            crc32=None if in_order else _crc32(run.buffers),
        )
        self._journal.append(claim)
        self._claims.append(claim)
        self._held = spans.merge([*self._held, Span(claim.start, claim.stop)])
        self._flying = None

    def _create(self) -> None:
        """A new, empty partial. A journal that described an older one goes first."""
        if self._fd is not None:
            return
        if self._has_journal:
            self._journal.remove()
            self._has_journal = False
        assert self.head is not None
        self._disk.reserve(self.head.length or 0)
        self._fd = create(self._path)

    def _write(self, run: _Run, *, further: int = 0) -> bool:
        """Write a run; True if it followed the hashed prefix, so that the hash follows it."""
        assert self._fd is not None
        with self._disk.room(run.size, further=further):
            write_all(self._fd, run.buffers, run.start)
        if run.start != self._digests.at:
            return False
        for buffer in run.buffers:
            self._digests.update(buffer)
        return True

    # Publishing --------------------------------------------------------------------------------

    async def commit(self) -> Receipt:
        await self._idle()
        assert self.head is not None
        runs, self._runs = sorted(self._runs.values(), key=lambda run: run.start), {}
        length = max([run.start + run.size for run in runs] + [span.stop for span in self._held], default=0)
        if self.head.length not in (None, length):
            raise Changed(f"{length} bytes are here, not the {self.head.length} that the origin stated: it starts over")
        if self._has_journal and self._journal.is_open:
            for run in runs:
                await self._hop(partial(self._write_and_claim, run))
            runs = []
            while self._digests.at < length:
                await self._hop(partial(self._hash_on, length))
        whole = _Whole(self, runs, length)
        try:
            if self._has_journal:
                self.committed = await self._disk.start(whole.publish)
            else:
                self.committed = await self._publisher.publish(whole, brief=length <= _SMALL)
        except UNFIT:
            await self.abort()
            raise
        except OSError as error:
            raise self._translated(error) from error
        return self.committed

    def _hash_on(self, length: int) -> None:
        """Segments came out of order: follow the hash through what is on disk."""
        assert self._fd is not None
        stop = min(length, self._digests.at + _HOP)
        for block in read_span(self._fd, self._digests.at, stop):
            self._digests.update(block)
        if self._digests.at < stop:
            raise StoreUnavailable(f"{self._path}: is shorter than what was written to it")

    def _receipt(self, name: str, length: int) -> Receipt:
        assert self.head is not None
        told = ["length"] if self.head.length is not None else []
        return Receipt(
            path=name,
            bytes=length,
            sha256=self._digests.sha256,
            content_type=self.head.content_type,
            etag=self.head.etag,
            last_modified=from_http(self.head.last_modified),
            verified=(*told, *self.head.checks),
        )

    # Letting go --------------------------------------------------------------------------------

    async def pause(self) -> None:
        """What is in memory here was taken from nobody, and is written in a moment."""

    async def abort(self) -> None:
        await self._idle()
        self._runs.clear()
        self._flying = None
        self._let_go()
        self.head, self._claims, self._held = None, [], []
        await self._hop(self._remove)

    def _remove(self) -> None:
        self._journal.remove()
        self._has_journal = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    async def close(self) -> None:
        try:
            if self.committed is None and self.head is not None:
                if self.head.length is None:  # nobody could go on with it
                    await self.abort()
                else:
                    await self.flush()
                    await self._idle()
        finally:
            self._let_go()
            if self.committed is None and self._has_journal:
                self._on_left()

    def _let_go(self) -> None:
        if self._has_journal:
            self._journal.close()
        if self._fd is not None:
            let_go(self._fd)
            self._fd = None

    async def _hop(self, call: Callable[[], T]) -> T:
        return await self._disk.start(partial(self._translating, call))

    def _translating(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> StoreError:
        return store_error(f"{self._target.folder}/{self._target.names[0]}", error)


class _Whole:
    """A partial file of which every byte is here, on its way to its final name: a Publication."""

    def __init__(self, part: PartialFile, runs: list[_Run], length: int) -> None:
        self.folder = part._target.folder
        self._part = part
        self._runs = runs
        self._length = length

    def publish(self) -> Receipt:
        """All steps. Blocks."""
        self.write()
        self.sync()
        disk = self._part._disk
        with disk.folder(self.folder, create=True) as folder:
            receipt = self.place(folder)
            disk.sync_folder(folder)
        return receipt

    def write(self) -> None:
        part = self._part
        part._create()
        for run in self._runs:
            part._write(run)
        self._runs = []
        assert part.head is not None
        part.remark = judge(part._digests, part.head, part._target)
        assert part._fd is not None
        if part._has_journal:  # an earlier try may have left more behind
            os.ftruncate(part._fd, self._length)

    def sync(self) -> None:
        """Or let go of it: what a failed sync leaves reads well until the cache drops it."""
        part = self._part
        assert part._fd is not None
        try:
            part._disk.sync_file(part._fd)
        except OSError:
            part._claims = []
            part._remove()
            raise

    def place(self, folder: int) -> Receipt:
        part = self._part
        assert part._fd is not None
        name, there = self._choose(folder, part._fd)
        receipt = part._receipt(name, self._length)
        if part._has_journal and part._journal.is_open:
            part._journal.append(Committed(folder=self.folder, receipt=receipt))
            part._journal.sync()
            part._on_commit()
        if there:
            os.unlink(part._path)
        else:
            os.replace(part._path, name, dst_dir_fd=folder)
        part._let_go()
        return receipt

    def _choose(self, folder: int, fd: int) -> tuple[str, bool]:
        """The first of the names that is free, or holds these very bytes already (then True)."""
        target = self._part._target
        if target.sha256:
            return target.names[0], False
        for name in target.names:
            found = stat_file(name, folder)
            if found is None:
                return name, False
            if is_file(found, self._length):
                other = os.open(name, READ, dir_fd=folder)
                try:
                    if same_bytes(fd, other):
                        self._part._disk.sync_file(other)
                        return name, True
                finally:
                    let_go(other)
        raise Obstructed(f"{self.folder}/{target.names[0]}: all its names are taken by other files")


def _crc32(buffers: list[bytes | memoryview]) -> int:
    crc = 0
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    return crc
