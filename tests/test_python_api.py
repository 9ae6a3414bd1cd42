"""`mirror.Mirror` and `mirror.fetch`, as a program uses them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import pytest

import mirror
from mirror import Event, FetchOptions, Manifest, Mirror, PromptState, load_settings
from mirror.errors import ConfigError, Locked, Unauthorized
from mirror.events import FilePlanned, FileStored, PromptFinished, PromptStarted, RequestSent, RunStarted
from tests import faults, media
from tests.conftest import Archive, by_id
from tests.helpers import asked, done_prompt, journaled, large_prompt, mirrored, picture, tree
from tests.origin import Origin, answer, task

MIB = 1 << 20


async def seen(condition: Callable[[], bool]) -> None:
    """Until a condition holds, while the loop goes on."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def all_of(mirror_: Mirror, *ids: str, options: FetchOptions | None = None) -> dict[str, Manifest]:
    return by_id([manifest async for manifest in mirror_.fetch(ids, options)])


def assert_free(archive: Archive) -> None:
    """Nobody holds the root: a fresh Mirror can work on it, and it does so to the end."""
    assert mirrored(archive, "nobody").states == {"nobody": "unknown"}


def test_manifests_come_as_their_prompts_finish(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.png(), faults.hold_after(10))

    async def run() -> list[str]:
        order = []
        async with Mirror(archive.settings()) as m:
            async for manifest in m.fetch(["q", "p"]):
                order.append(manifest.prompt_id)
                assert manifest.state is PromptState.COMPLETE
                assert (archive.root / manifest.prompt_id / "manifest.json").exists()
                origin.release("/q/large.mp4")
        assert m.exit_code == 0
        return order

    assert asyncio.run(run()) == ["p", "q"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "left to the loop"])
def test_leaving_the_loop_stops_cleanly_and_frees_the_root(origin: Origin, archive: Archive, closed: bool) -> None:
    body, size = media.mp4(3 * MIB), 5 * MIB // 2
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", body, faults.hold_after(size))

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            if closed:
                async with aclosing(m.fetch(["p", "q"])) as manifests:
                    async for _ in manifests:
                        await seen(lambda: journaled(archive) >= 2 * MIB)
                        break
            else:
                async for _ in m.fetch(["p", "q"]):
                    await seen(lambda: journaled(archive) >= 2 * MIB)
                    break
            assert m.exit_code in (0, 3)
        left.update(tree(archive.root))

    left: dict[str, bytes | None] = {}
    asyncio.run(run())

    assert tree(archive.root) == left
    held = journaled(archive)
    assert 2 * MIB <= held <= size
    origin.clear()
    assert mirrored(archive, "p", "q").code == 0
    assert [request.headers["range"] for request in origin.media_requests] == [f"bytes={held}-"]
    assert archive.files()["q/large.mp4"] == body


