"""The journal of a partial file: what it is a part of, and which spans of it are good.

One record a line, each with a checksum of its own, so that a torn tail is found and cut off. A span's record carries
a digest of the bytes it claims; they are checked when the partial is taken up again, so a claim is worth something
after a power cut too, and nothing needs to be synced while a download runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from mirror.models import Count, Receipt
from mirror.stores import Head
from mirror.stores.files import create, read_regular

VERSION = 1


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """The first record: the partial belongs to this file, at this version of it."""

    version: int
    identity: str
    head: Head


class Claim(Struct, frozen=True, kw_only=True, tag="claim"):
    """Bytes ``start`` to ``stop`` were written.

    ``sha256`` is the digest of everything from 0 to ``stop``, for spans written in order; ``crc32`` that of the span.
    """

    start: Count
    stop: Count
    sha256: str | None = None
    crc32: int | None = None


class Committed(Struct, frozen=True, kw_only=True, tag="committed"):
    """The last record, durable before the file gets its final name: which file that is."""

    folder: str
    receipt: Receipt


Record = Started | Claim | Committed

R = TypeVar("R")


class Journal(Generic[R]):
    """An append-only file of records of one kind. Not thread safe: one sink, one write at a time."""

    def __init__(self, path: Path, records: msgspec.json.Decoder[R]) -> None:
        self.path = path
        self._records = records
        self._fd: int | None = None

    def read(self) -> list[R]:
        """The records up to the first that is torn or damaged; empty without a usable journal.

        Raises:
            OSError: there is one, and it cannot be read. Nobody may take that for none: it may be all that names an
                upload, or proves that a file is ours.
        """
        try:
            content = read_regular(self.path) or b""
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):  # a symlink is not ours
                raise
            return []
        records: list[R] = []
        for line in content.split(b"\n")[:-1]:
            record = self._decode(line)
            if record is None:
                break
            records.append(record)
        return records if records and getattr(records[0], "version", None) == VERSION else []

    def _decode(self, line: bytes) -> R | None:
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return None
        try:
            return self._records.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def rewrite(self, records: Sequence[R]) -> None:
        """Start over with exactly these records; a kill leaves the old ones or the new."""
        self.close()
        fresh = self.path.with_suffix(f"{self.path.suffix}.new")
        self._fd = create(fresh, mode=0o600, flags=os.O_APPEND)
        self.append(*records)
        fresh.replace(self.path)

    def append(self, *records: R) -> None:
        """Add records in one write."""
        assert self._fd is not None
        data = b"".join(_encode(record) for record in records)
        while data:
            data = data[os.write(self._fd, data) :]

    def sync(self) -> None:
        """Make all records durable."""
        assert self._fd is not None
        os.fsync(self._fd)

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):  # what had to be durable was synced
                os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def journal_of(path: Path) -> Journal[Record]:
    """The journal of a partial file."""
    return Journal(path, _decoder)


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def _encode(record: object) -> bytes:
    text = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(text), text)
