"""Names for files and folders, made from what the network says: data, never paths.

A name that comes out of here has no separator and no control character, does not start with a dot or a dash, is no
device name of Windows, is in Unicode's NFC, and has at most 200 bytes with its extension kept.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count, islice
from typing import overload
from urllib.parse import unquote_to_bytes, urlsplit

MAX_BYTES = 200
_LONGEST_EXTENSION = 16
_FOLDERS = 8
"""So many of its names are looked at to tell whether a folder is a prompt's; a second one is seldom needed."""

_FURTHER = 4

GALLERY = "gallery"
"""A folder under the root that is no prompt's: the page that ``mirror gallery`` writes."""

_RESERVED = frozenset({"manifest.json"})
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)")
_PLAIN = re.compile(r"https?://[a-z0-9.:-]+/(?:[A-Za-z0-9_.~-]*/)*([A-Za-z0-9_.-]*)")
"""URLs whose last path part is a name as it stands there."""
_FORBIDDEN = re.compile(r'[/\\<>:"|?*]')
_UNSEEN = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def from_url(url: str) -> str:
    """A safe file name from the URL's last path part, percent-decoded; ``file`` where there is none."""
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        return safe(plain[1]) or "file"
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    last = path.rpartition("/")[2]
    return safe(unquote_to_bytes(last.encode("utf-8", "replace")).decode("utf-8", "replace")) or "file"


def safe(text: str) -> str:
    """``text`` as a safe name; empty where nothing of it can be kept. A safe name comes back as it is."""
    name = text if text.isascii() and text.isprintable() else _seen(text)
    name = _FORBIDDEN.sub("_", name)
    name = name.lstrip(".- \u00a0").rstrip(". ")
    if _DEVICES.match(name):
        name = f"_{name}"
    return _fit(name, MAX_BYTES)


def _seen(text: str) -> str:
    """``text`` in NFC, without what nobody sees; what is printable ASCII is that already."""
    name = "".join("_" if unicodedata.category(char) in _UNSEEN else char for char in _BIDI.sub("", text))
    return unicodedata.normalize("NFC", name)


def for_prompt(prompt_id: str) -> tuple[str, str]:
    """The folder's name for a prompt, and the one to use where another prompt has it already.

    A promptId that had to be made safe gets the suffix at once, so two never share a folder.
    """
    name = safe(prompt_id)
    suffixed = with_suffix(name or "prompt", prompt_id)
    is_free = name == prompt_id and not is_reserved(name) and key(name) != GALLERY
    return (name, suffixed) if name and is_free else (suffixed, suffixed)


def may_be_folder(folder: str, prompt_id: str) -> bool:
    """Whether a folder's name is one that this prompt may have got."""
    plain, suffixed = for_prompt(prompt_id)
    return folder == plain or folder in islice(candidates(suffixed, prompt_id), _FOLDERS)


def with_suffix(name: str, identity: str, digits: int = 8) -> str:
    """``name`` with ``-`` and the first hex digits of the SHA-256 of ``identity`` before its extension."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    stem, extension = _split(name)
    return _fit(stem, MAX_BYTES - digits - 1 - len(extension.encode())) + f"-{digest}{extension}"


def candidates(name: str, identity: str) -> Iterator[str]:
    """The names a file may get, in order: its own, with the suffix, with longer ones. It never ends.

    Whoever writes the URLs can foresee a suffix and take it for another file; so there is always one more.
    """
    if not is_reserved(name):
        yield name
    yield with_suffix(name, identity)
    for attempt in count():
        yield with_suffix(name, identity if not attempt else f"{identity} {attempt}", digits=64)


class Choice(Sequence[str]):
    """The names that a file may take, the best one first: the others are worked out when somebody looks at them."""

    def __init__(self, best: str, name: str, identity: str) -> None:
        self._best = best
        self._name = name
        self._identity = identity

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._best if index == 0 else self._all[index]

    def __iter__(self) -> Iterator[str]:
        yield self._best
        yield from self._all[1:]

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> tuple[str, ...]:
        further = islice(candidates(self._name, self._identity), _FURTHER)
        return (self._best, *(name for name in further if name not in (self._best, self._name)))


def is_reserved(name: str) -> bool:
    """True for a name that is ours."""
    return key(name) in _RESERVED


def key(name: str) -> str:
    """What names are compared by: NFC and case folding, as file systems that fold case would."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _LONGEST_EXTENSION:
        return name, ""
    return stem, dot + extension


def _fit(name: str, size: int) -> str:
    """``name`` cut to ``size`` bytes of UTF-8, between characters, its extension kept."""
    if len(name.encode()) <= size:
        return name
    stem, extension = _split(name)
    room = size - len(extension.encode())
    cut = stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ")
    return cut + extension
