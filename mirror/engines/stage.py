"""A worker for callers that block and know no event loop: it has one of its own, in a thread.

Nobody keeps a catalog while it works. What is complete is found in the store, what a lost worker had finished of a
prompt in its notes, and what a caller that keeps a catalog should write there comes with each prompt's result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from queue import SimpleQueue

from msgspec import Struct
from msgspec.structs import replace

from mirror.api import check_prompt_id
from mirror.catalog import FileRecord, FileSaved, Marked, PromptRecord, PromptSaved, Write
from mirror.config import require_api
from mirror.engines.collector import Collector
from mirror.engines.notes import Notes
from mirror.engines.worker import Worker
from mirror.errors import BadParameter, ConfigError, MirrorError, StoreUnavailable, first_error
from mirror.events import InARun
from mirror.models import PromptId, PromptState
from mirror.run import Result, refused
from mirror.settings import FetchOptions, Settings
from mirror.stores.desks import Desk

_MOMENT = 1.0
"""Seconds for which nobody looks again whether another worker was lost."""

_LAST = 2.0
"""Seconds that a worker may take to end."""


_inherited: list[Stage] = []
"""Those of the process that this one was forked from: what they hold is that one's, and is not let go of here."""


class Report(Struct, frozen=True, kw_only=True):
    """What became of a prompt: what a catalog should be told of it, and the events since the report before."""

    result: Result
    writes: list[Write] = []
    events: list[InARun] = []


_Box = SimpleQueue[Report | BaseException]


