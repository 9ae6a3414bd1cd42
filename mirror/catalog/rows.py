"""Rows to values and back: the SQL that is more than a line. Runs on the catalog's thread, inside its transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import chain, groupby, pairwise
from typing import TypeVar

import msgspec

from mirror import names
from mirror.catalog.records import (
    Claimed,
    Done,
    FileRecord,
    FileSaved,
    Marked,
    PromptRecord,
    PromptSaved,
    Write,
)
from mirror.models import Failure, ManifestFile, Placed, PromptId, PromptState, Role
from mirror.stores import Kept, Wanted

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_TOGETHER = 64
"""Rows of files that are written by one statement, at most."""


def read_prompts(connection: sqlite3.Connection, prompt_ids: Sequence[PromptId]) -> Iterator[PromptRecord]:
    """The records of those of the prompts that the catalog knows, in no order."""
    wanted = (listed(prompt_ids),)
    files: dict[str, list[FileRecord]] = {}
    for prompt_id, identity, role, entry, failure in connection.execute(
        "SELECT prompt_id, identity, role, entry, failure FROM files"
        " WHERE prompt_id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        files.setdefault(prompt_id, []).append(
            FileRecord(
                identity=identity,
                role=_known(Role, role),
                entry=decode(entry, ManifestFile) if entry else None,
                failure=decode(failure, Failure) if failure else None,
            )
        )
    for row in connection.execute(
        "SELECT prompt_id, folder, state, unfinished, error, message, note, tries, last_tried, run, placed,"
        " given_up FROM prompts"
        " WHERE prompt_id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        yield PromptRecord(
            prompt_id=PromptId(row[0]),
            folder=row[1],
            state=_known(PromptState, row[2]),
            unfinished=bool(row[3]),
            error=row[4],
            message=row[5],
            note=row[6],
            tries=row[7],
            last_tried=row[8],
            run=row[9],
            placed=decode(row[10], Placed) if row[10] else None,
            given_up=row[11],
            files=tuple(files.get(row[0], ())),
        )


_KEPT: msgspec.json.Decoder[tuple[Kept, ...]] = msgspec.json.Decoder(tuple[Kept, ...])
_COMPLETE = {state.value: state for state in (PromptState.COMPLETE, PromptState.PARTIAL)}

# The plus keeps SQLite from the index of states: most prompts are complete.
_DONE = """
    SELECT prompt_id, folder, state, prompts.run, placed,
        CAST('[' || group_concat(CASE WHEN failure IS NULL THEN entry END) || ']' AS BLOB)
    FROM prompts LEFT JOIN files USING (prompt_id)
    WHERE prompt_id IN (SELECT value FROM json_each(?1)) AND NOT unfinished AND +state IN ('complete', ?2)
    GROUP BY prompt_id
    HAVING total((entry IS NULL OR failure IS NOT NULL) AND role = coalesce(?3, role)) = 0
"""


def read_done(connection: sqlite3.Connection, prompt_ids: Sequence[PromptId], only: str | None) -> Iterator[Done]:
    """Those of the prompts that are complete, in no order; with ``only``, as far as files of that role go.

    A run over what is mirrored already asks this of every prompt, so a prompt is one row, and its files one text.
    """
    also = PromptState.COMPLETE if only is None else PromptState.PARTIAL
    for prompt_id, folder, state, run, placed, files in connection.execute(_DONE, (listed(prompt_ids), also, only)):
        kept = decode(files, _KEPT) if files else ()
        yield Done(
            prompt_id=prompt_id,
            state=_COMPLETE[state],
            run=run,
            wanted=Wanted(
                folder=folder,
                files=kept,
                manifest=decode(placed, Placed) if placed else None,
            ),
        )


def counts(connection: sqlite3.Connection) -> dict[str, tuple[int, int, int]]:
    """For each state: prompts, stored files, and their bytes.

    Nearly all prompts are of one state: its files are all but the others', and nobody need look up whose each is.
    """
    connection.execute("BEGIN")  # all three see one moment
    try:
        prompts = dict(connection.execute("SELECT state, count(*) FROM prompts GROUP BY state ORDER BY state"))
        most = max(prompts, key=lambda state: prompts[state], default="")
        files, size = connection.execute(
            "SELECT count(entry), coalesce(sum(bytes), 0) FROM files WHERE failure IS NULL"
        ).fetchone()
        others = connection.execute(
            "SELECT state, count(entry), coalesce(sum(bytes), 0) FROM prompts CROSS JOIN files USING (prompt_id)"
            " WHERE state IN (SELECT value FROM json_each(?)) AND failure IS NULL GROUP BY state",
            (listed([state for state in prompts if state != most]),),
        ).fetchall()
    finally:
        connection.execute("COMMIT")
    found = {state: (number, total) for state, number, total in others}
    found[most] = (
        files - sum(number for number, _ in found.values()),
        size - sum(total for _, total in found.values()),
    )
    return {state: (number, *found.get(state, (0, 0))) for state, number in prompts.items()}


def page_of_ids(connection: sqlite3.Connection, *, after: int, failed: bool, limit: int) -> tuple[list[PromptId], int]:
    """The ids of the prompts behind a row, oldest first, and the last one's row."""
    found = connection.execute(
        "SELECT rowid, prompt_id FROM prompts WHERE rowid > ?"
        " AND (NOT ? OR error IS NOT NULL OR given_up IS NOT NULL OR (state = 'unresolved' AND tries > 0))"
        " ORDER BY rowid LIMIT ?",
        (after, failed, limit),
    ).fetchall()
    check_order(after, [number for number, _ in found])
    return [PromptId(prompt_id) for _, prompt_id in found], found[-1][0] if found else after


