"""Numbers and foreign text as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable

# Everything that can end a line, move a terminal's cursor or turn the direction of writing: C0, DEL, C1, the line and
# paragraph separators, the bidirectional controls, and lone surrogates, which no stream can encode.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def size(count: float) -> str:
    """Bytes in binary units: ``0 B``, ``1.5 KiB``, ``1.2 GiB``."""
    if abs(count) < 1023.5:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if abs(count) < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} PiB"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``1 d 4 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for large, small, name, below in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            return f"{whole // large} {name} {whole % large // small} {below}"
    return f"{whole} s"


def counted(count: int, noun: str) -> str:
    """``1 prompt``, ``2 prompts``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def escape(text: str, spelling: Callable[[str], str]) -> str:
    """``text`` with each character that could break out of its line, or steer a terminal, given as its spelling."""
    return _UNPRINTABLE.sub(lambda found: spelling(found[0]), text)


def one_line(text: str) -> str:
    r"""``text`` with such characters spelled as in Python: ``\n``, ``\x1b``, ``\u202e``."""
    return escape(text, lambda character: ascii(character)[1:-1])


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters of ``text``, and then an ellipsis."""
    return text if len(text) <= limit else text[:limit] + "…"
