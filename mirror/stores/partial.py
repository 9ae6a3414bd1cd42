"""The local sink: a partial file and its journal, until the whole is published.

A body that is small enough to be here at once is written, hashed, made durable and renamed together with others
(:mod:`mirror.stores.publishing`). Larger ones go in batches, a hop to a thread each, while the network reads on; every
batch is claimed in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from mirror import spans
from mirror.digests import Digests, are_known
from mirror.errors import Changed, StoreError, StoreUnavailable
from mirror.models import Receipt, Span
from mirror.stores import Head, Source, Target
from mirror.stores.disk import Disk, is_stopped
from mirror.stores.files import let_go, store_error
from mirror.stores.journal import Claim, Committed, Started
from mirror.stores.judgement import UNFIT
from mirror.stores.part import BATCH, HOP, Part, Run
from mirror.stores.publishing import Publisher
from mirror.stores.recovery import hash_on, in_batches, open_committed
from mirror.stores.workers import Uninterrupted

T = TypeVar("T")

_SMALL = 64 << 10
"""Bytes of a file that is written, hashed and published in less time than a thread is woken in."""


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
        self.committed: Receipt | None = None
        self._disk = disk
        self._publisher = publisher
        self._target = target
        self._part = Part(disk, target, key, is_new=is_new, on_commit=on_commit)
        self._on_left = on_left
        self._runs: dict[int, Run] = {}
        self._writing: Uninterrupted[Any] | None = None
        self._flying: Run | None = None

    @property
    def head(self) -> Head | None:
        return self._part.head

    @property
    def remark(self) -> str:
        return self._part.remark

    # What an earlier run left ------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up the partial of an earlier try, as far as its bytes are what the journal says."""
        part = self._part
        try:
            records = await self._hop(part.journal.read)
        except StoreUnavailable:
            return  # it costs the bytes that it claims, and no more
        started, last = (records[0], records[-1]) if records else (None, None)
        if not isinstance(started, Started) or started.identity != self._target.identity:
            return
        if not are_known(started.head.checks):
            return
        if isinstance(last, Committed):
            self.committed = await self._find_committed(last)
        check = await self._hop(partial(part.check_existing, started)) if self.committed is None else None
        if check is None:
            return
        for batch in in_batches([record for record in records if isinstance(record, Claim)], HOP):
            await self._hop(partial(check.check, batch))
        await self._hop(partial(part.take_up, started, check))
        await self._check_room(started.head)

    async def _find_committed(self, record: Committed) -> Receipt | None:
        """The receipt, if a kill came between the file's final name and the catalog, and its bytes are all there."""
        fd = await self._hop(partial(open_committed, self._disk, self._target, record))
        if fd is None:
            return None
        try:
            digests, size = Digests(), record.receipt.bytes
            while digests.at <= size and await self._hop(partial(hash_on, fd, digests, HOP)):
                pass
            return record.receipt if (digests.at, digests.sha256) == (size, record.receipt.sha256) else None
        finally:
            let_go(fd)

    # Taking bytes in ---------------------------------------------------------------------------

    def written(self) -> list[Span]:
        held = self._part.held
        if not held and not self._runs and not self._flying:
            return []
        pending = [*self._runs.values(), *([self._flying] if self._flying else [])]
        return spans.merge([*held, *(Span(run.start, run.stop) for run in pending)])

    async def begin(self, head: Head) -> None:
        if self._writing is not None:
            await self._idle()
        self._runs.clear()
        self._flying = None
        self._part.begin(head)
        if (head.length or 0) > BATCH:
            await self._check_room(head)

    async def _check_room(self, head: Head) -> None:
        """Whether what is missing fits. A short file finds that out when it is written, in the same hop."""
        missing = (head.length or 0) - spans.size(self._part.held)
        if missing > BATCH:
            await self._hop(partial(self._disk.reserve, missing))

    async def write(self, at: int, data: bytes | memoryview) -> None:
        run = self._runs.pop(at, None) or Run(at)
        run.add(data)
        if run.due:
            await self._start_writing(run)
        else:
            self._runs[at + len(data)] = run

    async def draw(self, at: int, data: bytes | memoryview, source: Source) -> int:
        await self._idle()
        run = self._runs.pop(at, None) or Run(at)
        for piece in (data, *source.pieces):
            run.add(piece)
        call = partial(self._part.draw, run, source, is_stopped())
        self._writing = drawing = self._disk.draw(partial(self._translating, call))
        try:
            return await drawing - at
        finally:
            if self._writing is drawing:
                self._writing = None

    async def flush(self) -> None:
        await self._idle()
        for run in self._taken():
            await self._start_writing(run)
            await self._idle()

    def _taken(self) -> list[Run]:
        """What is not written yet, in order; it is nobody else's from here on."""
        runs, self._runs = sorted(self._runs.values(), key=lambda run: run.start), {}
        return runs

    async def _start_writing(self, run: Run) -> None:
        """Hand a run to a thread and go on; one is under way at a time, so two batches of memory are the bound."""
        await self._idle()
        self._flying = run

        def write() -> None:
            self._part.write_and_claim(run)
            self._flying = None

        self._writing = self._disk.start(partial(self._translating, write))

    async def _idle(self) -> None:
        while (writing := self._writing) is not None:
            try:
                await writing
            finally:
                if self._writing is writing:
                    self._writing = None

    # Publishing --------------------------------------------------------------------------------

    async def commit(self) -> Receipt:
        if self._writing is not None:
            await self._idle()
        part = self._part
        assert part.head is not None
        runs = self._taken()
        length = max([run.stop for run in runs] + [span.stop for span in part.held], default=0)
        if part.head.length not in (None, length):
            raise Changed(f"{length} bytes are here, not the {part.head.length} that the origin stated: it starts over")
        if part.is_journaled:
            for run in runs:
                await self._hop(partial(part.write_and_claim, run))
            runs = []
            while part.hashed < length:
                await self._hop(partial(part.hash_on, length))
        whole = _Whole(part, runs, length)
        try:
            if part.has_journal:
                self.committed = await self._publisher.publish_alone(whole)
            else:
                self.committed = await self._publisher.publish(whole, brief=length <= _SMALL)
        except UNFIT:
            await self.abort()
            raise
        except OSError as error:
            raise self._translated(error) from error
        return self.committed

    # Letting go --------------------------------------------------------------------------------

    async def pause(self) -> None:
        """What is in memory here was taken from nobody, and is written in a moment."""

    async def abort(self) -> None:
        await self._idle()
        self._runs.clear()
        self._flying = None
        self._part.drop()
        await self._hop(self._part.remove)

    async def close(self) -> None:
        part = self._part
        try:
            if self.committed is None and part.head is not None:
                if part.head.length is None:  # nobody could go on with it
                    await self.abort()
                else:
                    await self.flush()
                    await self._idle()
        finally:
            part.let_go()
            if self.committed is None and part.has_journal:
                self._on_left()

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
    """A partial file of which every byte is here: a Publication."""

    def __init__(self, part: Part, runs: Sequence[Run], length: int) -> None:
        self.folder = part.target.folder
        self._part = part
        self._runs = runs
        self._length = length

    def write(self) -> None:
        self._part.complete(self._runs, self._length)
        self._runs = ()

    def sync(self) -> None:
        self._part.sync()

    def place(self, folder: int) -> Receipt:
        return self._part.place(folder, self._length)
