"""Whether a file that has its right bytes can be decoded, too: every frame of a film, every pixel of a picture."""

from __future__ import annotations

import os
from functools import partial

from msgspec.structs import replace

from mirror.checks import Checked, Expected
from mirror.errors import ConfigError, StoreUnavailable
from mirror.media.crew import WORKER, Crew, installed
from mirror.media.helper import Answer, Question
from mirror.places import Places

_MEMORY = 3 << 30
_FOREVER = 1 << 31


class Decoding:
    """Decodes in helper processes, as many as there are cores; on disk, or with ``bucket`` by reading objects in parts.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, places: Places, *, bucket: bool, worker: str = WORKER) -> None:
        if not installed():
            raise ConfigError('--decode needs PyAV for films, Pillow for pictures: pip install "prompt-mirror[media]"')
        self._places = places
        self._bucket = bucket
        self._crew = Crew(os.cpu_count() or 1, _MEMORY, most_breakdowns=_FOREVER, worker=worker)

    async def close(self) -> None:
        await self._crew.close()

    async def look(self, expected: Expected, checked: Checked) -> Checked:
        """What was found of a file, with the flaw that it cannot be decoded if that is so.

        Raises:
            StoreUnavailable: no helper can be started.
        """
        if checked.flaw is not None or expected.unnamed:
            return checked
        answer = await self._answer(self._question(expected))
        wrong = answer.wrong or answer.error
        if wrong:
            flaw = "unreadable" if answer.unread else "undecodable"
            return replace(checked, flaw=flaw, detail=wrong, intact=True)
        return replace(checked, decoded=answer.known)

    async def _answer(self, question: Question) -> Answer:
        """Asked again where a helper was lost over it: that may have been the machine's fault.

        What is too long for two helpers is the file's; a helper that is lost in another way proves nothing of it.
        """
        first = await self._ask(question)
        if not first.lost:
            return first
        second = await self._ask(question)
        if not second.lost or first.lost == second.lost == "long":
            return second
        return Answer(error=f"it could not be decoded here: {second.error}", unread=True)

    async def _ask(self, question: Question) -> Answer:
        answer = await self._crew.ask(question)
        if self._crew.cannot_start:
            raise StoreUnavailable(self._crew.cannot_start)
        return answer

    def _question(self, expected: Expected) -> Question:
        file = expected.file
        length = file.media.seconds if file.media is not None else None
        seconds = 60 + file.bytes / (128 << 10) + 20 * (length or 0)
        if not self._bucket:
            path = (str(self._places.disk.root), expected.folder, file.path)
            return Question(seconds=seconds, decode=True, path=path)
        assert self._places.bucket is not None
        assert file.s3 is not None
        read = partial(self._places.bucket.read_span, file.s3)
        most = 8 * file.bytes + (64 << 20)  # a film's index may be read before and after its frames
        return Question(seconds=seconds, decode=True, size=file.bytes, read=read, reads=_FOREVER, most=most)
