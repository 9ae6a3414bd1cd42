"""What is known of a prompt's files, and which of them is where."""

from __future__ import annotations

from msgspec.structs import replace

from mirror.adoption import files_from
from mirror.catalog import PromptRecord
from mirror.manifests.document import decode_if_sound
from mirror.models import Manifest, ManifestFile, Placed
from mirror.places import Places
from mirror.stores import Document, Wanted


class Stock:
    """Of one prompt: ``known`` are the files that were stored, by identity, ``on_disk`` and ``in_bucket`` those that
    are there, ``new`` those that came to the disk in this run; ``prior`` is the manifest that stands, ``placed`` where
    in a bucket one does.
    """

    def __init__(self, places: Places, record: PromptRecord) -> None:
        self._places = places
        self._record = record
        self.known: dict[str, ManifestFile] = {}
        self.on_disk: set[str] = set()
        self.in_bucket: set[str] = set()
        self.new: set[str] = set()
        self.prior: Manifest | None = None
        self.placed: Placed | None = record.placed
        self.has_manifest = False
        self._to_be_written = False
        self.bytes_before = 0

    async def take(self, *, ask: bool = False) -> None:
        """Look. With ``ask`` the bucket's word is not taken for granted: it is asked for each object."""
        record = self._record
        if record.is_only_listed:
            return  # never tried before, so nothing is there
        self.prior = await self._read_prior()
        told = files_from(self.prior, record.folder) if self.prior is not None else ()
        self.known = {file.identity: file.entry for file in (*told, *record.files) if file.entry is not None}
        # What has the size of a file that was lost need not be that file.
        lost = {file.identity for file in told if file.entry is not None and file.failure is not None}
        wanted = Wanted(folder=record.folder, files=tuple(self.known.values()), manifest=record.placed)
        [where] = await self._places.look([wanted])
        stored = record.stored().keys() - lost
        self.on_disk = {which for which in stored if self.known[which].path in where.on_disk}
        self.in_bucket = {which for which in self.known.keys() - lost if self.known[which].path in where.in_bucket}
        if ask and self._places.bucket is not None:
            files = [self.known[which] for which in self.in_bucket]
            self.in_bucket = {file.url for file in await self._places.bucket.still_has(files)}
        self.bytes_before = sum(file.bytes for which, file in self.known.items() if self.is_whole(which))
        self.has_manifest = self._places.has_manifest(where) and not self._to_be_written

    async def _read_prior(self) -> Manifest | None:
        [document] = await self._places.read_manifests([self._record.folder])
        if document is None:
            return None
        self.placed = document.placed or self.placed
        manifest = self._ours(document)
        if manifest is None and document.placed is None and self._places.bucket is not None:
            [document] = await self._places.bucket.read_manifests([self._record.folder])
            manifest = self._ours(document) if document is not None else None
            self._to_be_written = True  # the one on disk
        return manifest

    def _ours(self, document: Document) -> Manifest | None:
        return decode_if_sound(document.content, self._record.prompt_id)

    def is_there(self, which: str) -> bool:
        """Whether a file is in one destination at least: then the manifest names it."""
        return (self._places.wants_disk and which in self.on_disk) or which in self.in_bucket

    def is_anywhere(self, which: str) -> bool:
        """Whether it can be brought from one place to another."""
        return which in self.on_disk or which in self.in_bucket

    @property
    def entries(self) -> dict[str, ManifestFile]:
        """The files that the manifest names, with the object only where the bucket has it."""
        named = {which: file for which, file in self.known.items() if self.is_there(which)}
        return {
            which: replace(file, s3=None) if file.s3 is not None and self.lacks_bucket(which) else file
            for which, file in named.items()
        }

    @property
    def lost(self) -> dict[str, ManifestFile]:
        """Those that were stored once, and are nowhere."""
        return {which: file for which, file in self.known.items() if not self.is_there(which)}

    @property
    def absent(self) -> frozenset[str]:
        """Those that a destination lacks."""
        return frozenset(which for which in self.known if not self.is_whole(which))

    def lacks_disk(self, which: str) -> bool:
        return self._places.wants_disk and which not in self.on_disk

    def lacks_bucket(self, which: str) -> bool:
        return self._places.wants_bucket and which not in self.in_bucket

    def is_whole(self, which: str) -> bool:
        """Whether a file is in every destination."""
        return not self.lacks_disk(which) and not self.lacks_bucket(which)

    @property
    def is_all_whole(self) -> bool:
        return all(map(self.is_whole, self.known))
