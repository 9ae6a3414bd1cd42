"""A worker: the real pipeline, run on the shards that come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Sequence

from mirror.catalog import PromptRecord
from mirror.engines.ledger import HandOn, ShardLedger
from mirror.events import Observer
from mirror.gear import Gear
from mirror.inflight import Inflight
from mirror.intake import Intake
from mirror.pipeline import Pipeline
from mirror.places import Places
from mirror.run import Emit, Result
from mirror.settings import FetchOptions, Settings
from mirror.sources import Batch
from mirror.stores.desks import Desk

_ROOM = 16
"""Prompts that wait in a worker: few, since another one may have nothing to do."""


class Worker:
    """Made within its event loop. ``desk`` is its own place under the root, which others share.

    ``hand_on`` gets every write that is meant for the catalog.
    """

    def __init__(
        self, settings: Settings, observer: Observer, hand_on: HandOn, *, desk: Desk, inflight: Inflight | None = None
    ) -> None:
        self._ledger = ShardLedger(hand_on)
        self._gear = Gear(settings, observer, desk=desk, inflight=inflight)

    @property
    def places(self) -> Places:
        """Where its files go."""
        return self._gear.places

    def trust(self) -> None:
        """The service has taken the token from somebody."""
        self._gear.api.has_answered = True

    def pace(self, bytes_a_second: float, requests_a_second: float) -> None:
        """This worker's share from now on; 0 is no limit."""
        self._gear.pace(bytes_a_second, requests_a_second)

    async def open(self) -> None:
        """Take the desk.

        Raises:
            StoreError: the root cannot be worked on.
        """
        await asyncio.to_thread(self._gear.places.disk.open)

    async def run(
        self,
        shards: AsyncIterable[Sequence[PromptRecord]],
        emit: Emit,
        options: FetchOptions,
        run_id: str,
        *,
        want_manifests: bool,
    ) -> None:
        """Until each prompt of all shards has its result.

        Raises:
            MirrorError: the fatal one that ended it.
        """

        async def emitted(result: Result) -> None:
            self._ledger.drop(result.prompt_id)
            await emit(result)

        run = self._gear.new_run(options, self._ledger, run_id=run_id)
        intake = Intake(run, emitted, want_manifests=want_manifests)
        pipeline = Pipeline(run, emitted, workers=self._gear.visits, room=_ROOM)
        async with contextlib.aclosing(intake.of(self._ids(shards))) as prompts:
            await pipeline.run(prompts)

    async def _ids(self, shards: AsyncIterable[Sequence[PromptRecord]]) -> AsyncGenerator[Batch, None]:
        async for records in shards:
            self._ledger.take(records)
            yield [record.prompt_id for record in records]

    async def close(self) -> bool:
        """Let go of everything. True where something that was written may not be durable."""
        try:
            await self._gear.rest()
        finally:
            await self._gear.close()
        return self._gear.places.disk.disk.in_doubt
