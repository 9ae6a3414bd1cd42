"""What is in the files that were stored: the manifest tells it where the extra ``media`` is installed."""

from __future__ import annotations

import asyncio
from functools import cached_property, partial

from mirror.errors import MirrorError
from mirror.events import Noted, Observer
from mirror.media.crew import Crew, installed
from mirror.media.helper import Question
from mirror.models import ManifestFile, Media
from mirror.places import Places

_SECONDS = 10.0
_MEMORY = 1 << 30
_TOGETHER = 32
_READS = 32
_MOST = 8 << 20
"""Requests, and bytes, that it may take to read the facts of a file that stands in the bucket only."""

_HEAD = 64 << 10
"""Bytes that are read of such a file before a helper is asked: most need no more, and helpers wait for nobody."""

_AT_ONCE = 32
_HELPERS = 2


class Facts:
    """Asked by all visits of a run, beside its transfers. Nothing is started before the first question."""

    def __init__(self, places: Places, observer: Observer) -> None:
        self._places = places
        self._observer = observer
        self._crew: Crew | None = None
        self._reading = asyncio.Semaphore(_AT_ONCE)

    @cached_property
    def are_told(self) -> bool:
        """Whether there is anybody to ask."""
        return installed()

    async def of(self, folder: str, file: ManifestFile) -> Media | None:
        """The facts of a stored file; None where no library knows it, or none could read it."""
        if self._places.wants_disk:
            path = (str(self._places.disk.root), folder, file.path)
            return await self._ask(Question(seconds=_SECONDS, path=path))
        bucket, s3 = self._places.bucket, file.s3
        if bucket is None or s3 is None:
            return None
        read = partial(bucket.read_span, s3)
        async with self._reading:
            try:
                head = await read(0, min(file.bytes, _HEAD))
            except MirrorError:
                return None
            question = Question(seconds=_SECONDS, size=file.bytes, read=read, reads=_READS, most=_MOST, head=head)
            return await self._ask(question)

    async def close(self) -> None:
        if self._crew is not None:
            await self._crew.close()

    async def _ask(self, question: Question) -> Media | None:
        size = 1 if self._places.wants_disk else _HELPERS
        self._crew = self._crew or Crew(size, _MEMORY, self._tell, together=_TOGETHER)
        return (await self._crew.ask(question)).media

    def _tell(self, message: str) -> None:
        is_last = self._crew is not None and self._crew.has_given_up
        self._observer(Noted(level="warning" if is_last else "debug", message=message))
