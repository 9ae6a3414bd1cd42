"""Links from the page to what was mirrored: relative, so that the tree may be moved or copied as a whole. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from mirror.models import ManifestFile
from mirror.stores import MANIFEST


class Links(Protocol):
    """Where things are, as seen from the page; nothing where there is no way to tell."""

    def file(self, folder: str, file: ManifestFile) -> str: ...

    def manifest(self, folder: str) -> str: ...


def relative(page: Sequence[str], to: Sequence[str]) -> str:
    """A link from a page in one folder to a file; both as names from the same root, none of them encoded yet."""
    pairs = zip(page, to[:-1], strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return "/".join([*[".."] * (len(page) - shared), *map(_quoted, to[shared:])])


class DiskLinks:
    """Of an archive on disk: files stand in their prompt's folder."""

    def __init__(self, root: Path, gallery: Path) -> None:
        self._root = root.parts
        self._gallery = gallery.parts

    def file(self, folder: str, file: ManifestFile) -> str:
        return relative(self._gallery, (*self._root, folder, file.path))

    def manifest(self, folder: str) -> str:
        return relative(self._gallery, (*self._root, folder, MANIFEST))


class BucketLinks:
    """Of an archive in a bucket: a file is where its manifest says, if that is in this bucket; else it has no link.

    ``home`` is what all keys of the archive begin with, ``gallery`` what those of the page do.
    """

    def __init__(self, bucket: str, home: str, gallery: str) -> None:
        self._bucket = bucket
        self._home = home.split("/")[:-1]
        self._gallery = gallery.split("/")[:-1]

    def file(self, folder: str, file: ManifestFile) -> str:  # noqa: ARG002 - an object says itself where it is
        if file.s3 is None or file.s3.bucket != self._bucket:
            return ""
        parts = file.s3.key.split("/")
        return relative(self._gallery, parts) if _is_plain(parts) else ""

    def manifest(self, folder: str) -> str:
        return relative(self._gallery, [*self._home, folder, MANIFEST])


def _is_plain(parts: Sequence[str]) -> bool:
    """A browser resolves empty and dotted parts: such a key has no relative link."""
    return not {"", ".", ".."} & set(parts)


def _quoted(part: str) -> str:
    return quote(part, safe="", errors="surrogateescape")
