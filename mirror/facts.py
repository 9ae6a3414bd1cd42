"""What is in the files that were stored: the manifest tells it where the extra ``media`` is installed."""

from __future__ import annotations

from functools import cached_property, partial

from mirror.events import Noted, Observer
from mirror.media.crew import Crew, Question, installed
from mirror.models import ManifestFile, Media
from mirror.places import Places

_SECONDS = 10.0
_MEMORY = 1 << 30
_TOGETHER = 32
_READS = 32
_MOST = 8 << 20
"""Requests, and bytes, that it may take to read the facts of a file that stands in the bucket only."""


class Facts:
    """Asked by all visits of a run, beside its transfers. Nothing is started before the first question."""

    def __init__(self, places: Places, observer: Observer) -> None:
        self._places = places
        self._observer = observer
        self._crew: Crew | None = None

    @cached_property
    def are_told(self) -> bool:
        """Whether there is anybody to ask."""
        return installed()

    async def of(self, folder: str, file: ManifestFile) -> Media | None:
        """The facts of a stored file; None where no library knows it, or none could read it."""
        self._crew = self._crew or Crew(1, _MEMORY, self._tell, together=_TOGETHER)
        question = self._question(folder, file)
        return (await self._crew.ask(question)).media if question is not None else None

    async def close(self) -> None:
        if self._crew is not None:
            await self._crew.close()

    def _question(self, folder: str, file: ManifestFile) -> Question | None:
        if self._places.wants_disk:
            return Question(seconds=_SECONDS, path=(str(self._places.disk.root), folder, file.path))
        if self._places.bucket is None or file.s3 is None:
            return None
        read = partial(self._places.bucket.read_span, file.s3)
        return Question(seconds=_SECONDS, size=file.bytes, read=read, reads=_READS, most=_MOST)

    def _tell(self, message: str) -> None:
        self._observer(Noted(level="debug", message=message))