def check_order(after: int, numbers: Sequence[int]) -> None:
    """In a damaged table rows may follow one another in a ring: then pages of them would never end."""
    if any(number <= before for before, number in pairwise([after, *numbers])):
        raise sqlite3.DatabaseError("its rows are not in order")


def read_folders(connection: sqlite3.Connection, folders: Sequence[str]) -> list[PromptRecord]:
    """The records of the prompts that these folders belong to."""
    wanted = set(folders)
    keys = {key for folder in wanted for key in (names.key(folder), f"{names.key(folder)}/{folder}")}
    owners = [
        PromptId(prompt_id)
        for prompt_id, folder in connection.execute(
            "SELECT prompt_id, folder FROM prompts WHERE folder_key IN (SELECT value FROM json_each(?))",
            (listed(sorted(keys)),),
        )
        if folder in wanted
    ]
    return list(read_prompts(connection, owners))


def _known(kind: type[E], value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise sqlite3.DatabaseError(f"a row has {value!r} for a {kind.__name__}") from None


def listed(values: Sequence[str]) -> str:
    """Values for ``json_each``: one parameter, however many they are."""
    return msgspec.json.encode(values).decode()


def apply(connection: sqlite3.Connection, writes: Iterable[Write]) -> None:
    """Make these writes, in order; files that follow one another, as most do, together."""
    for are_files, those in groupby(writes, _is_file):
        if are_files:
            _save_files(connection, [_row(write) for write in those if isinstance(write, FileSaved)])
        else:
            for write in those:
                _apply(connection, write)


def _is_file(write: Write) -> bool:
    return isinstance(write, FileSaved)


def _apply(connection: sqlite3.Connection, write: Write) -> None:
    match write:
        case Claimed():
            _touch(connection, write.prompt_id, write.run)
        case PromptSaved():
            _save_prompt(connection, write.record, write.run)
        case Marked():
            connection.execute(
                "UPDATE prompts SET run = ? WHERE prompt_id IN (SELECT value FROM json_each(?))",
                (write.run, listed(write.prompt_ids)),
            )


def claim(connection: sqlite3.Connection, prompt_id: PromptId, run: str) -> PromptRecord:
    """Count a try at a prompt, unfinished until its result is saved; a new one gets a folder that no other has.

    The record is the one from before.
    """
    [known] = enroll(connection, [prompt_id])
    _touch(connection, prompt_id, run)
    return known


def enroll(connection: sqlite3.Connection, prompt_ids: Sequence[PromptId]) -> list[PromptRecord]:
    """Have a row for each of these, new ones with a folder that no other has. Returns what is known, in order."""
    now = time.time()
    for prompt_id in prompt_ids:
        add(connection, prompt_id, now)
    known = {record.prompt_id: record for record in read_prompts(connection, prompt_ids)}
    if len(known) < len(set(prompt_ids)):
        raise sqlite3.DatabaseError("a row is in the index only")
    return [known[prompt_id] for prompt_id in prompt_ids]


def _touch(connection: sqlite3.Connection, prompt_id: PromptId, run: str) -> None:
    connection.execute(
        "UPDATE prompts SET tries = tries + (?2 = '' OR claimed IS NOT ?2), last_tried = ?1, changed = ?1, claimed = ?2"
        ", unfinished = 1 WHERE prompt_id = ?3",
        (time.time(), run, prompt_id),
    )


def add(connection: sqlite3.Connection, prompt_id: PromptId, now: float) -> bool:
    """Have a row for a prompt, with a folder that no other has. False if it is there: then it stays as it is."""
    if connection.execute("SELECT 1 FROM prompts WHERE prompt_id = ?", (prompt_id,)).fetchone() is not None:
        return False
    connection.execute("DELETE FROM forgotten WHERE prompt_id = ?", (prompt_id,))
    folder = _free_folder(connection, prompt_id)
    connection.execute(
        "INSERT INTO prompts (prompt_id, folder, folder_key, state, unfinished, first_seen, changed)"
        " VALUES (?, ?, ?, ?, 1, ?, ?)",
        (prompt_id, folder, names.key(folder), PromptState.UNRESOLVED, now, now),
    )
    return True


def _free_folder(connection: sqlite3.Connection, prompt_id: PromptId) -> str:
    plain, suffixed = names.for_prompt(prompt_id)
    further = names.candidates(suffixed, prompt_id)
    return next(name for name in chain([plain], further) if not _is_taken(connection, names.key(name)))


def _is_taken(connection: sqlite3.Connection, folder_key: str) -> bool:
    return connection.execute("SELECT 1 FROM prompts WHERE folder_key = ?", (folder_key,)).fetchone() is not None


def _folder_key(connection: sqlite3.Connection, record: PromptRecord) -> str:
    """What the folder is compared by. Folders that differ only by case stand on disk already: there they can."""
    key = names.key(record.folder)
    owner = connection.execute("SELECT prompt_id FROM prompts WHERE folder_key = ?", (key,)).fetchone()
    return key if owner is None or owner[0] == record.prompt_id else f"{key}/{record.folder}"


_ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"


@cache
def _saving(count: int) -> str:
    rows = ", ".join([_ROW] * count)
    return f"INSERT OR REPLACE INTO files (prompt_id, identity, role, path, bytes, entry, failure, run) VALUES {rows}"  # noqa: S608  # nosec B608 # our own text


def _row(saved: FileSaved) -> tuple[str | bytes | int | None, ...]:
    record, entry = saved.record, saved.record.entry
    return (
        saved.prompt_id,
        record.identity,
        record.role,
        entry.path if entry else None,
        entry.bytes if entry else None,
        msgspec.json.encode(entry) if entry else None,
        msgspec.json.encode(record.failure) if record.failure else None,
        saved.run,
    )


def _save_files(connection: sqlite3.Connection, files: Sequence[tuple[str | bytes | int | None, ...]]) -> None:
    """Write rows of files: as many in a statement as a power of two has, so that few statements are compiled.

    Before and after each statement this thread and the loop's take turns, which costs more than the row does.
    """
    done = 0
    while done < len(files):
        count = min(_TOGETHER, 1 << (len(files) - done).bit_length() - 1)
        connection.execute(_saving(count), [*chain.from_iterable(files[done : done + count])])
        done += count


def _save_prompt(connection: sqlite3.Connection, record: PromptRecord, run: str) -> None:
    """Write a prompt's row and those of its files that the record has; other files stay as they are."""
    connection.execute(
        "INSERT INTO prompts (prompt_id, folder, folder_key, state, unfinished, error, message, note, first_seen, run,"
        " placed, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?9) ON CONFLICT (prompt_id) DO UPDATE"
        " SET state = excluded.state, unfinished = excluded.unfinished, error = excluded.error,"
        " message = excluded.message, note = excluded.note, run = excluded.run, placed = excluded.placed,"
        " changed = excluded.changed, given_up = CASE excluded.state WHEN 'complete' THEN NULL ELSE given_up END",
        (
            record.prompt_id,
            record.folder,
            _folder_key(connection, record),
            record.state,
            record.unfinished,
            record.error,
            record.message,
            record.note,
            time.time(),
            run,
            msgspec.json.encode(record.placed) if record.placed else None,
        ),
    )
    _save_files(
        connection, [_row(FileSaved(prompt_id=record.prompt_id, record=file, run=run)) for file in record.files]
    )


def decode(blob: bytes, kind: type[T] | msgspec.json.Decoder[T]) -> T:
    """A JSON column as its type; a type that is made of others is given as its decoder, which takes time to make."""
    try:
        return kind.decode(blob) if isinstance(kind, msgspec.json.Decoder) else msgspec.json.decode(blob, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise sqlite3.DatabaseError(f"a row cannot be read: {error}") from error
