"""Results on their way from a run to its one reader."""

from __future__ import annotations

import asyncio

from mirror.run import Result

_RESULTS = 64
"""Results that may wait for a slow reader before the run waits too."""


class Outbox:
    """Who puts a result in waits while there is no room, and so does all behind it, back to the source of the ids."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._closed = False
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, result: Result) -> None:
        while len(self._results) >= _RESULTS:
            self._room.clear()
            await self._room.wait()
        self._results.append(result)
        self._something.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._something.set()

    async def take(self) -> list[Result]:
        """All that has come, at least one; none when it is closed."""
        await self._something.wait()
        taken, self._results = self._results, []
        self._room.set()
        if not self._closed:
            self._something.clear()
        return taken
