"""One visit to one prompt: ask, transfer what is missing, record, write the manifest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from mirror import names
from mirror.catalog import FileRecord, PromptRecord
from mirror.errors import ApiError, ExitCode, Severity, StoreError, first_error
from mirror.events import (
    FileFailed,
    FilePlaced,
    FilePlanned,
    FileStored,
    Noted,
    PromptFinished,
    PromptStarted,
    PromptWaiting,
)
from mirror.manifests.document import decode_if_sound, encode, entry, ordered
from mirror.models import Asset, Failure, Manifest, ManifestFile, Outcome, Placed, PromptState, Receipt
from mirror.plan import Plan, plan
from mirror.resolve import Resolver
from mirror.run import Case, Fetched, Result, Run
from mirror.stores import Store, Target, Wanted
from mirror.verdict import Findings, Verdict, conclude, still_complete, unanswered

T = TypeVar("T")

_OF_ONE_PLACE = frozenset({"ChecksumMismatch", "Obstructed", "StoreUnavailable"})
"""Failures of a file that say nothing about the same file for another prompt."""


class Visit:
    """Deals with one prompt once."""

    def __init__(self, run: Run, case: Case) -> None:
        self._run = run
        self._case = case
        self._id = case.prompt_id
        self._resolver = case.resolver = case.resolver or Resolver(run.api, case.prompt_id)
        self._places = run.places
        self._known: dict[str, ManifestFile] = {}
        self._on_disk: set[str] = set()
        self._in_bucket: set[str] = set()
        self._failures = case.failures
        self._started: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._bytes_before = 0
        self._prior: Manifest | None = None
        self._placed: Placed | None = None
        self._has_manifest = False
        self._asked = False

    # What is where ------------------------------------------------------------------------------

    @property
    def _there(self) -> set[str]:
        """What is where files go first: the manifest may name it."""
        return self._on_disk if self._places.wants_disk else self._in_bucket

    @property
    def _entries(self) -> dict[str, ManifestFile]:
        return {which: file for which, file in self._known.items() if which in self._there}

    def _lacks_disk(self, which: str) -> bool:
        return self._places.wants_disk and which not in self._on_disk

    def _lacks_bucket(self, which: str) -> bool:
        return self._places.wants_bucket and which not in self._in_bucket

    def _is_whole(self, which: str) -> bool:
        return not self._lacks_disk(which) and not self._lacks_bucket(which)

    async def run(self) -> Result | float:
        """The result, or after how many seconds the prompt is to be visited again.

        Raises:
            MirrorError: a fatal one.
        """
        self._run.observer(PromptStarted(prompt_id=self._id))
        await self._places.ready()
        self._record = await self._run.catalog.claim(self._id)
        await self._take_stock()
        await self._in_group(self._spread)
        unasked = self._complete_unasked()
        if unasked is not None:
            return await self._conclude(unasked, (), None)
        try:
            self._answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)
        self._asked = True
        wait = await self._in_group(self._work)
        try:
            return await self._finish(wait)
        except StoreError as error:
            if error.severity is Severity.FATAL:
                raise
            return await self._unanswered(error)

    async def _take_stock(self) -> None:
        """Which of the files that were stored are still there, and what the manifest says that is."""
        record = self._record
        self._placed = record.placed
        if record.state is PromptState.UNRESOLVED and not record.files:
            return  # never seen before, so nothing is there
        self._known = {file.identity: file.entry for file in record.files if file.entry is not None}
        stored = record.stored()
        known = tuple(self._known.values())
        [where] = await self._places.look([Wanted(folder=record.folder, files=known, manifest=record.placed)])
        self._on_disk = {which for which, file in stored.items() if file.path in where.on_disk}
        self._in_bucket = {which for which, file in self._known.items() if file.path in where.in_bucket}
        self._bytes_before = sum(file.bytes for which, file in self._known.items() if self._is_whole(which))
        self._has_manifest = self._places.has_manifest(where)
        self._prior = await self._read_prior()

    async def _read_prior(self) -> Manifest | None:
        [document] = await self._places.read_manifests([self._record.folder])
        if document is None:
            return None
        self._placed = document.placed or self._placed
        manifest = decode_if_sound(document.content)
        return manifest if manifest is not None and manifest.prompt_id == self._id else None

    # Transfers ---------------------------------------------------------------------------------

    async def _in_group(self, work: Callable[[asyncio.TaskGroup], Awaitable[T]]) -> T:
        """Do something that starts transfers, and wait for them."""
        try:
            async with asyncio.TaskGroup() as group:
                return await work(group)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _spread(self, group: asyncio.TaskGroup) -> None:
        """What stands in one place goes to the others that lack it. The service need not be asked for that."""
        for which, file in self._known.items():
            if not self._is_whole(which) and (which in self._on_disk or which in self._in_bucket):
                known = Asset(identity=which, url=which, role=file.role, name=file.path, named_by=file.named_by)
                await self._run.slots.acquire()
                self._start(group, known, None)

    def _complete_unasked(self) -> Verdict | None:
        """The verdict where the service has told all it will, and all of it is in every place now."""
        record, prior = self._record, self._prior
        is_told = not record.unfinished and record.state is PromptState.COMPLETE and not self._run.options.refresh
        if not is_told or prior is None or not all(map(self._is_whole, self._known)):
            return None
        if {file.url for file in prior.files} != self._known.keys():
            return None
        return still_complete(prior, self._known)

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
            self._run.observer(Noted(level="warning", message=f"{self._id}: could not be polled: {error}"))

    def _plan(self) -> Plan:
        return plan(self._answer.task, {which: file.path for which, file in self._known.items()})

    def _wanted(self) -> list[Asset]:
        only = self._run.options.only
        return [
            asset
            for asset in self._plan().assets
            if not self._is_whole(asset.identity) and (only is None or asset.role == only)
        ]

    async def _start_missing(self, group: asyncio.TaskGroup) -> None:
        tried = self._started | self._failures.keys()
        missing = [asset for asset in self._wanted() if asset.identity not in tried]
        for asset in missing:
            if asset.identity in self._there:
                continue  # it only goes on from here
            self._run.observer(FilePlanned(prompt_id=self._id, url=asset.identity, role=asset.role))
        elsewhere = await self._stored_elsewhere([asset.identity for asset in missing])
        for asset in missing:
            waited = self._run.slots.locked()
            await self._run.slots.acquire()
            if waited:  # another prompt may have stored the file meanwhile
                elsewhere |= await self._stored_elsewhere([asset.identity])
            self._started.add(asset.identity)
            self._start(group, asset, elsewhere.get(asset.identity))

    def _start(self, group: asyncio.TaskGroup, asset: Asset, elsewhere: tuple[str, ManifestFile] | None) -> None:
        """Begin with one file, in the slot that the caller has taken for it."""
        task = group.create_task(self._obtain(asset, elsewhere))
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
            failure = await self._deliver(asset, elsewhere)
            if failure is not None:
                ended = (asset.url, failure)
                await self._failed(asset, failure)
        finally:
            del inflight[asset.identity]
            mine.set_result(ended)

    async def _deliver(self, asset: Asset, elsewhere: tuple[str, ManifestFile] | None) -> Failure | None:
        """To the disk, then to the bucket, as far as it is not there yet; each is recorded when it is done."""
        if self._lacks_disk(asset.identity):
            outcome = await self._to_disk(asset, elsewhere)
            if not isinstance(outcome, Receipt):
                return outcome
        if self._lacks_bucket(asset.identity):
            outcome = await self._to_bucket(asset, elsewhere)
            if isinstance(outcome, Failure):
                return outcome
        return None

    async def _to_disk(self, asset: Asset, elsewhere: tuple[str, ManifestFile] | None) -> Outcome | None:
        """None where it has to wait until the service is asked."""
        target, which = self._target(asset), asset.identity
        delivery = self._run.delivery
        outcome: Outcome | None = await self._adopt(self._places.disk, elsewhere, target)
        reused = outcome is not None
        if which in self._in_bucket:
            known = self._known[which]
            outcome = outcome or await delivery.restore(self._id, asset, target, known)
            if isinstance(outcome, Receipt):
                outcome = msgspec.structs.replace(outcome, s3=known.s3)
            else:
                self._in_bucket.discard(which)  # the bucket has lost it
        if outcome is None and self._asked:
            outcome = await delivery.to_disk(self._id, asset, target, partial(self._fresh_url, which))
        if isinstance(outcome, Receipt):
            await self._record_file(asset, entry(asset, outcome), self._places.disk)
            self._on_disk.add(which)
            self._tell_stored(asset, outcome, reused=reused)
        return outcome

    async def _to_bucket(self, asset: Asset, elsewhere: tuple[str, ManifestFile] | None) -> Outcome:
        bucket = self._places.bucket
        assert bucket is not None
        which = asset.identity
        here = self._known[which] if which in self._on_disk else None
        target = self._target_in_bucket(asset)
        receipt = await self._adopt(bucket, elsewhere, target)
        if receipt is not None:
            outcome: Outcome = receipt
        else:
            fresh = partial(self._fresh_url, which)
            outcome = await self._run.delivery.to_bucket(self._id, asset, target, fresh, here)
        if isinstance(outcome, Receipt):
            assert outcome.s3 is not None
            facts = here if here is not None else entry(asset, outcome)
            await self._record_file(asset, msgspec.structs.replace(facts, s3=outcome.s3), bucket)
            self._in_bucket.add(which)
            self._run.observer(
                FilePlaced(prompt_id=self._id, url=which, key=outcome.s3.key, bytes=outcome.bytes, via=outcome.s3.via)
            )
            if not self._places.wants_disk:
                self._tell_stored(asset, outcome, reused=receipt is not None)
        return outcome

    def _target(self, asset: Asset) -> Target:
        """Where it goes on disk. What was mirrored before goes where it was, and no other bytes."""
        known = self._known.get(asset.identity)
        if known is None:
            return self._target_for(asset, (asset.name, *self._further_names(asset)), None)
        return self._target_for(asset, (known.path,), known.sha256)

    def _target_in_bucket(self, asset: Asset) -> Target:
        """The same path there, or one beside it where another object has that."""
        known = self._known.get(asset.identity)
        first = known.path if known is not None else asset.name
        further = [name for name in self._further_names(asset) if name != first]
        return self._target_for(asset, (first, *further), known.sha256 if known is not None else None)

    def _further_names(self, asset: Asset) -> list[str]:
        candidates = islice(names.candidates(asset.name, asset.identity), 4)
        return [name for name in candidates if name != asset.name]

    def _target_for(self, asset: Asset, names: tuple[str, ...], sha256: str | None) -> Target:
        return Target(
            identity=asset.identity, folder=self._record.folder, names=names, sha256=sha256, prompt_id=self._id
        )

    async def _adopt(self, store: Store, elsewhere: tuple[str, ManifestFile] | None, target: Target) -> Receipt | None:
        """A file that this run has stored for another prompt."""
        if elsewhere is None or target.sha256 not in (None, elsewhere[1].sha256) or elsewhere[0] == target.folder:
            return None
        return await store.adopt(elsewhere, target)

    async def _fresh_url(self, identity: str) -> str | None:
        try:
            answer = await self._resolver.ask()
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            return None
        return next((asset.url for asset in plan(answer.task).assets if asset.identity == identity), None)

    async def _record_file(self, asset: Asset, file: ManifestFile, store: Store) -> None:
        """The row, then what the store kept to find the file again after a crash goes."""
        record = FileRecord(identity=asset.identity, role=asset.role, entry=file)
        await self._run.catalog.save_file(self._id, record, self._run.run_id)
        await store.settle(asset.identity)
        self._known[asset.identity] = file

    def _tell_stored(self, asset: Asset, receipt: Receipt, *, reused: bool) -> None:
        self._run.observer(
            FileStored(prompt_id=self._id, url=asset.identity, path=receipt.path, bytes=receipt.bytes, reused=reused)
        )

    async def _failed(self, asset: Asset, failure: Failure) -> None:
        if asset.identity not in self._there:  # else its row stays: it is on disk, and only the bucket lacks it
            lost = self._known.get(asset.identity)
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
            lost={which: file for which, file in self._known.items() if which not in self._there},
            absent=frozenset(which for which in self._known if self._lacks_bucket(which)),
            failures=self._failures,
            child_failures=tuple(self._resolver.failures),
            prior=self._prior,
            secrets=self._run.secrets,
        )
        return await self._conclude(conclude(found), self._changed_files(found), wait)

    async def _conclude(self, verdict: Verdict, files: tuple[FileRecord, ...], wait: float | None) -> Result | float:
        if verdict.write or not self._has_manifest:
            content = encode(verdict.manifest)
            self._placed = await self._places.write_manifest(
                self._record.folder, content, self._placed, changed=verdict.write
            )
            self._has_manifest = True
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
                self._run.observer(Noted(level="warning", message=f"{self._id}: could not be polled: {error}"))
                return wait
        verdict = unanswered(self._id, error, self._prior, self._run.api.url, whole=self._known.keys() <= self._there)
        await self._save(verdict, (), run_id=self._run.run_id)
        return self._result(verdict)

    def _changed_files(self, found: Findings) -> tuple[FileRecord, ...]:
        """Rows that are not written yet: files that nobody tried to fetch, and those that are named elsewhere now."""
        before = self._record.stored()
        left_out = [
            FileRecord(identity=asset.identity, role=asset.role)
            for asset in found.missing
            if asset.identity not in self._failures and asset.identity not in self._known
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
            placed=self._placed,
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
