"""``mirror sync``: the history is walked down to the watermark, and what is unfinished goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from mirror import Mirror
from tests import faults
from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import Answer, Origin, Reply, Request, answer, task

DAY = 86400
NOW = int(time.time())


def row(prompt_id: str, age: float = 0, **more: Any) -> dict[str, Any]:
    return {"id": 1, "promptId": prompt_id, "state": 30, "createdAt": int(NOW - age), **more}


def prompts(origin: Origin, *names: str) -> None:
    for name in names:
        done_prompt(origin, name, f"{name}.png")


def pages(origin: Origin) -> int:
    return sum(request.path == "/newImageHistory" for request in origin.requests)


def tasks(origin: Origin) -> list[str]:
    """The promptIds that were asked about, sorted."""
    asked = [request for request in origin.requests if request.path == "/getTaskInfo"]
    return sorted(request.query.removeprefix("promptId=") for request in asked)


class Gate:
    """A history whose page `number` waits until the gate is opened; `reached` is set when it was asked for."""

    def __init__(self, origin: Origin, rows: Sequence[dict[str, Any]], number: int, size: int = 2) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

        def page(request: Request) -> Answer:
            asked = json.loads(request.body)["page"]
            if asked == number:
                self.reached.set()
                self.opened.wait(120)
            return answer(list(rows[size * (asked - 1) : size * asked]))

        origin.handle("/newImageHistory", page)


def query(archive: Archive, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(archive.root / ".mirror" / "catalog.sqlite")) as connection, connection:
        return connection.execute(sql).fetchall()


def states(archive: Archive) -> dict[str, str]:
    return dict(query(archive, "SELECT prompt_id, state FROM prompts"))


def watermark(archive: Archive) -> tuple[Any, ...] | None:
    found = query(archive, "SELECT floor, top FROM histories")
    return found[0] if found else None


def many(origin: Origin, count: int, start: int = 0) -> list[dict[str, Any]]:
    names = [f"p{number:03}" for number in range(start, start + count)]
    prompts(origin, *names)
    return [row(name, age=60 * number) for number, name in enumerate(names, start)]


SMALL = {"MIRROR_API_HISTORY_PAGE_SIZE": "2"}


def test_a_second_night_with_nothing_new_reads_to_the_watermark_and_asks_about_nothing(
    archive: Archive, origin: Origin
) -> None:
    origin.history([*many(origin, 5), *(row(f"old{n}", age=9 * DAY + n) for n in range(40))])
    prompts(origin, *(f"old{n}" for n in range(40)))
    first = archive.run("sync")
    assert first.code == 0, first.err
    assert len(tasks(origin)) == 45
    origin.clear()
    second = archive.run("sync", environ=SMALL)
    assert second.code == 0, second.err
    # Three pages of two reach the old ones, a fourth lies below the overlap, and the last page is looked at.
    assert (pages(origin), tasks(origin), origin.media_requests) == (5, [], [])


@pytest.mark.parametrize("body", ["json", "form", "query"])
def test_the_bodys_encoding_is_a_setting(archive: Archive, origin: Origin, body: str) -> None:
    origin.history(many(origin, 5))
    done = archive.run("sync", environ={"MIRROR_API_HISTORY_BODY": body, **SMALL})
    assert done.code == 0, done.err
    assert len(tasks(origin)) == 5
    assert pages(origin) == 5, "2 and 2 and 1, an empty one, and what lies behind it"
    sent = [request for request in origin.requests if request.path == "/newImageHistory"]
    kinds = {"json": "application/json", "form": "application/x-www-form-urlencoded", "query": None}
    assert {request.headers.get("content-type") for request in sent} <= {kinds[body], "application/octet-stream"}


def test_the_path_is_a_setting(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 1), path="/userAlbum")
    assert archive.run("sync", environ={"MIRROR_API_HISTORY_PATH": "/userAlbum"}).code == 0
    assert states(archive) == {"p000": "complete"}


def test_max_prompts_leaves_no_gap(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 7)
    origin.history(rows)
    seen: list[str] = []
    for expected in (3, 3, 1, 0):
        origin.clear()
        done = archive.run("sync", "--max-prompts", "3", environ=SMALL)
        assert done.code == 0, done.err
        assert len(tasks(origin)) == expected
        seen += tasks(origin)
    assert sorted(seen) == [each["promptId"] for each in rows]


def test_the_watermark_stays_where_it_was_while_a_walk_has_not_reached_it(archive: Archive, origin: Origin) -> None:
    """A history that breaks off in the middle, as a crash does: the next night starts at the top again."""
    rows = many(origin, 6)
    broken = itertools.count()

    def page(request: Request) -> Answer:
        number = json.loads(request.body)["page"]
        if number == 2 and next(broken) == 0:
            return answer(None, 800, "no such page")
        return answer(rows[2 * number - 2 : 2 * number])

    origin.handle("/newImageHistory", page)
    first = archive.run("sync", environ=SMALL)
    assert first.code == 3
    assert "page 2 of the history" in first.err
    assert watermark(archive) is None
    assert tasks(origin) == ["p000", "p001"], "what was read is mirrored"
    origin.clear()
    assert archive.run("sync", environ=SMALL).code == 0
    assert tasks(origin) == ["p002", "p003", "p004", "p005"]
    assert watermark(archive) == (None, float(rows[0]["createdAt"]))


def test_a_kill_in_the_middle_of_the_history_leaves_no_gap(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 6)
    gate = Gate(origin, rows, 3)
    archive.kill_when(archive.start("sync"), lambda: gate.reached.wait(60))
    gate.opened.set()
    assert watermark(archive) is None
    assert archive.run("sync").code == 0
    assert set(states(archive).values()) == {"complete"}
    assert len(states(archive)) == 6


def test_since_is_where_the_history_ends(archive: Archive, origin: Origin) -> None:
    prompts(origin, "new", "old")
    origin.history([row("new"), row("old", age=30 * DAY)])
    since = time.strftime("%Y-%m-%d", time.gmtime(NOW - 10 * DAY))
    assert archive.run("sync", "--since", since).code == 0
    assert states(archive) == {"new": "complete"}
    # Without it the rest is not skipped: the watermark knows how far down it reaches.
    assert archive.run("sync").code == 0
    assert states(archive) == {"new": "complete", "old": "complete"}
    assert watermark(archive) == (None, float(NOW))


def test_since_above_the_watermark_does_not_move_it(archive: Archive, origin: Origin) -> None:
    prompts(origin, "a", "b", "c")
    origin.history([row("a", age=30 * DAY)])
    assert archive.run("sync").code == 0
    before = watermark(archive)
    origin.history([row("c"), row("b", age=10 * DAY), row("a", age=30 * DAY)])
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - 5 * DAY))
    assert archive.run("sync", "--since", since).code == 0
    assert (sorted(states(archive)), watermark(archive)) == (["a", "c"], before)
    assert archive.run("sync").code == 0
    assert sorted(states(archive)) == ["a", "b", "c"]


def test_what_appears_late_below_the_watermark_is_found_within_the_overlap(archive: Archive, origin: Origin) -> None:
    prompts(origin, "a", "b", "late", "too-late")
    origin.history([row("a"), row("end", age=9 * DAY)])
    assert archive.run("sync").code == 0
    rows = [row("a"), row("late", age=DAY / 2), row("b", age=3 * DAY), row("too-late", age=4 * DAY)]
    origin.history([*rows, row("end", age=9 * DAY)], most=1)
    assert archive.run("sync").code == 0
    assert sorted(states(archive)) == ["a", "b", "end", "late"], "the page that lies below the overlap ends the walk"


def test_a_date_in_the_future_hides_nothing(archive: Archive, origin: Origin) -> None:
    prompts(origin, "a", "b")
    origin.history([row("a", age=-400 * DAY)])
    assert archive.run("sync").code == 0
    top = watermark(archive)
    assert top is not None
    assert top[1] <= time.time()


@pytest.mark.parametrize("created", ["none", "oldest first", "milliseconds", "text"])
def test_whatever_the_dates_are_nothing_is_missed(archive: Archive, origin: Origin, created: str) -> None:
    rows = many(origin, 6)
    for number, each in enumerate(rows):
        at = each["createdAt"]
        each["createdAt"] = {
            "none": None,
            "oldest first": NOW - 10 * DAY + number * DAY,
            "milliseconds": at * 1000,
            "text": str(at),
        }[created]
    first = rows[:3] if created == "oldest first" else rows[3:]
    for night in (first, rows):
        origin.history(night)
        assert archive.run("sync", environ={**SMALL, "MIRROR_API_HISTORY_OVERLAP": "0"}).code == 0
        assert len(states(archive)) == len(night)


def test_a_service_that_ignores_the_page_is_not_asked_for_ever(archive: Archive, origin: Origin) -> None:
    rows = many(origin, 3)
    origin.handle("/newImageHistory", lambda request: answer(rows))
    assert archive.run("sync").code == 0
    assert (len(tasks(origin)), pages(origin)) == (3, 3)


def test_rows_that_are_no_prompts_are_told_and_the_rest_goes_on(archive: Archive, origin: Origin) -> None:
    prompts(origin, "a")
    origin.history([{"id": 7}, row("x" * 300), row("a"), row("a"), {"promptId": None}])
    done = archive.run("sync")
    assert done.code == 0, done.err
    assert states(archive) == {"a": "complete"}
    assert "row 1 has no promptId" in done.err
    assert "too long" in done.err


@pytest.mark.parametrize(
    ("reply", "code"), [(Reply(500), 3), (Reply(404), 3), (Reply(401), 4), (Reply(200, body=b"<html>"), 3)]
)
def test_a_history_that_cannot_be_read_keeps_nobody_from_the_rest(
    archive: Archive, origin: Origin, reply: Reply, code: int
) -> None:
    origin.prompt("a", answer(task("a", 20)))
    assert archive.run("fetch", "a").code == 5
    picture_of_a = done_prompt(origin, "a", "a.png")
    origin.handle("/newImageHistory", lambda request: reply)
    done = archive.run("sync", environ={"MIRROR_TRANSFER_ATTEMPTS": "2"})
    assert done.code == code, done.err
    if code == 3:
        assert archive.files()["a/a.png"] == picture_of_a["a.png"]
        assert "the history cannot be read" in done.err


def test_what_failed_upstream_or_is_unknown_is_told_and_makes_no_night_red(archive: Archive, origin: Origin) -> None:
    origin.prompt("failed", answer(task("failed", 2, reason="no face")))
    origin.history([row("failed", state=2), row("unknown", state=20)])
    first = archive.run("sync")
    assert first.code == 0, first.err
    assert "no face" in first.err
    assert "NoData" in first.err
    assert states(archive) == {"failed": "failed", "unknown": "unknown"}
    origin.clear()
    assert archive.run("sync").code == 0
    assert tasks(origin) == []
    assert archive.run("sync", "--retry-failed").code == 0
    assert tasks(origin) == ["failed", "unknown"]


def test_a_file_that_is_gone_makes_one_night_red(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", 30, [(None, f"{origin.url}/gone.png")])))
    origin.history([row("a")])
    assert archive.run("sync").code == 3
    origin.clear()
    assert archive.run("sync").code == 0
    assert (tasks(origin), origin.media_requests) == ([], [])
    assert archive.run("sync", "--retry-failed").code == 3


def test_a_file_that_cannot_be_had_now_is_tried_every_night(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", 30, [(None, f"{origin.url}/a.png")])))
    origin.add("/a.png", b"a", fault=faults.status(503, times=faults.FOREVER))
    origin.history([row("a")])
    once = {"MIRROR_TRANSFER_ATTEMPTS": "1"}
    assert [archive.run("sync", environ=once).code for _ in range(2)] == [3, 3]


def test_what_is_pending_is_asked_for_every_night_until_it_is_given_up(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", 10)))
    origin.history([row("a", state=10)])
    assert [archive.run("sync").code for _ in range(2)] == [5, 5]
    query(archive, f"UPDATE prompts SET first_seen = {NOW - 8 * DAY}")
    assert archive.run("sync", "--give-up", "9d").code == 5
    given_up = archive.run("sync")
    assert given_up.code == 3
    assert "a: still pending 8.0 days after it was first seen: given up" in given_up.err
    origin.clear()
    assert archive.run("sync").code == 0
    assert tasks(origin) == []
    # It ends after all, and the history says so.
    done_prompt(origin, "a", "a.png")
    origin.history([row("a", state=30)])
    assert archive.run("sync").code == 0
    assert states(archive) == {"a": "complete"}


def test_a_first_night_takes_what_is_on_disk_for_what_it_is(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 3))
    assert archive.run("sync").code == 0
    for path in (archive.root / ".mirror").glob("catalog.sqlite*"):
        path.unlink()
    origin.clear()
    assert archive.run("sync").code == 0
    assert (tasks(origin), origin.media_requests) == ([], [])


def test_the_first_download_starts_before_the_history_is_read(archive: Archive, origin: Origin) -> None:
    gate = Gate(origin, many(origin, 4), 2)
    process = archive.start("sync")
    origin.wait_for(lambda: origin.count("/p000/p000.png") > 0)
    gate.opened.set()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_dry_run_changes_nothing(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 2))
    done = archive.run("sync", "--dry-run")
    assert done.code == 0, done.err
    assert sorted(line.split("\t")[0] for line in done.out.splitlines()) == ["p000", "p001"]
    assert not archive.root.exists() or archive.files() == {}


def test_json_gives_a_manifest_a_line(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 3))
    assert sorted(each["prompt_id"] for each in archive.run("sync", "--json").lines) == ["p000", "p001", "p002"]


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "20260101", "01.02.2026"])
def test_a_date_that_is_none_is_an_error_before_anything_starts(archive: Archive, since: str) -> None:
    done = archive.run("sync", "--since", since)
    assert done.code == 2
    assert "2026-01-29" in done.err


def test_from_python(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 3))

    async def run() -> list[str]:
        async with Mirror(archive.settings()) as mirror:
            return [manifest.prompt_id async for manifest in mirror.sync()]

    assert sorted(asyncio.run(run())) == ["p000", "p001", "p002"]


def test_what_failed_can_be_piped_back_as_it_is_listed(archive: Archive, origin: Origin) -> None:
    origin.prompt("a", answer(task("a", 30, [(None, f"{origin.url}/gone.png")])))
    prompts(origin, "b")
    origin.history([row("a"), row("b")])
    assert archive.run("sync").code == 3
    listed = archive.run("status", "--failed").out
    assert listed.startswith("a\t# partial: Gone: ")
    assert len(listed.splitlines()) == 1
    origin.clear()
    assert archive.run("fetch", "-i", "-", stdin=listed).code == 3
    assert tasks(origin) == ["a"]


def test_what_was_only_listed_is_no_failure(archive: Archive, origin: Origin) -> None:
    origin.history(many(origin, 3))
    assert archive.run("sync", "--max-prompts", "1").code == 0
    assert archive.run("status", "--failed").out == ""
    told = archive.run("status", "--json").lines[0]
    assert (told["sync"]["listed"], told["unresolved"]["prompts"], told["complete"]["prompts"]) == (2, 2, 1)
    assert "not asked about yet: 2 unresolved prompts" in archive.run("status").out
