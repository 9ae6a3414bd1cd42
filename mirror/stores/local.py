"""The local store: a folder for each prompt, and ``.mirror`` for what is not finished.

The order in which things become durable: the file's content, its name, then (by the caller) its row in the catalog.
A manifest follows the same ritual after its files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mirror import names
from mirror.errors import ConfigError, Locked, StoreError
from mirror.manifests.document import receipt
from mirror.models import ManifestFile, Placed, Receipt
from mirror.settings import Settings
from mirror.stores import LARGEST_MANIFEST, MANIFEST, Document, Target, Wanted
from mirror.stores.desks import Desk, desk_lock, gather, turn
from mirror.stores.disk import INTERNAL, Disk
from mirror.stores.files import (
    READ,
    create,
    is_file,
    let_go,
    open_folder,
    raise_if_exhausted,
    read_regular,
    stat_file,
    translated,
    write_all,
)
from mirror.stores.finished import BLOCK, Finished, unreadable
from mirror.stores.linking import link
from mirror.stores.lock import Lock
from mirror.stores.partial import PartialFile
from mirror.stores.publishing import Publisher


class LocalStore:
    """A Store under ``archive.root``.

    With ``desk`` it is that of one of several workers.

    Raises:
        ConfigError: Python would not write names as UTF-8, or the root is relative to a folder that is gone.
    """

    def __init__(self, settings: Settings, desk: Desk | None = None) -> None:
        if sys.getfilesystemencoding() != "utf-8":  # then one archive would have two names for a file
            told = f"names of files are UTF-8 in an archive, and this Python writes {sys.getfilesystemencoding()}"
            raise ConfigError(f"{told}: set PYTHONUTF8=1, or a UTF-8 locale (LC_ALL=C.UTF-8)")
        try:
            self.root = Path(settings.archive.root).absolute()
        except FileNotFoundError:
            told = f"archive.root {settings.archive.root} is relative, and the working directory is gone"
            raise ConfigError(f"{told}: give an absolute path, or go to a folder that exists") from None
        self.disk = Disk(
            self.root,
            durable=settings.archive.durability == "full",
            min_free=settings.transfer.min_free_space,
            desk=desk.name if desk is not None else "",
        )
        self._publisher = Publisher(self.disk)
        self._left: set[str] = set()
        self._unsettled: set[str] = set()
        self._desk = desk
        self._locks = [desk_lock(self.disk.parts)] if desk is not None else []
        if desk is None or desk.is_guest:
            is_shared = desk is not None
            self._locks.append(Lock(self.root / INTERNAL / "lock", str(self.root), is_shared=is_shared))
        self._catalog = _outside(self.root, settings.archive.catalog) if desk is None else None
        if self._catalog is not None:  # other roots may name the same one
            path = self._catalog.with_name(f"{self._catalog.name}.lock")
            self._locks.append(Lock(path, f"the catalog {self._catalog}"))

    def open(self) -> None:
        """Make the root, take its lock (and the catalog's, if that is elsewhere), see what earlier runs left. Blocks.

        Raises:
            Locked: another run holds the root, or the catalog.
            StoreError: the root cannot be made or written to.
        """
        self.disk.prepare()
        if self._desk:
            with turn(self.disk.left_by_all):
                self.disk.take_desk()
                self._take_locks()
        else:
            self._take_locks()
        self.gather(everybodys=not self._desk)

    def gather(self, *, everybodys: bool = True) -> None:
        """See what earlier runs left, and workers that have ended. Blocks.

        A worker whose driver does that for all looks only at what is there for it.

        Raises:
            StoreError: it cannot be listed or moved.
        """
        if everybodys:
            gather(self.disk.left_by_all, self.disk.sync_all)
        self._left = {name.partition(".")[0] for name in self.disk.left()}

    @property
    def locked(self) -> list[int]:
        """The descriptors of the locks that are held: the root stays locked while any process has one open."""
        return [lock.fd for lock in self._locks if lock.fd is not None]

    async def open_when_free(self, wait: float | None, tell: Callable[[str], None]) -> None:
        """As :meth:`open`; where another run holds the root, wait for its end so many seconds (None: not at all).

        ``tell`` is told once who holds it. To be cancelled ends the wait at once.

        Raises:
            Locked: another run holds the root still.
        """
        deadline, pause = time.monotonic() + (wait or 0.0), 0.05
        while True:
            try:
                await self.disk.run(self.open)  # to its end in any case: no lock is taken after close()
            except Locked as error:
                left = deadline - time.monotonic()
                if wait is None or left <= 0:
                    raise
                if pause == 0.05:
                    tell(f"{error.message.rpartition(': ')[0]}: waiting for its end")
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, 1.0)
            else:
                return

    def close(self) -> None:
        """Let go of the threads and of the locks. An empty lock file says that all this run wrote is durable."""
        self.disk.close()
        for lock in self._locks:
            lock.release(unmark=not self.disk.in_doubt)

    def is_in_use(self) -> bool:
        """True while another run holds the root; and after one that was killed, until the next."""
        return self._locks[0].is_marked()

    def _take_locks(self) -> None:
        """All or none of them.

        The root's stays marked where the holder was killed, perhaps between a file's name and the sync of its folder.
        This run would find that file and vouch for it, so it makes it durable first.
        """
        if self._catalog is not None:
            with translated(f"the folder of the catalog {self._catalog}"):
                self._catalog.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as unless_taken:
            unsynced = False
            for lock in self._locks:
                unsynced |= lock.take()
                unless_taken.callback(lock.release, unmark=False)
            if unsynced:
                self.disk.sync_all()
            for lock in self._locks:
                lock.mark()
            unless_taken.pop_all()

    # The Store protocol ------------------------------------------------------------------------

    async def sink(self, target: Target) -> PartialFile:
        key = _key(target.identity)
        is_new = key not in self._left
        sink = PartialFile(
            self.disk,
            self._publisher,
            target,
            key,
            is_new=is_new,
            on_commit=lambda: self._unsettled.add(target.identity),
            on_left=lambda: self._left.add(key),
        )
        if not is_new:
            self._left.discard(key)
            try:
                for name in (f"{key}.journal", f"{key}.part"):
                    await self.disk.run(self.disk.take_left, name)
                await sink.recover()
            except BaseException:
                await sink.close()
                raise
            if sink.committed is not None:
                self._unsettled.add(target.identity)
        return sink

    async def settle(self, identity: str) -> None:
        if identity in self._unsettled:
            self._unsettled.discard(identity)
            path = self.disk.parts / f"{_key(identity)}.journal"
            with translated(f"{path}"):
                await self.disk.run(path.unlink, missing_ok=True)

    async def present(self, wanted: Sequence[Wanted]) -> list[set[str]]:
        """What is there as regular files of the right size."""
        return await self.disk.run(lambda root: [_present_in(root, each) for each in wanted], str(self.root))

    async def find_again(self, target: Target, file: ManifestFile) -> Receipt | None:
        try:
            there = await self.opened(target.folder, file)
        except StoreError as error:
            raise_if_exhausted(f"{target.folder}/{file.path}", error)
            return None
        try:
            if not is_file(os.fstat(there.fd), file.bytes) or await there.sha256() != file.sha256:
                return None
            await self.disk.run(self._sync_again, target.folder, there.fd)
        except (OSError, StoreError):
            return None
        finally:
            there.close()
        return receipt(file, path=file.path, s3=None)

    def _sync_again(self, folder: str, fd: int) -> None:
        """Whoever put it there may not have waited for the disk."""
        self.disk.sync_file(fd)
        with self.disk.folder(folder) as there:
            self.disk.sync_folder(there)

    async def adopt(self, source: tuple[str, ManifestFile], target: Target) -> Receipt | None:
        folder, file = source
        name = await self.disk.run(link, self.disk, folder, file, target)
        if name is None:
            return None
        return receipt(file, path=name, s3=None)

    async def write_manifest(self, folder: str, content: bytes, known: Placed | None = None) -> Placed | None:  # noqa: ARG002
        with translated(f"{folder}/{MANIFEST}"):
            await self._publisher.publish(_NewManifest(self.disk, folder, content), brief=True)
        return None

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        def read() -> list[Document | None]:
            contents = map(self.read_manifest_now, folders)
            return [Document(content=content) if content is not None else None for content in contents]

        return await self.disk.run(read)

    # For what goes from here to a bucket ----------------------------------------------------------

    async def opened(self, folder: str, file: ManifestFile, *, is_new: bool = False) -> Finished:
        """A finished file, to be closed by the caller. ``is_new``: this run stored it.

        Raises:
            StoreUnavailable, Obstructed: as :meth:`open_now`.
        """
        fds: list[int] = []
        try:
            await self.disk.run(lambda: fds.append(self.open_now(folder, file.path)))
        except BaseException:  # a caller that is cancelled gets no file, and the thread may have opened it
            for fd in fds:
                let_go(fd)
            raise
        return Finished(self.disk, fds[0], f"{folder}/{file.path}", file, is_new=is_new)

    async def read(self, folder: str, file: ManifestFile) -> AsyncGenerator[bytes, None]:
        """A finished file in blocks, to its end, whatever the manifest says of that.

        Raises:
            StoreUnavailable: it is gone, or cannot be read; an error of this file only.
        """
        with contextlib.closing(await self.opened(folder, file)) as there:
            at = 0
            while block := await there.take(at, BLOCK):
                yield block
                at += len(block)

    def open_now(self, folder: str, path: str) -> int:
        """A finished file, opened to be read. Blocks.

        Raises:
            StoreUnavailable, Obstructed: it is gone, or cannot be read; an error of this file only.
        """
        try:
            with self.disk.folder(folder) as there:
                return os.open(path, READ, dir_fd=there)
        except OSError as error:
            raise unreadable(f"{folder}/{path}", error) from error

    # For commands that work on the archive as a whole ------------------------------------------

    def read_manifest_now(self, folder: str) -> bytes | None:
        """The manifest's bytes, None without one that can be read. Blocks.

        Raises:
            StoreUnavailable: there are no more descriptors to read it with.
        """
        try:
            fd = open_folder(f"{self.root}/{folder}")
            try:
                content = read_regular(MANIFEST, fd, LARGEST_MANIFEST)
                if content is not None and self.disk.is_shared:
                    self.disk.sync_folder(fd)  # another worker may have put it there a moment ago
                return content
            finally:
                let_go(fd)
        except OSError as error:
            raise_if_exhausted(f"{folder}/{MANIFEST}", error)
            return None

    def folders(self) -> Iterator[str]:
        """The names of all folders that could be a prompt's, in no order. Blocks."""
        for entry in self._entries():
            if entry.name not in (INTERNAL, names.GALLERY) and entry.is_dir(follow_symlinks=False):
                yield entry.name

    def links(self) -> Iterator[str]:
        """The names of symlinks, to a folder or to nothing, that stand where a prompt's folder could. Blocks.

        Nothing is read through one; whoever tells of the whole archive tells of these, too.
        """
        for entry in self._entries():
            may_be = names.safe(entry.name) == entry.name and entry.name != names.GALLERY
            if may_be and entry.is_symlink() and not os.path.isfile(entry.path):
                yield entry.name

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with translated(f"{self.root}"), os.scandir(self.root) as entries:
            yield from entries

    def delete(self, folder: str, paths: Iterable[str]) -> list[str]:
        """Delete a prompt's manifest, then the named files, then the folder if nothing else is in it. Blocks.

        Returns the names that are left because they are none of ours.
        """
        with translated(f"{self.root / folder}"):
            try:
                with self.disk.folder(folder) as fd:
                    for path in (MANIFEST, *paths):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(path, dir_fd=fd)
                    left = os.listdir(fd)
            except FileNotFoundError:
                return []
            if not left:
                (self.root / folder).rmdir()
                self.disk.sync_folder(self.root)
            return left

    def free_space(self) -> int:
        """Bytes that may still be written."""
        return self.disk.free_space()


class _NewManifest:
    """A Publication."""

    def __init__(self, disk: Disk, folder: str, content: bytes) -> None:
        self.folder = folder
        self._disk = disk
        self._content = content
        self._path = disk.parts / f"{_key(folder)}.manifest"
        self._fd = -1

    def write(self) -> None:
        self._fd = create(self._path)
        try:
            write_all(self._fd, [self._content], 0)
        except BaseException:
            let_go(self._fd)
            raise

    def sync(self) -> None:
        try:
            self._disk.sync_file(self._fd)
        finally:
            os.close(self._fd)

    def place(self, folder: int) -> None:
        os.replace(self._path, MANIFEST, dst_dir_fd=folder)


def _present_in(root: str, wanted: Wanted) -> set[str]:
    """Little but system calls: a run over a large archive asks this of every prompt."""
    there = set()
    try:
        fd = open_folder(f"{root}/{wanted.folder}")
        try:
            for file in wanted.files:
                if is_file(stat_file(file.path, fd), file.bytes):
                    there.add(file.path)
            if is_file(stat_file(MANIFEST, fd), -1):
                there.add(MANIFEST)
        finally:
            let_go(fd)
    except OSError as error:
        raise_if_exhausted(wanted.folder, error)
        return set()
    return there


def _key(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _outside(root: Path, catalog: str) -> Path | None:
    """Where the catalog really stands, if it was put elsewhere than under the root."""
    path = Path(os.path.realpath(catalog))
    return path if catalog and not path.is_relative_to(os.path.realpath(root)) else None
