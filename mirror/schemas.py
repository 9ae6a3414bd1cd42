"""JSON Schemas (draft 2020-12), generated from the types that are written and read."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from mirror.models import Manifest, Summary
from mirror.settings import Settings

_TYPES: dict[str, tuple[type, str]] = {
    "manifest": (Manifest, "manifest.json of mirror, version 1"),
    "summary": (Summary, "The summary of a run of mirror"),
    "config": (Settings, "The configuration file of mirror"),
}
NAMES = tuple(_TYPES)


def schema_of(name: str) -> bytes:
    """The schema of ``manifest``, ``summary`` or ``config`` as indented JSON."""
    kind, title = _TYPES[name]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **msgspec.json.schema(kind)}
    return msgspec.json.format(msgspec.json.encode(_with_units(schema)), indent=2) + b"\n"


def _with_units(node: Any) -> Any:
    """Sizes and durations may be written as text, too: they are the numbers that have a pattern."""
    if isinstance(node, list):
        return [_with_units(item) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _with_units(value) for key, value in node.items()}
    if isinstance(told := changed.get("description"), str):
        changed["description"] = cleandoc(told).partition("\n\nExample::")[0]  # which is for people who write Python
    if "pattern" in changed and changed.get("type") in ("integer", "number"):
        changed["type"] = [changed["type"], "string"]
    return changed
