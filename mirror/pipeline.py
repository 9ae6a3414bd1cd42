"""The run: ids come in, visits are made, results go out. Bounded everywhere, back to the source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from mirror import names
from mirror.adoption import other_service, record_from
from mirror.agenda import Agenda
from mirror.api import check_prompt_id
from mirror.catalog import Done, PromptRecord
from mirror.errors import BadParameter, ExitCode, first_error
from mirror.events import Noted, PromptFinished
from mirror.manifests.document import decode_if_sound
from mirror.models import Manifest, PromptId
from mirror.preview import preview
from mirror.run import Case, Result, Run, refused
from mirror.sources import Source
from mirror.stores import Document
from mirror.visit import Visit

Emit = Callable[[Result], Awaitable[None]]

_ROOM = 256

_PAGE = 500
"""Prompts that are looked up at once."""

_MANIFESTS = 50
"""Prompts whose manifests are in memory at once: one may be large."""


class Pipeline:
    """Deals with every id of a source once. ``want_manifests`` reads those of skipped prompts, too."""

    def __init__(self, run: Run, emit: Emit, *, workers: int, want_manifests: bool) -> None:
        self._run = run
        self._emit = emit
        self._workers = workers
        self._want_manifests = want_manifests
        self._page = _MANIFESTS if want_manifests else _PAGE
        self._agenda: Agenda[Case] = Agenda(_ROOM)
        self._under_way: set[PromptId] = set()
        self._met_another_service = False
        self.stopped_by_time = False

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up and not brought to a result."""
        return len(self._under_way)

    async def run(self, source: Source) -> None:
        """Until all ids have a result, or ``max_time`` is over.

        Raises:
            MirrorError: the fatal one that ended the run.
        """
        limit = self._run.options.max_time or None
        try:
            async with asyncio.timeout(limit) as timer:
                await self._run_all(source)
        except TimeoutError:
            if not timer.expired():
                raise
            self.stopped_by_time = True

    async def _run_all(self, source: Source) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_in(source))
                for _ in range(self._workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    # Intake ------------------------------------------------------------------------------------

    async def _take_in(self, source: Source) -> None:
        marking: asyncio.Task[None] | None = None
        marked: set[PromptId] = set()
        async with asyncio.TaskGroup() as group:
            async for batch in source:
                ids = [prompt_id for prompt_id in await self._sound(batch) if prompt_id not in marked]
                skipped: set[PromptId] = set()
                for start in range(0, len(ids), self._page):
                    skipped |= await self._deal_with(ids[start : start + self._page])
                if marking is not None:
                    await marking
                # Beside the next batch, for which these are not in the catalog yet.
                marked, marking = skipped, group.create_task(self._mark(skipped))
            await self._agenda.close()

    async def _mark(self, done: set[PromptId]) -> None:
        if done:
            await self._run.catalog.mark(list(done), self._run.run_id)

    async def _deal_with(self, ids: list[PromptId]) -> set[PromptId]:
        """Skip what is complete and there, take up the rest, in order. Returns what is complete."""
        done = await self._done(ids)
        runs = await self._runs_of([prompt_id for prompt_id in ids if prompt_id not in done])
        done |= await self._done([prompt_id for prompt_id, run in runs.items() if run is None])
        fresh = {prompt_id: each for prompt_id, each in done.items() if each.run != self._run.run_id}
        manifests = await self._manifests_of(fresh) if self._want_manifests else {}
        for prompt_id in ids:
            if prompt_id in fresh:
                await self._skip(fresh[prompt_id], manifests.get(prompt_id))
            elif prompt_id not in done and runs.get(prompt_id) != self._run.run_id:
                await self._take_up(prompt_id)
        return set(done)

    async def _take_up(self, prompt_id: PromptId) -> None:
        if prompt_id not in self._under_way:
            self._under_way.add(prompt_id)
            deadline = time.monotonic() + self._run.options.wait
            await self._agenda.put(Case(prompt_id, deadline))

    async def _sound(self, batch: list[str]) -> list[PromptId]:
        """The ids that can be one, each once; the others get their result at once."""
        sound: dict[PromptId, None] = {}
        for raw in batch:
            try:
                check_prompt_id(raw)
            except BadParameter as error:
                await self._refuse(raw, error)
            else:
                sound[PromptId(raw)] = None
        return list(sound)

    async def _refuse(self, raw: str, error: BadParameter) -> None:
        result = refused(raw, error, self._run.api.url)
        assert result.manifest is not None
        self._run.observer(
            PromptFinished(
                prompt_id=result.prompt_id,
                state=result.state,
                ok=False,
                files=0,
                bytes_reused=0,
                errors=result.manifest.errors,
            )
        )
        await self._emit(result)

    async def _done(self, ids: list[PromptId]) -> dict[PromptId, Done]:
        """The prompts for which nothing is left to do: all that is wanted is stored, and is there."""
        options = self._run.options
        if not ids or options.refresh or self._run.repair is not None:
            return {}
        found = await self._run.catalog.done(ids, options.only)
        there = await self._run.places.keep_all([each.wanted for each in found])
        return {each.prompt_id: each for each, is_there in zip(found, there, strict=True) if is_there}

    async def _runs_of(self, ids: list[PromptId]) -> dict[PromptId, str | None]:
        """Which run dealt with each prompt last, as far as it is known.

        Where the catalog says nothing, a manifest on disk or in the bucket may: what it does goes into the catalog.
        """
        known = await self._run.catalog.records(ids) if ids else {}
        strange = [prompt_id for prompt_id in ids if prompt_id not in known or known[prompt_id].is_only_listed]
        folders = [
            known[prompt_id].folder if prompt_id in known else names.for_prompt(prompt_id)[0] for prompt_id in strange
        ]
        documents = await self._run.places.read_manifests(folders) if strange else []
        found: list[PromptRecord] = []
        for prompt_id, folder, document in zip(strange, folders, documents, strict=True):
            record = record_from(document, folder, prompt_id) if document is not None else None
            if document is not None and record is not None:
                self._look_at_service(prompt_id, document)
                found.append(record)
        await asyncio.gather(*(self._run.catalog.save_prompt(record, "") for record in found))
        return {record.prompt_id: record.run for record in (*known.values(), *found)}

    def _look_at_service(self, prompt_id: PromptId, document: Document) -> None:
        """Tell, once, of a manifest that another service's archive may have written here.

        It is taken all the same: one service has several names, and moves.
        """
        ours = self._run.api.url
        theirs = other_service(document, ours)
        if theirs is None or self._met_another_service:
            return
        self._met_another_service = True
        message = (
            f"{prompt_id}: its manifest here is of {theirs}, not of {ours}: if these are two services, give each "
            "archive a root and a prefix of its own, and use no `mirror forget --delete` here"
        )
        self._run.observer(Noted(level="warning", message=message, prompt_id=prompt_id))

    async def _skip(self, done: Done, manifest: Manifest | None) -> None:
        """The result of what is complete and there, without a request."""
        if self._want_manifests and manifest is None:
            await self._take_up(done.prompt_id)  # it cannot be read: a visit writes it anew
            return
        files = done.wanted.files
        self._run.observer(
            PromptFinished(
                prompt_id=done.prompt_id,
                state=done.state,
                ok=True,
                files=len(files),
                bytes_reused=sum([file.bytes for file in files]),
                skipped=True,
            )
        )
        await self._emit(Result(done.prompt_id, done.state, ExitCode.OK, manifest, skipped=True))

    async def _manifests_of(self, done: Mapping[PromptId, Done]) -> dict[PromptId, Manifest | None]:
        documents = await self._run.places.read_manifests([each.wanted.folder for each in done.values()])
        return {
            prompt_id: decode_if_sound(document.content, prompt_id) if document is not None else None
            for prompt_id, document in zip(done, documents, strict=True)
        }

    # Visits ------------------------------------------------------------------------------------

    async def _visit(self, case: Case) -> Result | float:
        if self._run.options.dry_run:
            return await preview(self._run, case.prompt_id)
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
