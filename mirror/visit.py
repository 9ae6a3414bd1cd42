"""One visit to one prompt: ask, transfer what is missing, record, write the manifest."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import islice

import msgspec

from mirror import names
from mirror.catalog import FileRecord, PromptRecord
from mirror.errors import ApiError, ExitCode, Severity, StoreError, first_error
from mirror.events import (
    FileFailed,
    FilePlanned,
    FileStored,
    Noted,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
)
from mirror.manifests.document import decode_if_sound, encode, entry, ordered
from mirror.models import Asset, Failure, Manifest, ManifestFile, PromptState, Receipt
from mirror.plan import Plan, plan
from mirror.resolve import Resolver
from mirror.run import Case, Fetched, Result, Run
from mirror.stores import Target
from mirror.verdict import Findings, Verdict, conclude, unanswered

_OF_ONE_PLACE = frozenset({"ChecksumMismatch", "Obstructed"})
"""Failures of a file that say nothing about the same file for another prompt."""


class Visit:
    """Deals with one prompt once."""

    def __init__(self, run: Run, case: Case) -> None:
        self._run = run
        self._case = case
        self._id = case.prompt_id
        self._resolver = case.resolver = case.resolver or Resolver(run.api, case.prompt_id)
        self._entries: dict[str, ManifestFile] = {}
        self._lost: dict[str, ManifestFile] = {}
        self._failures = case.failures
        self._started: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._bytes_before = 0
        self._prior: Manifest | None = None

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
        try:
            return await self._finish(wait)
        except StoreError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)

    async def _take_stock(self) -> None:
        """Which of the files that were stored are still there, and what the manifest on disk says."""
        if self._record.state is PromptState.UNRESOLVED and not self._record.files:
            return  # never seen before, so nothing is there
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
        manifest = decode_if_sound(content)
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
        return plan(self._answer.task, {which: file.path for which, file in known.items()})

    def _wanted(self) -> list[Asset]:
        only = self._run.options.only
        return [
            asset
            for asset in self._plan().assets
            if asset.identity not in self._entries and (only is None or asset.role == only)
        ]

    async def _start_missing(self, group: asyncio.TaskGroup) -> None:
        tried = self._started | self._failures.keys()
        missing = [asset for asset in self._wanted() if asset.identity not in tried]
        for asset in missing:
            self._run.observer(FilePlanned(prompt_id=self._id, url=asset.identity, role=asset.role))
        elsewhere = await self._stored_elsewhere([asset.identity for asset in missing])
        for asset in missing:
            waited = self._run.slots.locked()
            await self._run.slots.acquire()
            if waited:  # another prompt may have stored the file meanwhile
                elsewhere |= await self._stored_elsewhere([asset.identity])
            self._started.add(asset.identity)
            task = group.create_task(self._obtain(asset, elsewhere.get(asset.identity)))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(lambda _: self._run.slots.release())

    async def _stored_elsewhere(self, identities: list[str]) -> dict[str, tuple[str, ManifestFile]]:
        return await self._run.catalog.stored_in(self._run.run_id, identities) if identities else {}

    async def _obtain(self, asset: Asset, elsewhere: tuple[str, ManifestFile] | None) -> None:
        """Store one file and record it; the same file for several prompts is fetched by one of them."""
        inflight = self._run.inflight
        while (other := inflight.get(asset.identity)) is not None:
            await asyncio.wait({other})
            failed = other.result()
            if failed is not None and failed[0] == asset.url and failed[1].error not in _OF_ONE_PLACE:
                await self._failed(asset, msgspec.structs.replace(failed[1], role=asset.role))
                return
            elsewhere = (await self._stored_elsewhere([asset.identity])).get(asset.identity)
        mine = inflight[asset.identity] = asyncio.get_running_loop().create_future()
        ended: Fetched = None
        try:
            target = self._target(asset)
            receipt = await self._adopt(elsewhere, target) if elsewhere is not None else None
            reused = receipt is not None
            outcome = receipt or await self._run.transfer.fetch(
                self._id, asset, target, partial(self._fresh_url, asset.identity)
            )
            if isinstance(outcome, Receipt):
                await self._stored(asset, outcome, reused=reused)
            else:
                ended = (asset.url, outcome)
                await self._failed(asset, outcome)
        finally:
            del inflight[asset.identity]
            mine.set_result(ended)

    def _target(self, asset: Asset) -> Target:
        lost = self._lost.get(asset.identity)
        if lost is not None:
            return Target(identity=asset.identity, folder=self._record.folder, names=(lost.path,), sha256=lost.sha256)
        candidates = islice(names.candidates(asset.name, asset.identity), 4)
        further = [name for name in candidates if name != asset.name]
        return Target(identity=asset.identity, folder=self._record.folder, names=(asset.name, *further))

    async def _adopt(self, elsewhere: tuple[str, ManifestFile], target: Target) -> Receipt | None:
        """A file that this run has fetched for another prompt."""
        folder, known = elsewhere
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
        """Write the manifest if it says something new, and record the prompt: in this order."""
        found = Findings(
            prompt_id=self._id,
            answer=self._answer,
            planned=self._plan(),
            entries=self._entries,
            lost=self._lost,
            failures=self._failures,
            child_failures=tuple(self._resolver.failures),
            prior=self._prior,
            secrets=self._run.secrets,
        )
        verdict = conclude(found)
        if verdict.write:
            await self._run.store.write_manifest(self._record.folder, encode(verdict.manifest))
        if wait is not None and verdict.note is None:
            await self._save(verdict, self._changed_files(found), run_id="")
            self._run.observer(PromptWaiting(prompt_id=self._id, seconds=round(wait, 1)))
            return wait
        await self._save(verdict, self._changed_files(found), run_id=self._run.run_id)
        return self._result(verdict)

    async def _unanswered(self, error: ApiError | StoreError) -> Result | float:
        """The service could not be asked, or the manifest not be written."""
        if self._record.state is PromptState.PENDING and error.severity is Severity.TRANSIENT:
            wait = self._case.next_poll()
            if wait is not None:
                self._run.observer(Noted(level="warning", message=f"{self._id}: could not be polled: {error}"))
                return wait
        verdict = unanswered(self._id, error, self._prior, self._run.api.url, whole=not self._lost)
        await self._save(verdict, (), run_id=self._run.run_id)
        return self._result(verdict)

    def _changed_files(self, found: Findings) -> tuple[FileRecord, ...]:
        """Rows that are not written yet: files that nobody tried to fetch, and those that are named elsewhere now."""
        before = self._record.stored()
        left_out = [
            FileRecord(identity=asset.identity, role=asset.role)
            for asset in found.missing
            if asset.identity not in self._failures and asset.identity not in self._lost
        ]
        named_anew = [
            FileRecord(identity=file.url, role=file.role, entry=file)
            for file in ordered(found.planned.assets, self._entries)
            if before.get(file.url) not in (None, file)
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
            files=files,
        )
        await self._run.catalog.save_prompt(record, run_id)
        if verdict.note:
            self._run.observer(Noted(level="warning", message=f"{self._id}: {verdict.note}"))

    def _result(self, verdict: Verdict) -> Result:
        self._run.observer(
            PromptFinished(
                prompt_id=self._id,
                state=verdict.state,
                ok=verdict.code is ExitCode.OK,
                files=len(verdict.manifest.files),
                bytes_reused=self._bytes_before,
                errors=verdict.errors,
            )
        )
        return Result(self._id, verdict.state, verdict.code, verdict.manifest)
