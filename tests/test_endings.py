"""Tasks that were told to stop are waited for, whatever comes meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from mirror.endings import ended


@pytest.mark.parametrize("times", [1, 3])
def test_who_waits_is_cancelled_when_all_have_ended(times: int) -> None:
    order: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            order.append("a task has ended")

    async def wait(tasks: list[asyncio.Task[None]]) -> None:
        try:
            await ended(tasks)
        finally:
            order.append("who waited goes on")

    async def run() -> None:
        tasks = [asyncio.create_task(slow()) for _ in range(2)]
        waiting = asyncio.create_task(wait(tasks))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for _ in range(times):
            await asyncio.sleep(0)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert all(task.done() for task in tasks)

    asyncio.run(run())
    assert order == ["a task has ended", "a task has ended", "who waited goes on"]


def test_what_they_raise_is_theirs() -> None:
    async def failing() -> None:
        raise LookupError

    async def run() -> None:
        task = asyncio.create_task(failing())
        await ended([task])
        await ended([])
        assert isinstance(task.exception(), LookupError)

    asyncio.run(run())
