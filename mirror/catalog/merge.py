"""Two catalogs that went on from one: nothing that either knows is lost. Runs on the catalog's thread."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mirror import names
from mirror.models import Covered, PromptId

_LATER = "SELECT prompt_id FROM other.prompts AS o LEFT JOIN main.prompts AS m USING (prompt_id)"
_NEW = """
    m.prompt_id IS NULL
    AND NOT EXISTS (SELECT 1 FROM main.forgotten AS f WHERE f.prompt_id = o.prompt_id AND f.at > o.changed)
"""

_BETTER = """
    (o.state = 'complete') > (m.state = 'complete')
    OR ((o.state = 'complete') = (m.state = 'complete') AND o.changed > m.changed)
"""
"""Complete beats unfinished, whose clock ever is ahead; else what was changed last counts."""

_COLUMNS = (
    *("state", "unfinished", "error", "message", "note", "last_tried", "run", "placed"),
    *("created_at", "walk", "given_up", "claimed", "changed"),
)


def merge(connection: sqlite3.Connection, other: Path) -> None:
    """Take in what another catalog of the same version knows: of each prompt the row that is complete, else that was
    changed last. What one of them forgot, and nobody has taken up since, is forgotten.

    Files that only one of the two has are kept, and a prompt's folder stays what it is here.
    """
    connection.execute("ATTACH ? AS other", (str(other),))
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _merge_prompts(connection)
            _merge_histories(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        connection.execute("DETACH other")


def _merge_prompts(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM main.prompts WHERE EXISTS (SELECT 1 FROM other.forgotten AS f"
        " WHERE f.prompt_id = main.prompts.prompt_id AND f.at > main.prompts.changed)"
    )
    new = connection.execute(f"{_LATER} WHERE {_NEW} ORDER BY o.rowid").fetchall()
    later = connection.execute(f"{_LATER} WHERE {_BETTER}").fetchall()
    connection.execute(
        "INSERT OR REPLACE INTO main.forgotten SELECT prompt_id, at FROM other.forgotten"
        " WHERE prompt_id NOT IN (SELECT prompt_id FROM main.prompts)"
    )
    for (prompt_id,) in new:
        _insert(connection, PromptId(prompt_id))
    changes = ", ".join(f"{column} = o.{column}" for column in _COLUMNS)
    for (prompt_id,) in later:
        connection.execute(
            f"UPDATE main.prompts AS m SET {changes}, tries = max(m.tries, o.tries)"  # noqa: S608  # nosec B608 # our own names
            " FROM other.prompts AS o WHERE o.prompt_id = m.prompt_id AND m.prompt_id = ?",
            (prompt_id,),
        )
    for (prompt_id,) in (*new, *later):
        connection.execute(
            "INSERT OR REPLACE INTO main.files SELECT * FROM other.files WHERE prompt_id = ?", (prompt_id,)
        )
    connection.execute(
        "INSERT OR IGNORE INTO main.files SELECT f.* FROM other.files AS f JOIN main.prompts USING (prompt_id)"
    )


def _insert(connection: sqlite3.Connection, prompt_id: PromptId) -> None:
    [folder] = connection.execute("SELECT folder FROM other.prompts WHERE prompt_id = ?", (prompt_id,)).fetchone()
    key = names.key(folder)
    if connection.execute("SELECT 1 FROM main.prompts WHERE folder_key = ?", (key,)).fetchone() is not None:
        key = f"{key}/{folder}"
    columns = ", ".join(("prompt_id", "folder", "tries", "first_seen", *_COLUMNS))
    connection.execute(
        f"INSERT INTO main.prompts (folder_key, {columns}) SELECT ?, {columns} FROM other.prompts"  # noqa: S608  # nosec B608 # our own names
        " WHERE prompt_id = ?",
        (key, prompt_id),
    )


def _merge_histories(connection: sqlite3.Connection) -> None:
    """Both stretches stand in the merged catalog; as one where they meet, else the later one."""
    theirs = connection.execute("SELECT url, floor, top FROM other.histories").fetchall()
    for url, floor, top in theirs:
        found = connection.execute("SELECT floor, top FROM main.histories WHERE url = ?", (url,)).fetchone()
        stretch = Covered(floor=floor, top=top)
        if found is not None:
            stretch = _joined(stretch, Covered(floor=found[0], top=found[1]))
        connection.execute(
            "INSERT OR REPLACE INTO main.histories (url, floor, top) VALUES (?, ?, ?)",
            (url, stretch.floor, stretch.top),
        )


def _joined(one: Covered, other: Covered) -> Covered:
    low, high = sorted((one, other), key=lambda stretch: stretch.top)
    if high.floor is not None and high.floor > low.top:
        return high
    floors = [stretch.floor for stretch in (one, other)]
    return Covered(floor=None if None in floors else min(floor for floor in floors if floor is not None), top=high.top)
