"""A partial file with its journal, as they stand on disk: all that blocks, from the first byte to the final name."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property

from mirror import spans
from mirror.digests import Digests
from mirror.errors import Obstructed, StoreUnavailable
from mirror.models import Receipt, Span
from mirror.stores import Head, Source, Target
from mirror.stores.disk import Disk
from mirror.stores.files import (
    READ,
    create,
    is_file,
    is_ours_alone,
    let_go,
    read_span,
    same_bytes,
    stat_file,
    write_all,
)
from mirror.stores.journal import VERSION, Claim, Committed, Journal, Record, Started, journal_of
from mirror.stores.judgement import judge, look_for
from mirror.stores.recovery import Check
from mirror.times import from_http

BATCH = 1 << 20
"""Bytes that are collected before they are written in one hop; a slow body is written every second."""

HOP = 64 << 20
"""Bytes that are read back in one hop at most, so that a stop never waits long."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems say that have no hard links: there the moment between a look and a name is left to luck."""

_UNTOLD = 128 << 20
"""Bytes that must be free beyond what is written of a file of unknown length: it is the first to be given up."""


class Run:
    """Bytes that follow one another, not yet written."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.size = 0
        self.buffers: list[bytes | memoryview] = []
        self.since = time.monotonic()

    def add(self, data: bytes | memoryview) -> None:
        self.buffers.append(data)
        self.size += len(data)

    @property
    def stop(self) -> int:
        return self.start + self.size

    @property
    def due(self) -> bool:
        return self.size >= BATCH or time.monotonic() - self.since > 1.0


class Part:
    """One version of one file. ``head`` is what it is of, None without one; ``held`` what its journal claims.

    ``is_new`` says for certain that no earlier try has left anything of this file. ``on_commit`` is called when its
    journal says that it stands under its final name. What a method raises beside our errors is an OSError.
    """

    def __init__(self, disk: Disk, target: Target, key: str, *, is_new: bool, on_commit: Callable[[], None]) -> None:
        self.disk = disk
        self.target = target
        self.head: Head | None = None
        self.held: list[Span] = []
        self.remark = ""
        self.has_journal = not is_new  # it may have
        self._path = f"{disk.parts}/{key}.part"
        self._key = key
        self._on_commit = on_commit
        self._fd: int | None = None
        self._claims: list[Claim] = []
        self._digests: Digests

    @cached_property
    def journal(self) -> Journal[Record]:
        return journal_of(self.disk.parts / f"{self._key}.journal")

    @property
    def is_journaled(self) -> bool:
        """Whether this process has written a claim."""
        return self.has_journal and self.journal.is_open

    @property
    def hashed(self) -> int:
        """Bytes from 0 on that the digests have seen."""
        return self._digests.at

    # What an earlier run left ------------------------------------------------------------------

    def check_existing(self, started: Started) -> Check | None:
        """What reads the partial back; None without one.

        One with another name elsewhere is left there, as it is: a copy of the archive by links may hold it.
        """
        try:
            if not is_ours_alone(os.lstat(self._path)):
                return None
        except FileNotFoundError:
            return None
        self._fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return Check(self._fd, Digests(started.head.checks, look_for(self.target)))

    def take_up(self, started: Started, checked: Check) -> None:
        """Go on with what was found to be as it is claimed."""
        self.head, self._digests, self._claims = started.head, checked.digests, checked.good
        self.held = spans.merge(Span(claim.start, claim.stop) for claim in self._claims)
        self.journal.rewrite([started, *self._claims])

    # Taking bytes in ---------------------------------------------------------------------------

    def begin(self, head: Head) -> None:
        """Start anew. Nothing is written yet, so nothing blocks."""
        self.let_go()
        self.head = head
        self._claims, self.held = [], []
        self._digests = Digests(head.checks, look_for(self.target))

    def write_and_claim(self, run: Run) -> None:
        """Write a run, and have the journal say so."""
        assert self.head is not None
        if not self.journal.is_open:
            self._create()
            self.has_journal = True
            self.journal.rewrite([Started(version=VERSION, identity=self.target.identity, head=self.head)])
        in_order = self._write(run, further=0 if self.head.length is not None else _UNTOLD)
        claim = Claim(
            start=run.start,
            stop=run.stop,
            sha256=self._digests.sha256 if in_order else None,
            crc32=None if in_order else _crc32(run.buffers),
        )
        self.journal.append(claim)
        self._claims.append(claim)
        self.held = spans.merge([*self.held, Span(claim.start, claim.stop)])

    def draw(self, run: Run, source: Source, is_stopped: Callable[[], object]) -> int:
        """Write and claim a run, and what a source has after it. Returns the offset after the last byte."""
        self.write_and_claim(run)
        buffer, at = self.disk.buffer, run.stop
        size = len(buffer)
        while size == len(buffer) and not is_stopped():
            size = source.fill(buffer, patient=not self.disk.is_crowded)
            if size:
                following = Run(at)
                following.add(buffer[:size])
                self.write_and_claim(following)
                at += size
        return at

    def _create(self) -> None:
        """A new, empty partial. A journal that described an older one goes first."""
        if self._fd is not None:
            return
        if self.has_journal:
            self.journal.remove()
            self.has_journal = False
        assert self.head is not None
        self.disk.reserve(self.head.length or 0)
        self._fd = create(self._path)

    def _write(self, run: Run, *, further: int = 0) -> bool:
        """Write a run; True if it followed the hashed prefix, so that the hash follows it."""
        assert self._fd is not None
        with self.disk.room(run.size, further=further):
            write_all(self._fd, run.buffers, run.start)
        if run.start != self._digests.at:
            return False
        for buffer in run.buffers:
            self._digests.update(buffer)
        return True

    def hash_on(self, length: int) -> None:
        """Segments came out of order: follow the hash through what is on disk."""
        assert self._fd is not None
        stop = min(length, self._digests.at + HOP)
        for block in read_span(self._fd, self._digests.at, stop):
            self._digests.update(block)
        if self._digests.at < stop:
            raise StoreUnavailable(f"{self._path}: is shorter than what was written to it")

    def remove(self) -> None:
        """The partial and its journal."""
        self.journal.remove()
        self.has_journal = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def drop(self) -> None:
        """Forget what it was of. What stands on disk is left to :meth:`remove`."""
        self.let_go()
        self.head, self._claims, self.held = None, [], []

    def let_go(self) -> None:
        """Close what is open."""
        if self.has_journal:
            self.journal.close()
        if self._fd is not None:
            let_go(self._fd)
            self._fd = None

    # Publishing --------------------------------------------------------------------------------

    def complete(self, runs: Sequence[Run], length: int) -> None:
        """Write the last of it, and accept the whole.

        Raises:
            ChecksumMismatch, NotMedia, Truncated: it is not what it should be.
        """
        self._create()
        for run in runs:
            self._write(run)
        assert self.head is not None
        assert self._fd is not None
        self.remark = judge(self._digests, self.head, self.target)
        if self.has_journal:  # an earlier try may have left more behind
            os.ftruncate(self._fd, length)

    def sync(self) -> None:
        """Make the content durable, or let go of it: what a failed sync leaves reads well until the cache drops it."""
        assert self._fd is not None
        try:
            self.disk.sync_file(self._fd)
        except OSError:
            self._claims = []
            self.remove()
            raise

    def place(self, folder: int, length: int) -> Receipt:
        """Give it its final name in the folder that is open there."""
        while True:
            name, there = self._choose(folder, length)
            receipt = self._receipt(name, length)
            if self.is_journaled:
                self.journal.append(Committed(folder=self.target.folder, receipt=receipt))
                self.journal.sync()
                self._on_commit()
            if there:
                os.unlink(self._path)
                break
            if self._take_name(name, folder):
                break
        self.let_go()
        return receipt

    def _take_name(self, name: str, folder: int) -> bool:
        """Have the file there under its name; False where another worker has given that away meanwhile."""
        if not self.disk.is_shared or self.target.sha256:
            os.replace(self._path, name, dst_dir_fd=folder)
            return True
        try:
            os.link(self._path, name, dst_dir_fd=folder)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(self._path, name, dst_dir_fd=folder)
        else:
            os.unlink(self._path)
        return True

    def _choose(self, folder: int, length: int) -> tuple[str, bool]:
        """The first of the names that is free, or holds these very bytes already (then True)."""
        assert self._fd is not None
        if self.target.sha256:
            return self.target.names[0], False
        for name in self.target.names:
            found = stat_file(name, folder)
            if found is None:
                return name, False
            if is_file(found, length):
                other = os.open(name, READ, dir_fd=folder)
                try:
                    if same_bytes(self._fd, other):
                        self.disk.sync_file(other)
                        return name, True
                finally:
                    let_go(other)
        raise Obstructed(f"{self.target.folder}/{self.target.names[0]}: all its names are taken by other files")

    def _receipt(self, name: str, length: int) -> Receipt:
        assert self.head is not None
        told = ["length"] if self.head.length is not None else []
        return Receipt(
            path=name,
            bytes=length,
            sha256=self._digests.sha256,
            content_type=self.head.content_type,
            etag=self.head.etag,
            last_modified=from_http(self.head.last_modified),
            verified=(*told, *self.head.checks),
        )


def _crc32(buffers: list[bytes | memoryview]) -> int:
    crc = 0
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    return crc
