"""How a use of the API ends that goes wrong in an odd way: it ends, it says why, and the root is free."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import mirror
from mirror import Event, FetchOptions, Mirror, Sample, SyncOptions
from mirror.errors import ConfigError
from mirror.events import PromptFinished
from mirror.settings import FOREVER, ApiSettings
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, journaled, large_prompt
from tests.origin import Origin
from tests.test_python_api import assert_free, seen

Fetched = list[str] | BaseException


def outcome(call: Callable[[], list[str]]) -> Fetched:
    """What a call comes to, whatever it raises; in a thread, since it may be one that never ends."""
    found: list[Fetched] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - that is the question
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)
    assert found, "it hangs"
    return found[0]


async def fetched(m: Mirror, ids: Any, options: FetchOptions | None = None) -> list[str]:
    return [manifest.prompt_id async for manifest in m.fetch(ids, options)]


def in_a_loop(archive: Archive, ids: Any, on_event: mirror.Observer) -> list[str]:
    async def run() -> list[str]:
        async with Mirror(archive.settings(), observers=[on_event]) as m:
            return await fetched(m, ids)

    return asyncio.run(run())


def without_one(archive: Archive, ids: Any, on_event: mirror.Observer) -> list[str]:
    return [manifest.prompt_id for manifest in mirror.fetch(ids, archive.settings(), on_event=on_event)]


# What observers and ids may raise


@pytest.mark.parametrize("call", [in_a_loop, without_one])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("who", ["observer", "ids", "ids of a loop"])
def test_what_is_to_end_the_program_reaches_the_caller(
    origin: Origin, archive: Archive, who: str, error: BaseException, call: Callable[..., list[str]]
) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(1 << 20), faults.hold_after(10))

    def observe(event: Event) -> None:
        if isinstance(event, PromptFinished) and who == "observer":
            raise error

    def ids() -> Iterator[str]:
        yield from ("p", "q")
        if who != "observer":
            raise error

    async def ids_of_a_loop() -> AsyncIterator[str]:
        for each in ids():
            yield each

    given = ids_of_a_loop() if who == "ids of a loop" else ids()
    assert outcome(lambda: call(archive, given, observe)) is error
    assert_free(archive)


@pytest.mark.parametrize("call", [in_a_loop, without_one])
def test_an_observer_s_cancelled_error_cancels_nothing(
    origin: Origin, archive: Archive, call: Callable[..., list[str]]
) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")

    def observe(_: Event) -> None:
        raise asyncio.CancelledError

    found = outcome(lambda: call(archive, ["p", "q"], observe))
    assert isinstance(found, list)
    assert sorted(found) == ["p", "q"]


@pytest.mark.parametrize("call", [in_a_loop, without_one])
@pytest.mark.parametrize("is_async", [False, True], ids=["ids", "ids of a loop"])
def test_ids_that_were_cancelled_end_the_run(
    origin: Origin, archive: Archive, is_async: bool, call: Callable[..., list[str]]
) -> None:
    done_prompt(origin, "p", "a.png")

    def ids() -> Iterator[str]:
        yield "p"
        raise asyncio.CancelledError

    async def ids_of_a_loop() -> AsyncIterator[str]:
        yield "p"
        forgotten = asyncio.create_task(asyncio.sleep(10))
        forgotten.cancel()
        await forgotten

    found = outcome(lambda: call(archive, ids_of_a_loop() if is_async else ids(), print))
    assert repr(found) == "RuntimeError('the ids raised a CancelledError of their own')"
    assert_free(archive)


# Ctrl-C


THREAD = "start_new_thread" if sys.version_info < (3, 13) else "start_joinable_thread"
MOMENTS = [
    *(("call", name) for name in ("_iterate", "__init__", "start", "wait")),
    *((when, name) for name in (THREAD, "put") for when in ("c_call", "c_return")),
    ("c_call", "get"),
]
"""What the main thread does before the first manifest: Ctrl-C may come at any of it."""


@pytest.mark.parametrize(("when", "what"), MOMENTS)
def test_ctrl_c_while_a_function_begins(origin: Origin, archive: Archive, when: str, what: str) -> None:
    done_prompt(origin, "p", "a.png")
    manifests = mirror.fetch(["p"], archive.settings(archive_durability="fast"))

    def interrupt(frame: FrameType, event: str, called: Any) -> None:
        if event == when and (frame.f_code.co_name if called is None else called.__name__) == what:
            raise KeyboardInterrupt

    before, was_interrupted = sys.getprofile(), False
    sys.setprofile(interrupt)
    try:
        next(manifests)
    except KeyboardInterrupt:
        was_interrupted = True
    finally:
        sys.setprofile(before)
    assert was_interrupted
    with pytest.raises(StopIteration):
        next(manifests)
    threads = [each for each in threading.enumerate() if each.name == "mirror-blocking"]
    deadline = time.monotonic() + 120
    while any(each.is_alive() for each in threads):  # one that was started, and is not to begin; it may be late
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert_free(archive)


# A Mirror and its block


def test_a_mirror_is_used_in_its_block_once(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    async def refused(use: Callable[[], Any], why: str) -> None:
        with pytest.raises(RuntimeError, match=why):
            await use()

    async def run() -> None:
        m = Mirror(archive.settings())

        async def repaired() -> None:
            async for _ in m.repair():
                pass

        async def synced() -> None:
            async for _ in m.sync():
                pass

        uses = [lambda: fetched(m, ["p"]), lambda: m.fetch_one("p"), repaired, synced]
        uses.append(lambda: fetched(m, ["p"], FetchOptions(dry_run=True)))
        for use in uses:
            await refused(use, "is not open")
        async with m:
            await m.fetch_one("p")
            await refused(m.__aenter__, "for one block")
            found = await asyncio.to_thread(outcome, lambda: asyncio.run(fetched(m, ["p"])))
            assert "belongs to another event loop" in str(found)
            taken_out = m.fetch(["p"])
            begun = m.fetch(["p", "nobody"])
            await anext(begun)
        uses += [taken_out.__anext__, begun.__anext__, begun.__anext__]
        for use in uses[:-1]:
            await refused(use, "was closed")
        await refused(m.__aenter__, "for one block")
        assert [checked.flaw async for checked in m.verify()] == [None, None], "that needs no block"

    asyncio.run(run())
    assert_free(archive)


def test_who_still_reads_when_the_block_ends_is_told_so(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3 << 20), faults.hold_after(5 << 19))

    async def run() -> list[object]:
        async with Mirror(archive.settings()) as m, Mirror(archive.settings()) as waiting:
            reading = [asyncio.create_task(fetched(m, ["p", "q"])), asyncio.create_task(m.fetch_one("q"))]
            await seen(lambda: journaled(archive) > 0)
            locked_out = asyncio.create_task(waiting.fetch_one("p", FetchOptions(wait_lock=30)))
            await asyncio.sleep(0.1)
        return await asyncio.gather(*reading, locked_out, return_exceptions=True)

    for error in asyncio.run(run()):
        assert isinstance(error, RuntimeError)
        assert "was closed" in str(error)
    assert_free(archive)


def test_max_time_counts_while_another_call_is_at_the_same_prompt(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.mp4(3 << 20), faults.hold_after(10))

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            first = asyncio.create_task(m.fetch_one("p"))
            await seen(lambda: origin.count("/p/") > 0)
            with pytest.raises(TimeoutError, match=r"p: not done after 0.2 s \(max_time\)"):
                async with asyncio.timeout(120):
                    await m.fetch_one("p", FetchOptions(max_time=0.2))
            assert m.exit_code == 3
            origin.release("/p/large.mp4")
            assert (await first).state == "complete"

    asyncio.run(run())


# What is given in another one's place


def test_arguments_in_the_wrong_places_are_told_by_name(archive: Archive) -> None:
    settings: Any = archive.settings()
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: list(mirror.fetch(settings, ["p"])), "settings: expected Settings, got list"),  # type: ignore[arg-type]
        (lambda: list(mirror.fetch(["p"], settings, settings)), "options: expected FetchOptions, got Settings"),
        (lambda: list(mirror.sync(settings, mirror.SyncOptions())), "options: expected FetchOptions, got SyncOptions"),  # type: ignore[arg-type]
        (lambda: list(mirror.sync(settings, None, FetchOptions())), "night: expected SyncOptions, got FetchOptions"),  # type: ignore[arg-type]
        (lambda: list(mirror.verify(["p"], settings)), "settings: expected Settings, got list"),  # type: ignore[arg-type]
        (lambda: mirror.fetch_one(settings, "p"), "settings: expected Settings, got str"),  # type: ignore[arg-type]
    ]
    for call, told in wrong:
        with pytest.raises(TypeError, match=told):
            call()
    with contextlib.suppress(FileNotFoundError):
        assert list(archive.root.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (FetchOptions, {"only": "origins"}, "FetchOptions: only: expected 'origin', 'thumbnail'"),
        (FetchOptions, {"only": ["origin"]}, "FetchOptions: only: expected `str | None`, got `array`"),
        (FetchOptions, {"processes": -3}, "FetchOptions: processes: expected `int` >= 0"),
        (FetchOptions, {"wait": "30m"}, "FetchOptions: wait: expected `float`, got `str`"),
        (FetchOptions, {"wait": float("nan")}, "FetchOptions: wait: expected `float` >= 0.0"),
        (FetchOptions, {"max_time": -5}, "FetchOptions: max_time: expected `float` >= 0.0"),
        (SyncOptions, {"since": "yesterday"}, "SyncOptions: since: expected `float | None`, got `str`"),
        (Sample, {}, "Sample: expected either share or count"),
        (Sample, {"share": 0.5, "count": 2}, "Sample: expected either share or count"),
        (Sample, {"share": 50}, "Sample: share: expected a number above 0, and 1 at most, got 50"),
        (Sample, {"count": -1}, "Sample: count: expected a whole number of files, 1 at least, got -1"),
        (ApiSettings, {"timeout": "soon"}, "ApiSettings: timeout: expected `float`, got `str`"),
    ],
)
def test_options_are_checked_when_they_are_made(kind: type, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        kind(**given)
    assert str(raised.value) == told


def test_options_may_be_of_kinds_that_are_as_good() -> None:
    class Seconds(float):
        pass

    origin: Any = mirror.Role.ORIGIN
    options = FetchOptions(only=origin, wait=Seconds(3), max_time=4, wait_lock=FOREVER)
    assert (options.only, options.wait, options.max_time) == ("origin", 3.0, 4.0)
