"""The public API for asyncio: :class:`Mirror`. :mod:`mirror.blocking` is for everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from mirror.catalog import Catalog
from mirror.config import require_api
from mirror.custody import catalog_of, reading, require_catalog
from mirror.errors import ConfigError, ExitCode, MirrorError, worst
from mirror.events import Fanout, Noted, Observer, RunStarted
from mirror.gear import Gear
from mirror.inflight import Company
from mirror.intake import Intake
from mirror.models import Manifest, PromptId
from mirror.pipeline import Pipeline
from mirror.run import Emit, Result, Run
from mirror.settings import FetchOptions, Settings, SyncOptions
from mirror.sources import Source
from mirror.sources.args import from_iterable, listed
from mirror.tasks import Tasks, Work
from mirror.times import now

if TYPE_CHECKING:
    from mirror.checks import Checked
    from mirror.sampling import Sample


_MOST_PROCESSES = 64


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
    """An archive that is open for work: an async context manager, to be used in one event loop.

    ``settings`` say where things are; ``observers`` are told what happens, as by :meth:`on_event`. From the first
    fetch on it holds the root's lock, to the end of its block: there nothing works on, and another run can begin.
    Several fetches may be under way at once; they share connections, limits and files. It is for one block: who uses
    it before or after, enters it again, or still waits for a manifest when the block ends gets a RuntimeError. Only
    :meth:`verify` needs no block.

    Raises:
        TypeError: ``settings`` are none.
        ConfigError: on entering: base_url or the token is missing, or they cannot be used.
        RuntimeError: on entering: it was entered before.
        StoreError, CatalogError: on leaving: the catalog cannot be put back where it belongs.

    Example::

        async with mirror.Mirror(settings) as m:
            async for manifest in m.fetch(["ef8ec19d6670c018814358a21a910090"]):
                print(manifest.prompt_id, manifest.state)  # → complete
        print(int(m.exit_code))  # → 0
    """

    def __init__(self, settings: Settings, *, observers: Iterable[Observer] = ()) -> None:
        _check(settings, Settings, "settings")
        self.settings = settings
        self._tasks = Tasks()
        self._observer = Fanout(observers, self._tasks.leave)
        self._codes: set[ExitCode] = set()
        self._engine: Engine | None = None
        self._company = Company()

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
        self._tasks.open()
        self._catalog: Catalog | None = None
        self._opening = asyncio.Lock()
        self._gear = Gear(self.settings, self._observer)
        self._places = self._gear.places
        # From the last to the first, each even where one of them fails or is cancelled: the root is free at the end.
        self._closing = contextlib.AsyncExitStack()
        self._closing.push_async_callback(self._gear.close)
        self._held = contextlib.AsyncExitStack()
        self._closing.push_async_exit(self._held)
        self._closing.push_async_callback(self._gear.rest)
        self._closing.push_async_callback(self._tasks.stop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._closing.__aexit__(kind, error, trace)
        except MirrorError as failed:
            self._codes.add(failed.exit_code)
            raise

    def on_event(self, observer: Observer) -> Callable[[], None]:
        """From now on tell this observer what happens, too; the function that is returned takes it away again.

        ``observer`` is called with each :class:`Event`, on the loop's thread, between two steps of the run: it must
        return at once, and is not awaited. One that raises is told nothing more; the log (``logging``, logger
        ``mirror``) says why, and the run goes on. As a decorator it makes the function's name that which takes it away.

        Example::

            from mirror.events import FileStored

            async with mirror.Mirror(settings) as m:

                @m.on_event
                def stop_printing(event):
                    if isinstance(event, FileStored):
                        print(event.path, event.bytes, "bytes")

                await m.fetch_one("ef8ec19d6670c018814358a21a910090")
                stop_printing()
        """
        return self._observer.add(observer)

    def fetch(
        self, ids: Iterable[str] | AsyncIterable[str], options: FetchOptions | None = None
    ) -> AsyncGenerator[Manifest, None]:
        """Mirror these prompts; yields each one's manifest as soon as it is finished, complete ones included.

        ``ids`` may be lazy, and is read no faster than prompts are taken up; one that blocks is iterated in a thread.
        A list or tuple is several times as fast where most is complete: it is looked up 500 ids at a time. From
        anything else each id is taken up before the next is asked for, which may follow from what became of it.
        ``options`` hold for this fetch only. An id is dealt with once, and manifests come in the order in which their
        prompts end. Failures are values: a manifest's ``state`` and ``errors`` say what is missing. A manifest of
        state ``unknown`` or ``unresolved`` stands for a prompt that nothing is known of, or for what cannot be an id.
        Where the loop's body takes its time the run waits, a few hundred prompts ahead at most, and so does ``ids``.

        Leaving the loop or cancelling the task stops the run cleanly: partial files are kept for the next one. With
        ``break`` it is the end of the Mirror's block that waits for it, or :func:`contextlib.aclosing` around this.

        Raises:
            Unauthorized: the token is rejected.
            Locked: another run holds the root.
            StoreError, CatalogError: the archive cannot be worked on (any more).
            RuntimeError: outside of the Mirror's block, or it ends while this waits; or a CancelledError of the ids.
            TypeError: one string instead of several, or an id that is no string; options that are none.
            Exception: what ``ids`` raises ends the run, and is raised once the manifests that were ready are yielded.

        Example::

            async with mirror.Mirror(settings) as m:
                wanted = ["ef8ec19d6670c018814358a21a910090", "nobody"]
                async for manifest in m.fetch(wanted, mirror.FetchOptions(wait=1800)):
                    print(manifest.prompt_id, manifest.state)  # → unknown
                    for failure in manifest.errors:
                        print(failure.error, failure.message)  # → NoData
        """
        return self._manifests(from_iterable(ids), options)

    async def fetch_one(self, prompt_id: str, options: FetchOptions | None = None) -> Manifest:
        """Mirror one prompt. What becomes of it is told by the manifest, as in :meth:`fetch`, and raises nothing.

        ``prompt_id`` that cannot be one (empty, longer than 256 characters, control characters) gives a manifest of
        state ``unknown`` with the error BadParameter, and no request. ``options`` are as in :meth:`fetch`. May be
        called many times at once, where calls for one prompt wait for each other (``max_time`` counts meanwhile): the
        later ones find it complete. A list is faster with :meth:`fetch`, which looks ids up together.

        Raises:
            Unauthorized, Locked, StoreError, CatalogError, RuntimeError: as :meth:`fetch`.
            TimeoutError: ``options.max_time`` was over first; what has come is kept for the next time.
            TypeError: the id is no string.

        Example::

            async with mirror.Mirror(settings) as m:
                manifest = await m.fetch_one("ef8ec19d6670c018814358a21a910090")
                if manifest.state is mirror.PromptState.COMPLETE:
                    print(sum(file.bytes for file in manifest.files), "bytes")
        """
        manifests = [manifest async for manifest in self.fetch([prompt_id], options)]
        if not manifests:
            assert options is not None
            raise TimeoutError(f"{prompt_id}: not done after {options.max_time:g} s (max_time)")
        return manifests[0]

    def sync(
        self, options: FetchOptions | None = None, night: SyncOptions | None = None
    ) -> AsyncGenerator[Manifest, None]:
        """Mirror what is new in the service's history, and go on with everything unfinished; yields as :meth:`fetch`.

        ``options`` are as in :meth:`fetch`; ``night`` says how far back and how much. What failed for good is left
        alone, and what failed upstream does not count against the exit code.

        Raises:
            Unauthorized, Locked, StoreError, CatalogError, RuntimeError: as :meth:`fetch`.

        Example::

            async with mirror.Mirror(settings) as m:
                async for manifest in m.sync(night=mirror.SyncOptions(max_prompts=100)):
                    print(manifest.prompt_id, manifest.state)  # → complete
        """
        wanted = night or SyncOptions()
        _check(wanted, SyncOptions, "night")
        return self._manifests(wanted, options)

    async def _manifests(
        self, source: AsyncGenerator[list[str], None] | SyncOptions, options: FetchOptions | None
    ) -> AsyncGenerator[Manifest, None]:
        async with (
            contextlib.nullcontext() if isinstance(source, SyncOptions) else contextlib.aclosing(source),
            contextlib.aclosing(self.results(source, options)) as results,
        ):
            async for come in results:
                for manifest in [result.manifest for result in come if result.manifest is not None]:
                    yield manifest

    async def results(
        self, source: Source | SyncOptions, options: FetchOptions | None = None, *, want_manifests: bool = True
    ) -> AsyncGenerator[list[Result], None]:
        """As :meth:`fetch` for batches of ids, or as :meth:`sync`; each result with its prompt's exit code.

        ``source`` is an asynchronous iterator of lists of ids (:mod:`mirror.sources` has some), or the options of a
        sync; whoever made it closes it. Without ``want_manifests`` those of prompts that were complete before are not
        read, which is faster.
        ``options`` are as in :meth:`fetch`. Yields what has come since the last time, at least one result: no prompt
        waits for another one's.

        Raises:
            Unauthorized, Locked, StoreError, CatalogError, RuntimeError: as :meth:`fetch`.

        Example::

            async def batches():
                yield ["ef8ec19d6670c018814358a21a910090", "nobody"]


            async with mirror.Mirror(settings) as m:
                async for come in m.results(batches()):
                    for result in come:
                        print(result.prompt_id, result.state, int(result.code))  # → nobody unknown 3
        """
        wanted = options or FetchOptions()
        _check(wanted, FetchOptions, "options")
        try:
            work: Work[Result] = partial(self._run, source, wanted, want_manifests)
            async with contextlib.aclosing(self._tasks.drain(work)) as results:
                async for come in results:
                    self._codes.update(result.code for result in come)
                    yield come
        except MirrorError as error:
            self._codes.add(error.exit_code)
            raise

    async def verify(
        self,
        ids: Iterable[str] = (),
        *,
        bucket: bool = False,
        deep: bool = False,
        sample: Sample | None = None,
        decode: bool = False,
    ) -> AsyncGenerator[Checked, None]:
        """Compare what is there with the manifests and the catalog: files on disk by hashing them, many at once.

        ``ids`` are the prompts that are looked at (all that the catalog knows, without any). With ``bucket`` the bucket
        is looked at instead, by the store's own checksums; ``deep`` reads its objects back. With a ``sample`` only its
        files are looked at. ``decode`` decodes each sound picture and film whole, too (extra ``media``).

        Yields what was found of each file and manifest, sound ones included, as soon as it was looked at. Reads only:
        it takes no lock, needs neither a token nor this Mirror's block, and may run beside anything.

        Raises:
            ConfigError: there is no catalog, no bucket, or no library to decode with.
            CatalogError, StoreError: nothing more can be checked.
            TypeError: one string instead of several, or an id that is no string.

        Example::

            async for checked in mirror.Mirror(settings).verify():
                if checked.is_wrong:
                    print(checked.where, checked.flaw, checked.detail)
        """
        from mirror.verification import Verify  # noqa: PLC0415 - a fetch needs it not

        wanted = [PromptId(each) for each in listed(ids)]
        require_catalog(self.settings)
        if self.settings.s3.only and not bucket:
            raise ConfigError("this archive stands in its bucket only: nothing of it is on disk")
        async with reading(self.settings, self._observer) as (places, catalog):
            verify = Verify(places, catalog, deep=deep, sample=sample, decode=decode)
            async with contextlib.aclosing(verify.in_bucket(wanted) if bucket else verify.on_disk(wanted)) as found:
                async for checked in found:
                    self._tasks.heed()
                    yield checked

    async def repair(
        self,
        ids: Iterable[str] = (),
        *,
        bucket: bool = False,
        deep: bool = False,
        sample: Sample | None = None,
        decode: bool = False,
        wait_lock: float | None = None,
    ) -> AsyncGenerator[Checked, None]:
        """Verify these prompts (all that the catalog knows, without any), and fetch again what is missing or damaged.

        Only those files are fetched, and only bytes with the SHA-256 of the manifest are accepted. With ``bucket`` it
        is the bucket that is verified, and put right from the disk where that has the file. ``ids``, ``deep``,
        ``sample`` and ``decode`` are as in :meth:`verify`; what cannot be decoded is told, and left as it is.
        ``wait_lock`` is for how many seconds to wait where another run holds the root (None: not at all).

        Raises:
            Unauthorized: the token is rejected.
            Locked: another run holds the root.
            StoreError, CatalogError: the archive cannot be worked on (any more).
            RuntimeError: as :meth:`fetch`.
            TypeError: one string instead of several, or an id that is no string.

        Example::

            async with mirror.Mirror(settings) as m:
                async for checked in m.repair():
                    if checked.flaw is not None:
                        print(checked.where, "repaired" if checked.repaired else checked.detail)
        """
        from mirror.repairs import Repair  # noqa: PLC0415 - a fetch needs neither
        from mirror.verification import Verify  # noqa: PLC0415

        options = FetchOptions(wait_lock=wait_lock)
        wanted = [PromptId(each) for each in listed(ids)]

        async def work(emit: Callable[[Checked], Awaitable[None]]) -> None:
            async with self._open_catalog(options) as catalog:

                async def fetch(lost: Mapping[PromptId, frozenset[str]]) -> None:
                    run = self._gear.new_run(options, catalog, repair=lost)
                    async with contextlib.aclosing(from_iterable(list(lost))) as source:
                        await self._work(run, catalog, source, _dropped, want_manifests=False)

                verify = Verify(self._places, catalog, deep=deep, sample=sample, decode=decode)
                repair = Repair(verify, catalog, fetch, bucket=bucket, disk_too=self._places.wants_disk)
                async with contextlib.aclosing(repair.run(wanted)) as found:
                    async for checked in found:
                        await emit(checked)

        async with contextlib.aclosing(self._tasks.drain(work)) as found:
            async for come in found:
                for checked in come:
                    yield checked

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

    async def _run(self, source: Source | SyncOptions, options: FetchOptions, want_manifests: bool, emit: Emit) -> None:
        async with self._open_catalog(options) as catalog:
            run = self._gear.new_run(options, catalog)
            self._observer(RunStarted(run_id=run.run_id, root=self._places.shown, started_at=now()))
            if not isinstance(source, SyncOptions):
                async with contextlib.aclosing(self._tasks.given(source)) as batches:
                    await self._work(run, catalog, batches, emit, want_manifests)
                return
            from mirror.night import Sync  # noqa: PLC0415 - a fetch needs none

            night = Sync(run, catalog, self.settings, source)
            async with contextlib.aclosing(night.batches()) as batches:
                await self._work(run, catalog, batches, night.judging(emit), want_manifests)
            self._codes.add(await night.end())

    async def _work(self, run: Run, catalog: Catalog, source: Source, emit: Emit, want_manifests: bool) -> None:
        """Until all ids have a result, or ``max_time`` is over."""
        options = run.options
        engine = self._new_engine(run, catalog, emit, want_manifests)
        is_alone = not isinstance(engine, Pipeline)
        intake = Intake(run, emit, want_manifests=want_manifests, adopt=not is_alone)
        try:
            async with (
                asyncio.timeout(options.max_time or None) as timer,
                self._company.joined(alone=is_alone),
                contextlib.aclosing(intake.of(source)) as ids,
            ):
                self._engine = engine
                await engine.run(ids)
        except TimeoutError:
            if not timer.expired():
                raise
            self._codes.add(ExitCode.INCOMPLETE)
            self._note(f"stopped after {options.max_time:g} s (max_time)")

    def _new_engine(self, run: Run, catalog: Catalog, emit: Emit, want_manifests: bool) -> Engine:
        options = run.options
        if options.dry_run or run.repair is not None:
            return Pipeline(run, emit, workers=self._gear.visits)
        if options.engine == "ray":
            from mirror.engines.ray.engine import Rounds  # noqa: PLC0415 - few runs have a cluster

            return Rounds(run, catalog, self.settings, emit, count=options.processes)
        if options.processes < 2:
            return Pipeline(run, emit, workers=self._gear.visits)
        if options.processes > _MOST_PROCESSES:
            raise ConfigError(f"processes: {options.processes}: on one machine there may be {_MOST_PROCESSES} at most")
        from mirror.engines.processes import Processes  # noqa: PLC0415 - most runs are one process

        return Processes(run, catalog, self.settings, emit, count=options.processes, want_manifests=want_manifests)

    def _note(self, message: str) -> None:
        self._observer(Noted(level="warning", message=message))


async def _dropped(_: Result) -> None:
    """The files themselves are looked at."""


def _check(given: object, kind: type, name: str) -> None:
    """Check what a caller may have put in another one's place.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, kind):
        raise TypeError(f"{name}: expected {kind.__name__}, got {type(given).__name__}")
