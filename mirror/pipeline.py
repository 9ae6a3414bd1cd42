"""The run: prompts come in, visits are made, results go out. Bounded everywhere, back to the source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable

from mirror.agenda import Agenda
from mirror.errors import first_error
from mirror.models import PromptId
from mirror.preview import preview
from mirror.run import Case, Emit, Result, Run
from mirror.visit import Visit

ROOM = 256
"""Prompts that may be ready and wait for a worker."""


class Pipeline:
    """Deals with every prompt once: ``workers`` at a time, and ``room`` are taken in before there is one for them."""

    def __init__(self, run: Run, emit: Emit, *, workers: int, room: int = ROOM) -> None:
        self._run = run
        self._emit = emit
        self._workers = workers
        self._agenda: Agenda[Case] = Agenda(room)
        self._under_way: set[PromptId] = set()

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up and not brought to a result."""
        return len(self._under_way)

    async def run(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        """Until all of them have a result.

        Raises:
            MirrorError: the fatal one that ended the run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_in(prompts))
                for _ in range(self._workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _take_in(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        async for batch in prompts:
            for prompt_id in batch:
                if prompt_id not in self._under_way:
                    self._under_way.add(prompt_id)
                    deadline = time.monotonic() + self._run.options.wait
                    await self._agenda.put(Case(prompt_id, deadline))
        await self._agenda.close()

    async def _visit(self, case: Case) -> Result | float:
        if self._run.options.dry_run:
            return await preview(self._run, case.prompt_id)
        async with self._run.visited.alone(case.prompt_id):
            return await Visit(self._run, case).run()

    async def _work(self) -> None:
        while (case := await self._agenda.take()) is not None:
            again: tuple[Case, float] | None = None
            try:
                outcome = await self._visit(case)
                if isinstance(outcome, Result):
                    self._under_way.discard(case.prompt_id)
                    await self._emit(outcome)
                else:
                    again = (case, outcome)
            finally:
                await self._agenda.done(again)
