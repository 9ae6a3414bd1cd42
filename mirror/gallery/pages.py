"""Data files: scripts, for a page that was opened from a folder may read nothing else. Pure.

Each is one call with one string of JSON, in ASCII. A string, because ``__proto__`` is a key like any other in JSON and
not in a script; ASCII and without ``<`` and ``>``, because then it means the same wherever it is put.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

CARDS = 1000
"""So many prompts' cards are in a file of the first kind: what the grid, the search and the filters need."""
DETAILS = 100
"""So many prompts' details are in a file of the second kind, which is read when one of them is opened."""


def text_of(record: Any) -> str:
    """A record as JSON. Lone surrogates pass: no promptId or reason is so odd that there would be no page."""
    return json.dumps(msgspec.to_builtins(record), ensure_ascii=False, separators=(",", ":"))


def script(kind: str, number: int, texts: Iterable[str]) -> bytes:
    """A data file of these records."""
    literal = json.dumps(f"[{','.join(texts)}]").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'mirrorGallery.page("{kind}",{number},{literal});\n'.encode("ascii")


def name_of(kind: str, number: int) -> str:
    """The name of a data file; the page makes the same."""
    return f"{kind}-{number:05}.js"


def sliced(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """The texts in pages of so many."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]
