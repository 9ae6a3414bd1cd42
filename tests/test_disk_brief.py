"""Short calls on the disk: on the loop's own thread, unless somebody would wait for the disk there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mirror.stores.disk import Disk


def made_where() -> str:
    return threading.current_thread().name


def slow(seconds: float = 1) -> str:
    """Longer than any short call takes, as on a disk that hangs: it counts for twenty times as long as it took."""
    time.sleep(seconds)
    return made_where()


HERE = made_where()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, durable=False, min_free=0)
    yield disk
    disk.close()


def test_a_short_call_is_made_at_once(disk: Disk) -> None:
    async def main() -> str:
        return await disk.brief(made_where)

    assert asyncio.run(main()) == HERE


def test_after_a_slow_call_the_next_ones_go_to_threads(disk: Disk) -> None:
    async def main() -> list[str]:
        return [await disk.brief(slow), *[await disk.brief(made_where) for _ in range(3)]]

    first, *others = asyncio.run(main())
    assert first == HERE
    assert HERE not in others


def test_also_after_one_that_failed(disk: Disk) -> None:
    def fail() -> None:
        slow()
        raise OSError(5, "no")

    async def main() -> str:
        with pytest.raises(OSError, match="no"):
            await disk.brief(fail)
        return await disk.brief(made_where)

    assert asyncio.run(main()) != HERE


def test_not_for_ever(disk: Disk) -> None:
    async def main() -> None:
        await disk.brief(partial(slow, 0.1))
        deadline = time.monotonic() + 120
        while await disk.brief(made_where) != HERE:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    asyncio.run(main())


def test_what_is_waited_for_until_it_is_durable_is_always_in_a_thread(tmp_path: Path) -> None:
    disk = Disk(tmp_path, durable=True, min_free=0)

    async def main() -> list[str]:
        return [await disk.brief(made_where) for _ in range(3)]

    assert HERE not in asyncio.run(main())
    disk.close()
