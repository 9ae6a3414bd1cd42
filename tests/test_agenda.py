"""What is to be done next, and what waits for its time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.agenda import Agenda
from tests.properties import examples
from tests.skipping_clock import run, settle

modest = examples(100)


async def drain(agenda: Agenda[str], worker: str = "") -> list[str]:
    """What one worker gets until there is nothing more."""
    taken = []
    while (item := await agenda.take()) is not None:
        taken.append(worker + item)
        await agenda.done()
    return taken


def test_an_agenda_hands_out_in_order_and_what_has_come_due_first() -> None:
    async def main() -> None:
        agenda = Agenda[str](10)
        for item in "abcd":
            await agenda.put(item)
        assert agenda.unfinished == 4
        assert await agenda.take() == "a"
        assert await agenda.take() == "b"
        await agenda.done(("later", 20))
        await agenda.done(("soon", 10))
        assert agenda.unfinished == 4, "what comes back has not ended"
        assert await agenda.take() == "c"
        await asyncio.sleep(11)
        await agenda.done()
        assert await agenda.take() == "soon"
        await agenda.done()
        await agenda.close()
        assert await drain(agenda) == ["d", "later"]
        assert agenda.unfinished == 0
        assert await agenda.take() is None, "and again"

    run(main())


def test_the_producer_waits_while_there_is_no_room() -> None:
    async def main() -> None:
        agenda, put = Agenda[str](2), list[str]()

        async def produce() -> None:
            for item in "abcd":
                await agenda.put(item)
                put.append(item)
            await agenda.close()

        producer = asyncio.create_task(produce())
        await settle()
        assert put == ["a", "b"]
        assert await agenda.take() == "a"
        await settle()
        assert put == ["a", "b", "c"]
        await agenda.done(("a", 0))
        await settle()
        assert put == ["a", "b", "c"], "what waits for its time takes no room, and gives none"
        assert await drain(agenda) == ["a", "b", "c", "d"]
        await producer

    run(main())


def test_workers_wait_for_one_that_may_bring_its_item_back() -> None:
    async def main() -> None:
        agenda = Agenda[str](1)
        await agenda.put("a")
        assert await agenda.take() == "a"
        await agenda.close()
        others = [asyncio.create_task(drain(agenda)) for _ in range(3)]
        await settle()
        assert not any(other.done() for other in others)
        await agenda.done(("a", 30))
        assert sorted(await asyncio.gather(*others)) == [[], [], ["a"]]

    run(main())


def test_a_worker_that_is_cancelled_takes_nothing_along() -> None:
    async def main() -> None:
        agenda = Agenda[str](5)
        workers = [asyncio.create_task(agenda.take()) for _ in range(2)]
        await settle()
        workers[0].cancel()
        await agenda.put("a")
        assert await workers[1] == "a"
        with pytest.raises(asyncio.CancelledError):
            await workers[0]

    run(main())


@modest
@given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=15), st.integers(1, 4), st.integers(1, 4))
def test_every_item_comes_as_often_as_it_is_put_back(pauses: list[list[int]], room: int, workers: int) -> None:
    async def main() -> None:
        agenda, came = Agenda[int](room), [0] * len(pauses)

        async def work() -> None:
            while (item := await agenda.take()) is not None:
                came[item] += 1
                await asyncio.sleep(item % 3)
                again = pauses[item][came[item] - 1 : came[item]]
                await agenda.done((item, again[0]) if again else None)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for item in range(len(pauses)):
            await agenda.put(item)
        await agenda.close()
        await asyncio.gather(*tasks)
        assert came == [len(each) + 1 for each in pauses]
        assert agenda.unfinished == 0

    run(main())
