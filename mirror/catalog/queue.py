"""What is still to be done, and how far the history was read. Runs on the catalog's thread, in its transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from msgspec import Struct

from mirror.catalog import rows
from mirror.models import Covered, Listed, PromptId, PromptState, TaskState

FOR_GOOD = ("Gone", "NotMedia", "Refused", "TooLarge")
"""Failures of a file that another night will not mend."""

DENIED = ("BadParameter", "NoData")
"""What the service says of prompts that it does not know (any more)."""

_DENIALS = 3
"""So often a prompt is asked about that the history shows as done and the service denies: one may lag the other."""

_OPEN = """
    (error IS NULL OR error NOT IN (SELECT value FROM json_each(:denied)))
    AND (unfinished OR EXISTS (
        SELECT 1 FROM files WHERE files.prompt_id = prompts.prompt_id AND (:only IS NULL OR role = :only) AND (
            (entry IS NULL AND failure IS NULL) OR
            json_extract(CAST(failure AS TEXT), '$.error') NOT IN (SELECT value FROM json_each(:for_good))
        )
    ))
"""

_LOST = """
    prompt_id IN (
        SELECT prompt_id FROM files WHERE failure IS NOT NULL AND (:only IS NULL OR role = :only)
        AND json_extract(CAST(failure AS TEXT), '$.error') NOT IN (SELECT value FROM json_each(:for_good))
    )
"""

_ELSEWHERE = """
    (placed IS NULL OR NOT json_extract(CAST(placed AS TEXT), '$.current')
    OR json_extract(CAST(placed AS TEXT), '$.endpoint') != :endpoint
    OR json_extract(CAST(placed AS TEXT), '$.bucket') != :bucket
    OR substr(json_extract(CAST(placed AS TEXT), '$.key'), 1, length(:key)) != :key)
