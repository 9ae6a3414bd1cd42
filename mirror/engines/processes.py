"""``--processes N``: workers that are processes of this machine, and the driver's end of it.

The driver looks up, deals out, records and tells; it holds the root's lock, which each worker inherits, so that nobody
else has the root before the last of them has gone. A worker that dies is replaced, and its prompts are taken up again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Sequence

from msgspec.structs import replace

from mirror.catalog import Catalog, FileSaved, PromptRecord, Write
from mirror.engines.member import Member
from mirror.engines.messages import (
    Broke,
    Ended,
    Enter,
    Finished,
    Given,
    Leave,
    NoMore,
    Paced,
    Ready,
    Shard,
    Start,
    Stop,
    ToDriver,
    Told,
    ToWorker,
    Trusted,
    Writes,
    Written,
    heard,
    packed,
)
from mirror.engines.shares import share_of
from mirror.engines.turns import Turns
from mirror.errors import StoreError, StoreUnavailable, first_error
from mirror.events import Event, FilePlanned, Noted, PromptStarted, PromptWaiting
from mirror.inflight import Elsewhere, Turn
from mirror.models import PromptId
from mirror.run import Emit, Result, Run
from mirror.settings import Settings

_SHARD = 4
"""Prompts that are handed out at once, at most; and how many more than another one a worker may be at."""

_GRACE = 1.5
"""Seconds that workers may take to stop."""

_DEATHS = 3
"""Workers that may die, over their number, before the run is given up."""


class Processes:
    """An engine of ``count`` worker processes. ``catalog`` is the driver's, and the root is locked."""

    def __init__(
        self, run: Run, catalog: Catalog, settings: Settings, emit: Emit, *, count: int, want_manifests: bool
    ) -> None:
        self._run = run
        self._catalog = catalog
        self._settings = settings
        self._emit = emit
        self._count = min(count, settings.transfer.concurrency or count)
        self._want_manifests = want_manifests
        self._shards: asyncio.Queue[list[PromptRecord]] = asyncio.Queue(self._count)
        self._under_way: set[PromptId] = set()
        self._members: dict[int, Member] = {}
        self._moved = asyncio.Event()
        self._turns: Turns[Member] = Turns(_give, self._stored)
        self._deaths = 0
        self._is_trusted = False
        self._stopping: asyncio.Future[None]

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up and not brought to a result."""
        return len(self._under_way)

    async def run(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        """Until all of them have a result.

        Raises:
            MirrorError: the fatal one that ended the run.
        """
        self._stopping = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._deal(prompts))
                for number in range(self._count):
                    group.create_task(self._keep(number))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            with contextlib.suppress(StoreError):  # what ended the run is told; the next one gathers what is left
                await self._run.places.gather()

    # Dealing out -------------------------------------------------------------------------------

    async def _deal(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        async for batch in prompts:
            new = [prompt_id for prompt_id in dict.fromkeys(batch) if prompt_id not in self._under_way]
            self._under_way.update(new)
            known = await self._catalog.enroll(new)
            records = [record for record in known if record.run != self._run.run_id]
            ended = [record.prompt_id for record in known if record.run == self._run.run_id]  # just now
            self._under_way.difference_update(ended)
            size = min(_SHARD, 1 + len(records) // (4 * self._count))
            for start in range(0, len(records), size):
                await self._shards.put(records[start : start + size])
        await self._shards.put([])  # that was all: whoever finds it leaves it there

    async def _next(self) -> list[PromptRecord]:
        """A shard; empty when all were dealt."""
        records = await self._shards.get()
        if not records:
            self._shards.put_nowait([])
        return records

    async def _hand_out(self, member: Member, records: list[PromptRecord]) -> None:
        """These, and then shards as the worker has room for them."""
        while True:
            await member.ready.wait()
            member.ready.clear()
            while self._is_ahead(member):
                self._moved.clear()
                await self._moved.wait()
            records = records or await self._next()
            if not records:
                break
            member.hold(records)
            self._moved.set()
            member.channel.post(Shard(records=records))
            records = []
        member.channel.post(NoMore())

    def _is_ahead(self, member: Member) -> bool:
        """Whether another one has much less to do: it may just have started."""
        return member.load > min(other.load for other in self._members.values()) + _SHARD

    # Workers -----------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Have a worker of this number from the first shard that is there for it until nothing is."""
        records = await self._next()
        has_ended = not records
        while not has_ended:
            member = self._members[number] = Member(number)
            member.hold(records)
            await member.start(self._run.places.disk.locked)
            try:
                await self._work_with(member, records)
            finally:
                status = await member.end()
                self._run.places.disk.disk.in_doubt |= not member.has_ended
                await self._turns.leave_all(member)
                del self._members[number]
                self._moved.set()
                self._pace()
            has_ended = member.has_ended
            if not has_ended:
                self._lost(status)
                left = await self._catalog.enroll([*member.holding])
                records = [replace(record, run=None) for record in left]

    def _pace(self) -> None:
        """Share limits out anew, since a worker has started or ended: one that has nothing to do uses none of them."""
        limits, count = self._settings, max(1, len(self._members))
        share = Paced(
            bytes=limits.transfer.limit_rate / count,
            requests=limits.api.requests_per_second / count,
        )
        self._tell_all(share)

    def _tell_all(self, message: ToWorker) -> None:
        for member in self._members.values():
            if member.has_begun:  # else its first word says so
                member.channel.post(message)

    def _lost(self, status: int) -> None:
        self._deaths += 1
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        told = f"a worker process died ({how})"
        if self._deaths > self._count + _DEATHS:
            raise StoreUnavailable(f"{told}, as {self._deaths - 1} before it: is there memory enough for them?")
        self._run.observer(Noted(level="warning", message=f"{told}: another one takes up what it was at"))

    async def _work_with(self, member: Member, records: list[PromptRecord]) -> None:
        """Until it has ended, or is dead. If we are to stop, it is told so, and heard to its end."""
        start = Start(
            settings=packed(share_of(self._settings, self._count)),
            options=self._run.options,
            run_id=self._run.run_id,
            desk=f"{self._run.run_id}-{member.number}",
            want_manifests=self._want_manifests,
            is_trusted=self._is_trusted,
        )
        member.channel.post(start)
        member.has_begun = True
        self._pace()
        handing = asyncio.create_task(self._hand_out(member, records))
        heeding = asyncio.create_task(self._heed(member))
        try:
            await asyncio.wait({handing, heeding}, return_when=asyncio.FIRST_COMPLETED)
            if not handing.done() or handing.exception() is None:
                await asyncio.wait({heeding})
        except asyncio.CancelledError:
            if not self._stopping.done():
                self._stopping.set_result(None)
            member.channel.post(Stop())
            await asyncio.wait({heeding}, timeout=_GRACE)
            raise
        finally:
            for task in (handing, heeding):
                task.cancel()
            await asyncio.gather(handing, heeding, return_exceptions=True)
        for task in (heeding, handing):
            if not task.cancelled():
                task.result()

    async def _heed(self, member: Member) -> None:
        """Do what it asks for, in order: until its last word, or until it is dead.

        Raises:
            MirrorError: the fatal one that it met.
        """
        while not member.has_ended and (messages := await member.channel.hear()):
            for message in messages:
                if isinstance(message, Ended):
                    self._run.places.disk.disk.in_doubt |= message.in_doubt
                    is_over = not member.holding or self._stopping.done() or member.broke is not None
                    if not is_over:
                        return  # whatever it says: it is not at its end
                    member.has_ended = True
                    break
                await self._do(member, message)
        if member.broke is not None:
            raise member.broke

    async def _do(self, member: Member, message: ToDriver) -> None:
        match message:
            case Told():
                for event in message.events:
                    self._look(member, event)
                    self._run.observer(event)
            case Writes():
                await self._write(message.writes)
                member.channel.post(Written())
            case Enter():
                await self._turns.enter(member, message.identity)
            case Leave():
                await self._turns.leave(member, message.identity, message.ended)
            case Finished():
                await self._finish(member, message.result)
            case Ready():
                member.ready.set()
            case Broke():
                member.broke = heard(message)

    def _look(self, member: Member, event: Event) -> None:
        if isinstance(event, PromptWaiting):
            member.waiting.add(event.prompt_id)
            self._moved.set()
        elif isinstance(event, PromptStarted):
            member.waiting.discard(event.prompt_id)
        elif isinstance(event, FilePlanned) and not self._is_trusted:
            self._is_trusted = True
            self._tell_all(Trusted())

    async def _write(self, writes: Sequence[Write]) -> None:
        await self._catalog.apply(writes)
        for write in writes:
            if isinstance(write, FileSaved):
                self._run.recent.add(write.record.identity)

    async def _finish(self, member: Member, result: Result) -> None:
        member.holding.pop(result.prompt_id, None)
        member.waiting.discard(result.prompt_id)
        self._moved.set()
        self._under_way.discard(result.prompt_id)
        handing_on = asyncio.ensure_future(self._emit(result))
        await asyncio.wait({handing_on, self._stopping}, return_when=asyncio.FIRST_COMPLETED)
        if handing_on.done():
            handing_on.result()
        else:  # its reader is slow, and we are to stop
            handing_on.cancel()

    async def _stored(self, identity: str) -> Elsewhere | None:
        return (await self._run.stored_elsewhere([identity])).get(identity)


def _give(member: Member, identity: str, turn: Turn) -> None:
    member.channel.post(Given(identity=identity, turn=turn))
