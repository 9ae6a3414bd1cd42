"""One visit to one prompt: ask, transfer what is missing, record, write the manifest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from mirror.catalog import FileRecord, PromptRecord
from mirror.errors import ApiError, ExitCode, Severity, StoreError, first_error
from mirror.events import (
    FilePlanned,
    Noted,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
)
from mirror.inflight import Elsewhere
from mirror.manifests.document import encode, ordered
from mirror.models import Answer, Asset, Media, PromptState
from mirror.obtain import Obtain
from mirror.plan import Plan, plan
from mirror.resolve import Resolver
from mirror.run import Case, Result, Run
from mirror.stock import Stock
from mirror.verdict import Findings, Verdict, conclude, still_complete, unanswered

T = TypeVar("T")


class Visit:
    """Deals with one prompt once."""

    def __init__(self, run: Run, case: Case) -> None:
        self._run = run
        self._case = case
        self._id = case.prompt_id
        self._resolver = case.resolver = case.resolver or Resolver(run.api, case.prompt_id)
        self._failures = case.failures
        self._planned: tuple[Answer | None, Plan] = (None, Plan(assets=(), failures=()))
        self._started: set[str] = set()
        self._told_anew: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> Result | float:
        """The result, or after how many seconds the prompt is to be visited again.

        Raises:
            MirrorError: a fatal one.
        """
        self._run.observer(PromptStarted(prompt_id=self._id))
        await self._run.places.ready()
        self._record = await self._run.ledger.claim(self._id, self._run.run_id)
        self._stock = Stock(self._run.places, self._record)
        await self._stock.take(ask=self._run.options.refresh)
        self._keep_failures(left=True)
        if self._case.bytes_before is None:
            self._case.bytes_before = self._stock.bytes_before
        self._files = Obtain(self._run, self._id, self._record.folder, self._stock, self._failures, self._fresh_url)
        if not self._stock.is_all_whole:
            await self._in_group(self._spread)
        unasked = self._complete_unasked()
        try:
            if unasked is not None:
                return await self._conclude(unasked, (), None)
        except StoreError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)
        try:
            self._answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)
        self._files.asked = True
        wait = await self._in_group(self._work)
        try:
            return await self._finish(wait)
        except StoreError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)

    # Transfers ---------------------------------------------------------------------------------

    async def _in_group(self, work: Callable[[asyncio.TaskGroup], Awaitable[T]]) -> T:
        """Do something that starts transfers, and wait for them."""
        try:
            async with asyncio.TaskGroup() as group:
                return await work(group)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _spread(self, group: asyncio.TaskGroup) -> None:
        """What stands in one place goes to the others that lack it, and what was lost may be there again.

        The service need not be asked for that.
        """
        for which, file in self._stock.known.items():
            is_to_do = self._stock.is_anywhere(which) or which not in self._failures
            if is_to_do and not self._stock.is_whole(which) and self._run.may_fetch(self._id, which):
                known = Asset(identity=which, url=which, role=file.role, name=file.path, named_by=file.named_by)
                await self._run.slots.enter()
                self._start(group, known, None)

    def _complete_unasked(self) -> Verdict | None:
        """The verdict where the service has told all it will, and all of it is in every place now."""
        record, prior = self._record, self._stock.prior
        is_told = not record.unfinished and record.state is PromptState.COMPLETE and not self._run.options.refresh
        if not is_told or prior is None or prior.state is not PromptState.COMPLETE or not self._stock.is_all_whole:
            return None
        if {file.url for file in prior.files} != self._stock.known.keys():
            return None
        return still_complete(prior, self._stock.known)

    async def _work(self, group: asyncio.TaskGroup) -> float | None:
        """Fetch what the answer names; while something is under way, go on polling.

        Returns the seconds to wait where only waiting is left.
        """
        while True:
            await self._start_missing(group)
            wait = self._case.next_poll() if self._is_pending() else None
            if wait is None or not await self._busy_for(wait):
                return wait
            await self._ask_again()

    def _is_pending(self) -> bool:
        return not all(member.state.ended for member in self._answer.task.family())

    async def _busy_for(self, seconds: float) -> bool:
        """Wait until the next poll is due; False if all transfers ended before that."""
        due = time.monotonic() + seconds
        while self._under_way:
            left = due - time.monotonic()
            if left <= 0:
                return True
            await asyncio.wait(self._under_way, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return False

    async def _ask_again(self) -> None:
        try:
            self._answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            self._note(f"could not be polled: {error}")

    def _plan(self) -> Plan:
        """What the answer names, made once an answer: the names in it count for what is not stored yet."""
        answer, made = self._planned
        if answer is not self._answer:
            made = plan(self._answer.task, {which: file.path for which, file in self._stock.known.items()})
            self._planned = (self._answer, made)
        return made

    def _wanted(self) -> list[Asset]:
        only = self._run.options.only
        return [
            asset
            for asset in self._plan().assets
            if not self._stock.is_whole(asset.identity)
            and (only is None or asset.role == only)
            and self._run.may_fetch(self._id, asset.identity)
        ]

    async def _start_missing(self, group: asyncio.TaskGroup) -> None:
        tried = self._started | self._failures.keys()
        missing = [asset for asset in self._wanted() if asset.identity not in tried]
        for asset in missing:
            if self._stock.is_there(asset.identity) and not self._stock.lacks_disk(asset.identity):
                continue  # it only goes on from here
            self._run.observer(FilePlanned(prompt_id=self._id, url=asset.identity, role=asset.role))
        seen, elsewhere = self._run.recent.count, await self._stored_elsewhere(missing)
        for number, asset in enumerate(missing):
            await self._run.slots.enter()
            if self._run.recent.may_have(asset.identity, seen):  # another prompt has stored the file meanwhile
                seen, elsewhere = self._run.recent.count, await self._stored_elsewhere(missing[number:])
            self._started.add(asset.identity)
            self._start(group, asset, elsewhere.get(asset.identity))

    async def _stored_elsewhere(self, assets: list[Asset]) -> dict[str, Elsewhere]:
        return await self._run.stored_elsewhere([asset.identity for asset in assets])

    def _start(self, group: asyncio.TaskGroup, asset: Asset, elsewhere: Elsewhere | None) -> None:
        """Begin with one file, in the slot that the caller has taken for it."""
        task = group.create_task(self._files.obtain(asset, elsewhere))
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._run.slots.leave()

    def _keep_failures(self, *, left: bool) -> None:
        """A repair forgets no failure: neither of files that it is not for (``left``), nor of those it did not try."""
        if self._run.repair is None:
            return
        for file in self._record.files:
            if file.failure is None or self._stock.is_there(file.identity):
                continue
            if left != self._run.may_fetch(self._id, file.identity):
                self._failures.setdefault(file.identity, file.failure)

    async def _fresh_url(self, identity: str) -> str | None:
        try:
            answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return None
        return next((asset.url for asset in plan(answer.task).assets if asset.identity == identity), None)

    # What became of it -------------------------------------------------------------------------

    async def _finish(self, wait: float | None) -> Result | float:
        """Write the manifest if it says something new, and record the prompt: in this order."""
        self._keep_failures(left=False)
        if self._run.facts.are_told:
            await self._add_facts()
        found = Findings(
            prompt_id=self._id,
            answer=self._answer,
            planned=self._plan(),
            entries=self._stock.entries,
            lost=self._stock.lost,
            absent=self._stock.absent,
            failures=self._failures,
            child_failures=tuple(self._resolver.failures),
            prior=self._stock.prior,
            secrets=self._run.secrets,
        )
        return await self._conclude(conclude(found), self._changed_files(found), wait)

    async def _add_facts(self) -> None:
        """What is in the files that no manifest has told of yet (a refresh asks for what it has not told, too)."""
        told = {file.url: file for file in self._stock.prior.files} if self._stock.prior is not None else {}
        asked = []
        for which, file in self._stock.entries.items():
            before = told.get(which)
            if before is not None and before.sha256 == file.sha256 and before.media is not None:
                self._add_fact(which, before.media)  # its row was written, and the prompt's was not
            elif file.media is None and (before is None or self._run.options.refresh):
                asked.append(file)
        facts = await asyncio.gather(*(self._run.facts.of(self._record.folder, file) for file in asked))
        for file, media in zip(asked, facts, strict=True):
            self._add_fact(file.url, media)

    def _add_fact(self, which: str, media: Media | None) -> None:
        file = self._stock.known[which]
        if media is not None and media != file.media:
            self._stock.known[which] = replace(file, media=media)
            self._told_anew.add(which)

    async def _conclude(self, verdict: Verdict, files: tuple[FileRecord, ...], wait: float | None) -> Result | float:
        if verdict.write or not self._stock.has_manifest:
            content = encode(verdict.manifest)
            self._stock.placed = await self._run.places.write_manifest(
                self._record.folder, content, self._stock.placed, changed=verdict.write
            )
            self._stock.has_manifest = True
        if wait is not None and verdict.note is None:
            await self._save(verdict, files, run_id="")
            self._run.observer(PromptWaiting(prompt_id=self._id, seconds=round(wait, 1)))
            return wait
        await self._save(verdict, files, run_id=self._run.run_id)
        return self._result(verdict)

    async def _unanswered(self, error: ApiError | StoreError) -> Result | float:
        """The service could not be asked, or the manifest not be written."""
        if self._record.state is PromptState.PENDING and error.severity is Severity.TRANSIENT:
            wait = self._case.next_poll()
            if wait is not None:
                self._note(f"could not be polled: {error}")
                return wait
        verdict = unanswered(
            self._id,
            error,
            self._stock.prior,
            self._run.api.url,
            whole=not self._stock.lost,
            unfinished=self._record.unfinished,
        )
        if self._run.repair is not None and self._stock.prior is None:  # a manifest is lost, and no more than that
            verdict = replace(verdict, state=self._record.state, unfinished=self._record.unfinished)
        await self._save(verdict, (), run_id=self._run.run_id)
        return self._result(verdict)

    def _changed_files(self, found: Findings) -> tuple[FileRecord, ...]:
        """Rows that are not written yet: files that nobody tried to fetch, and those that are named elsewhere now."""
        before = self._record.stored()
        left_out = [
            FileRecord(identity=asset.identity, role=asset.role)
            for asset in found.missing
            if asset.identity not in self._failures and asset.identity not in self._stock.known
        ]
        named_anew = [
            FileRecord(identity=file.url, role=file.role, entry=file)
            for file in ordered(found.planned.assets, self._stock.entries)
            if before.get(file.url) not in (None, file) or file.url in self._told_anew
        ]
        return (*left_out, *named_anew)

    async def _save(self, verdict: Verdict, files: tuple[FileRecord, ...], *, run_id: str) -> None:
        first = verdict.errors[0] if verdict.errors else None
        record = PromptRecord(
            prompt_id=self._id,
            folder=self._record.folder,
            state=verdict.state,
            unfinished=verdict.unfinished,
            error=first.error if first else None,
            message=first.message if first else None,
            note=verdict.note,
            placed=self._stock.placed,
            files=files,
        )
        await self._run.ledger.save_prompt(record, run_id)
        if verdict.note:
            self._note(verdict.note)

    def _note(self, message: str) -> None:
        self._run.observer(Noted(level="warning", message=f"{self._id}: {message}", prompt_id=self._id))

    def _result(self, verdict: Verdict) -> Result:
        self._run.observer(
            PromptFinished(
                prompt_id=self._id,
                state=verdict.state,
                ok=verdict.code is ExitCode.OK,
                files=len(verdict.manifest.files),
                bytes_reused=self._case.bytes_before or 0,
                errors=verdict.errors,
            )
        )
        return Result(self._id, verdict.state, verdict.code, verdict.manifest)
