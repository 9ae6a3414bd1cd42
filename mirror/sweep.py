"""What interrupted runs left under ``.mirror/parts``, and what of that may go.

A partial file is worth the bytes it saves; untouched for long, it only takes room. A journal may be more: a kill
between a file's final name and its row in the catalog leaves the journal as the only proof that the file is whole and
ours. The next fetch would find the file by downloading it again, if the origin still has it; so such a journal stays
until the catalog has the file, or the file is not there. Journals of multipart uploads (``.upload``) are never touched
here: they name what costs money in a bucket, and the bucket's own cleanup removes them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from mirror.catalog import Catalog
from mirror.errors import Obstructed
from mirror.stores.desks import desks
from mirror.stores.files import is_file, stat_file, translated
from mirror.stores.journal import Committed, Started, journal_of
from mirror.stores.local import LocalStore

_PARTIAL = (".part", ".journal", ".journal.new")
_TEMPORARY = (".manifest", ".copy", ".stored", ".stored.new", ".upload.new")


class Leftover(Struct, frozen=True, kw_only=True):
    """Files that belong to one thing that was not finished, the journal first; ``proof`` says of which file it is."""

    paths: tuple[Path, ...]
    bytes: int
    touched: float
    proof: tuple[str, Committed] | None = None


class Swept(Struct, frozen=True, kw_only=True):
    """How many files went (or would), their bytes on disk, and how many journals stay as proof."""

    files: int = 0
    bytes: int = 0
    kept: int = 0


async def sweep(store: LocalStore, catalog: Catalog | None, *, older_than: float, dry_run: bool) -> Swept:
    """Remove what was not touched for ``older_than`` seconds. Hold the root's lock, but for a dry run.

    Raises:
        StoreError: it cannot be listed or removed.
    """
    found = await store.disk.run(lambda: list(_leftovers(store)))
    before = time.time() - older_than
    stale = [each for each in found if older_than == 0 or each.touched < before]
    proofs = [each for each in stale if each.proof is not None and not await _is_recorded(catalog, each.proof)]
    going = [each for each in stale if each not in proofs]
    if not dry_run:
        await store.disk.run(lambda: _remove(going))
    return Swept(
        files=sum(len(each.paths) for each in going),
        bytes=sum(each.bytes for each in going),
        kept=len(proofs),
    )


async def _is_recorded(catalog: Catalog | None, proof: tuple[str, Committed]) -> bool:
    identity, committed = proof
    if catalog is None:
        return False
    for record in await catalog.records_in([committed.folder]):
        stored = record.stored().get(identity)
        if stored is not None and (stored.path, stored.sha256) == (committed.receipt.path, committed.receipt.sha256):
            return True
    return False


def _leftovers(store: LocalStore) -> Iterator[Leftover]:
    """What stands there, by the file it belongs to. Names that we would not give are left alone."""
    for folder in (store.disk.parts, *desks(store.disk.parts)):
        yield from _leftovers_in(store, folder)


def _leftovers_in(store: LocalStore, parts: Path) -> Iterator[Leftover]:
    groups: dict[str, list[tuple[Path, os.stat_result]]] = {}
    with translated(f"{parts}"), contextlib.suppress(FileNotFoundError), os.scandir(parts) as entries:
        for entry in entries:
            key, dot, kind = entry.name.partition(".")
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or dot + kind not in _PARTIAL + _TEMPORARY:
                continue
            group = key if dot + kind in _PARTIAL else entry.name
            groups.setdefault(group, []).append((Path(entry.path), status))
    for key, members in sorted(groups.items()):
        paths = tuple(sorted((path for path, _ in members), key=lambda path: (path.suffix == ".part", path.name)))
        yield Leftover(
            paths=paths,
            bytes=sum(status.st_blocks * 512 for _, status in members),
            touched=max(status.st_mtime for _, status in members),
            proof=_proof(store, parts / f"{key}.journal"),
        )


def _proof(store: LocalStore, path: Path) -> tuple[str, Committed] | None:
    """What a journal alone may prove: that this file got its final name. None where no such file is there."""
    with translated(f"{path}"):
        records: Sequence[object] = journal_of(path).read()
    if len(records) < 2 or not isinstance(records[0], Started) or not isinstance(records[-1], Committed):
        return None
    committed = records[-1]
    with translated(f"{store.root / committed.folder}"):
        try:
            with store.disk.folder(committed.folder) as folder:
                there = is_file(stat_file(committed.receipt.path, folder), committed.receipt.bytes)
        except (FileNotFoundError, Obstructed):
            there = False
    return (records[0].identity, committed) if there else None


def _remove(leftovers: Sequence[Leftover]) -> None:
    """The journal before its partial: without one a partial is nothing."""
    for leftover in leftovers:
        for path in leftover.paths:
            with translated(f"{path}"), contextlib.suppress(FileNotFoundError):
                path.unlink()
