"""What scenarios found, as plain text and numbers, and the file that keeps it until the page is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class Verdict(msgspec.Struct, frozen=True):
    """What was asked for and what came of it: reached where ``value`` is at most ``limit``, or at least it."""

    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def measured(self) -> str:
        shown = f"{self.value:.2f}" if self.value < 100 else f"{self.value:,.0f}"
        return f"{shown} {self.unit}".rstrip()

    @property
    def asked(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g} {self.unit}".rstrip()

    def __str__(self) -> str:
        return f"{self.what}: {self.measured} (asked: {self.asked}) {'reached' if self.reached else 'NOT reached'}"


class Used(msgspec.Struct, frozen=True):
    """A tool as it was run: its version, and its command with placeholders for folders and ports."""

    tool: str
    version: str
    command: str


class Bar(msgspec.Struct, frozen=True):
    """A median for the plot, in seconds."""

    label: str
    seconds: float
    ours: bool = False


class Section(msgspec.Struct, frozen=True):
    """A scenario's table. ``name`` is its key in the file: running it again replaces it."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = []
    verdicts: list[Verdict] = []
    used: list[Used] = []
    bars: list[Bar] = []
    date: str = ""
    machine: str = ""
    load: float = 0.0
    quick: bool = False


def load(path: Path) -> dict[str, Section]:
    """What the file keeps, by name; nothing where there is none yet."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Section]) if path.exists() else {}


def save(path: Path, sections: Iterable[Section]) -> None:
    """Add these to what the file keeps."""
    kept = load(path) | {section.name: section for section in sections}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
