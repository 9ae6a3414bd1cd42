"""What hostile eyes broke in ``mirror sync``: each stays mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import faults
from tests.conftest import Archive
from tests.helpers import done_prompt, picture
from tests.origin import Answer, Origin, Reply, Request, answer, task
from tests.test_sync import DAY, NOW, SMALL, many, pages, prompts, query, row, states, tasks, watermark


class Paged:
    """A history of pages of two, which changes when a page is asked for: number → what then stands at the top."""

    def __init__(self, origin: Origin, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.comes: dict[int, list[dict[str, Any]]] = {}
        self.answers: dict[int, Answer] = {}
        origin.handle("/newImageHistory", self._page)

    def _page(self, request: Request) -> Answer:
        number = json.loads(request.body)["page"]
        self.rows[:0] = self.comes.pop(number, [])
        if number in self.answers:
            return self.answers.pop(number)
        return answer(self.rows[2 * number - 2 : 2 * number])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_that_come_in_while_it_is_paged_hide_none(archive: Archive, origin: Origin, count: int) -> None:
    history = Paged(origin, many(origin, 10))
    prompts(origin, *(f"new{n}" for n in range(count)))
    history.comes[3] = [row(f"new{n}") for n in range(count)]
    assert archive.run("sync", environ=SMALL).code == 0
    assert {f"p{n:03}" for n in range(10)} <= states(archive).keys()
    assert archive.run("sync", environ=SMALL).code == 0
    assert len(states(archive)) == 10 + count


@pytest.mark.parametrize("odd", [answer(None), answer([]), answer(None, 900, "no data")], ids=["null", "none", "900"])
def test_an_empty_page_in_the_middle_is_not_the_end(archive: Archive, origin: Origin, odd: Answer) -> None:
    rows = many(origin, 4) + [row(f"old{n}", age=(5 + n) * DAY) for n in range(4)]
    prompts(origin, *(f"old{n}" for n in range(4)))
    history = Paged(origin, rows)
    history.answers[3] = odd
    for _ in range(2):
        assert archive.run("sync", environ=SMALL).code == 0
    assert {each["promptId"] for each in rows} == states(archive).keys()


def test_a_page_that_stays_empty_keeps_the_watermark_where_it_is(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 2)

    def page(request: Request) -> Answer:
        return answer({1: rows[:1], 3: rows[1:]}.get(json.loads(request.body)["page"], []))

    origin.handle("/newImageHistory", page)
    done = archive.run("sync")
    assert (done.code, "page 2 of the history is empty" in done.err) == (0, True)
    assert (len(states(archive)), watermark(archive)) == (2, None)


def test_pages_without_a_promptid_are_not_the_end(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 2) + [{"id": n} for n in range(6)] + [row("old", age=DAY)]
    prompts(origin, "old")
    Paged(origin, rows)
    assert archive.run("sync", environ=SMALL).code == 0
    assert set(states(archive)) == {"p000", "p001", "old"}


def test_one_old_row_between_new_ones_is_noticed(archive: Archive, origin: Origin) -> None:
    first = [row("a", age=10 * DAY), row("b", age=DAY), row("c", age=11 * DAY)]
    prompts(origin, *"abcdef")
    origin.history(first)
    done = archive.run("sync")
    assert "not newest first" in done.err
    assert watermark(archive) is None
    rows = [*first, row("d"), row("e"), row("f")]
    origin.history(rows, most=3)
    assert archive.run("sync").code == 0
    assert sorted(states(archive)) == list("abcdef")


def test_a_row_that_no_json_can_hold_hides_none_beside_it(archive: Archive, origin: Origin) -> None:
    prompts(origin, "a", "b")
    text = json.dumps(answer([row("a"), {"promptId": "x", "createdAt": 0}, row("b")]))
    for odd in (text.replace('"createdAt": 0', '"createdAt": 1e999'), text.replace('"x"', r'"\\ud800"')):
        origin.handle("/newImageHistory", lambda request, odd=odd: Reply(200, body=odd.encode()))  # type: ignore[misc]
        assert archive.run("sync").code == 0
        assert {"a", "b"} <= states(archive).keys()


def test_nothing_is_given_up_for_an_outage_of_the_service(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", [answer(task("a", 20)), *[Reply(503)] * 4, answer(task("a", 20))])
    origin.prompt("b", [*[Reply(503)] * 2, answer(task("b"))])
    origin.history([row("a", state=20), row("b", state=20)])
    once = {"MIRROR_TRANSFER_ATTEMPTS": "1"}
    for _ in range(2):
        archive.run("sync", environ=once)
        query(archive, f"UPDATE prompts SET first_seen = {NOW - 30 * DAY}")
    assert archive.run("sync", environ=once).code == 3
    assert query(archive, "SELECT count(given_up) FROM prompts") == [(0,)]
    assert states(archive)["b"] == "complete"


def test_polling_is_one_try(archive: Archive, origin: Origin) -> None:
    """One that was listed long ago, and is asked about in one night only, is not given up in that night."""
    origin.prompt("a", answer(task("a", 20)))
    prompts(origin, "b")
    origin.history([row("b"), row("a", state=20)])
    assert archive.run("sync", "--max-prompts", "1").code == 0
    query(archive, f"UPDATE prompts SET first_seen = {NOW - 8 * DAY}")
    assert archive.run("sync", "--wait", "3s").code == 5
    assert query(archive, "SELECT tries, given_up FROM prompts WHERE prompt_id = 'a'") == [(1, None)]
    assert tasks(origin).count("a") > 1


def test_retry_failed_takes_up_what_was_given_up_for_more_than_a_night(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", 20)))
    origin.history([row("a", state=20)])
    codes = [archive.run("sync", "--give-up", "1ms").code for _ in range(3)]
    assert codes == [5, 3, 0]
    assert archive.run("sync", "--retry-failed").code == 5
    assert archive.run("sync").code == 5


def test_what_the_history_shows_as_done_is_not_unknown_at_once(archive: Archive, origin: Origin) -> None:
    body = picture(origin, "/a/a.png")
    origin.prompt("a", [answer(None, 900, "no data"), answer(task("a", images=[(None, body[0])]))])
    origin.history([row("a"), row("never")])
    assert archive.run("sync").code == 0
    assert states(archive) == {"a": "unknown", "never": "unknown"}
    assert archive.run("sync").code == 0
    assert states(archive)["a"] == "complete"
    assert archive.run("sync").code == 0
    origin.clear()
    assert archive.run("sync").code == 0
    assert tasks(origin) == [], "three denials are enough"


def test_a_token_that_the_history_rejects_is_no_success(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 6))
    assert archive.run("sync", "--max-prompts", "1").code == 0
    origin.handle("/newImageHistory", lambda request: Reply(401))
    assert archive.run("sync").code == 4
    Paged(origin, [row("new")]).answers[2] = Reply(401)
    assert archive.run("sync", "--max-prompts", "100").code == 4, "however many there may be"


def test_what_never_ends_keeps_nobody_from_being_asked_about(archive: Archive, origin: Origin) -> None:
    for name in "abc":
        origin.prompt(name, answer(task(name, 20)))
    origin.history([row(name, state=20) for name in "abc"])
    assert archive.run("sync").code == 5
    done_prompt(origin, "c", "c.png")
    for _ in range(2):
        assert archive.run("sync", "--max-prompts", "2").code in (0, 5)
    assert states(archive)["c"] == "complete"


def test_a_url_that_is_refused_makes_one_night_red(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", images=[(None, f"{origin.url}/a b.png")])))
    origin.history([row("a")])
    assert [archive.run("sync").code for _ in range(2)] == [3, 0]


def test_a_service_that_stays_at_its_last_page_is_read_once(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 6)

    def page(request: Request) -> Answer:
        number = min(json.loads(request.body)["page"], 3)
        return answer(rows[2 * number - 2 : 2 * number])

    origin.handle("/newImageHistory", page, fault=faults.behave())
    assert archive.run("sync").code == 0
    assert len(states(archive)) == 6
    assert watermark(archive) is not None
    assert pages(origin) == 5
