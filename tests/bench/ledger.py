"""A catalog of many rows, made quickly: by the schema's own connection, in bulk, in the order of its keys.

Its rows are as an archive in a bucket has them. Of a hundred prompts 97 are complete, one failed upstream, one is
pending, and of one a file is gone for good. A promptId is 32 hex digits, spread evenly and met in no order, as real
ones are; a file's URL tells the time at which it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mirror.catalog.schema import connect
from mirror.models import Failure, ManifestFile, Media, NamedBy, Placed, PromptId, PromptState, Role, S3Object

BUCKET, ENDPOINT, PREFIX = "bench", "http://127.0.0.1:9", "archive"
HISTORY = "https://api.example/history"
_SINCE = 1_760_000_000.0
_STRIDE = 1_000_003
"""A prime: prompts come in strides of it, so that neighbours by id are far apart in time."""
_FILES = ((Role.THUMBNAIL, "jpeg", "image/jpeg"), (Role.ORIGIN, "mp4", "video/mp4"))


@dataclass(frozen=True)
class Ledger:
    """What stands in the catalog: ``prompts`` of them, numbered by their ids."""

    prompts: int

    @classmethod
    def of_rows(cls, rows: int) -> Ledger:
        """Enough prompts for so many rows of files."""
        found = -(-rows * 100 // 197)
        return cls(found + (found % _STRIDE == 0))

    def prompt_id(self, number: int) -> PromptId:
        """Even numbers' ids lie evenly; between two of them is room for one that is not there."""
        return PromptId(f"{(2 * number + 1) * (2**127 // self.prompts):032x}")

    def stranger(self, number: int) -> PromptId:
        """An id that is not in the catalog, somewhere among those that are."""
        return PromptId(f"{(2 * number + 2) * (2**127 // self.prompts) - 1:032x}")

    def state(self, number: int) -> PromptState:
        return _STATES.get(number % 100, PromptState.COMPLETE)

    def identity(self, number: int, which: int) -> str:
        """The URL of one of its two files."""
        made = 1_760_000_000_000_000_000 + self._place(number) * 8_000_000_123
        return f"https://media.example/faceSwap/{_FILES[which][0]}/{made}_{number:08x}.{_FILES[which][1]}"

    def entry(self, number: int, which: int) -> ManifestFile:
        role, _, content_type = _FILES[which]
        prompt_id = self.prompt_id(number)
        url = self.identity(number, which)
        name = url.rpartition("/")[2]
        size = 40_000 + number % 20_000 if which == 0 else 1_500_000 + number % 900_000
        digest = f"{prompt_id}{number * 2 + which:032x}"
        return ManifestFile(
            path=name,
            role=role,
            url=url,
            bytes=size,
            sha256=digest,
            content_type=content_type,
            etag=f'"{digest[16:48]}"',
            last_modified="2026-01-28T10:03:40Z",
            named_by=(NamedBy(prompt_id=prompt_id, task_id=number, image_id=number, field="origin"),),
            verified=("length", "etag-md5"),
            media=Media(kind="video", width=720, height=1280, seconds=5.0, codec="h264"),
            s3=S3Object(
                bucket=BUCKET,
                key=f"{PREFIX}/{prompt_id}/{name}",
                etag=f'"{digest[16:48]}"',
                checksum_sha256=f"{digest[:43]}=",
                via="stream",
            ),
        )

    def placed(self, number: int) -> Placed:
        key = f"{PREFIX}/{self.prompt_id(number)}/manifest.json"
        return Placed(endpoint=ENDPOINT, bucket=BUCKET, key=key, etag=f'"{number:032x}"')

    def write(self, path: Path) -> None:
        """Make the catalog. Nothing of it is durable before the end."""
        path.parent.mkdir(parents=True)
        connection = connect(path, durable=False, mode="write")
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -400000"):
            connection.execute(f"PRAGMA {pragma}")
        indices = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indices:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO prompts (prompt_id, folder, folder_key, state, unfinished, error, message, tries, first_seen,"
            " last_tried, run, placed, created_at, walk, claimed, changed)"
            " VALUES (?1, ?1, ?1, ?2, ?3, ?4, ?5, 1, ?6, ?6, 'built', ?7, ?6, 'walk', 'built', ?6)",
            self._prompts(),
        )
        connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, 'built')", self._files())
        top = _SINCE + self.prompts * 8
        connection.execute("INSERT INTO histories VALUES (?, NULL, ?)", (HISTORY, top))
        for _, sql in indices:  # sorted at once, which is several times as fast as row by row
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()

    @cached_property
    def _back(self) -> int:
        return pow(_STRIDE, -1, self.prompts)

    def _place(self, number: int) -> int:
        """As how manieth the prompt came."""
        return number * self._back % self.prompts

    def _prompts(self) -> Iterator[tuple[Any, ...]]:
        for place in range(self.prompts):
            number = place * _STRIDE % self.prompts
            state = self.state(number)
            why = ("TaskFailed", "No face was found") if state is PromptState.FAILED else (None, None)
            placed = msgspec.json.encode(self.placed(number))
            unfinished = state is PromptState.PENDING
            yield self.prompt_id(number), state, unfinished, *why, _SINCE + place * 8, placed

    def _files(self) -> Iterator[tuple[Any, ...]]:
        gone = msgspec.json.encode(Failure(error="Gone", message="the origin has no such file (HTTP 404)"))
        for number in range(self.prompts):
            state, prompt_id = self.state(number), self.prompt_id(number)
            if state is PromptState.FAILED:
                continue
            stored = 2 if state is PromptState.COMPLETE else 1
            for which in range(stored):
                entry = self.entry(number, which)
                yield prompt_id, entry.url, entry.role, entry.path, entry.bytes, msgspec.json.encode(entry), None
            if state is PromptState.PARTIAL:
                yield prompt_id, self.identity(number, 1), Role.ORIGIN, None, None, None, gone


_STATES = {0: PromptState.FAILED, 1: PromptState.PENDING, 2: PromptState.PARTIAL}
