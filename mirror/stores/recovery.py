"""What an earlier run left of a file, and how much of that is good. Blocks: runs in the disk's threads."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

from mirror.digests import Digests
from mirror.errors import Obstructed
from mirror.stores import Target
from mirror.stores.disk import Disk
from mirror.stores.files import READ, read_span
from mirror.stores.journal import Claim, Committed


def open_committed(disk: Disk, target: Target, record: Committed) -> int | None:
    """The file that the record says was published for this target, opened to be read; None where it is not there."""
    if record.folder != target.folder or record.receipt.path not in target.names:
        return None
    try:
        with disk.folder(record.folder) as folder:
            return os.open(record.receipt.path, READ, dir_fd=folder)
    except (OSError, Obstructed):
        return None


def hash_on(fd: int, digests: Digests, size: int) -> bool:
    """Hash at most ``size`` further bytes; False where the file has ended."""
    before = digests.at
    for block in read_span(fd, before, before + size):
        digests.update(block)
    return digests.at > before


def in_batches(claims: list[Claim], size: int) -> Iterator[list[Claim]]:
    """The claims in groups that cover about ``size`` bytes each."""
    batch: list[Claim] = []
    covered = 0
    for claim in claims:
        batch.append(claim)
        covered += claim.stop - claim.start
        if covered >= size:
            yield batch
            batch, covered = [], 0
    if batch:
        yield batch


class Check:
    """Reads a partial back. ``good`` are the claims whose bytes are as claimed; ``digests`` covers their prefix."""

    def __init__(self, fd: int, digests: Digests) -> None:
        self._fd = fd
        self.digests = digests
        self.good: list[Claim] = []

    def check(self, claims: list[Claim]) -> None:
        """Go on with these claims, which follow those before in the journal."""
        self.good += [claim for claim in claims if self._holds(claim)]

    def _holds(self, claim: Claim) -> bool:
        return self._span_holds(claim) if claim.sha256 is None else self._prefix_holds(claim)

    def _span_holds(self, claim: Claim) -> bool:
        crc, size = 0, 0
        for block in read_span(self._fd, claim.start, claim.stop):
            crc = zlib.crc32(block, crc)
            size += len(block)
        return size == claim.stop - claim.start and crc == claim.crc32

    def _prefix_holds(self, claim: Claim) -> bool:
        if claim.start != self.digests.at:
            return False
        longer = self.digests.copy()
        for block in read_span(self._fd, claim.start, claim.stop):
            longer.update(block)
        if longer.at != claim.stop or longer.sha256 != claim.sha256:
            return False
        self.digests = longer
        return True
