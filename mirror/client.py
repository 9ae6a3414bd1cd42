"""The public API: :class:`Mirror`, and :func:`fetch` for those who do not use asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from mirror.catalog import Catalog
from mirror.config import require_api
from mirror.custody import catalog_of
from mirror.errors import ExitCode, MirrorError, worst
from mirror.events import Fanout, Noted, Observer, RunStarted
from mirror.gear import Gear
from mirror.intake import Intake
from mirror.models import Manifest, PromptId
from mirror.pipeline import Pipeline
from mirror.run import Emit, Result, Run
from mirror.settings import FetchOptions, Settings, SyncOptions
from mirror.sources import Source
from mirror.sources.args import from_iterable
from mirror.times import now

if TYPE_CHECKING:
    from mirror.checks import Checked
    from mirror.sampling import Sample

_RESULTS = 64
"""Results that may wait for a slow reader before the run waits too."""


class Engine(Protocol):
    """Deals with prompts, each once."""

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up and not brought to a result."""
        ...

    async def run(self, prompts: AsyncIterable[list[PromptId]]) -> None:
        """Until all of them have a result."""
        ...


class Mirror:
    """An archive that is open for work. An async context manager; from the first fetch on it holds the root's lock.

    Example::

        async with Mirror(load_settings(root="archive")) as m:
            async for manifest in m.fetch(["ef8ec19d6670c018814358a21a910090"]):
                print(manifest.prompt_id, manifest.state)

    Entering it raises ConfigError where base_url or the token is missing.
    """

    def __init__(self, settings: Settings, *, observers: Iterable[Observer] = ()) -> None:
        self.settings = settings
        self._observer = Fanout(tuple(observers))
        self._codes: set[ExitCode] = set()
        self._engine: Engine | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What a command would exit with, for all that was fetched so far."""
        stopped = self.unfinished > 0
        return worst([*self._codes, ExitCode.INCOMPLETE] if stopped else self._codes)

    @property
    def unfinished(self) -> int:
        """Prompts that were taken up in the last fetch and brought to no result, since it was stopped."""
        return self._engine.unfinished if self._engine is not None else 0

    async def __aenter__(self) -> Mirror:
        require_api(self.settings.api)
        self._catalog: Catalog | None = None
        self._held = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._runs: set[asyncio.Task[None]] = set()
        self._gear = Gear(self.settings, self._observer)
        self._places = self._gear.places
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A loop that was left with break closes its generator only some time later: nothing may work on after this.
        for run in self._runs:
            run.cancel()
        if self._runs:
            await asyncio.wait(self._runs)
        await self._gear.rest()
        try:
            await self._held.__aexit__(kind, error, trace)
        except MirrorError as failed:
            self._codes.add(failed.exit_code)
            raise
        finally:
            await self._gear.close()

    async def fetch(
        self, ids: Iterable[str] | AsyncIterable[str], options: FetchOptions | None = None
    ) -> AsyncGenerator[Manifest, None]:
        """Mirror these prompts; yields each one's manifest as soon as it is finished, complete ones included.

        An id is dealt with once. Failures are values: a manifest's ``state`` and ``errors`` say what is missing. A
        manifest of state ``unknown`` or ``unresolved`` stands for a prompt that nothing is known of. Leaving the loop
        stops the run cleanly: partial files are kept for the next one.

        Raises:
            Unauthorized: the token is rejected.
            Locked: another run holds the root.
            StoreError, CatalogError: the archive cannot be worked on (any more).
        """
        async with contextlib.aclosing(self.results(from_iterable(ids), options)) as results:
            async for come in results:
                for manifest in [result.manifest for result in come if result.manifest is not None]:
                    yield manifest

    async def sync(
        self, options: FetchOptions | None = None, night: SyncOptions | None = None
    ) -> AsyncGenerator[Manifest, None]:
        """Mirror what is new in the service's history, and go on with everything unfinished; yields as :meth:`fetch`.

        What failed for good is left alone, and what failed upstream does not count against the exit code.

        Raises:
            As :meth:`fetch`.
        """
        async with contextlib.aclosing(self.results(night or SyncOptions(), options)) as results:
            async for come in results:
                for manifest in [result.manifest for result in come if result.manifest is not None]:
                    yield manifest

    async def results(
        self, source: Source | SyncOptions, options: FetchOptions | None = None, *, want_manifests: bool = True
    ) -> AsyncGenerator[list[Result], None]:
        """As :meth:`fetch` for batches of ids, or as :meth:`sync`; with each prompt's exit code.

        Yields what has come since the last time, at least one result: no prompt waits for another one's.
        """
        options = options or FetchOptions()
        try:
            async with (
                self._open_catalog(options) as catalog,
                contextlib.aclosing(self._drain(source, options, catalog, want_manifests)) as results,
            ):
                async for come in results:
                    yield come
        except MirrorError as error:
            self._codes.add(error.exit_code)
            raise

    async def repair(
        self,
        ids: Sequence[str] = (),
        *,
        bucket: bool = False,
        deep: bool = False,
        sample: Sample | None = None,
        decode: bool = False,
        wait_lock: float | None = None,
    ) -> AsyncGenerator[Checked, None]:
        """Verify these prompts (all that the catalog knows, without any), and fetch again what is missing or damaged.

        Only those files are fetched, and only bytes with the SHA-256 of the manifest are accepted. With ``bucket`` it
        is the bucket that is verified, and put right from the disk where that has the file; ``deep`` reads its objects.
        ``decode`` decodes what is sound, too; what cannot be decoded is told, and left as it is.
        ``wait_lock`` is for how many seconds to wait where another run holds the root.

        Raises:
            Unauthorized: the token is rejected.
            Locked: another run holds the root.
            StoreError, CatalogError: the archive cannot be worked on (any more).
        """
        from mirror.repair import Repair  # noqa: PLC0415 - a fetch needs neither
        from mirror.verify import Verify  # noqa: PLC0415

        options = FetchOptions(wait_lock=wait_lock)
        async with self._open_catalog(options) as catalog:
            verify = Verify(self._places, catalog, deep=deep, sample=sample, decode=decode)

            async def fetch(wanted: Mapping[PromptId, frozenset[str]]) -> None:
                run = self._gear.new_run(options, catalog, repair=wanted)
                await self._work(run, catalog, from_iterable(list(wanted)), _dropped, want_manifests=False)

            disk_too = self._places.wants_disk
            repair = Repair(verify, catalog, fetch, bucket=bucket, disk_too=disk_too)
            async with contextlib.aclosing(repair.run([PromptId(each) for each in ids])) as found:
                async for checked in found:
                    yield checked

    async def _drain(
        self, source: Source | SyncOptions, options: FetchOptions, catalog: Catalog, want_manifests: bool
    ) -> AsyncGenerator[list[Result], None]:
        # The run lives in a task of its own: a generator must not be left while it stands in a task group (PEP 789).
        outbox = _Outbox()
        task = asyncio.create_task(self._run(source, options, catalog, outbox.put, want_manifests))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        task.add_done_callback(lambda _: outbox.close())
        try:
            while results := await outbox.take():
                self._codes.update(result.code for result in results)
                yield results
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    @contextlib.asynccontextmanager
    async def _open_catalog(self, options: FetchOptions) -> AsyncIterator[Catalog]:
        """The catalog, opened and the root locked by the first who needs them; for a dry run, a copy of its own."""
        if options.dry_run:
            async with catalog_of(self.settings, self._places, self._observer, "scratch") as scratch:
                yield scratch
            return
        async with self._opening:
            if self._catalog is None:
                await self._places.disk.open_when_free(options.wait_lock, self._note)
                opened = catalog_of(self.settings, self._places, self._observer)
                self._catalog = await self._held.enter_async_context(opened)
        yield self._catalog

    async def _run(
        self, source: Source | SyncOptions, options: FetchOptions, catalog: Catalog, emit: Emit, want_manifests: bool
    ) -> None:
        run = self._gear.new_run(options, catalog)
        self._observer(RunStarted(run_id=run.run_id, root=self._places.shown, started_at=now()))
        if not isinstance(source, SyncOptions):
            await self._work(run, catalog, source, emit, want_manifests)
            return
        from mirror.sync import Sync  # noqa: PLC0415 - a fetch needs none

        night = Sync(run, catalog, self.settings, source)
        async with contextlib.aclosing(night.batches()) as batches:
            await self._work(run, catalog, batches, night.judging(emit), want_manifests)
        self._codes.add(await night.end())

    async def _work(self, run: Run, catalog: Catalog, source: Source, emit: Emit, want_manifests: bool) -> None:
        """Until all ids have a result, or ``max_time`` is over."""
        options = run.options
        engine = self._engine = self._new_engine(run, catalog, emit, want_manifests)
        intake = Intake(run, emit, want_manifests=want_manifests, adopt=isinstance(engine, Pipeline))
        try:
            async with (
                asyncio.timeout(options.max_time or None) as timer,
                contextlib.aclosing(intake.of(source)) as ids,
            ):
                await engine.run(ids)
        except TimeoutError:
            if not timer.expired():
                raise
            self._codes.add(ExitCode.INCOMPLETE)
            self._note(f"stopped after {options.max_time:g} s (max_time)")

    def _new_engine(self, run: Run, catalog: Catalog, emit: Emit, want_manifests: bool) -> Engine:
        options = run.options
        if options.engine == "ray" and not options.dry_run:
            from mirror.engines.ray.engine import Rounds  # noqa: PLC0415 - few runs have a cluster

            return Rounds(run, catalog, self.settings, emit, count=options.processes)
        if options.processes < 2 or options.dry_run:
            return Pipeline(run, emit, workers=self._gear.visits)
        from mirror.engines.processes import Processes  # noqa: PLC0415 - most runs are one process

        return Processes(run, catalog, self.settings, emit, count=options.processes, want_manifests=want_manifests)

    def _note(self, message: str) -> None:
        self._observer(Noted(level="warning", message=message))


class _Outbox:
    """Results on their way from a run to its one reader. Who puts one in waits while there is no room."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._closed = False
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, result: Result) -> None:
        while len(self._results) >= _RESULTS:
            self._room.clear()
            await self._room.wait()
        self._results.append(result)
        self._something.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._something.set()

    async def take(self) -> list[Result]:
        """All that has come, at least one; none when it is closed."""
        await self._something.wait()
        taken, self._results = self._results, []
        self._room.set()
        if not self._closed:
            self._something.clear()
        return taken


async def _dropped(_: Result) -> None:
    """The files themselves are looked at."""


def fetch(ids: Iterable[str], settings: Settings, options: FetchOptions | None = None) -> Iterator[Manifest]:
    """As :meth:`Mirror.fetch`, blocking: usable without asyncio, in any thread, and where a loop runs already.

    Raises:
        MirrorError: a fatal one; wrong settings included.
    """
    results: queue.Queue[Manifest | BaseException | None] = queue.Queue(1)
    stop = threading.Event()
    running: list[Callable[[], object]] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        if stop.is_set():
            return
        async with Mirror(settings) as mirror, contextlib.aclosing(mirror.fetch(ids, options)) as manifests:
            async for manifest in manifests:
                await asyncio.to_thread(results.put, manifest)

    def work() -> None:
        try:
            asyncio.run(run())
            results.put(None)
        except BaseException as error:  # noqa: BLE001  it is raised where the caller waits
            results.put(error)

    thread = threading.Thread(target=work, name="mirror-fetch", daemon=True)
    thread.start()
    try:
        while (item := results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for cancel in running:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
                cancel()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                results.get(timeout=0.05)
        thread.join()
