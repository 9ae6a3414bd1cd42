"""What a worker has stored of prompts that it has not finished: a file each, at its desk.

Where nobody keeps the catalog while workers work, this is what tells the one that takes up a lost worker's prompt which
files it need not fetch again. A note says that a file is durable; one that is lost with a machine costs a download.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from mirror.catalog import FileRecord
from mirror.models import PromptId
from mirror.stores.disk import Disk
from mirror.stores.files import translated
from mirror.stores.journal import VERSION, Journal

_SUFFIX = ".stored"


class About(Struct, frozen=True, kw_only=True, tag="about"):
    """The first record: whose files these are."""

    version: int
    prompt_id: PromptId
    folder: str


class Stored(Struct, frozen=True, kw_only=True, tag="stored"):
    """A file is durable under its final name, or in the bucket, as this says."""

    record: FileRecord


_Record = About | Stored
_decoder: msgspec.json.Decoder[_Record] = msgspec.json.Decoder(_Record)


class Notes:
    """The notes of one worker. ``look`` finds those that lost ones left."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._left: set[str] = set()
        self._open: dict[PromptId, Journal[_Record]] = {}
        self._writing = threading.Lock()

    async def look(self) -> None:
        """See what is there for whoever takes it.

        Raises:
            StoreError: it cannot be listed.
        """
        self._left = set(await self._disk.run(self._disk.left, _SUFFIX))

    async def take(self, folders: Iterable[tuple[PromptId, str]]) -> dict[PromptId, tuple[FileRecord, ...]]:
        """What lost workers noted of these prompts, each with its folder. It is at our own desk from here on."""
        asked = [(prompt_id, folder) for prompt_id, folder in folders if _name(prompt_id) in self._left]
        return await self._disk.run(self._take, asked) if asked else {}

    def _take(self, asked: list[tuple[PromptId, str]]) -> dict[PromptId, tuple[FileRecord, ...]]:
        found = {}
        for prompt_id, folder in asked:
            name = _name(prompt_id)
            self._left.discard(name)
            self._disk.take_left(name)
            journal = self._open[prompt_id] = self._journal(prompt_id)
            with translated(f"{journal.path}"):
                records = journal.read()
            if records and records[0] == About(version=VERSION, prompt_id=prompt_id, folder=folder):
                files = {each.record.identity: each.record for each in records if isinstance(each, Stored)}
                found[prompt_id] = tuple(files.values())
        return found

    async def add(self, prompt_id: PromptId, folder: str, record: FileRecord) -> None:
        """Note that a file is durable."""

        def add() -> None:
            journal = self._open.setdefault(prompt_id, self._journal(prompt_id))
            with self._writing, translated(f"{journal.path}"):  # several files of a prompt may come at once
                if not journal.is_open:
                    about = About(version=VERSION, prompt_id=prompt_id, folder=folder)
                    before = journal.read()
                    journal.rewrite(before if before[:1] == [about] else [about])
                journal.append(Stored(record=record))

        await self._disk.run(add)

    async def drop(self, prompt_id: PromptId, *, keep: bool = False) -> None:
        """The prompt has its result. ``keep`` where no manifest says what is stored of it."""
        journal = self._open.pop(prompt_id, None)
        if journal is not None:
            with translated(f"{journal.path}"):
                await self._disk.run(journal.close if keep else journal.remove)

    def _journal(self, prompt_id: PromptId) -> Journal[_Record]:
        return Journal(self._disk.parts / _name(prompt_id), _decoder)


def _name(prompt_id: PromptId) -> str:
    return f"{hashlib.sha256(prompt_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}{_SUFFIX}"
