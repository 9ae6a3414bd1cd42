"""Links from the page to what was mirrored: relative, so that the tree may be moved or copied as a whole. Pure."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from mirror.models import ManifestFile, S3Object
from mirror.stores import MANIFEST


class Links:
    """From a page in ``gallery``, a folder's parts, to files under ``root``; a part is one name, not yet encoded."""

    def __init__(self, gallery: list[str], root: list[str]) -> None:
        pairs = zip(gallery, root, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._to_root = [*[".."] * (len(gallery) - shared), *map(_quoted, root[shared:])]

    def of(self, *parts: str) -> str:
        """A link to what stands there under the root."""
        return "/".join([*self._to_root, *map(_quoted, parts)])


class DiskLinks:
    """Of an archive on disk: files stand in their prompt's folder."""

    def __init__(self, root: Path, gallery: Path) -> None:
        self._links = Links(list(gallery.parts), list(root.parts))

    def file(self, folder: str, file: ManifestFile) -> str:
        return self._links.of(folder, file.path)

    def manifest(self, folder: str) -> str:
        return self._links.of(folder, MANIFEST)


class BucketLinks:
    """Of an archive in a bucket: a file is where its manifest says, if that is in this bucket; else it has no link.

    ``home`` is what all keys of the archive begin with, ``gallery`` the prefix that the page stands under.
    """

    def __init__(self, bucket: str, home: str, gallery: str) -> None:
        self._bucket = bucket
        self._home = _parts(home)
        self._links = Links(_parts(gallery), [])

    def file(self, folder: str, file: ManifestFile) -> str:  # noqa: ARG002 - an object says itself where it is
        return self._links.of(*file.s3.key.split("/")) if self._fits(file.s3) and file.s3 is not None else ""

    def manifest(self, folder: str) -> str:
        return self._links.of(*self._home, folder, MANIFEST)

    def _fits(self, found: S3Object | None) -> bool:
        """A browser resolves empty and dotted parts: such a key has no relative link."""
        return found is not None and found.bucket == self._bucket and not {"", ".", ".."} & set(found.key.split("/"))


def _parts(prefix: str) -> list[str]:
    return [part for part in prefix.split("/") if part]


def _quoted(part: str) -> str:
    return quote(part, safe="", errors="surrogateescape")