class Stage:
    """Mirrors batches of prompts. Threads may share it; it opens when it is first used.

    Raises:
        ConfigError: no service is set, or a dry run is asked for.
    """

    def __init__(self, settings: Settings, options: FetchOptions, *, run_id: str = "", is_locked: bool = False) -> None:
        require_api(settings.api)
        if options.dry_run:
            raise ConfigError("a stage has no dry runs: ask `mirror fetch --dry-run`")
        self._settings = settings
        self._options = options
        self._run_id = run_id or secrets.token_hex(8)
        self._desk = Desk(name=f"stage-{secrets.token_hex(6)}", is_guest=not is_locked)
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="mirror-stage", daemon=True)
        self._starting = threading.Lock()
        self._shards: asyncio.Queue[list[PromptRecord]] = asyncio.Queue()
        self._looking = asyncio.Lock()
        self._looked = -_MOMENT
        self._waiting: dict[PromptId, list[_Box]] = {}
        self._folders: dict[PromptId, str] = {}
        self._writes: dict[PromptId, list[Write]] = {}
        self._collected = Collector()
        self._ended: BaseException | None = None
        self._is_stopping = False
        self._working: asyncio.Task[None]
        self._notes: Notes

    # The caller's side -------------------------------------------------------------------------

    def run(self, records: Sequence[PromptRecord]) -> Iterator[tuple[PromptId, Report]]:
        """What becomes of each of these prompts, as it is known. An id that comes twice has one report.

        Raises:
            MirrorError: a fatal one; the stage is at its end.
        """
        box: _Box = SimpleQueue()
        wanted: dict[PromptId, PromptRecord] = {}
        for record in records:
            try:
                check_prompt_id(record.prompt_id)
            except BadParameter as error:
                yield record.prompt_id, Report(result=refused(record.prompt_id, error, self._settings.api.base_url))
            else:
                wanted[record.prompt_id] = record
        if not wanted:
            return
        with self._starting:
            if self._ended is not None:
                raise self._ended
            if not self._thread.ident:
                self._thread.start()
            self._loop.call_soon_threadsafe(self._take, list(wanted.values()), box)
        for _ in wanted:
            come = box.get()
            if isinstance(come, BaseException):
                raise come
            yield come.result.prompt_id, come

    def close(self) -> None:
        """End at once, cleanly: what is under way is kept for whoever takes it up. Safe to call more than once.

        In a process that was forked meanwhile nothing is done.
        """
        if os.getpid() != self._pid:
            _inherited.append(self)
            return
        with self._starting:
            if not self._thread.ident:
                self._ended = self._ended or StoreUnavailable("the stage was closed")
                self._loop.close()
                return
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(_LAST)

    def _stop(self) -> None:
        if not self._is_stopping:  # what it closes must be closed
            self._is_stopping = True
            self._working.cancel()

    # The worker's ------------------------------------------------------------------------------

    def _live(self) -> None:
        self._working = self._loop.create_task(self._work())
        try:
            self._loop.run_until_complete(self._working)
        except asyncio.CancelledError:
            self._end(StoreUnavailable("the stage was closed"))
        except BaseException as error:  # noqa: BLE001  it is raised where the caller waits
            self._end(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _end(self, error: BaseException) -> None:
        error.__context__ = None  # a group that holds the error again: Dask cannot send that home
        with self._starting:  # what was asked before that is answered when the loop runs for the last time
            self._ended = error
        for box in {id(box): box for boxes in self._waiting.values() for box in boxes}.values():
            box.put(error)
        self._waiting.clear()

    async def _work(self) -> None:
        worker = Worker(self._settings, self._collected, self._hand_on, desk=self._desk)
        disk = worker.places.disk
        self._notes = Notes(disk.disk)
        try:
            await worker.open()
            async with asyncio.TaskGroup() as group:
                while True:
                    records = await self._shards.get()
                    group.create_task(self._run(worker, records))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            await worker.close()
            with contextlib.suppress(MirrorError):  # it is tidied up by the next
                await asyncio.to_thread(disk.gather)

    async def _run(self, worker: Worker, records: list[PromptRecord]) -> None:
        """Each batch is a run of the pipeline: what one has found to be complete is looked at anew for the next."""

        async def shard() -> AsyncGenerator[list[PromptRecord], None]:
            yield await self._noted(worker, records)

        await worker.run(shard(), self._emit, self._options, self._run_id, want_manifests=True)

    async def _noted(self, worker: Worker, records: list[PromptRecord]) -> list[PromptRecord]:
        """The records, with what lost workers have left of their prompts."""
        async with self._looking:
            if self._loop.time() - self._looked > _MOMENT:
                await worker.places.gather()
                await self._notes.look()
                self._looked = self._loop.time()
        noted = await self._notes.take([(record.prompt_id, record.folder) for record in records])
        return [self._with(record, noted.get(record.prompt_id, ())) for record in records]

    def _with(self, record: PromptRecord, noted: tuple[FileRecord, ...]) -> PromptRecord:
        """The record of a prompt with what is noted of it, which no catalog may know."""
        if not noted:
            return record
        for file in noted:
            self._writes[record.prompt_id].append(FileSaved(prompt_id=record.prompt_id, record=file, run=self._run_id))
        files = {file.identity: file for file in (*record.files, *noted)}
        return replace(record, files=tuple(files.values()))

    def _take(self, records: list[PromptRecord], box: _Box) -> None:
        if self._ended is not None:
            box.put(self._ended)
            return
        new = [record for record in records if record.prompt_id not in self._waiting]
        for record in records:
            self._waiting.setdefault(record.prompt_id, []).append(box)
        for record in new:
            self._folders[record.prompt_id] = record.folder
            self._writes[record.prompt_id] = []
        if new:
            self._shards.put_nowait(new)

    async def _hand_on(self, write: Write) -> None:
        """Nobody is waited for: what is written comes with the result."""
        match write:
            case Marked():
                return  # a result that says it was skipped says it
            case FileSaved(prompt_id=prompt_id, record=record):
                if record.entry is not None and record.failure is None:
                    await self._notes.add(prompt_id, self._folders[prompt_id], record)
            case PromptSaved(record=record):
                prompt_id = record.prompt_id
            case _:
                prompt_id = write.prompt_id
        self._writes[prompt_id].append(write)

    async def _emit(self, result: Result) -> None:
        prompt_id = result.prompt_id
        await self._notes.drop(prompt_id, keep=result.state is PromptState.UNRESOLVED)
        del self._folders[prompt_id]
        report = Report(result=result, writes=self._writes.pop(prompt_id), events=self._collected.take())
        for box in self._waiting.pop(prompt_id):
            box.put(report)
