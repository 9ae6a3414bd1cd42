"""What one night has to do: the new prompts of the history, then everything unfinished. The catalog is the queue."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator

from mirror.catalog import Catalog, Due, Place
from mirror.errors import ApiError, ExitCode, Severity
from mirror.events import Noted
from mirror.models import PromptState
from mirror.run import Emit, Result, Run
from mirror.settings import Settings, SyncOptions
from mirror.sources import Batch
from mirror.walk import Walk

_BATCH = 200
_DUE = 10_000
"""What is due is put in order for each batch: few batches, large ones."""


class Sync:
    """The source of a run that finds its work by itself, and what follows from its results."""

    def __init__(self, run: Run, catalog: Catalog, settings: Settings, options: SyncOptions) -> None:
        self._run = run
        self._catalog = catalog
        self._options = options
        bucket = run.places.bucket
        self._due = Due(
            run=run.run_id,
            only=run.options.only,
            retry_failed=run.options.retry_failed,
            refresh=run.options.refresh,
            bucket=bucket.home if bucket is not None else None,
        )
        self._walk = Walk(run.api, catalog, settings.api, run.observer, name=run.run_id, since=options.since)
        self._left = options.max_prompts or None
        self._more = asyncio.Event()
        self._began = time.time()
        self._walk_failed = False

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The ids, new ones first. The history is read beside this, as fast as the service gives it.

        Raises:
            Unauthorized, CatalogError: the run cannot go on.
        """
        walking = asyncio.create_task(self._read_history())
        try:
            async for found in self._in_order(walking):
                yield self._counted(found)
                if self._left == 0:
                    return
        finally:
            walking.cancel()
            await asyncio.wait({walking})
            _raise_from(walking)

    def _counted(self, ids: Batch) -> Batch:
        if self._left is not None:
            ids = ids[: self._left]
            self._left -= len(ids)
        return ids

    async def _in_order(self, walking: asyncio.Task[None]) -> AsyncIterator[Batch]:
        if self._due.retry_failed:
            await self._catalog.reopen()
        after = 0
        while True:
            ended = walking.done()  # looked at before the catalog: what was put in last is found then
            if ended:
                _raise_from(walking)
            self._more.clear()
            found = await self._catalog.untried(after, _BATCH)
            if found:
                after = found[-1][0]
                yield [prompt_id for _, prompt_id in found]
            elif ended:
                break
            else:
                await self._more.wait()
        for group in self._due.groups:
            place: Place = (-1.0, 0)
            while due := await self._catalog.due(self._due, group, place, _DUE):
                place = due[-1][0]
                yield [prompt_id for _, prompt_id in due]

    async def _read_history(self) -> None:
        try:
            await self._walk.run(self._more.set)
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            self._walk_failed = True
            self._run.observer(Noted(level="warning", message=f"the history cannot be read: {error}"))
        finally:
            self._more.set()

    # What became of it -------------------------------------------------------------------------

    def judging(self, emit: Emit) -> Emit:
        """Hands results on; what failed upstream, or is not known there, is told and makes no night red."""

        async def judged(result: Result) -> None:
            told = result.state in (PromptState.FAILED, PromptState.UNKNOWN)
            await emit(dataclasses.replace(result, code=ExitCode.OK) if told else result)

        return judged

    async def end(self) -> ExitCode:
        """Give up what has been unfinished for too long; the exit code for that and for the history."""
        code = ExitCode.INCOMPLETE if self._walk_failed else ExitCode.OK
        if not self._options.give_up:
            return code
        given_up = await self._catalog.give_up(self._due, self._began - self._options.give_up)
        for each in given_up:
            message = (
                f"{each.prompt_id}: still pending {each.seconds / 86400:.1f} days after it was first seen: "
                "given up; --retry-failed takes it up again"
            )
            self._run.observer(Noted(level="warning", message=message, prompt_id=each.prompt_id))
        return ExitCode.INCOMPLETE if given_up else code


def _raise_from(task: asyncio.Task[None]) -> None:
    """Raise what ended a task by itself."""
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        raise error
