"""A finished file in a second place: linked where the file system can, else copied. Blocks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat

from mirror.errors import Full, Obstructed
from mirror.models import ManifestFile
from mirror.stores import Target
from mirror.stores.disk import Disk
from mirror.stores.files import READ, create, is_file, let_go, same_bytes, stat_file


def link(disk: Disk, source: str, file: ManifestFile, target: Target) -> str | None:
    """Make a file of the folder ``source`` stand under a name of ``target``, durably; None if it cannot be done.

    What has the target's name is replaced only where that is the file's own, and other bytes are known to be damage.
    """
    with (
        contextlib.suppress(OSError, Full, Obstructed),
        disk.folder(source) as there,
        disk.folder(target.folder, create=True) as here,
    ):
        if not is_file(stat_file(file.path, there), file.bytes):
            return None
        for name in target.names:
            found = stat_file(name, here)
            is_it = found is not None and stat.S_ISREG(found.st_mode) and _same_file(file.path, there, name, here)
            if found is not None and not is_it and target.sha256 is None:
                continue
            try:
                if not is_it:
                    _link_or_copy(disk, file.path, there, name, here, replace=found is not None)
            except FileExistsError:  # another worker has given the name away since we looked
                continue
            disk.sync_folder(here)
            return name
    return None


def _link_or_copy(disk: Disk, path: str, there: int, name: str, here: int, *, replace: bool = False) -> None:
    fresh = disk.parts / f"{hashlib.sha256(f'{here}/{name}'.encode()).hexdigest()[:32]}.copy"
    try:
        if not replace:
            os.link(path, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            return
        fresh.unlink(missing_ok=True)
        os.link(path, fresh, src_dir_fd=there, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or with too many of this one
        with (
            os.fdopen(os.open(path, READ, dir_fd=there), "rb") as source,
            disk.room(os.fstat(source.fileno()).st_size),
            os.fdopen(create(fresh), "wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            disk.sync_file(target.fileno())
    os.replace(fresh, name, dst_dir_fd=here)


def _same_file(one: str, one_folder: int, other: str, other_folder: int) -> bool:
    first = os.open(one, READ, dir_fd=one_folder)
    try:
        second = os.open(other, READ, dir_fd=other_folder)
        try:
            return same_bytes(first, second)
        finally:
            let_go(second)
    finally:
        let_go(first)
