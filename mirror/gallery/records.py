"""What the page is told of a prompt: a card, for the grid, the search and the filters, and its details.

Fields that hold nothing are left out of the data files. All text is as the manifest has it: who shows it, shows text.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Tile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture or a video on a card; of a child that has none, its state."""

    src: str = ""
    width: int = 0
    height: int = 0
    video: str = ""
    seconds: float = 0.0
    state: str = ""


class Card(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt in the grid; ``at`` is when it was made, else mirrored. ``page`` and ``row``: its details.

    ``children``, ``names``, ``reason`` and ``text`` are searched. A ``type`` that a script would round is text.
    """

    id: str
    state: str
    at: str = ""
    type: int | str | None = None
    tiles: tuple[Tile, ...] = ()
    items: int = 0
    pictures: int = 0
    videos: int = 0
    failures: int = 0
    reason: str = ""
    children: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    text: str = ""
    page: int = 0
    row: int = 0


class FileDetail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file. ``src`` is its link, ``opens`` whether a click may open it, ``small`` its preview."""

    path: str
    role: str
    bytes: int
    kind: str = ""
    src: str = ""
    opens: bool = False
    small: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    frame_rate: float = 0.0
    codec: str = ""
    sha256: str = ""
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""
    url: str = ""
    named_by: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    s3: dict[str, Any] | None = None


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is looked at: a file, and the thumbnail that stands for it, by their places in ``Detail.files``."""

    file: int
    thumb: int | None = None


class Group(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The prompt itself, or a child of it."""

    id: str
    state: str
    task_id: int | str | None = None
    type: int | str | None = None
    reason: str = ""
    items: tuple[Item, ...] = ()


class Wrong(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could not be mirrored, and why."""

    error: str
    message: str
    url: str = ""
    role: str = ""
    attempts: int = 0
    was: str = ""


class Detail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the manifest tells of a prompt."""

    id: str
    state: str
    at: str = ""
    mirrored_at: str = ""
    manifest: str = ""
    api: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    groups: tuple[Group, ...] = ()
    files: tuple[FileDetail, ...] = ()
    errors: tuple[Wrong, ...] = ()


class Counts(Struct, kw_only=True):
    """What there is in all; ``pages`` is how many files there are of cards. ``types`` are those of tasks."""

    prompts: int = 0
    files: int = 0
    bytes: int = 0
    pages: int = 0
    states: dict[str, int] = msgspec.field(default_factory=dict)
    types: dict[str, int] = msgspec.field(default_factory=dict)
