"""One visit to one prompt: ask, transfer what is missing, record, write the manifest."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial

import msgspec

from mirror import names
from mirror.api import Api
from mirror.catalog import Catalog, FileRecord, PromptRecord
from mirror.errors import ApiError, BadParameter, ExitCode, NoData, Severity, StoreError, first_error
from mirror.events import (
    FileFailed,
    FilePlanned,
    FileStored,
    Noted,
    Observer,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
)
from mirror.manifests.document import compose, decode, encode, entry, ordered, same_content, state_of, without_answer
from mirror.models import (
    Asset,
    Failure,
    Manifest,
    ManifestFile,
    PromptId,
    PromptState,
    Receipt,
)
from mirror.plan import Plan, plan
from mirror.resolve import Resolver
from mirror.settings import FetchOptions
from mirror.stores import Store, Target
from mirror.transfer import Transfer

FIRST_POLL = 2.0
LONGEST_POLL = 60.0


@dataclass(frozen=True)
class Run:
    """What all visits of a run share."""

    run_id: str
    options: FetchOptions
    api: Api
    store: Store
    catalog: Catalog
    transfer: Transfer
    observer: Observer
    secrets: tuple[str, ...]
    slots: asyncio.Semaphore
    inflight: dict[str, asyncio.Future[None]] = field(default_factory=dict)


@dataclass
class Case:
    """A prompt that is being dealt with, between its visits too: small, since very many may wait."""

    prompt_id: PromptId
    deadline: float
    interval: float = FIRST_POLL

    def next_poll(self) -> float | None:
        """Seconds until the service is asked again, growing; None when patience is at its end."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return None
        seconds = min(self.interval * random.uniform(0.8, 1.2), left)  # noqa: S311
        self.interval = min(self.interval * 1.5, LONGEST_POLL)
        return seconds


@dataclass(frozen=True)
class Result:
    """What became of a prompt in this run. ``planned`` is filled by a dry run only."""

    prompt_id: PromptId
    state: PromptState
    code: ExitCode
    manifest: Manifest | None = None
    planned: tuple[Asset, ...] = ()


