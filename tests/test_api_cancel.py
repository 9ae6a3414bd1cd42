"""A run that is cancelled, wherever it is: nothing works on, the root is free, and the next run completes.

And one that is left in another way, or read slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from contextlib import aclosing

import pytest

from mirror import Event, Manifest, Mirror
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, journaled, large_prompt, mirrored
from tests.origin import Origin, answer, task
from tests.test_python_api import assert_free, seen

IDS = ["p", "q", "nobody"]
FAST = {"archive_durability": "fast"}


def serve(origin: Origin) -> dict[str, bytes]:
    """Two prompts; what an archive of them holds, manifests aside."""
    sizes = {"p/a.bin": 1000, "p/b.bin": 100_000, "q/c.bin": 3 << 20}
    bodies = {name: random.Random(name).randbytes(size) for name, size in sizes.items()}
    for prompt_id in ("p", "q"):
        urls = [origin.add(f"/{name}", body) for name, body in bodies.items() if name.startswith(prompt_id)]
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url) for url in urls])))
    return bodies


async def whole_run(archive: Archive, on_event: Callable[[Event], None] = lambda _: None) -> list[Manifest]:
    async with Mirror(archive.settings(**FAST), observers=[on_event]) as m:
        return [manifest async for manifest in m.fetch(IDS)]


async def steps_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing_works_on() -> None:
    """What belongs to a Mirror has ended; threads that were let go may take a moment."""
    assert not asyncio.all_tasks() - {asyncio.current_task()}
    others = "mirror-blocking"  # another test interrupts threads at their start, and such a one may never begin
    await seen(lambda: not [t.name for t in threading.enumerate() if t.name.startswith("mirror") and t.name != others])


async def is_free_and_completes(archive: Archive, bodies: dict[str, bytes]) -> None:
    async with Mirror(archive.settings(**FAST)) as m:
        states = {manifest.prompt_id: str(manifest.state) async for manifest in m.fetch(IDS)}
        assert states == {"p": "complete", "q": "complete", "nobody": "unknown"}
        assert [checked async for checked in m.verify() if checked.flaw] == []
    assert {name: body for name, body in archive.files().items() if not name.endswith(".json")} == bodies


@pytest.mark.usefixtures("no_helpers")
@pytest.mark.parametrize("twice", [False, True], ids=["once", "again while it stops"])
def test_cancelled_at_any_step_of_the_loop(origin: Origin, archive: Archive, twice: bool) -> None:
    bodies = serve(origin)

    async def run(steps: int, place: Archive) -> bool:
        work = asyncio.create_task(whole_run(place))
        await steps_of_the_loop(steps)
        is_cancelled = work.cancel()
        if twice:
            await steps_of_the_loop(steps % 7)
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await nothing_works_on()
        await is_free_and_completes(place, bodies)
        return is_cancelled

    steps, points = 0, 0
    while asyncio.run(run(steps, Archive(archive.root / str(steps), origin))):
        steps, points = (steps + 1 if steps < 8 else int(steps * 1.8)), points + 1
    assert points > 10


@pytest.mark.usefixtures("no_helpers")
def test_cancelled_at_any_event(origin: Origin, archive: Archive) -> None:
    bodies = serve(origin)

    async def run(number: int, place: Archive) -> bool:
        told = 0

        def count(_: Event) -> None:
            nonlocal told
            told += 1
            if told == number:
                work.cancel()

        work = asyncio.create_task(whole_run(place, count))
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await nothing_works_on()
        await is_free_and_completes(place, bodies)
        return told >= number

    number = 1
    while asyncio.run(run(number, Archive(archive.root / str(number), origin))):
        number += 2
    assert number > 10


@pytest.mark.parametrize("steps", range(1, 7))
def test_cancelled_while_it_is_closed(origin: Origin, archive: Archive, steps: int) -> None:
    """With connections, a helper process, the catalog and the lock still to be let go."""
    done_prompt(origin, "p", "a.png")
    done = asyncio.Event()

    async def one_run() -> None:
        async with Mirror(archive.settings(**FAST)) as m:
            await m.fetch_one("p")
            done.set()

    async def run() -> None:
        work = asyncio.create_task(one_run())
        await done.wait()
        await steps_of_the_loop(steps)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await nothing_works_on()
        async with Mirror(archive.settings(**FAST)) as m:
            assert (await m.fetch_one("p")).state == "complete"

    asyncio.run(run())


@pytest.mark.parametrize("steps", range(3))
def test_cancelled_while_a_run_is_stopped(origin: Origin, archive: Archive, steps: int) -> None:
    """Its loop was left, and its generator is still there: the Mirror's end stops it, whatever comes."""
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3 << 20), faults.hold_after(5 << 19))
    done = asyncio.Event()

    async def one_run(m: Mirror) -> None:
        async with m:
            manifests = m.fetch(["p", "q"])
            await anext(manifests)
            await seen(lambda: journaled(archive) > 0)
            done.set()
        await manifests.aclose()

    async def run() -> None:
        m = Mirror(archive.settings())
        work = asyncio.create_task(one_run(m))
        await done.wait()
        await steps_of_the_loop(steps)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not m._tasks._running

    asyncio.run(run())
    assert_free(archive)


def test_a_timeout_around_it_stops_it(origin: Origin, archive: Archive) -> None:
    body = media.mp4(3 << 20)
    large_prompt(origin, "p", body, faults.hold_after(5 << 19))

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4), Mirror(archive.settings()) as m:
                await m.fetch_one("p")
        await nothing_works_on()

    asyncio.run(run())
    origin.release("/p/large.mp4")
    assert mirrored(archive, "p").code == 0
    assert archive.files()["p/large.mp4"] == body


@pytest.mark.parametrize("way", ["break", "aclose", "error"])
def test_left_half_way_the_run_is_over_with_the_block(origin: Origin, archive: Archive, way: str) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3 << 20), faults.hold_after(5 << 19))

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            async with aclosing(m.fetch(["p", "q"])) as manifests:
                async for manifest in manifests:
                    assert manifest.prompt_id == "p"
                    await seen(lambda: journaled(archive) > 0)
                    if way == "error":
                        raise LookupError("the caller's own")
                    break
            assert not m._tasks._running, "closing the generator is enough: the Mirror may be used for more"
            assert (await m.fetch_one("p")).state == "complete"
        await nothing_works_on()

    with contextlib.suppress(LookupError):
        asyncio.run(run())
    assert journaled(archive) > 0
    assert_free(archive)


def test_a_slow_consumer_holds_the_run_up(origin: Origin, archive: Archive) -> None:
    """While it takes nothing out, no more prompts are asked for than have a place: 64 that wait, as many that were
    handed over together, and one for each worker.
    """
    ids = [f"p{number}" for number in range(600)]
    for prompt_id in ids:
        origin.prompt(prompt_id, answer(task(prompt_id, 2)))  # failed upstream: one request is all

    async def run() -> tuple[int, int]:
        async with Mirror(archive.settings(**FAST)) as m, aclosing(m.fetch(ids)) as manifests:
            first = await anext(manifests)
            await seen(lambda: len(origin.requests) >= 64)
            before = -1
            while before != len(origin.requests):
                before = len(origin.requests)
                await asyncio.sleep(0.1)
            return before, len([first] + [manifest async for manifest in manifests])

    asked, came = asyncio.run(run())
    assert 64 <= asked <= 64 + 64 + 256
    assert (came, len(origin.requests)) == (600, 600)
