"""The public API without asyncio: plain functions, for scripts, notebooks and threads.

Each has an event loop in a thread of its own, so it works where a loop runs already, as in a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from mirror.client import Mirror
from mirror.events import Observer
from mirror.models import Manifest
from mirror.settings import FetchOptions, Settings, SyncOptions

if TYPE_CHECKING:
    from mirror.checks import Checked
    from mirror.sampling import Sample

T = TypeVar("T")


def fetch(
    ids: Iterable[str], settings: Settings, options: FetchOptions | None = None, *, on_event: Observer | None = None
) -> Generator[Manifest, None, None]:
    """Mirror these prompts, as :meth:`Mirror.fetch` does; yields each one's manifest as soon as it is finished.

    ``ids`` may be lazy: it is iterated in a thread of its own, and no faster than the loop over the manifests goes. A
    list is faster, as there.
    ``settings`` say where things are, ``options`` what is asked for. ``on_event`` is told what happens, in the run's
    thread. Leaving the loop, Ctrl-C too, stops the run within two seconds; partial files are kept for the next one.
    A loop that is left half way ends its run when the generator is closed: ``contextlib.closing`` makes that sure.

    Raises:
        MirrorError: what ends the run, as in :meth:`Mirror.fetch`; wrong settings (ConfigError) included.
        TypeError: one string instead of several, an id that is no string, or arguments in each other's places.
        Exception: what ``ids`` raises, as there.

    Example::

        for manifest in mirror.fetch(["ef8ec19d6670c018814358a21a910090"], settings):
            print(manifest.prompt_id, manifest.state)  # → complete
    """
    return _iterate(partial(_in_mirror, settings, on_event, lambda m: m.fetch(ids, options)))


def fetch_one(
    prompt_id: str, settings: Settings, options: FetchOptions | None = None, *, on_event: Observer | None = None
) -> Manifest:
    """Mirror one prompt, as :meth:`Mirror.fetch_one` does, and wait for it. For many, :func:`fetch` is much faster.

    ``prompt_id``, ``settings``, ``options`` and ``on_event`` are as in :func:`fetch`.

    Raises:
        MirrorError: what ends the run, as in :meth:`Mirror.fetch`; wrong settings (ConfigError) included.
        TimeoutError: ``options.max_time`` was over first.
        TypeError: the id is no string.

    Example::

        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        print(manifest.state, [file.path for file in manifest.files])  # → complete
    """

    async def one(m: Mirror) -> AsyncGenerator[Manifest, None]:
        yield await m.fetch_one(prompt_id, options)

    [manifest] = _iterate(partial(_in_mirror, settings, on_event, one))
    return manifest


def sync(
    settings: Settings,
    options: FetchOptions | None = None,
    night: SyncOptions | None = None,
    *,
    on_event: Observer | None = None,
) -> Generator[Manifest, None, None]:
    """Mirror what is new in the service's history and what is unfinished, as :meth:`Mirror.sync` does.

    ``night`` says how far back and how much; ``settings``, ``options`` and ``on_event`` are as in :func:`fetch`, and
    so is leaving the loop.

    Raises:
        MirrorError: what ends the run, as in :meth:`Mirror.fetch`; wrong settings (ConfigError) included.

    Example::

        for manifest in mirror.sync(settings, night=mirror.SyncOptions(max_prompts=100)):
            print(manifest.prompt_id, manifest.state)  # → complete
    """
    return _iterate(partial(_in_mirror, settings, on_event, lambda m: m.sync(options, night)))


def verify(
    settings: Settings,
    ids: Iterable[str] = (),
    *,
    bucket: bool = False,
    deep: bool = False,
    sample: Sample | None = None,
    decode: bool = False,
    on_event: Observer | None = None,
) -> Generator[Checked, None, None]:
    """Compare what is there with the manifests, as :meth:`Mirror.verify` does; yields what was found of each file.

    ``ids``, ``bucket``, ``deep``, ``sample`` and ``decode`` are as there; ``settings`` need no token. ``on_event`` is
    told of requests to the bucket and of warnings, and of nothing else: what is found of each file is yielded, and a
    :class:`Progress` stands still meanwhile.

    Raises:
        MirrorError: as :meth:`Mirror.verify`.

    Example::

        flawed = [checked for checked in mirror.verify(settings) if checked.is_wrong]
        print(len(flawed), "files are missing or damaged")  # → 0 files
    """

    def found() -> AsyncGenerator[Checked, None]:
        return _mirror(settings, on_event).verify(ids, bucket=bucket, deep=deep, sample=sample, decode=decode)

    return _iterate(found)


def repair(  # noqa: PLR0913 - each is a choice of its own
    settings: Settings,
    ids: Iterable[str] = (),
    *,
    bucket: bool = False,
    deep: bool = False,
    sample: Sample | None = None,
    decode: bool = False,
    wait_lock: float | None = None,
    on_event: Observer | None = None,
) -> Generator[Checked, None, None]:
    """Verify, and fetch again what is missing or damaged, as :meth:`Mirror.repair` does.

    ``ids``, ``bucket``, ``deep``, ``sample``, ``decode`` and ``wait_lock`` (seconds) are as there; ``settings`` and
    ``on_event`` are as in :func:`fetch`.

    Raises:
        MirrorError: as :meth:`Mirror.repair`; wrong settings (ConfigError) included.

    Example::

        for checked in mirror.repair(settings):
            if checked.flaw is not None:
                print(checked.where, checked.flaw, "repaired" if checked.repaired else checked.detail)
    """

    def found(m: Mirror) -> AsyncGenerator[Checked, None]:
        return m.repair(ids, bucket=bucket, deep=deep, sample=sample, decode=decode, wait_lock=wait_lock)

    return _iterate(partial(_in_mirror, settings, on_event, found))


def _mirror(settings: Settings, on_event: Observer | None) -> Mirror:
    return Mirror(settings, observers=[on_event] if on_event is not None else [])


async def _in_mirror(
    settings: Settings, on_event: Observer | None, call: Callable[[Mirror], AsyncGenerator[T, None]]
) -> AsyncGenerator[T, None]:
    async with _mirror(settings, on_event) as m, contextlib.aclosing(call(m)) as items:
        async for item in items:
            yield item


class _Ended(NamedTuple):
    """Nothing more comes, and why."""

    error: BaseException | None


def _iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """What an asynchronous generator yields, run in a thread. It goes on when the next item is asked for.

    The generator is used by one task from its beginning to its end. Closing this one cancels that task, and waits until
    it has ended: nothing works on afterwards. A second Ctrl-C does not wait.
    """
    work = _Work(make)
    thread = threading.Thread(target=work.run, name="mirror-blocking", daemon=True)
    try:
        thread.start()
        work.may_begin.put(True)
        while not isinstance(item := work.come.get(), _Ended):
            yield item
            work.go_on()
        if item.error is not None:
            raise item.error
    finally:
        work.may_begin.put(False)
        work.stop()
        with contextlib.suppress(RuntimeError):  # Ctrl-C came while it was being started: it was not allowed to begin
            thread.join()


class _Work(Generic[T]):
    """A loop in a thread, with one task.

    ``may_begin`` decides whether anything is done at all; ``come`` is what was yielded, and the end.
    """

    def __init__(self, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        self.may_begin: SimpleQueue[bool] = SimpleQueue()
        self.come: SimpleQueue[T | _Ended] = SimpleQueue()
        self._make = make
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    def go_on(self) -> None:
        """Have the next item made. For another thread."""
        self._call(self._asked.set)

    def stop(self) -> None:
        """Cancel the task, now or as soon as there is one. For another thread."""
        self._stopped = True
        self._call(self._cancel)

    def _call(self, what: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(what)

    def _cancel(self) -> None:
        self._task.cancel()

    def run(self) -> None:
        """The thread, from its beginning to its end."""
        if not self.may_begin.get():
            return
        loop = asyncio.new_event_loop()
        self._task = loop.create_task(self._produce())
        self._loop = loop
        if self._stopped:
            self._cancel()
        error = _run(loop, self._task)
        if not self._task.done():  # something was raised that no task holds: all of it is put away before it is told
            self._cancel()
            while not self._task.done():
                _run(loop, self._task)
        # Not asyncio.run: it would wait for threads that a slow name server holds.
        _run(loop, loop.shutdown_asyncgens())
        loop.close()
        self.come.put(_Ended(error))

    async def _produce(self) -> None:
        async with contextlib.aclosing(self._make()) as items:
            async for item in items:
                self.come.put(item)
                await self._asked.wait()
                self._asked.clear()


def _run(loop: asyncio.AbstractEventLoop, what: Awaitable[None]) -> BaseException | None:
    """Until it has ended, or SystemExit or KeyboardInterrupt left the loop; what was raised."""
    try:
        loop.run_until_complete(what)
    except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
        return error
    return None
