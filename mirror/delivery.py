"""One file to every place that lacks it, by the way that is cheapest there.

To the disk: from the bucket where that has it, else from its origin. To the bucket: by a copy inside the store, from
the disk where it is there, else straight from its origin.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mirror.errors import Changed, ChecksumMismatch, MirrorError, Severity
from mirror.events import Observer
from mirror.lanes import Lanes
from mirror.limits import ByteBudget, Memory
from mirror.models import Asset, Failure, ManifestFile, Outcome, PromptId, Receipt
from mirror.places import Places
from mirror.retry import Patience
from mirror.settings import Settings
from mirror.stores import Head, Target
from mirror.stores.files import is_file
from mirror.stores.finished import BLOCK, Finished
from mirror.transfer import FreshUrl, Transfer, closing

if TYPE_CHECKING:
    from mirror.stores.s3.sink import ObjectSink

_SMALL = 8 << 20
"""A file on disk of this size is one request away from the bucket; a copy takes three."""


class OnDisk(NamedTuple):
    """A file's entry where the disk has it. ``is_new``: this run put it there."""

    file: ManifestFile
    is_new: bool


class Delivery:
    """What the visits of a run hand their files to."""

    def __init__(self, settings: Settings, places: Places, memory: Memory, observer: Observer) -> None:
        self._settings = settings
        self._places = places
        self._observer = observer
        incoming = ByteBudget(memory.incoming)
        self._from_origin = Transfer(settings, Lanes(settings, observer, incoming), observer)
        self._from_bucket = Transfer(settings, Lanes(settings, observer, incoming, kind="s3"), observer)
        self._blocks = ByteBudget(memory.blocks)

    @property
    def cap(self) -> int:
        """How many requests may be under way at once."""
        return self._from_origin.lanes.cap

    def pace(self, bytes_a_second: float) -> None:
        """The limit from now on; 0 is none."""
        for transfer in (self._from_origin, self._from_bucket):
            transfer.lanes.rate.set(bytes_a_second)

    async def close(self) -> None:
        try:
            await self._from_origin.close()
        finally:
            await self._from_bucket.close()

    def to_disk(
        self, prompt_id: PromptId, asset: Asset, target: Target, fresh: FreshUrl
    ) -> Coroutine[Any, Any, Outcome]:
        """Store a file on disk, from its origin."""
        return self._from_origin.fetch(self._places.disk, prompt_id, asset, target, fresh)

    async def restore(self, prompt_id: PromptId, asset: Asset, target: Target, known: ManifestFile) -> Outcome:
        """Store a file on disk, from the bucket, as it was when it came there."""
        bucket, s3 = self._places.bucket, known.s3
        assert bucket is not None
        assert s3 is not None
        if known.sha256 is None and not await bucket.has(known):
            return Failure(error="Changed", message="another object stands there", url=asset.identity, role=asset.role)
        signed = msgspec.structs.replace(asset, url=await bucket.url(s3.key))
        outcome = await self._from_bucket.fetch(
            self._places.disk, prompt_id, signed, target, partial(bucket.url, s3.key)
        )
        if isinstance(outcome, Failure):
            return outcome
        return msgspec.structs.replace(
            outcome,
            content_type=known.content_type,
            etag=known.etag,
            last_modified=known.last_modified,
            verified=known.verified,
            media=known.media,
        )

    async def to_bucket(
        self, prompt_id: PromptId, asset: Asset, target: Target, fresh: FreshUrl, here: OnDisk | None
    ) -> Outcome:
        """Put a file into the bucket. ``here``: the disk has it; its digest is kept."""
        bucket = self._places.bucket
        assert bucket is not None
        if here is None or here.file.bytes > _SMALL:
            receipt = await bucket.copy(asset.url, target, here.file.etag if here is not None else None)
            if receipt is not None:
                return receipt
        if here is None:
            return await self._from_origin.fetch(bucket, prompt_id, asset, target, fresh)
        return await self._upload(prompt_id, asset, target, here)

    # From disk to bucket -----------------------------------------------------------------------

    async def _upload(self, prompt_id: PromptId, asset: Asset, target: Target, here: OnDisk) -> Outcome:
        bucket = self._places.bucket
        assert bucket is not None
        attempts = self._settings.transfer.attempts
        patience = Patience(attempts, asset.identity, self._observer, prompt_id=prompt_id)
        try:
            async with self._blocks.taken(min(here.file.bytes, BLOCK)):
                sink = await bucket.sink(target, via="upload")
                return await closing(sink, patience.run(partial(self._pump, sink, target.folder, here)))
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            return Failure(
                error=error.name, message=str(error), url=asset.identity, role=asset.role, attempts=patience.tried
            )

    async def _pump(self, sink: ObjectSink, folder: str, here: OnDisk) -> Receipt:
        """The whole file, each time: a sink does not send twice what the bucket holds."""
        if sink.committed is not None:
            return sink.committed
        known = here.file
        head = Head(length=known.bytes, etag=known.etag, content_type=known.content_type)
        with contextlib.closing(await self._places.disk.opened(folder, known, is_new=here.is_new)) as file:
            if not is_file(os.fstat(file.fd), known.bytes):
                raise file.damaged()
            return await sink.post(head, known.sha256, file) or await self._written(sink, head, file)

    async def _written(self, sink: ObjectSink, head: Head, file: Finished) -> Receipt:
        try:
            if sink.head != head:
                await sink.begin(head)
            at = 0
            async with contextlib.aclosing(file.blocks()) as blocks:
                async for block in blocks:
                    await sink.write(at, block)
                    at += len(block)
            return await sink.commit()
        except Changed:
            await sink.abort()
            raise
        except MirrorError as error:
            await sink.pause()
            if not isinstance(error, ChecksumMismatch) or error.severity is Severity.TRANSIENT:
                raise
            raise file.damaged() from None
