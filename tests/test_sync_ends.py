"""Where a history ends: a sick service shows an end that is none, and no prompt is lost by it for good."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mirror import FetchOptions, Mirror, SyncOptions
from tests.conftest import Archive
from tests.helpers import mirrored
from tests.origin import Answer, Origin, Reply, Request, answer
from tests.test_sync import DAY, NOW, pages, prompts, row, states, tasks, watermark


class Shown:
    """A history of pages of two, a row a day; ``sick`` are the pages that are answered in another way meanwhile."""

    def __init__(self, origin: Origin, count: int) -> None:
        self.rows = [row(f"p{number}", age=number * DAY) for number in range(count)]
        self.sick: dict[int, Answer] = {}
        prompts(origin, *self.names)
        origin.handle("/newImageHistory", self._page)

    @property
    def names(self) -> list[str]:
        return [each["promptId"] for each in self.rows]

    def page(self, number: int) -> dict[str, Any]:
        return answer(self.rows[2 * number - 2 : 2 * number])

    def _page(self, request: Request) -> Answer:
        number = json.loads(request.body)["page"]
        return self.sick.get(number, self.page(number))


def sync(archive: Archive, *, since: float | None = None, refresh: bool = False) -> tuple[int, list[str]]:
    """One night: its exit code, and what is known after it."""

    async def run() -> int:
        async with Mirror(archive.settings(transfer_attempts=1)) as mirror:
            async for _ in mirror.sync(FetchOptions(refresh=refresh), SyncOptions(since=since)):
                pass
            return int(mirror.exit_code)

    code = asyncio.run(run())
    return code, sorted(states(archive))


SICK: dict[str, Any] = {
    "empty": {3: answer([]), 4: answer([])},
    "900": {3: answer(None, 900, "no data"), 4: answer(None, 900, "no data")},
    "stale": "page 3 again",
}


@pytest.mark.parametrize("how", SICK)
def test_an_end_that_was_none_is_found_out_by_the_next_night(archive: Archive, origin: Origin, how: str) -> None:
    history = Shown(origin, 12)
    history.sick = {4: history.page(3), 5: history.page(3)} if how == "stale" else SICK[how]
    code, known = sync(archive)
    assert (code, len(known)) == (0, 6 if how == "stale" else 4)

    history.sick = {}
    assert sync(archive) == (0, sorted(history.names))
    assert set(states(archive).values()) == {"complete"}

    origin.clear()
    assert sync(archive) == (0, sorted(history.names))
    assert (pages(origin), tasks(origin)) == (4, []), "two down to the overlap, and two around the history's end"


def test_since_reads_down_to_it_whatever_is_noted(archive: Archive, origin: Origin) -> None:
    """Even where nothing tells that something is missing: the row in the middle, and the end known."""
    history = Shown(origin, 12)
    missing = history.rows.pop(7)
    assert len(sync(archive)[1]) == 11
    before = watermark(archive)
    history.rows[7:7] = [missing]
    history.rows.pop(6)

    assert "p7" not in sync(archive)[1]
    origin.clear()
    assert "p7" in sync(archive, since=NOW - 30 * DAY)[1]
    assert pages(origin) == 8, "six pages, the end, and what lies behind it"
    assert watermark(archive) == before


def test_since_ends_where_it_says(archive: Archive, origin: Origin) -> None:
    Shown(origin, 12)
    sync(archive)
    origin.clear()
    sync(archive, since=NOW - 4.5 * DAY)
    assert pages(origin) == 4, "the fourth lies below"


@pytest.mark.parametrize("deleted", [2, 4])
def test_what_the_service_has_deleted_hides_no_end_that_was_none(
    archive: Archive, origin: Origin, deleted: int
) -> None:
    history = Shown(origin, 12)
    history.sick = {6: answer([]), 7: answer([])}
    assert len(sync(archive)[1]) == 10

    history.sick = {}
    del history.rows[10 - deleted : 10]
    assert len(sync(archive)[1]) == 12


def test_what_was_forgotten_does_not_come_back_for_the_look_at_the_end(archive: Archive, origin: Origin) -> None:
    Shown(origin, 9)
    sync(archive)
    assert archive.run("forget", "p8").code == 0
    assert "p8" not in sync(archive)[1]


def test_a_night_that_breaks_off_below_leaves_the_rest_to_the_next(archive: Archive, origin: Origin) -> None:
    history = Shown(origin, 12)
    history.sick = {3: answer([]), 4: answer([])}
    sync(archive)
    history.sick = {5: answer(None, 800, "not now")}
    code, known = sync(archive)
    assert (code, len(known)) == (3, 8)
    history.sick = {}
    # The end would not tell it now: as many are deleted, and the last ones were fetched by their ids.
    del history.rows[4:8]
    assert mirrored(archive, "p10", "p11").code == 0
    code, known = sync(archive)
    assert (code, len(known)) == (0, 12)
    assert watermark(archive) == (None, float(history.rows[0]["createdAt"]))


@pytest.mark.parametrize("odd", [answer(None, 800, "no such page"), Reply(500)], ids=["800", "500"])
def test_an_end_that_cannot_be_looked_at_makes_no_night_red(archive: Archive, origin: Origin, odd: Answer) -> None:
    history = Shown(origin, 6)
    sync(archive)
    history.sick = {4: odd}
    origin.clear()
    assert sync(archive) == (0, sorted(history.names))
    assert pages(origin) == 3


def test_a_service_that_stays_at_its_last_page_is_looked_at_twice_at_most(archive: Archive, origin: Origin) -> None:
    history = Shown(origin, 8)
    history.sick = {number: history.page(4) for number in range(5, 40)}
    sync(archive)
    origin.clear()
    sync(archive)
    assert pages(origin) == 4, "two down to the overlap, and the last one twice"
