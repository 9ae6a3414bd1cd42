"""Where files are kept: the two protocols that every place fulfils. One file a place.

A *Store* holds finished files by folder and name; a *Sink* takes one file in. A Sink says which spans it holds,
the work left is the plan minus those: that one idea carries resume, segments and, in a bucket, multipart uploads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from mirror.models import Count, ManifestFile, Placed, Receipt, S3Object, Span, Validator

MANIFEST = "manifest.json"

LARGEST_MANIFEST = 256 << 20
"""Bytes; what is larger is none of ours and is not read."""


class Head(Struct, frozen=True, kw_only=True):
    """What the origin said of a file when its first byte came.

    ``checks`` maps ``md5``, ``sha256``, ``sha1`` or ``crc32`` to the hex digest that the whole must have;
    ``last_modified`` is as received. ``length`` is None where the origin does not tell.
    """

    length: int | None
    etag: str | None = None
    last_modified: str | None = None
    content_type: str | None = None
    checks: dict[str, str] = {}

    @property
    def validator(self) -> Validator:
        return Validator(self.etag, self.last_modified)


class Target(Struct, frozen=True, kw_only=True):
    """Where a file goes: a folder, the names it may take in order of preference, and the file's identity.

    ``known`` is True where the file was mirrored before: whatever it is, it is taken as it was. ``sha256`` is set where
    its digest is known, too: only those bytes are accepted, and a damaged file of that name on disk is replaced.
    """

    identity: str
    folder: str
    names: Sequence[str]
    sha256: str | None = None
    known: bool = False
    prompt_id: str = ""


class Kept(Struct, frozen=True, kw_only=True, gc=False):
    """As much of a file's entry as it takes to look for it: read from the same JSON, in less time."""

    path: str
    bytes: Count
    s3: S3Object | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """What of a prompt should be there: its folder, its files, and where its manifest was put last.

    The files are those that a record says are stored, so they and their folder are durable.
    """

    folder: str
    files: tuple[ManifestFile | Kept, ...] = ()
    manifest: Placed | None = None


class Document(Struct, frozen=True, kw_only=True):
    """A manifest as it was read: its bytes, and where in a bucket it stands, if it does."""

    content: bytes
    placed: Placed | None = None


class Source(Protocol):
    """What of a file is on its way here, for a thread to take: ``pieces`` were taken in before, and come first."""

    @property
    def pieces(self) -> Sequence[bytes | memoryview]: ...

    def fill(self, buffer: memoryview, *, patient: bool = True) -> int:
        """Take in what comes next, as much of it as the buffer holds; less where no more is to be had now. Blocks, and
        if ``patient`` waits a moment for more.
        """
        ...


class Sink(Protocol):
    """Takes one file in. Used by one task at a time, except :meth:`write`, which segments may share.

    ``committed`` is set where the file is complete already: a kill came between its final name and its row in the
    catalog. ``segmented`` says whether spans may come in any order. Every method may raise StoreError.
    """

    segmented: bool
    committed: Receipt | None

    @property
    def head(self) -> Head | None:
        """What the partial held belongs to, None without one."""
        ...

    @property
    def remark(self) -> str:
        """What a commit found that is worth a line of the log."""
        ...

    def written(self) -> list[Span]:
        """The spans that are held: they survive the end of the process."""
        ...

    async def begin(self, head: Head) -> None:
        """Start a new file; what was held is dropped."""
        ...

    async def write(self, at: int, data: bytes | memoryview) -> None:
        """Take bytes for offset ``at``. They belong to the sink from here on, and nobody changes them.

        They may be buffered until :meth:`flush`, :meth:`commit` or :meth:`close`.
        """
        ...

    async def draw(self, at: int, data: bytes | memoryview, source: Source) -> int:
        """As :meth:`write`, and take what a source has after that. Returns how many bytes were taken in all.

        A thread reads from the source until this returns or raises; a caller that is cancelled waits for that.
        """
        ...

    async def flush(self) -> None:
        """Write out what is buffered."""
        ...

    async def commit(self) -> Receipt:
        """Check, make durable and publish the whole file under its final name, atomically.

        Raises:
            ChecksumMismatch: the bytes are not those that the head or the target states; the partial is dropped.
            NotMedia, Truncated: they are a picture or a film that is cut off; the same.
        """
        ...

    async def pause(self) -> None:
        """An attempt has failed, and the next one may be long in coming: give back the memory that others wait for."""
        ...

    async def abort(self) -> None:
        """Drop the partial file."""
        ...

    async def close(self) -> None:
        """Let go, keeping what was written for a later run. Safe to call more than once, and after commit."""
        ...


class Store(Protocol):
    """Holds finished files. Every method may raise StoreError."""

    async def sink(self, target: Target) -> Sink:
        """Open a sink, with the partial file of an earlier try if there is one."""
        ...

    async def settle(self, identity: str) -> None:
        """Tell that a committed file stands in the catalog: what was kept to find it again after a crash goes."""
        ...

    async def present(self, wanted: Sequence[Wanted]) -> list[set[str]]:
        """Of each prompt the paths that are there, :data:`MANIFEST` among them if that is."""
        ...

    async def find_again(self, target: Target, file: ManifestFile) -> Receipt | None:
        """Look for a file that counts as lost: its very bytes may stand where it was, and are durable then.

        None without them; what cannot be looked at is not there. Its SHA-256 is compared, or the store's own word is.
        """
        ...

    async def adopt(self, source: tuple[str, ManifestFile], target: Target) -> Receipt | None:
        """Make a finished file of one folder stand in another, too. None if it cannot be done."""
        ...

    async def write_manifest(self, folder: str, content: bytes, known: Placed | None = None) -> Placed | None:
        """Publish the manifest atomically and durably. ``known`` is where the one before stands in a bucket.

        Returns where in a bucket it stands; None where the store is none.
        """
        ...

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        """Each folder's manifest; None without one."""
        ...
