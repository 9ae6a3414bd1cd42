"""Work on the archive as a whole, without the API: forget prompts, make the catalog again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.catalog import Catalog, PromptRecord
from mirror.catalog.schema import remove, settle
from mirror.custody import fill
from mirror.errors import CatalogError, ConfigError
from mirror.models import PromptId
from mirror.places import Places
from mirror.stores.files import translated

if TYPE_CHECKING:
    from mirror.stores.s3.store import S3Store


class Forgotten(Struct, frozen=True, kw_only=True):
    """What became of a prompt that was to be forgotten; ``left`` are files that are none of ours."""

    prompt_id: PromptId
    known: bool
    left: tuple[str, ...] = ()


class Rebuilt(Struct, frozen=True, kw_only=True):
    """How many prompts came back, and which folders have no manifest of their own that can be read."""

    prompts: int
    unreadable: tuple[str, ...] = ()


async def forget(catalog: Catalog, places: Places, prompt_id: PromptId, *, delete: bool) -> Forgotten:
    """Remove a prompt from the catalog; with ``delete`` its manifest and files first, from every place.

    The manifest goes before its files, and the row last: whenever this is interrupted, nothing claims what is gone.
    """
    record = (await catalog.records([prompt_id])).get(prompt_id)
    if record is None:
        return Forgotten(prompt_id=prompt_id, known=False)
    left: list[str] = []
    if delete:
        left = await _delete_from_bucket(places.bucket, record)
        paths = [file.entry.path for file in record.files if file.entry is not None]
        left += places.disk.delete(record.folder, paths)
    await catalog.forget(prompt_id)
    return Forgotten(prompt_id=prompt_id, known=True, left=tuple(left))


async def _delete_from_bucket(bucket: S3Store | None, record: PromptRecord) -> list[str]:
    """Before the disk, so that a bucket that refuses leaves all as it is. Returns what is not ours, and stays."""
    placed = [record.placed, *(file.entry.s3 for file in record.files if file.entry is not None)]
    objects = [each for each in placed if each is not None]
    elsewhere = {each.bucket for each in objects if bucket is None or not bucket.owns(each)}
    if elsewhere:
        raise ConfigError(
            f"{record.prompt_id}: its objects stand in {', '.join(f's3://{name}' for name in sorted(elsewhere))}: "
            "name that bucket (--bucket s3://bucket/prefix) to have them deleted, or forget it without --delete"
        )
    if bucket is None or not objects:
        return []
    await bucket.open()
    return await bucket.delete(objects)


async def rebuild(path: Path, places: Places, *, durable: bool) -> Rebuilt:
    """Make the catalog again from the manifests under the root; where nothing is kept there, from the bucket's.

    A new file is filled beside the old one and takes its place at the end; the old one stays as ``….old``. Whenever
    this is interrupted, one of them stands there, whole. What only the catalog knew does not come back: failures of
    prompts without a manifest, and how often they were tried.

    Raises:
        StoreError, CatalogError: the root cannot be read, or the catalog not be written.
    """
    fresh = path.with_name(path.name + ".new")
    remove(fresh)
    with translated(f"the folder of the catalog {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    catalog = Catalog.open(fresh, durable=durable)
    try:
        prompts, unreadable = await fill(catalog, places)
        if places.wants_disk:
            unreadable += await places.disk.disk.run(lambda: list(places.disk.links()))
    finally:
        await catalog.close()
    with translated(f"the catalog {path}"):
        _take_the_place_of(path, fresh, places.disk.disk.sync_folder)
    return Rebuilt(prompts=prompts, unreadable=tuple(sorted(unreadable)))


def _take_the_place_of(path: Path, fresh: Path, sync: Callable[[Path], None]) -> None:
    """SQLite takes a write-ahead log by its name, whatever file it stands beside: the old one's goes before the new
    file comes, and before that what it holds is in the old file.
    """
    if not settle(fresh):
        raise CatalogError(f"the catalog {fresh} was just written, and cannot be read: check the disk")
    _keep(path, path.with_name(path.name + ".old"), is_whole=settle(path))
    sync(path.parent)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sync(path.parent)
    fresh.replace(path)
    sync(path.parent)


def _keep(path: Path, old: Path, *, is_whole: bool) -> None:
    """A second name for the old file, and for its log where that could not be brought into it."""
    if not path.exists() and not path.is_symlink():
        return
    if not is_whole and old.exists() and old.samefile(path):
        return  # by a run that was killed, with its log
    remove(old)
    if path.is_dir():
        path.replace(old)
        return
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            _link_or_copy(path.with_name(path.name + suffix), old.with_name(old.name + suffix))


def _link_or_copy(path: Path, other: Path) -> None:
    try:
        os.link(path, other, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, other, follow_symlinks=False)
