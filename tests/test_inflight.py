"""Files that several visits of a process want: one fetches, the others hear how that ended."""

from __future__ import annotations

import asyncio

from mirror.inflight import Inflight, Turn
from mirror.models import Failure, Role


def test_all_who_wait_for_a_file_hear_how_it_ended() -> None:
    failed = ("http://o/a.png", Failure(error="Gone", message="HTTP 404", url="http://o/a.png", role=Role.ORIGIN))

    async def main() -> list[Turn]:
        inflight = Inflight()
        assert (await inflight.enter("a")).mine
        waiting = [asyncio.create_task(inflight.enter("a")) for _ in range(4)]
        await asyncio.sleep(0)
        waiting.pop(0).cancel()
        await asyncio.sleep(0)
        inflight.leave("a", failed)
        async with asyncio.timeout(30):
            turns = await asyncio.gather(*waiting)
        assert (await inflight.enter("a")).mine
        return turns

    assert asyncio.run(main()) == [Turn(mine=False, failed=failed)] * 3
