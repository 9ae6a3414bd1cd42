"""What stands for the catalog in a worker: what the driver knows of a shard's prompts, and a way to hand writes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec.structs import replace

from mirror import names
from mirror.catalog import Claimed, Done, FileRecord, FileSaved, Marked, PromptRecord, PromptSaved, Write
from mirror.models import ManifestFile, PromptId

_RECENT = 16_384
"""Files, by identity, of which is remembered where this worker has stored them."""

HandOn = Callable[[Write], Awaitable[None]]
"""Gives a write to whoever keeps the catalog. Where that is somebody, it stands there when this returns."""


class ShardLedger:
    """A :class:`mirror.ledger.Ledger` of the prompts that a worker has been given, and not brought to an end."""

    def __init__(self, hand_on: HandOn) -> None:
        self._hand_on = hand_on
        self._known: dict[PromptId, PromptRecord] = {}
        self._new: dict[PromptId, list[FileRecord]] = {}
        self._stored: dict[str, tuple[str, ManifestFile]] = {}

    def take(self, records: Iterable[PromptRecord]) -> None:
        """What is known of prompts that are to be dealt with."""
        self._known |= {record.prompt_id: record for record in records}

    def drop(self, prompt_id: PromptId) -> None:
        """A prompt has its result."""
        self._known.pop(prompt_id, None)
        self._new.pop(prompt_id, None)

    async def done(self, prompt_ids: Sequence[PromptId], only: str | None = None) -> list[Done]:
        found = [record.done(only) for record in (await self.records(prompt_ids)).values()]
        return [each for each in found if each is not None]

    async def records(self, prompt_ids: Sequence[PromptId]) -> dict[PromptId, PromptRecord]:
        return {prompt_id: self._of(prompt_id) for prompt_id in prompt_ids if prompt_id in self._known}

    async def stored_in(self, run: str, identities: Sequence[str]) -> dict[str, tuple[str, ManifestFile]]:  # noqa: ARG002
        return {identity: self._stored[identity] for identity in identities if identity in self._stored}

    async def claim(self, prompt_id: PromptId, run: str = "") -> PromptRecord:
        known = self._of(prompt_id)
        await self._hand_on(Claimed(prompt_id=prompt_id, run=run))
        self._known[prompt_id] = replace(known, tries=known.tries + 1, unfinished=True)
        return known

    async def save_file(self, prompt_id: PromptId, record: FileRecord, run: str) -> None:
        await self._hand_on(FileSaved(prompt_id=prompt_id, record=record, run=run))
        self._new.setdefault(prompt_id, []).append(record)
        if record.entry is not None and record.failure is None:
            self._stored.pop(record.identity, None)
            self._stored[record.identity] = (self._known[prompt_id].folder, record.entry)
            if len(self._stored) > _RECENT:
                del self._stored[next(iter(self._stored))]

    async def save_prompt(self, record: PromptRecord, run: str) -> None:
        await self._hand_on(PromptSaved(record=record, run=run))
        known = self._of(record.prompt_id)
        self._known[record.prompt_id] = replace(
            record, tries=known.tries, run=run or None, files=_with(known.files, record.files)
        )

    async def mark(self, prompt_ids: Sequence[PromptId], run: str) -> None:
        await self._hand_on(Marked(prompt_ids=list(prompt_ids), run=run))

    def _of(self, prompt_id: PromptId) -> PromptRecord:
        """What is known of a prompt; one that nobody knows has the folder that its id gives it."""
        known = self._known.get(prompt_id)
        known = known or PromptRecord(prompt_id=prompt_id, folder=names.for_prompt(prompt_id)[0])
        new = self._new.pop(prompt_id, ())
        if new:  # put together when somebody asks: of thousands of files that come one by one, that is once
            known = self._known[prompt_id] = replace(known, files=_with(known.files, new))
        return known


def _with(files: Sequence[FileRecord], new: Sequence[FileRecord]) -> tuple[FileRecord, ...]:
    return tuple({file.identity: file for file in (*files, *new)}.values())
