"""One multipart upload, from its first word in the journal to its end.

Guarantee: an upload that was begun is named in the journal, durably, before its first part; a kill at any moment leaves
nothing in the bucket that the next run, or ``mirror cleanup``, does not find.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from mirror.errors import Changed, Severity, StoreUnavailable
from mirror.models import Span
from mirror.stores import Head
from mirror.stores.files import translated
from mirror.stores.journal import VERSION, Journal
from mirror.stores.s3.checksums import Buffers, composite, multipart_etag
from mirror.stores.s3.control import needed
from mirror.stores.s3.errors import NoSuchKey, NoSuchUpload
from mirror.stores.s3.objects import Described, Objects
from mirror.stores.s3.strays import seen_before, strays
from mirror.stores.s3.wire import Put

MIB = 1 << 20
MOST_PARTS = 10_000
_LARGE = 256 * MIB
_UNTOLD = 8 * MIB


def part_size(length: int | None) -> int:
    """The size of all parts but the last, from the length: at least S3's 5 MiB, and at most 10,000 of them."""
    if length is None:
        return _UNTOLD
    least = -(-length // MOST_PARTS)
    return max(5 * MIB if length <= _LARGE else 8 * MIB, -(-least // MIB) * MIB)


class Meant(Struct, frozen=True, kw_only=True, tag="meant"):
    """The first record: an upload to this key is about to be begun, at this moment by the store's clock.

    ``before`` are the ids of those that stood there already: whose they are is not known, so they are not ours to end.
    """

    version: int
    identity: str
    endpoint: str
    bucket: str
    key: str
    at: Annotated[datetime, Meta(tz=True)]
    before: list[str] | None = None


class Begun(Struct, frozen=True, kw_only=True, tag="begun"):
    """The second: it was, with this id, for this version of the source, in parts of this size."""

    upload_id: str
    part_size: Annotated[int, Meta(ge=5 * MIB)]
    checksum: str
    head: Head


T = TypeVar("T")

Record = Meant | Begun
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Part(Struct, frozen=True, kw_only=True):
    """A part that the store holds; ``checksum`` is its SHA-256 in base64, where it is known."""

    number: int
    size: int
    etag: str
    checksum: str | None = None

    @property
    def md5(self) -> str | None:
        """Its MD5 in hex, where the ETag is one (it is not under KMS, but then it equals none)."""
        bare = self.etag.strip('"')
        return bare if re.fullmatch(r"[0-9a-f]{32}", bare) else None


class Uploads:
    """The journals of multipart uploads in a folder, one a file and destination."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._disk = objects.disk
        self._there: set[str] = set()
        self.completed: set[str] = set()

    async def scan(self) -> None:
        """See which journals earlier runs left: nobody needs to look for one that is not there."""
        self._there = {name.partition(".")[0] for name in await self._disk.run(self._disk.left, ".upload")}

    def has(self, name: str) -> bool:
        return name in self._there

    @property
    def names(self) -> list[str]:
        return sorted(self._there)

    async def remove(self, journal: Journal[Record]) -> None:
        """The upload that a journal names is no more, or stands in the catalog."""
        self._there.discard(journal.path.stem)
        await self.hop(journal, journal.remove)

    async def take_left(self, name: str) -> None:
        """An earlier run left this journal: it is ours from here on."""
        await self._disk.run(self._disk.take_left, f"{name}.upload")

    def journal(self, name: str) -> Journal[Record]:
        return Journal(self._disk.parts / f"{name}.upload", _decoder)

    async def hop(self, journal: Journal[Record], act: Callable[[], T]) -> T:
        def translating() -> T:
            with translated(str(journal.path)):
                return act()

        return await self._disk.run(translating)

    def read(self, journal: Journal[Record]) -> tuple[Meant | None, Begun | None]:
        """What a journal says. Blocks."""
        records = journal.read()
        meant = records[0] if records else None
        begun = records[1] if len(records) > 1 else None
        return meant if isinstance(meant, Meant) else None, begun if isinstance(begun, Begun) else None

    async def begin(
        self, journal: Journal[Record], identity: str, key: str, head: Head, described: Described
    ) -> Multipart:
        """Begin an upload: the intention durable first, then its id."""
        if self.has(journal.path.stem):  # an earlier try that never learnt its id
            await self.abort(*await self.hop(journal, lambda: self.read(journal)))
        size = part_size(head.length)
        ours = self.objects.settings
        before, at = await seen_before(self.objects.control, ours.bucket, key)
        meant = Meant(
            version=VERSION,
            identity=identity,
            endpoint=ours.endpoint_url,
            bucket=ours.bucket,
            key=key,
            at=at,
            before=before,
        )
        self._there.add(journal.path.stem)

        def intend() -> None:
            journal.rewrite([meant])
            journal.sync()
            self._disk.sync_folder(self._disk.parts)

        await self.hop(journal, intend)
        upload_id = await self._create(meant, self.objects.parameters(described))
        checksum = self.objects.settings.checksum
        begun = Begun(upload_id=upload_id, part_size=size, checksum=checksum, head=head)

        def note() -> None:
            journal.append(begun)
            journal.sync()

        await self.hop(journal, note)
        return Multipart(self, journal, meant, begun, {})

    async def _create(self, meant: Meant, parameters: dict[str, Any]) -> str:
        tries = 0
        checksum: dict[str, Any] = {
            "sha256": {"ChecksumAlgorithm": "SHA256"},
            "crc64nvme": {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"},
            "when_required": {},
        }[self.objects.settings.checksum]

        async def once() -> dict[str, Any]:
            nonlocal tries
            tries += 1
            return await self.objects.control.once("CreateMultipartUpload", Key=meant.key, **parameters, **checksum)

        answer = await self.objects.control.patiently(self.objects.where(meant.key), once)
        upload_id = str(answer.get("UploadId", ""))
        if not upload_id:
            told = f"{self.objects.where(meant.key)}: an upload without an id: is that a store?"
            raise StoreUnavailable(told, severity=Severity.ITEM)
        if tries > 1:  # one of them may have been carried out, its answer lost
            await self.abort_strays(meant, keep=upload_id)
        return upload_id

    async def take_up(self, journal: Journal[Record], meant: Meant, begun: Begun) -> Multipart | None:
        """An upload of an earlier run, with the parts that the store lists; None where it is no more."""
        parts: dict[int, Part] = {}
        named = {"Bucket": meant.bucket, "Key": meant.key, "UploadId": begun.upload_id}
        try:
            async for answer in self.objects.control.pages("ListParts", **named):
                told = [_part(each) for each in answer.get("Parts", ())]
                parts |= {part.number: part for part in told if _fits(part, begun)}
        except (NoSuchUpload, NoSuchKey):
            return None
        return Multipart(self, journal, meant, begun, parts)

    async def abort(self, meant: Meant | None, begun: Begun | None) -> int:
        """Abort the upload that a journal names; returns how many there were."""
        if meant is None:
            return 0
        return await (self.abort_strays(meant) if begun is None else self._abort_one(meant, begun.upload_id))

    async def _abort_one(self, meant: Meant, upload_id: str) -> int:
        named = {"Bucket": meant.bucket, "Key": meant.key, "UploadId": upload_id}
        try:
            await self.objects.control.call("AbortMultipartUpload", **named)
        except (NoSuchUpload, NoSuchKey):
            return 0
        return 1

    async def abort_strays(self, meant: Meant, keep: str = "") -> int:
        """Abort the uploads to this very key whose answer was lost; returns how many there were."""
        found = await strays(self.objects.control, meant.bucket, meant.key, meant.before, meant.at)
        return sum([await self._abort_one(meant, stray) for stray in found if stray != keep])


def _part(told: Mapping[str, Any]) -> Part:
    number, size, etag = (needed(told, name, "ListParts") for name in ("PartNumber", "Size", "ETag"))
    return Part(number=number, size=size, etag=etag, checksum=told.get("ChecksumSHA256"))


def _fits(part: Part, begun: Begun) -> bool:
    """All parts but the last have one size."""
    stop = (part.number - 1) * begun.part_size + part.size
    return part.size == begun.part_size or stop == begun.head.length


class Multipart:
    """An upload that is under way."""

    def __init__(
        self, uploads: Uploads, journal: Journal[Record], meant: Meant, begun: Begun, parts: dict[int, Part]
    ) -> None:
        self.key = meant.key
        self.head = begun.head
        self.part_size = begun.part_size
        self._uploads = uploads
        self._objects = uploads.objects
        self._journal = journal
        self._meant = meant
        self._begun = begun
        self._parts = parts

    @property
    def held(self) -> list[Span]:
        """What the store holds."""
        starts = {number: (number - 1) * self.part_size for number in self._parts}
        return [Span(starts[number], starts[number] + part.size) for number, part in self._parts.items()]

    def part(self, number: int) -> Part | None:
        """What the store has as this part."""
        return self._parts.get(number)

    @property
    def size(self) -> int:
        return sum(part.size for part in self._parts.values())

    @property
    def parts(self) -> list[Part]:
        return [self._parts[number] for number in sorted(self._parts)]

    @property
    def composite(self) -> str | None:
        return composite(part.checksum for part in self.parts)

    @property
    def etag(self) -> str | None:
        return multipart_etag(part.etag for part in self.parts)

    async def put(self, number: int, body: Buffers, size: int, sha256: str, checksum: str) -> None:
        """Send a part. The same part may be sent again.

        Raises:
            Changed: the upload is no more: start over.
            ChecksumMismatch, StoreError: it did not get there.
        """
        proof = await self._objects.proof(body, sha256)
        query = f"partNumber={number}&uploadId={quote(self._begun.upload_id, safe='~')}"
        put = Put(operation="UploadPart", key=self.key, query=query, body=body, size=size, sha256=sha256, headers=proof)
        told = await self._gone(partial(self._objects.wire.put, put))
        etag = told.get("ETag", "")
        self._parts[number] = Part(number=number, size=size, etag=etag, checksum=checksum)

    async def complete(self) -> None:
        """Make the parts an object.

        Raises:
            NoSuchUpload, PreconditionFailed: it may be our own success, its answer lost: look.
        """
        algorithm = self._objects.settings.checksum
        told: dict[str, Any] = {"IfNoneMatch": "*"} if self._objects.settings.conditional_writes else {}
        parts = [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({"ChecksumSHA256": part.checksum} if algorithm == "sha256" and part.checksum else {})
            for part in self.parts
        ]
        await self._objects.control.call(
            "CompleteMultipartUpload",
            Key=self.key,
            UploadId=self._begun.upload_id,
            MultipartUpload={"Parts": parts},
            **told,
        )
        self._uploads.completed.add(self._journal.path.stem)

    async def abort(self) -> None:
        """Drop the parts, then the journal. What the store refuses stays named in the journal."""
        await self._uploads.abort(self._meant, self._begun)
        await self._uploads.remove(self._journal)

    async def _gone(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except (NoSuchUpload, NoSuchKey):
            raise Changed(
                f"{self._objects.where(self.key)}: somebody ended its multipart upload: it starts over"
            ) from None