class Visit:
    """Deals with one prompt once."""

    def __init__(self, run: Run, case: Case) -> None:
        self._run = run
        self._case = case
        self._id = case.prompt_id
        self._resolver = Resolver(run.api, case.prompt_id)
        self._entries: dict[str, ManifestFile] = {}
        self._lost: dict[str, ManifestFile] = {}
        self._failures: dict[str, Failure] = {}
        self._started: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._bytes_before = 0

    async def run(self) -> Result | float:
        """The result, or after how many seconds the prompt is to be visited again.

        Raises:
            MirrorError: a fatal one.
        """
        self._run.observer(PromptStarted(prompt_id=self._id))
        self._record = await self._run.catalog.claim(self._id)
        await self._take_stock()
        try:
            self._answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)
        wait = await self._work()
        return await self._finish(wait)

    async def _take_stock(self) -> None:
        """Which of the files that were stored are still there, and what the manifest on disk says."""
        stored = self._record.stored()
        files = [(file.path, file.bytes) for file in stored.values()]
        [present] = await self._run.store.present([(self._record.folder, files)])
        self._entries = {which: file for which, file in stored.items() if file.path in present}
        known = {file.identity: file.entry for file in self._record.files if file.entry is not None}
        self._lost = {which: file for which, file in known.items() if which not in self._entries}
        self._bytes_before = sum(file.bytes for file in self._entries.values())
        self._prior = await self._read_prior()

    async def _read_prior(self) -> Manifest | None:
        [content] = await self._run.store.read_manifests([self._record.folder])
        try:
            manifest = decode(content) if content is not None else None
        except StoreError:
            return None
        return manifest if manifest is not None and manifest.prompt_id == self._id else None

    # Transfers ---------------------------------------------------------------------------------

    async def _work(self) -> float | None:
        """Fetch what the answer names; while something is under way, go on polling.

        Returns the seconds to wait where only waiting is left.
        """
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._start_missing(group)
                    wait = self._case.next_poll() if self._is_pending() else None
                    if wait is None or not await self._busy_for(wait):
                        return wait
                    await self._ask_again()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

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
            self._run.observer(Noted(level="warning", message=f"{self._id}: could not be polled: {error}"))

    def _plan(self) -> Plan:
        known = {**self._lost, **self._entries}
        self._planned = plan(self._answer.task, {which: file.path for which, file in known.items()})
        return self._planned

    def _wanted(self) -> list[Asset]:
        only = self._run.options.only
        return [
            asset
            for asset in self._plan().assets
            if asset.identity not in self._entries and (only is None or asset.role == only)
        ]

    async def _start_missing(self, group: asyncio.TaskGroup) -> None:
        missing = [asset for asset in self._wanted() if asset.identity not in self._started]
        for asset in missing:
            self._run.observer(FilePlanned(prompt_id=self._id, url=asset.identity, role=asset.role))
        for asset in missing:
            await self._run.slots.acquire()
            self._started.add(asset.identity)
            task = group.create_task(self._obtain(asset))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda _: self._run.slots.release())

    async def _obtain(self, asset: Asset) -> None:
        """Store one file and record it; the same file for several prompts is fetched by one of them."""
        inflight = self._run.inflight
        while (other := inflight.get(asset.identity)) is not None:
            await asyncio.wait({other})
        mine = inflight[asset.identity] = asyncio.get_running_loop().create_future()
        try:
            target = self._target(asset)
            receipt = await self._adopt(asset, target)
            reused = receipt is not None
            outcome = receipt or await self._run.transfer.fetch(
                self._id, asset, target, partial(self._fresh_url, asset.identity)
            )
            if isinstance(outcome, Receipt):
                await self._stored(asset, outcome, reused=reused)
            else:
                await self._failed(asset, outcome)
        finally:
            del inflight[asset.identity]
            mine.set_result(None)

    def _target(self, asset: Asset) -> Target:
        lost = self._lost.get(asset.identity)
        if lost is not None:
            return Target(identity=asset.identity, folder=self._record.folder, names=(lost.path,), sha256=lost.sha256)
        further = [name for name in names.candidates(asset.name, asset.identity) if name != asset.name]
        return Target(identity=asset.identity, folder=self._record.folder, names=(asset.name, *further))

    async def _adopt(self, asset: Asset, target: Target) -> Receipt | None:
        """A file that this run has fetched for another prompt, or that an interrupted run had."""
        found = await self._run.catalog.stored_in(self._run.run_id, [asset.identity])
        if asset.identity not in found:
            return None
        folder, known = found[asset.identity]
        if target.sha256 not in (None, known.sha256) or folder == target.folder:
            return None
        name = await self._run.store.adopt((folder, known.path), target)
        if name is None:
            return None
        facts = {key: getattr(known, key) for key in Receipt.__struct_fields__}
        return Receipt(**{**facts, "path": name})

    async def _fresh_url(self, identity: str) -> str | None:
        try:
            answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return None
        return next((asset.url for asset in plan(answer.task).assets if asset.identity == identity), None)

    async def _stored(self, asset: Asset, receipt: Receipt, *, reused: bool) -> None:
        file = entry(asset, receipt)
        record = FileRecord(identity=asset.identity, role=asset.role, entry=file)
        await self._run.catalog.save_file(self._id, record, self._run.run_id)
        await self._run.store.settle(asset.identity)
        self._entries[asset.identity] = file
        self._lost.pop(asset.identity, None)
        self._run.observer(
            FileStored(prompt_id=self._id, url=asset.identity, path=receipt.path, bytes=receipt.bytes, reused=reused)
        )

    async def _failed(self, asset: Asset, failure: Failure) -> None:
        lost = self._lost.get(asset.identity)
        record = FileRecord(identity=asset.identity, role=asset.role, entry=lost, failure=failure)
        await self._run.catalog.save_file(self._id, record, self._run.run_id)
        self._failures[asset.identity] = failure
        self._run.observer(FileFailed(prompt_id=self._id, failure=failure))

    # What became of it -------------------------------------------------------------------------

    async def _finish(self, wait: float | None) -> Result | float:
        planned = self._plan()
        missing = [asset for asset in planned.assets if asset.identity not in self._entries]
        errors = (*self._failures.values(), *planned.failures, *self._resolver.failures)
        state = state_of(self._answer.task, missing=bool(missing or planned.failures or self._resolver.failures))
        manifest = compose(
            self._id, state, self._answer, ordered(planned.assets, self._entries), errors, self._run.secrets
        )
        note = None
        if self._service_changed_its_mind(state, missing):
            assert self._prior is not None
            note = f"the service says {state} now; what was mirrored stays"
            self._run.observer(Noted(level="warning", message=f"{self._id}: {note}"))
            manifest, state, wait, errors = self._prior, self._prior.state, None, ()
        elif self._prior is None or not same_content(manifest, self._prior):
            await self._run.store.write_manifest(self._record.folder, encode(manifest))
        else:
            manifest = self._prior
        unfinished = not note and (self._is_pending() or bool(planned.failures or self._resolver.failures))
        await self._save(state, errors, note=note, unfinished=unfinished, wanted=missing, final=wait is None)
        if wait is not None:
            self._run.observer(PromptWaiting(prompt_id=self._id, seconds=round(wait, 1)))
            return wait
        return self._result(state, manifest, _code(state, failed=bool(errors), unasked=bool(missing)), errors)

    def _service_changed_its_mind(self, state: PromptState, missing: list[Asset]) -> bool:
        """What was complete, and is all there, does not become less because the service says so."""
        return (
            self._prior is not None
            and self._prior.state is PromptState.COMPLETE
            and not self._lost
            and not missing
            and not self._failures
            and state is not PromptState.COMPLETE
        )

    async def _save(
        self,
        state: PromptState,
        errors: tuple[Failure, ...],
        *,
        note: str | None,
        unfinished: bool,
        wanted: list[Asset],
        final: bool,
    ) -> None:
        open_files = [
            FileRecord(identity=asset.identity, role=asset.role)
            for asset in wanted
            if asset.identity not in self._failures and asset.identity not in self._lost
        ]
        renamed = [
            FileRecord(identity=file.url, role=file.role, entry=file)
            for file in ordered(self._planned.assets, self._entries)
            if self._record.stored().get(file.url) not in (None, file)
        ]
        first = errors[0] if errors else self._upstream_failure(state)
        record = PromptRecord(
            prompt_id=self._id,
            folder=self._record.folder,
            state=state,
            unfinished=unfinished,
            error=first.error if first else None,
            message=first.message if first else None,
            note=note,
            files=(*open_files, *renamed),
        )
        await self._run.catalog.save_prompt(record, self._run.run_id if final else "")

    def _upstream_failure(self, state: PromptState) -> Failure | None:
        """Why the service could not do what it was asked to."""
        if state is not PromptState.FAILED:
            return None
        reasons = dict.fromkeys(member.reason for member in self._answer.task.family() if member.reason)
        return Failure(error="TaskFailed", message="; ".join(reasons) or "failed upstream without a reason")

    async def _unanswered(self, error: ApiError) -> Result:
        """The API denies the prompt, or could not be asked. What was mirrored of it before stays as it is."""
        failure = Failure(error=error.name, message=str(error), attempts=1)
        denied = isinstance(error, NoData | BadParameter)
        record = msgspec.structs.replace(self._record, files=())
        if self._prior is not None:
            note = f"the API answers {error.name} now: {error}; what was mirrored stays"
            self._run.observer(Noted(level="warning", message=f"{self._id}: {note}"))
            record = msgspec.structs.replace(record, state=self._prior.state, note=note)
            whole = self._prior.state is PromptState.COMPLETE and not self._lost
            code = ExitCode.OK if denied and whole else ExitCode.INCOMPLETE
            manifest = self._prior
        else:
            state = PromptState.UNKNOWN if denied else PromptState.UNRESOLVED
            record = msgspec.structs.replace(
                record, state=state, unfinished=not denied, error=error.name, message=str(error)
            )
            code = ExitCode.INCOMPLETE
            api_code = {NoData: 900, BadParameter: 800}.get(type(error))
            manifest = without_answer(self._id, state, self._run.api.url, failure, api_code)
        await self._run.catalog.save_prompt(record, self._run.run_id)
        return self._result(record.state, manifest, code, () if code is ExitCode.OK else (failure,))

    def _result(self, state: PromptState, manifest: Manifest, code: ExitCode, errors: tuple[Failure, ...]) -> Result:
        upstream = None if errors or manifest.task is None else self._upstream_failure(state)
        self._run.observer(
            PromptFinished(
                prompt_id=self._id,
                state=state,
                ok=code is ExitCode.OK,
                files=len(manifest.files),
                bytes_reused=self._bytes_before,
                errors=errors or ((upstream,) if upstream else ()),
            )
        )
        return Result(self._id, state, code, manifest)


def _code(state: PromptState, *, failed: bool, unasked: bool) -> ExitCode:
    """``unasked``: files are missing. Without a failure, that is because ``only`` left them out."""
    if state is PromptState.COMPLETE:
        return ExitCode.OK
    if failed or state is PromptState.FAILED:
        return ExitCode.INCOMPLETE
    if state is PromptState.PENDING:
        return ExitCode.PENDING
    return ExitCode.OK if unasked else ExitCode.INCOMPLETE


def refused(raw: str, error: BadParameter, url: str) -> Result:
    """The result for what cannot be a promptId: nothing was asked, and nothing is recorded."""
    failure = Failure(error=error.name, message=str(error))
    shown = raw if len(raw) <= 80 else raw[:80] + "…"
    manifest = without_answer(shown, PromptState.UNKNOWN, url, failure)
    return Result(PromptId(shown), PromptState.UNKNOWN, ExitCode.INCOMPLETE, manifest)
