"""How much at once, how often again, and the small arithmetic of bytes, addresses and dates."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import selectors
import subprocess
import sys
import time
import zlib
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror import spans, times
from mirror.addresses import is_public, names_private_place
from mirror.agenda import Agenda
from mirror.digests import KNOWN, Digests
from mirror.errors import ApiUnavailable, Gone, MirrorError, Truncated, Unauthorized
from mirror.events import Retrying
from mirror.limits import ByteBudget, Level, Levels, Rate
from mirror.media import HEAD, why_not_media
from mirror.models import Span
from mirror.retry import LONGEST_PAUSE, PROGRESS, Patience, parse_retry_after
from mirror.segments import Segments
from tests import media

T = TypeVar("T")
modest = settings(max_examples=100, deadline=None)


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
    time.sleep(0.051)  # a shorter window is not judged
    level.moved(moved)
    for _ in range(level.limit):
        level.finished()
    end.set()
    await asyncio.gather(*requests)
    return level.limit


def test_a_level_doubles_while_that_brings_more_and_then_holds() -> None:
    async def main() -> None:
        level = Level(2, 12)
        assert await window(level) == 4
        assert await window(level, moved=10**10) == 8
        assert await window(level) == 8, "no more came in"
        assert await window(level, moved=10**12) == 9, "from here it looks a little higher"

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
    assert levels.of("a").limit == 16
    assert Levels(0, 4).of("a").limit == 4
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


def patient(attempts: int, errors: Sequence[MirrorError], reached: Sequence[int] = ()) -> tuple[int, list[Retrying]]:
    """Try what fails with one error after the other, and then succeeds: how often it was tried, and what was told."""
    told: list[Any] = []
    patience = Patience(attempts, "https://h/a", told.append)
    left, steps = iter(errors), iter(reached)

    async def call() -> None:
        for error in left:
            raise error

    with contextlib.suppress(MirrorError):
        run(patience.run(call, lambda: next(steps, 0)))
    return patience.tried, told


def failures(count: int) -> list[MirrorError]:
    return [Truncated(f"failure {number}") for number in range(count)]


def test_patience_ends_with_the_last_error_and_tells_of_each_attempt() -> None:
    told: list[Any] = []
    patience = Patience(3, "https://h/a", told.append)
    errors = failures(9)

    async def call() -> None:
        raise errors[patience.tried - 1]

    with pytest.raises(Truncated, match="failure 2"):
        run(patience.run(call))
    assert (patience.tried, patience.spent) == (3, 3)
    assert [(event.what, event.cause, event.message, event.attempt) for event in told] == [
        ("https://h/a", "Truncated", "failure 0", 1),
        ("https://h/a", "Truncated", "failure 1", 2),
    ]


@pytest.mark.parametrize("error", [Gone("404"), Unauthorized("401"), ValueError("a bug"), asyncio.CancelledError()])
def test_only_what_is_transient_is_tried_again(error: BaseException) -> None:
    async def call() -> None:
        raise error

    patience = Patience(5, "x", lambda _event: None)
    with pytest.raises(type(error)):
        run(patience.run(call))
    assert patience.tried == 1


MIB = PROGRESS
ATTEMPTS: dict[str, tuple[list[int], int]] = {
    "no-progress": ([0] * 9, 3),
    "a-mebibyte-each-time": ([MIB * n for n in range(1, 10)], 10),
    "a-byte-less-each-time": ([(MIB - 1) * n for n in range(1, 10)], 3),
    "progress-sets-the-count-back": ([0, 0, MIB, MIB, MIB, MIB, MIB], 6),
    "starting-over-is-none": ([5 * MIB, 0, 2 * MIB, 5 * MIB, 0], 4),
    "more-than-before-starting-over-is": ([5 * MIB, 0, 6 * MIB, 6 * MIB, 6 * MIB, 6 * MIB], 6),
}


@pytest.mark.parametrize(("reached", "tried"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_attempts_count_only_without_progress(reached: list[int], tried: int) -> None:
    assert patient(3, failures(9), reached)[0] == tried


def test_the_servers_own_word_sets_the_pause() -> None:
    _, told = patient(5, [ApiUnavailable("busy", retry_after=7), ApiUnavailable("busy", retry_after=0)])
    assert told[0].seconds == 7
    assert told[1].seconds <= 1


def test_pauses_grow_to_a_bound() -> None:
    tried, told = patient(60, failures(50))
    assert tried == 51
    assert told[0].seconds <= 0.5
    assert 1 < max(event.seconds for event in told) <= 30


@pytest.fixture
def _far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock on the wall that does not show UTC."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


NOON = datetime(2026, 1, 29, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.usefixtures("_far_away")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("999999", LONGEST_PAUSE),
        ("9" * 5_000, LONGEST_PAUSE),
        ("Thu, 29 Jan 2026 12:00:30 GMT", 30),
        ("Thursday, 29-Jan-26 12:00:30 GMT", 30),
        ("Thu Jan 29 12:00:30 2026", 30),
        ("Thu, 29 Jan 2026 11:00:00 GMT", 0),
        ("Thu, 29 Jan 2027 12:00:00 GMT", LONGEST_PAUSE),
        *((value, None) for value in ("", None, "-5", "5.5", "soon", "٣", "Thu, 32 Jan 2026 12:00:00 GMT")),
    ],
)
def test_both_forms_of_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOON) == seconds


@pytest.mark.usefixtures("_far_away")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Thu, 29 Jan 2026 13:54:20 GMT", "2026-01-29T13:54:20Z"),
        ("Thursday, 29-Jan-26 13:54:20 GMT", "2026-01-29T13:54:20Z"),
        ("Thu Jan 29 13:54:20 2026", "2026-01-29T13:54:20Z"),
        *((value, None) for value in ("", None, "yesterday", "Thu, 32 Jan 2026 13:54:20 GMT", "9" * 50)),
    ],
)
def test_dates_of_http(value: str | None, expected: str | None) -> None:
    assert times.from_http(value) == expected


@pytest.mark.usefixtures("_far_away")
def test_points_in_time_are_written_in_utc() -> None:
    assert times.rfc3339(datetime(2026, 1, 29, 22, 54, 20, 999, timezone(timedelta(hours=9)))) == "2026-01-29T13:54:20Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", times.now())
    assert abs(datetime.fromisoformat(times.now()) - datetime.now(UTC)) < timedelta(minutes=1)


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


LENGTH = 40
some_spans = st.lists(
    st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(lambda ends: Span(min(ends), max(ends))), max_size=6
)


def painted(held: Sequence[Span]) -> bytearray:
    """The model: a byte for each byte, 1 where it is held."""
    model = bytearray(LENGTH)
    for span in held:
        model[span.start : span.stop] = b"\1" * span.size
    return model


@modest
@given(some_spans, st.integers(0, LENGTH), st.integers(1, 9))
def test_spans_are_what_a_map_of_bytes_says(held: list[Span], length: int, size: int) -> None:
    model = painted(held)
    merged = spans.merge(held)
    assert painted(merged) == model
    assert all(one.stop < other.start for one, other in pairwise(merged)), "neither touch nor overlap"
    assert all(span.size > 0 for span in merged)
    assert spans.size(held) == sum(model)
    assert spans.prefix(held) == len(model) - len(model.lstrip(b"\1"))
    gaps = spans.missing(held, length)
    assert painted(gaps) == bytes(at < length and not model[at] for at in range(LENGTH))
    assert gaps == spans.merge(gaps)
    pieces = spans.cut(gaps, size)
    assert all(0 < piece.size <= size for piece in pieces)
    assert [at for piece in pieces for at in range(piece.start, piece.stop)] == [
        at for gap in gaps for at in range(gap.start, gap.stop)
    ]


@modest
@given(some_spans, st.integers(1, 9), st.lists(st.integers(-1, 3), max_size=20))
def test_segments_hand_out_every_missing_byte_once(held: list[Span], size: int, steps: list[int]) -> None:
    """A stream goes on from the front, helpers take from the back: -1 is the stream, else what a helper fails at."""
    gaps = spans.missing(held, LENGTH)
    segments, fetched, at = Segments(gaps, size), bytearray(painted(held)), gaps[0].start if gaps else 0
    for step in steps:
        if step < 0:
            stop = segments.front(at)
            if stop is not None:
                assert 0 < stop - at <= size
                fetched[at:stop] = bytes(byte + 1 for byte in fetched[at:stop])
                at = stop
        elif (piece := segments.back()) is not None:
            assert 0 < piece.size <= size
            failed = min(step, piece.size)
            got = Span(piece.start, piece.stop - failed)
            fetched[got.start : got.stop] = bytes(byte + 1 for byte in fetched[got.start : got.stop])
            segments.give_back(Span(got.stop, piece.stop))
    segments.stop_sharing()
    assert segments.back() is None
    for start in range(LENGTH):
        stop = segments.front(start)
        if stop is not None:
            fetched[start:stop] = bytes(byte + 1 for byte in fetched[start:stop])
    assert segments.left == 0
    assert set(fetched) <= {1}


@modest
@given(st.lists(st.binary(max_size=50)), st.integers(0, 5), st.sets(st.sampled_from(sorted(KNOWN))))
def test_digests_are_those_of_all_bytes_so_far(chunks: list[bytes], split: int, known: set[str]) -> None:
    digests = Digests(f"etag-{name}" for name in known)
    for chunk in chunks[:split]:
        digests.update(chunk)
    before = digests.copy()
    for chunk in chunks[split:]:
        digests.update(chunk)
    for found, data in [(before, b"".join(chunks[:split])), (digests, b"".join(chunks))]:
        assert found.at == len(data)
        assert found.sha256 == hashlib.sha256(data).hexdigest()
        for name in known:
            expected = f"{zlib.crc32(data):08x}" if name == "crc32" else hashlib.new(name, data).hexdigest()
            assert found.hex(name) == found.hex(f"x-amz-{name}") == expected


MEDIA = {
    "png": media.png(),
    "jpeg": media.jpeg(),
    "webp": media.webp(),
    "mp4": media.mp4(2_000),
    "unknown": media.blob(100),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "svg-with-xml": b"<?xml version='1.0'?>\n<svg/>",
    "playlist": b"#EXTM3U\n",
}


@pytest.mark.parametrize(
    "content_type", [None, "", "application/octet-stream", "video/mp4", "text/html; charset=utf-8"]
)
@pytest.mark.parametrize("body", MEDIA.values(), ids=MEDIA)
def test_media_passes_whatever_it_is_called(body: bytes, content_type: str | None) -> None:
    assert why_not_media(body[:HEAD], content_type) is None


@pytest.mark.parametrize(
    ("head", "content_type", "why"),
    [
        (b"", "image/png", "the body is empty"),
        (b"<!DOCTYPE html><html>", "image/png", "page"),
        (b"\r\n \t<HTML lang=en>", None, "page"),
        (b"\xef\xbb\xbf<html>", None, "page"),
        (b"<!-- cached -->\n<!doctype  html>", None, "page"),
        (b"<head><title>502", None, "page"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied', "application/octet-stream", "page"),
        (b"<Error><Code>NoSuchKey", None, "page"),
        (b'{"error": "expired"}', "application/json", "a text of type application/json"),
        (b" [1]", "Application/JSON; charset=utf-8", "a text of type application/json"),
        (b"<p>gone</p>", "text/html", "a text of type text/html"),
    ],
)
def test_pages_are_no_media(head: bytes, content_type: str | None, why: str) -> None:
    assert why in (why_not_media(head, content_type) or "")


PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.0.1", "169.254.169.254", "100.64.0.0", "100.100.100.200", "100.127.255.255", "168.63.129.16"),
    *("192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *(
        "0.0.0.0",
        "0.1.2.3",
        "198.18.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    *(
        "100::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "",
        "example.com",
        "127.1",
        "2130706433",
        "0x7f000001",
    ),
]
PUBLIC = [
    *(
        "1.1.1.1",
        "8.8.8.8",
        "52.216.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "169.253.0.1",
        "223.255.255.255",
    ),
    *("2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"),
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_not_gone_to(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)
    assert not names_private_place(address)


@modest
@given(st.ip_addresses(v=4))
def test_an_address_inside_another_counts_as_itself(address: IPv4Address) -> None:
    bits = int(address)
    for outer in (0xFFFF << 32 | bits, 0x2002 << 112 | bits << 80, 0x64FF9B << 96 | bits):
        assert is_public(str(IPv6Address(outer))) is is_public(str(address))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost.", "a.localhost", "printer.local", "db.internal", "metadata.google.internal"),
        *("[::1]", "::1", "[fe80::1%25eth0]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "127.0.0.1."),
        *("127.1", "1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.0x0.1", "0177.0x0.0.1"),
    ],
)
def test_hosts_that_are_plainly_private(host: str) -> None:
    assert names_private_place(host)


@pytest.mark.parametrize(
    "host",
    ["muyuhan.s3.amazonaws.com", "163.com", "0x0.st", "1.example", "local.example", "[2606:4700::1111]", "8.8.8.8"],
)
def test_hosts_that_may_be_public(host: str) -> None:
    assert not names_private_place(host)
