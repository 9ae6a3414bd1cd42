"""The engine: rounds of prompts go out as datasets, and what the actors say of each comes back as rows.

The driver looks up, gives out, records and tells, as that of ``--processes`` does. A lost actor is Ray's to replace:
its batch is given to another, which finds in the store what was finished. Whatever a round leaves without a result goes
into the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from mirror.catalog import Catalog, FileSaved, Marked, PromptRecord, Write
from mirror.engines.messages import Broke, heard
from mirror.engines.ray.cluster import Cluster, first_line, joined
from mirror.engines.ray.stage import GIVEN, MADE, Job, RayStage, lock_of, said
from mirror.engines.shares import share_of
from mirror.engines.stage import Report
from mirror.errors import ExitCode, StoreUnavailable, first_error
from mirror.events import Noted, PromptFinished, PromptWaiting
from mirror.models import PromptId
from mirror.run import Case, Emit, Run
from mirror.settings import Settings
from mirror.sources.blocking import apart, in_thread

_BATCH = 64
"""Prompts that an actor is given at once, at most: Ray hands on what became of them when all are done."""

_ROUND, _MOST = 20_000, 200_000
"""Prompts of a round, at most: for each actor, and in all."""

_MOMENT = 2.0
"""Seconds that a round waits for more prompts to come: to begin one takes longer."""

_PATIENCE = 3
"""Rounds, one after the other, that may bring nothing before the run is given up."""

_GRACE = 1.5
"""Seconds that the cluster may take to end what it does for us."""

_CPU = 0.5
"""Of each actor: half of the nodes may be lost, and there is a place for theirs on the others."""


class Rounds:
    """An engine of ``count`` actors; 0: as many as the cluster has CPUs. The root is locked."""

    def __init__(self, run: Run, catalog: Catalog, settings: Settings, emit: Emit, *, count: int) -> None:
        self._run = run
        self._catalog = catalog
        self._settings = settings
        self._emit = emit
        self._count = count
        self._cases: dict[PromptId, Case] = {}
        self._ready: list[PromptId] = []
        self._tried: set[PromptId] = set()
        self._waiting: dict[PromptId, float] = {}
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_all = False
        self._most = 1

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up and not brought to a result."""
        return len(self._cases)

    async def run(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        """Until all of them have a result.

        Raises:
            MirrorError: the fatal one that ended the run.
        """
        cluster = await joined()
        self._count = self._count or await apart(lambda: cluster.cpus)
        self._most = min(_ROUND * self._count, _MOST)
        disk = self._run.places.disk.disk
        disk.in_doubt |= not disk.is_durable  # of what the workers write, too
        try:
            async with asyncio.TaskGroup() as group:
                taking = group.create_task(self._take_in(prompts))
                await self._go_round(cluster)
                await taking
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            await _within(_GRACE, cluster.leave)
            await self._run.places.gather()

    # What is to be done ------------------------------------------------------------------------

    async def _take_in(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        async for batch in prompts:
            deadline = time.monotonic() + self._run.options.wait
            for prompt_id in batch:
                if prompt_id not in self._cases:
                    self._cases[prompt_id] = Case(prompt_id, deadline)
                    self._ready.append(prompt_id)
            self._changed.set()
            while len(self._ready) >= self._most:
                self._has_room.clear()
                await self._has_room.wait()
        self._is_all = True
        self._changed.set()

    async def _go_round(self, cluster: Cluster) -> None:
        barren = 0
        while ids := await self._next():
            records = await self._new(ids)
            if records:
                await self._round(cluster, records)
            left = [prompt_id for prompt_id in ids if prompt_id in self._cases and prompt_id not in self._waiting]
            barren = barren + 1 if left and len(left) == len(records) else 0
            if barren == _PATIENCE:
                raise StoreUnavailable(
                    f"Ray loses its workers at {len(left)} prompts: is there memory enough for them?"
                )
            if left:
                self._note(f"{len(left)} prompts came to no result with Ray: they are given out again")
            self._ready[:0] = left

    async def _new(self, ids: Sequence[PromptId]) -> list[PromptRecord]:
        """What is known of prompts, each with a folder; but for those whose result came since they were looked up."""
        records = []
        for record in await self._catalog.enroll(ids):
            if record.run != self._run.run_id or record.prompt_id in self._tried:
                records.append(replace(record, run=None))
            else:
                del self._cases[record.prompt_id]
        self._tried.update(record.prompt_id for record in records)
        return records

    async def _next(self) -> list[PromptId]:
        """The prompts of the next round; none when there are no more."""
        since: float | None = None
        while True:
            now = time.monotonic()
            due = [prompt_id for prompt_id, at in self._waiting.items() if at <= now]
            for prompt_id in due:
                del self._waiting[prompt_id]
            self._ready += due
            since = (since or now) if self._ready else None
            is_full = self._is_all or len(self._ready) >= self._most
            if since is not None and (is_full or now - since >= _MOMENT):
                break
            if self._is_all and not self._ready and not self._waiting:
                return []
            moments = [since + _MOMENT - now] if since is not None else []
            moments += [at - now for at in self._waiting.values()]
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(moments, default=None))
        ids, self._ready = self._ready[: self._most], self._ready[self._most :]
        self._has_room.set()
        return ids

    # A round -----------------------------------------------------------------------------------

    async def _round(self, cluster: Cluster, records: Sequence[PromptRecord]) -> None:
        dataset = await apart(lambda: self._dataset(cluster, records))
        has_ended = threading.Event()
        try:
            async with contextlib.aclosing(in_thread(_rows(dataset, has_ended))) as blocks:
                async for block in blocks:
                    await self._hear(block)
        except BaseException:
            await _within(_GRACE, cluster.cancel, dataset, has_ended)
            raise

    def _dataset(self, cluster: Cluster, records: Sequence[PromptRecord]) -> Any:
        """The round as a dataset, a block a batch. Blocks."""
        data = cluster.ray.data
        size = max(1, min(_BATCH, -(-len(records) // (4 * self._count))))
        items = [{GIVEN: msgspec.json.encode(record)} for record in records]
        dataset = data.from_items(items, override_num_blocks=-(-len(items) // size))
        made = dataset.map_batches(
            RayStage,
            fn_constructor_kwargs={"job": self._job(cluster)},
            batch_size=None,
            compute=data.ActorPoolStrategy(
                size=min(self._count, -(-len(items) // size)),
                max_tasks_in_flight_per_actor=3,
                max_concurrent_calls_per_actor=2,  # while the last prompts of a batch take their time, the next begins
                enable_true_multi_threading=True,
            ),
            num_cpus=_CPU,
        )
        return cluster.hush(made)

    def _job(self, cluster: Cluster) -> Job:
        share = share_of(self._settings, self._count, on_machine=min(self._count, cluster.most_cpus))
        root = Path(share.archive.root).absolute()
        return Job(
            settings=replace(share, archive=replace(share.archive, root=str(root))),
            options=replace(self._run.options, wait=0.0),  # it is the driver who waits
            run_id=self._run.run_id,
            holder=lock_of(root) if self._run.places.wants_disk else "",
        )

    # What comes back ---------------------------------------------------------------------------

    async def _hear(self, block: Sequence[bytes]) -> None:
        """Record what is said, then tell of it. Of what a lost worker had said before, only the first counts."""
        reports: list[Report] = []
        broke: Broke | None = None
        for row in block:
            message = said.decode(row)
            if isinstance(message, Broke):
                broke = broke or message
            elif message.report.result.prompt_id in self._cases:
                reports.append(message.report)
        await self._write([write for report in reports for write in self._writes_of(report)])
        for report in reports:
            await self._finish(report)
        if broke is not None:
            self._run.places.disk.disk.in_doubt = True
            raise heard(broke)

    def _writes_of(self, report: Report) -> list[Write]:
        result = report.result
        marks: list[Write] = [Marked(prompt_ids=[result.prompt_id], run=self._run.run_id)] if result.skipped else []
        return [*report.writes, *marks]

    async def _write(self, writes: Sequence[Write]) -> None:
        if writes:
            await self._catalog.apply(writes)
        for write in writes:
            if isinstance(write, FileSaved):
                self._run.recent.add(write.record.identity)

    async def _finish(self, report: Report) -> None:
        result = report.result
        case = self._cases[result.prompt_id]
        wait = case.next_poll() if result.code is ExitCode.PENDING else None
        for event in report.events:
            if wait is None or not isinstance(event, PromptFinished) or event.prompt_id != result.prompt_id:
                self._run.observer(event)
        if wait is None:
            del self._cases[result.prompt_id]
            self._waiting.pop(result.prompt_id, None)
            self._tried.discard(result.prompt_id)
            await self._emit(result)
        else:
            self._run.observer(PromptWaiting(prompt_id=result.prompt_id, seconds=round(wait, 1)))
            self._waiting[result.prompt_id] = time.monotonic() + wait

    def _note(self, message: str) -> None:
        self._run.observer(Noted(level="warning", message=message))


def _rows(dataset: Any, has_ended: threading.Event) -> Iterator[list[bytes]]:
    """What the actors say, block by block. ``has_ended`` is set when nothing of Ray is in use here any more. Blocks.

    Raises:
        StoreUnavailable: Ray cannot go on.
    """
    try:
        blocks = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        try:
            for block in blocks:
                yield block.column(MADE).to_pylist()
        except Exception as error:
            raise StoreUnavailable(f"Ray cannot go on: {first_line(error)}") from error
        finally:
            del blocks
    finally:
        has_ended.set()


async def _within(seconds: float, call: Any, *given: Any) -> None:
    """Have something done in a thread, and wait so long for it at most."""
    doing = asyncio.ensure_future(apart(lambda: call(*given)))
    await asyncio.wait({doing}, timeout=seconds)
    if doing.done() and not doing.cancelled():
        doing.exception()
