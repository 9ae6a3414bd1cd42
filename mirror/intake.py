"""From the ids of a source to the prompts that there is work for: what is complete and there is let go of here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from mirror import names
from mirror.adoption import other_service, record_from
from mirror.api import check_prompt_id
from mirror.catalog import Done, PromptRecord
from mirror.errors import BadParameter, ExitCode
from mirror.events import Noted, PromptFinished
from mirror.manifests.document import decode_if_sound
from mirror.models import Manifest, PromptId
from mirror.run import Emit, Result, Run, refused
from mirror.sources import Source
from mirror.stores import Document

_PAGE = 500
"""Prompts that are looked up at once."""

_MANIFESTS = 50
"""Prompts whose manifests are in memory at once: one may be large."""


class Intake:
    """Looks at every id of a source. ``want_manifests`` reads those of skipped prompts, too.

    With ``adopt`` a manifest that stands where a prompt's would is taken for what is known of it, where nothing else
    is; without, that is left to whoever gets the prompt.
    """

    def __init__(self, run: Run, emit: Emit, *, want_manifests: bool, adopt: bool = True) -> None:
        self._run = run
        self._emit = emit
        self._want_manifests = want_manifests
        self._adopt = adopt
        self._page = _MANIFESTS if want_manifests else _PAGE
        self._met_another_service = False

    async def of(self, source: Source) -> AsyncGenerator[list[PromptId], None]:
        """The prompts to deal with, in order, as batches come in; for the others a result is handed on."""
        marking: asyncio.Task[None] | None = None
        marked: set[PromptId] = set()
        try:
            async for batch in source:
                ids = [prompt_id for prompt_id in await self._sound(batch) if prompt_id not in marked]
                skipped: set[PromptId] = set()
                for start in range(0, len(ids), self._page):
                    page = ids[start : start + self._page]
                    done, left = await self._look_up(page)
                    skipped |= done
                    if left:
                        yield left
                if marking is not None:
                    await marking
                # Beside the next batch, for which these are not in the catalog yet.
                marked, marking = skipped, asyncio.create_task(self._mark(skipped))
            if marking is not None:
                await marking
        finally:
            if marking is not None:
                marking.cancel()
                await asyncio.gather(marking, return_exceptions=True)

    async def _mark(self, done: set[PromptId]) -> None:
        if done:
            await self._run.ledger.mark(list(done), self._run.run_id)

    async def _look_up(self, ids: list[PromptId]) -> tuple[set[PromptId], list[PromptId]]:
        """Skip what is complete and there. Returns that, and what is left, without what this run has dealt with."""
        done = await self._done(ids)
        runs = await self._runs_of([prompt_id for prompt_id in ids if prompt_id not in done])
        done |= await self._done([prompt_id for prompt_id, run in runs.items() if run is None])
        fresh = {prompt_id: each for prompt_id, each in done.items() if each.run != self._run.run_id}
        manifests = await self._manifests_of(fresh) if self._want_manifests else {}
        left = []
        for prompt_id in ids:
            if prompt_id in fresh:
                if self._want_manifests and manifests[prompt_id] is None:
                    left.append(prompt_id)  # it cannot be read: a visit writes it anew
                else:
                    await self._skip(fresh[prompt_id], manifests.get(prompt_id))
            elif prompt_id not in done and runs.get(prompt_id) != self._run.run_id:
                left.append(prompt_id)
        return set(done), left

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
        found = await self._run.ledger.done(ids, options.only)
        there = await self._run.places.keep_all([each.wanted for each in found])
        return {each.prompt_id: each for each, is_there in zip(found, there, strict=True) if is_there}

    async def _runs_of(self, ids: list[PromptId]) -> dict[PromptId, str | None]:
        """Which run dealt with each prompt last, as far as it is known.

        Where the catalog says nothing, a manifest on disk or in the bucket may: what it does goes into the catalog.
        """
        known = await self._run.ledger.records(ids) if ids else {}
        if not self._adopt:
            return {record.prompt_id: record.run for record in known.values()}
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
        await asyncio.gather(*(self._run.ledger.save_prompt(record, "") for record in found))
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
