"""An event loop whose sleeps take no time: what waits runs for real, and nothing is patched."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Skips(selectors.DefaultSelector):
    ahead = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.ahead += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """Sleeps take no time: the clock goes on to the next thing that is due."""

    def __init__(self) -> None:
        self._skips = _Skips()
        super().__init__(self._skips)

    def time(self) -> float:
        return super().time() + self._skips.ahead


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end. What waits for ever is an error after a day, which is over at once."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(asyncio.wait_for(main, 86_400))


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)
