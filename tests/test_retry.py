"""How often again, after which pause; and the dates that servers write."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror import times
from mirror.errors import ApiUnavailable, Gone, MirrorError, Truncated, Unauthorized
from mirror.events import Retrying
from mirror.retry import LONGEST_PAUSE, PROGRESS, Patience, parse_retry_after
from tests.properties import examples, near
from tests.skipping_clock import run


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


_DATES = [b"Thu, 29 Jan 2026 12:00:30 GMT", b"Thursday, 29-Jan-26 12:00:30 GMT", b"Thu Jan 29 12:00:30 2026", b"120"]
dates = st.text() | near(_DATES, [b" -2300", b"0100", b"9999", b" ", b","]).map(lambda date: date.decode("latin-1"))


@examples(150)
@given(dates, st.floats(-1e11, 1e11))
def test_any_retry_after_is_a_bounded_pause_or_none(value: str, now: float) -> None:
    pause = parse_retry_after(value, now)
    assert pause is None or 0 <= pause <= LONGEST_PAUSE


@examples(150)
@given(dates)
@example("Mon, 01 Jan 0100 00:00:00 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2300")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_date_is_one_of_rfc_3339_or_none(value: str) -> None:
    found = times.from_http(value)
    assert found is None or datetime.fromisoformat(found).strftime("%z") == "+0000"
    assert found is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found)


@examples(100)
@given(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - hypothesis wants them naive
def test_a_date_comes_back_from_its_http_form(moment: datetime) -> None:
    utc = moment.replace(tzinfo=UTC, microsecond=0)
    assert times.from_http(format_datetime(utc, usegmt=True)) == times.rfc3339(utc)