"""


class Due(Struct, frozen=True, kw_only=True):
    """Which prompts a run takes up by itself: those that are unfinished, and not for good.

    What is complete is due where a run was cut off in the middle of it, where the service says that it runs again,
    where a file of it was found to be lost or damaged, and where it is not in ``bucket`` (endpoint, bucket, start of
    the key). ``retry_failed`` adds what failed for good or was given up, ``refresh`` all that is complete; ``only``
    looks at files of one role.
    """

    run: str
    only: str | None = None
    retry_failed: bool = False
    refresh: bool = False
    bucket: tuple[str, str, str] | None = None

    @property
    def groups(self) -> tuple[tuple[PromptState, ...], ...]:
        """States that are taken up together, what was not tried for the longest time first."""
        found = [PromptState.UNRESOLVED, PromptState.PENDING, PromptState.PARTIAL]
        found += [PromptState.FAILED, PromptState.UNKNOWN] if self.retry_failed else []
        return (tuple(found), (PromptState.COMPLETE,))

    def condition(self, group: tuple[PromptState, ...]) -> str:
        """The SQL that tells which prompts of these states are due."""
        if PromptState.COMPLETE in group:
            lacking = f"unfinished OR {_LOST}"
            return "TRUE" if self.refresh else f"{lacking} OR {_ELSEWHERE}" if self.bucket else lacking
        return "TRUE" if self.retry_failed else f"given_up IS NULL AND {_OPEN}"

    def parameters(self) -> dict[str, object]:
        endpoint, bucket, key = self.bucket or ("", "", "")
        return {
            "run": self.run,
            "only": self.only,
            "denied": rows.listed(DENIED),
            "for_good": rows.listed(FOR_GOOD),
            "endpoint": endpoint,
            "bucket": bucket,
            "key": key,
        }


class GivenUp(Struct, frozen=True):
    """A pending prompt that is left alone from now on; ``seconds`` is for how long it has been known."""

    prompt_id: PromptId
    seconds: float


class Standing(Struct, frozen=True, kw_only=True):
    """``given_up`` are unfinished and left alone; ``listed`` were named by the history and not asked about yet.

    ``last_tried`` is when any prompt was, ``watermark`` up to where the history was read; both Unix seconds.
    """

    given_up: int
    listed: int
    last_tried: float | None
    watermark: float | None


Place = tuple[float, int]
"""When a prompt was tried last, and its row: what to go on behind."""

Found = list[tuple[int, PromptId]]
"""Row numbers, to go on from, and the prompts."""


def enlist(connection: sqlite3.Connection, listed: Sequence[Listed], walk: str) -> tuple[int, int]:
    """Have a row for each of these; returns how many this walk had not seen yet, and how many nobody had."""
    now = time.time()
    seen = new = 0
    for each in listed:
        new += rows.add(connection, each.prompt_id, now)
        if each.state is TaskState.DONE:
            _reopen(connection, each.prompt_id)
        seen += connection.execute(
            "UPDATE prompts SET walk = ?1, created_at = coalesce(created_at, ?2)"
            " WHERE prompt_id = ?3 AND walk IS NOT ?1",
            (walk, each.created_at, each.prompt_id),
        ).rowcount
    return seen, new


def _reopen(connection: sqlite3.Connection, prompt_id: PromptId) -> None:
    """The history says that it is done: what was given up, or denied (not too often), is asked about again."""
    connection.execute(
        "UPDATE prompts SET given_up = NULL, unfinished = 1, error = NULL,"
        " state = CASE state WHEN 'unknown' THEN 'unresolved' ELSE state END"
        " WHERE prompt_id = ? AND (given_up IS NOT NULL OR"
        " (tries < ? AND error IN (SELECT value FROM json_each(?)) AND state IN ('unknown', 'pending')))",
        (prompt_id, _DENIALS, rows.listed(DENIED)),
    )


def reopen_all(connection: sqlite3.Connection) -> None:
    """Take up again what was given up; how long it has been known counts from now."""
    connection.execute("UPDATE prompts SET given_up = NULL, first_seen = ? WHERE given_up IS NOT NULL", (time.time(),))


def untried(connection: sqlite3.Connection, after: int, most: int) -> Found:
    """Prompts that the history named and nobody asked about yet, in the order they were named."""
    found = connection.execute(
        "SELECT rowid, prompt_id FROM prompts WHERE state = 'unresolved' AND tries = 0 AND rowid > ?"
        " ORDER BY rowid LIMIT ?",
        (after, most),
    ).fetchall()
    rows.check_order(after, [number for number, _ in found])
    return [(number, PromptId(prompt_id)) for number, prompt_id in found]


def due(
    connection: sqlite3.Connection, which: Due, group: tuple[PromptState, ...], after: Place, most: int
) -> list[tuple[Place, PromptId]]:
    """Prompts of these states that are due, and that this run has not taken up; those tried last come last."""
    cursor = connection.execute(
        "SELECT coalesce(last_tried, 0) AS at, rowid, prompt_id FROM prompts"  # noqa: S608  # nosec B608 # our own text
        " WHERE state IN (SELECT value FROM json_each(:states)) AND (coalesce(last_tried, 0), rowid) > (:at, :row)"
        " AND run IS NOT :run AND claimed IS NOT :run AND NOT (state = 'unresolved' AND tries = 0)"
        f" AND ({which.condition(group)}) ORDER BY at, rowid LIMIT :most",
        {**which.parameters(), "states": rows.listed(group), "at": after[0], "row": after[1], "most": most},
    )
    return [((at, row), PromptId(prompt_id)) for at, row, prompt_id in cursor]


def give_up(connection: sqlite3.Connection, which: Due, before: float) -> list[GivenUp]:
    """Leave alone, from now on, what the service calls unfinished in this run and what is known since ``before``.

    One that only one run has asked about is not given up: the clock may have been set meanwhile.
    """
    now = time.time()
    return [
        GivenUp(PromptId(prompt_id), now - first_seen)
        for prompt_id, first_seen in connection.execute(
            "UPDATE prompts SET given_up = :now, changed = :now WHERE state = 'pending' AND run = :run"  # noqa: S608  # nosec B608 # our own text
            " AND given_up IS NULL AND tries > 1 AND first_seen < :before AND error IS NOT 'ApiUnavailable'"
            f" AND {_OPEN}"
            " RETURNING prompt_id, first_seen",
            {**which.parameters(), "now": now, "before": before},
        ).fetchall()
    ]


def standing(connection: sqlite3.Connection) -> Standing:
    """How things stand beyond the states."""
    given_up, listed, last_tried = connection.execute(
        "SELECT count(given_up), sum(state = 'unresolved' AND tries = 0), max(last_tried) FROM prompts"
        " WHERE given_up IS NULL OR state IN ('unresolved', 'pending', 'partial')"
    ).fetchone()
    [top] = connection.execute("SELECT max(top) FROM histories").fetchone()
    return Standing(given_up=given_up, listed=listed or 0, last_tried=last_tried, watermark=top)


def covered(connection: sqlite3.Connection, url: str) -> Covered | None:
    """How much of a history stands in the catalog."""
    row = connection.execute("SELECT floor, top FROM histories WHERE url = ?", (url,)).fetchone()
    return Covered(floor=row[0], top=row[1]) if row is not None else None


def heard_of(connection: sqlite3.Connection) -> int:
    """How many prompts the history has named: those that stand here, and those that were forgotten since."""
    [count] = connection.execute(
        "SELECT (SELECT count(*) FROM prompts WHERE walk IS NOT NULL) + (SELECT count(*) FROM forgotten)"
    ).fetchone()
    return int(count)


def is_news(connection: sqlite3.Connection, prompt_ids: Sequence[PromptId]) -> bool:
    """Whether one of these never stood here. What was forgotten did."""
    return (
        connection.execute(
            "SELECT 1 FROM json_each(?) WHERE value NOT IN (SELECT prompt_id FROM prompts)"
            " AND value NOT IN (SELECT prompt_id FROM forgotten)",
            (rows.listed(prompt_ids),),
        ).fetchone()
        is not None
    )


def cover(connection: sqlite3.Connection, url: str, stretch: Covered) -> None:
    """Record how much of a history stands in the catalog."""
    connection.execute(
        "INSERT OR REPLACE INTO histories (url, floor, top) VALUES (?, ?, ?)", (url, stretch.floor, stretch.top)
    )
