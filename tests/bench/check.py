"""Whether a tool brought what the origin has: each file once, byte for byte, and told so by the manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.media import Media, head

_PIECE = 4 << 20


class Wrong(Exception):
    """A result is not what it should be."""


def files_below(folder: Path, suffix: str = ".png") -> list[Path]:
    """What a tool fetched, wherever it put it."""
    return [path for path in folder.rglob(f"*{suffix}") if path.is_file() and ".mirror" not in path.parts]


def check_files(folder: Path, media: Media, sources: Mapping[bytes, Path]) -> None:
    """Names may differ; contents may not.

    Raises:
        Wrong: a file is missing, there twice, or not the origin's.
    """
    got = files_below(folder)
    pairs = [(path, sources.get(head(path))) for path in got]
    unknown = [path for path, source in pairs if source is None]
    if unknown:
        raise Wrong(f"{unknown[0]} begins like no file of the origin")
    if len(got) != media.count or len({source for _, source in pairs}) != media.count:
        raise Wrong(f"{len(got)} files, {len({source for _, source in pairs})} of {media.count} that the origin has")
    with ThreadPoolExecutor() as threads:
        same = threads.map(lambda pair: pair[1] is not None and _same(pair[0], pair[1]), pairs)
    for (path, _), well in zip(pairs, same, strict=True):
        if not well:
            raise Wrong(f"{path} is not what the origin has")


def check_manifests(root: Path, digests: Mapping[str, str]) -> None:
    """Each manifest is complete and tells the origin's digests.

    Raises:
        Wrong: it does not.
    """
    told: dict[str, str] = {}
    for path in root.glob("*/manifest.json"):
        manifest = json.loads(path.read_bytes())
        if manifest["state"] != "complete":
            raise Wrong(f"{path} says {manifest['state']}")
        told |= {file["path"]: file["sha256"] for file in manifest["files"]}
    if told != digests:
        raise Wrong(f"the manifests in {root} tell other digests than the origin's files have")


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            piece = left.read(_PIECE)
            if piece != right.read(_PIECE):
                return False
            if not piece:
                return True