def test_cancellation_keeps_the_partial_and_frees_the_root(origin: Origin, archive: Archive) -> None:
    body = media.mp4(3 * MIB)
    large_prompt(origin, "p", body, faults.hold_after(5 * MIB // 2))

    async def run() -> None:
        async def work() -> None:
            async with Mirror(archive.settings()) as m:
                await all_of(m, "p")

        task = asyncio.create_task(work())
        await seen(lambda: journaled(archive) >= 2 * MIB)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())

    assert journaled(archive) >= 2 * MIB
    assert mirrored(archive, "p").code == 0
    assert archive.files()["p/large.mp4"] == body


def test_an_error_in_the_loop_frees_the_root(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            async for _ in m.fetch(["p", "q"]):
                raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        asyncio.run(run())
    assert_free(archive)


def test_fatal_errors_are_raised(origin: Origin, archive: Archive) -> None:
    async def run() -> None:
        for missing in ({"api_token": ""}, {"api_base_url": ""}, {"api_base_url": "nonsense"}):
            with pytest.raises(ConfigError):
                async with Mirror(archive.settings(**missing)):
                    pass
        async with Mirror(archive.settings(api_token="another")) as m:
            with pytest.raises(Unauthorized, match="rejects the token"):
                await all_of(m, "p")
        assert m.exit_code == 4
        async with Mirror(archive.settings()) as first, Mirror(archive.settings()) as second:
            await all_of(first, "p")
            with pytest.raises(Locked, match="in use by another run"):
                await all_of(second, "p")
        async with Mirror(archive.settings()) as m:
            with pytest.raises(TypeError, match="put it into a list"):
                await anext(m.fetch("p"))
            with pytest.raises(TypeError, match="to be a string"):
                await anext(m.fetch([7]))  # type: ignore[list-item]

    asyncio.run(run())
    assert_free(archive)
    with pytest.raises(ConfigError, match="nonsense"):
        load_settings(api_nonsense=1)
    with pytest.raises(Unauthorized):
        list(mirror.fetch(["p"], archive.settings(api_token="another")))


def test_a_mirror_serves_several_fetches(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q", "r"):
        done_prompt(origin, prompt_id, "a.png")

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            first = await all_of(m, "p", "nobody")
            assert {name: str(manifest.state) for name, manifest in first.items()} == {
                "p": "complete",
                "nobody": "unknown",
            }
            assert await all_of(m, "p") == {"p": first["p"]}
            assert m.exit_code == 3
        async with Mirror(archive.settings()) as m:
            # Two at once share the root's lock.
            q, r = await asyncio.gather(all_of(m, "q"), all_of(m, "r"))
            assert (q["q"].state, r["r"].state, m.exit_code) == ("complete", "complete", 0)

    asyncio.run(run())
    assert asked(origin) == ["nobody", "p", "q", "r"]


def test_options_hold_for_one_fetch(origin: Origin, archive: Archive) -> None:
    thumbnail, full = picture(origin, "/small.png")[0], picture(origin, "/full.png")[0]
    origin.prompt("p", answer(task("p", images=[(thumbnail, full)])))

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            tried = await all_of(m, "p", options=FetchOptions(dry_run=True))
            assert (tried["p"].state, tried["p"].files, archive.root.exists()) == ("partial", (), False)
            small = await all_of(m, "p", options=FetchOptions(only="thumbnail"))
            assert [file.path for file in small["p"].files] == ["small.png"]
            whole = await all_of(m, "p")
            assert (whole["p"].state, len(whole["p"].files)) == ("complete", 2)
            await all_of(m, "nobody", options=FetchOptions(dry_run=True))

    asyncio.run(run())
    assert archive.run("status", "nobody").out == "nobody\tnot in the catalog\n"


def test_observers_are_told_what_happens(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png")
    told: list[Event] = []

    ran = mirrored(archive, "p")
    told = [event for event in ran.events if not isinstance(event, RequestSent)]

    order = [RunStarted, PromptStarted, FilePlanned, FileStored, PromptFinished]
    assert [type(event) for event in told if type(event) in order] == order
    assert sum(isinstance(event, RequestSent) for event in ran.events) == 2
    [stored] = [event for event in told if isinstance(event, FileStored)]
    assert (stored.prompt_id, stored.path, stored.bytes, stored.reused) == ("p", "a.png", len(bodies["a.png"]), False)
    [skipped] = [event for event in mirrored(archive, "p").events if isinstance(event, PromptFinished)]
    assert (skipped.ok, skipped.skipped, skipped.bytes_reused) == (True, True, len(bodies["a.png"]))


def test_ids_may_come_from_generators(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")

    async def later() -> AsyncGenerator[str, None]:
        yield "p"
        await seen((archive.root / "p" / "manifest.json").exists)
        yield "q"

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            assert [manifest.prompt_id async for manifest in m.fetch(later())] == ["p", "q"]
            assert [manifest.prompt_id async for manifest in m.fetch(iter(["q"]))] == ["q"]

    asyncio.run(run())


def test_an_id_that_comes_again_at_once_is_dealt_with_once(origin: Origin, archive: Archive) -> None:
    """The next batch is looked up while the marks of the one before are being committed."""
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    mirrored(archive, "p", "q")
    origin.clear()

    async def batches() -> AsyncGenerator[list[str], None]:
        for batch in (["p"], ["p", "q"], ["q", "p"], ["p"]):
            yield batch

    async def run() -> list[tuple[str, bool]]:
        async with Mirror(archive.settings()) as m, aclosing(m.results(batches())) as results:
            return [(result.prompt_id, result.skipped) async for come in results for result in come]

    assert asyncio.run(run()) == [("p", True), ("q", True)]
    assert origin.requests == []


def test_a_slow_reader_holds_up_the_source_and_gets_everything(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    taken = 0

    def many() -> Iterator[str]:
        nonlocal taken
        for number in range(400):
            taken += 1
            yield f"bad\n{number}"  # refused unasked: nothing but the reader can hold these up
        yield "p"

    async def run() -> list[Manifest]:
        async with Mirror(archive.settings()) as m, aclosing(m.fetch(many())) as manifests:
            got = [await anext(manifests)]
            before = -1
            while taken != before:
                before = taken
                await asyncio.sleep(0.1)
            assert taken < 200
            return got + [manifest async for manifest in manifests]

    got = by_id(asyncio.run(run()))
    assert (len(got), got["p"].state, taken) == (401, "complete", 400)


# The blocking form


def test_blocking(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    origin.prompt("q", answer(task("q", 20)))

    found = by_id(list(mirror.fetch(["p", "q", "p"], archive.settings(), FetchOptions(only="origin"))))

    assert {name: str(manifest.state) for name, manifest in found.items()} == {"p": "complete", "q": "pending"}
    assert_free(archive)


def test_blocking_inside_a_running_loop(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    async def run() -> list[Manifest]:
        return list(mirror.fetch(["p"], archive.settings()))

    [manifest] = asyncio.run(run())
    assert manifest.state is PromptState.COMPLETE


def test_blocking_abandoned_half_way_stops_what_is_under_way(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3 * MIB), faults.hold_after(5 * MIB // 2))
    manifests = mirror.fetch(["p", "q"], archive.settings())
    assert next(manifests).prompt_id == "p"
    origin.wait_for(lambda: journaled(archive) >= 2 * MIB)
    time.sleep(0.2)  # the run is waiting for the download now, and for nothing else

    closing = threading.Thread(target=manifests.close)
    closing.start()
    closing.join(30)
    stuck = closing.is_alive()
    origin.release("/q/large.mp4")
    closing.join(60)

    assert not stuck, "it waited for a download that nobody wants any more"
    assert not (archive.root / "q").exists()
    assert_free(archive)
