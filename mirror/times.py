"""Points in time as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_IMF = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ({'|'.join(_MONTHS)}) ([1-9]\d{{3}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)
"""The form that is to be sent; the others are left to the standard library, which takes its time."""


def now() -> str:
    """This moment in UTC, RFC 3339 with seconds: ``2026-01-29T13:54:20Z``."""
    return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    """``moment`` in UTC, RFC 3339 with seconds."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_moment(text: str) -> float:
    """``2026-01-29`` (its beginning), ``2026-01-29T13:54``, ``2026-01-29T13:54:20+02:00`` as Unix seconds.

    Without an offset it is UTC.

    Raises:
        ValueError: the text is no date.
    """
    try:
        if not re.match(r"\d{4}-\d\d-\d\d", text.strip()):
            raise ValueError
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"expected a date such as 2026-01-29 or 2026-01-29T13:54:20Z, got {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@lru_cache(maxsize=256)
def from_http(value: str | None) -> str | None:
    """An HTTP date (RFC 9110, section 5.6.7) as RFC 3339; None where it is none."""
    if not value:
        return None
    try:
        if fix := _IMF.fullmatch(value):
            day, month, year, hour, minute, second = fix.groups()
            told = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))  # noqa: DTZ001
            return told.isoformat() + "Z"
        moment = parsedate_to_datetime(value)
        return rfc3339(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
