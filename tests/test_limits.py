"""How much at once: memory, bytes a second, requests to a host."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import Gone
from mirror.limits import ByteBudget, Level, Levels, Rate
from tests.properties import examples
from tests.skipping_clock import run, settle

modest = examples(100)


def test_the_budget_is_given_first_come_first_served() -> None:
    async def main() -> None:
        budget, got = ByteBudget(10), list[str]()

        async def take(name: str, amount: int) -> None:
            assert await budget.take(amount) == amount
            got.append(name)

        assert await budget.take(10) == 10
        tasks = [asyncio.create_task(take(*each)) for each in [("large", 8), ("small", 1)]]
        await settle()
        budget.give(5)
        tasks.append(asyncio.create_task(take("last", 2)))
        await settle()
        assert got == [], "neither the small one overtakes, nor the last, for whom there is enough"
        assert budget.try_take(1) == 0, "nor one that does not wait"
        budget.give(4)
        await settle()
        assert got == ["large", "small"]
        budget.give(8)
        await asyncio.gather(*tasks)
        assert got == ["large", "small", "last"]

    run(main())


def test_more_than_the_whole_budget_is_the_whole_budget() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        assert budget.try_take(11) == 0
        assert await budget.take(1_000) == 10
        assert budget.try_take(1) == 0
        budget.give(10)
        assert budget.try_take(10) == 10

    run(main())


@pytest.mark.parametrize("order", ["cancelled", "served then cancelled", "cancelled then served"])
def test_who_is_cancelled_while_waiting_for_bytes_takes_none(order: str) -> None:
    """In one step of the loop, too: a run that ends cancels those who wait and those who give back."""

    async def main() -> None:
        budget = ByteBudget(10)
        await budget.take(7)
        first, second = (asyncio.create_task(budget.take(amount)) for amount in (8, 3))
        await settle()
        if order == "served then cancelled":
            budget.give(7)
        first.cancel()
        if order == "cancelled then served":
            budget.give(7)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 3
        budget.give(3 if order != "cancelled" else 10)
        assert budget.try_take(10) == 10, "nothing was lost, nothing was given twice"

    run(main())


wishes = st.lists(
    st.tuples(st.integers(1, 15), st.integers(0, 5), st.integers(0, 5), st.none() | st.integers(0, 8)), max_size=12
)


@modest
@given(wishes)
def test_the_budget_is_never_exceeded_and_comes_back_whole(wanted: list[tuple[int, int, int, int | None]]) -> None:
    async def main() -> None:
        budget, held, served = ByteBudget(10), 0, 0

        async def use(amount: int, start: int, keep: int) -> None:
            nonlocal held, served
            await asyncio.sleep(start)
            taken = await budget.take(amount)
            held += taken
            assert held <= 10
            try:
                await asyncio.sleep(keep)
                served += 1
            finally:
                held -= taken
                budget.give(taken)

        tasks = [asyncio.create_task(use(*wish[:3])) for wish in wanted]
        loop = asyncio.get_running_loop()
        for task, (_, _, _, end) in zip(tasks, wanted, strict=True):
            if end is not None:
                loop.call_later(end, task.cancel)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [end for end in ended if end is not None and not isinstance(end, asyncio.CancelledError)] == []
        assert served == ended.count(None)
        assert budget.try_take(10) == 10

    run(main())


def test_no_rate_is_no_limit() -> None:
    with pytest.raises(StopIteration):
        Rate(0).take(1e12).send(None)


def test_a_rate_spreads_what_it_lets_through() -> None:
    async def main() -> float:
        rate, passed, loop = Rate(100), list[int](), asyncio.get_running_loop()
        began = loop.time()

        async def one(number: int, amount: int) -> None:
            await rate.take(amount)
            passed.append(number)

        await asyncio.gather(one(0, 1_000), one(1, 500), one(2, 1))
        assert passed == [0, 1, 2]
        return loop.time() - began

    assert run(main()) == pytest.approx(15, abs=2), "the first at once, the others after what went before"


async def window(level: Level, *, waiting: bool = True, moved: int = 0) -> int:
    """As many requests as the level allows end well, with one more waiting; the new level."""
    end = asyncio.Event()

    async def request() -> None:
        async with level.slot():
            await end.wait()

    requests = [asyncio.create_task(request()) for _ in range(level.limit + waiting)]
    await settle()
    if moved:
        level.moved(moved)
    for _ in range(level.limit - 1):
        level.finished()
    time.sleep(0.051)  # a shorter window is not judged
    level.finished()  # the one that it is judged by, however long that took
    end.set()
    await asyncio.gather(*requests)
    return level.limit


def test_a_level_doubles_while_that_brings_more_and_then_holds() -> None:
    async def main() -> None:
        level = Level(2, 12)
        assert await window(level) == 4
        assert await window(level, moved=10**10) == 8
        assert await window(level) == 8, "no more came in, this once"
        assert await window(level) == 4, "nor again: half as many do as well"
        assert await window(level, moved=10**14) == 5, "from here it looks a little higher"

    run(main())


def test_a_level_stays_under_its_cap_and_grows_only_when_it_is_used() -> None:
    async def main() -> None:
        assert Level(16, 6).limit == 6
        assert await window(Level(4, 6)) == 6
        assert await window(Level(2, 6), waiting=False) == 2

    run(main())


def test_an_overloaded_host_halves_its_level_once_a_window_and_then_only_adds() -> None:
    async def main() -> None:
        level = Level(4, 64)
        assert await window(level) == 8
        level.overloaded()
        level.overloaded()
        assert level.limit == 4
        assert await window(level) == 5
        for expected in (2, 1, 1):
            level.overloaded()
            assert level.limit == expected
            await window(level, waiting=False)

    run(main())


def test_a_fixed_level_never_moves() -> None:
    async def main() -> None:
        level = Level(3, 3, fixed=True)
        level.overloaded()
        assert level.limit == 3
        assert await window(level) == 3

    run(main())


def test_a_level_bounds_what_is_under_way_and_serves_in_order() -> None:
    async def main() -> None:
        level, order, busy, most = Level(2, 2), list[int](), 0, 0

        async def request(number: int) -> None:
            nonlocal busy, most
            async with level.slot():
                order.append(number)
                busy += 1
                most = max(most, busy)
                await asyncio.sleep(1)
                busy -= 1
                if number % 2:
                    raise Gone("no such file")

        idle = [level.idle]
        requests = [asyncio.create_task(request(number)) for number in range(6)]
        await settle()
        idle.append(level.idle)
        ended = await asyncio.gather(*requests, return_exceptions=True)
        assert (order, most) == ([0, 1, 2, 3, 4, 5], 2)
        assert [isinstance(end, Gone) for end in ended] == [False, True] * 3
        assert [*idle, level.idle] == [True, False, True], "an error gives its place back, too"

    run(main())


@pytest.mark.parametrize("order", ["cancelled", "served then cancelled", "cancelled then served"])
def test_who_is_cancelled_while_waiting_for_a_place_takes_none(order: str) -> None:
    async def main() -> None:
        level, entered = Level(1, 1), list[str]()

        async def request(name: str) -> None:
            async with level.slot():
                entered.append(name)
                await asyncio.sleep(1)

        holder = level.slot()
        await holder.__aenter__()
        first, second = (asyncio.create_task(request(name)) for name in ("first", "second"))
        await settle()
        if order == "served then cancelled":
            await holder.__aexit__(None, None, None)
        first.cancel()
        if order == "cancelled then served":
            await holder.__aexit__(None, None, None)
        with pytest.raises(asyncio.CancelledError):
            await first
        if order == "cancelled":
            await holder.__aexit__(None, None, None)
        await second
        assert entered == ["second"]
        assert level.idle

    run(main())


def test_each_host_has_a_level_of_its_own() -> None:
    levels = Levels(0, 64)
    assert levels.of("a") is levels.of("a")
    assert levels.of("a") is not levels.of("b")
    assert levels.of("a").limit == 8
    assert levels.of("c", 4).limit == 4
    assert Levels(0, 4).of("a", 6).limit == 4
    fixed = Levels(300, 64).of("a")
    fixed.overloaded()
    assert fixed.limit == 64, "never more than open files and memory allow"


@pytest.mark.parametrize(("soft", "hard", "cap"), [(128, 128, 10), (128, 4096, 256), (64, 64, 4), (2048, 2048, 256)])
def test_open_files_bound_what_is_under_way(soft: int, hard: int, cap: int) -> None:
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "from mirror.limits import open_files_cap; print(open_files_cap())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == f"{cap}\n"
