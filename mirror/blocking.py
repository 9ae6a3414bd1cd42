"""The public API without asyncio: plain functions, for scripts, notebooks and threads.

Each has an event loop in a thread of its own, so it works where a loop runs already, as in a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeVar

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

    ``ids`` may be lazy: it is iterated in a thread of its own, and no faster than the loop over the manifests goes.
    ``settings`` say where things are, ``options`` what is asked for. ``on_event`` is told what happens, in the run's
    thread. Leaving the loop, Ctrl-C too, stops the run within two seconds; partial files are kept for the next one.
    A loop that is left half way ends its run when the generator is closed: ``contextlib.closing`` makes that sure.

    Raises:
        MirrorError: what ends the run, as in :meth:`Mirror.fetch`; wrong settings (ConfigError) included.
        TypeError: one string instead of several, or an id that is no string.

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
    as in :func:`fetch`.

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
    loop = asyncio.new_event_loop()
    come: SimpleQueue[T | _Ended] = SimpleQueue()
    asked = asyncio.Event()

    async def produce() -> None:
        async with contextlib.aclosing(make()) as items:
            async for item in items:
                come.put(item)
                await asked.wait()
                asked.clear()

    task = loop.create_task(produce())
    thread = threading.Thread(target=_work, args=(loop, task, come), name="mirror-blocking", daemon=True)
    try:
        thread.start()
        while not isinstance(item := come.get(), _Ended):
            yield item
            loop.call_soon_threadsafe(asked.set)
        if item.error is not None:
            raise item.error
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _work(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], come: SimpleQueue[T | _Ended]) -> None:
    error: BaseException | None = None
    try:
        loop.run_until_complete(task)
    except BaseException as failed:  # noqa: BLE001 - it is raised where the caller waits
        error = failed
    finally:
        # Not asyncio.run: it would wait for threads that a slow name server holds.
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        come.put(_Ended(error))
