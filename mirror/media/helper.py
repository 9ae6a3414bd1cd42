"""One helper process that reads media for us, and what is said between the two: frames of JSON, and of bare bytes.

Its answers are not trusted: it may have been taken over by what it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mirror.errors import MirrorError
from mirror.media.confinement import environ_without_secrets
from mirror.models import Media

_LARGEST_FRAME = 64 << 10

_MOMENT = 0.25
_GRACE = 0.5
"""Seconds that a process which was killed may take to be gone."""

_START = 30.0
_LARGEST = 1 << 31
_NAMES = re.compile(r"[a-z0-9_.-]{1,40}")

Read = Callable[[int, int], Awaitable[bytes]]
"""Reads bytes of a file that stands elsewhere, from one offset up to another."""


class Question(Struct, frozen=True, kw_only=True):
    """A file to be described, or with ``decode`` to be decoded whole, in so many ``seconds`` at most.

    ``path`` is a folder that is trusted, one in it and a name in that; or else it is of ``size`` bytes that ``read``
    reads, ``reads`` times and ``most`` bytes in all; the first of them are the ``head``, where that was read already.
    """

    seconds: float
    decode: bool = False
    path: tuple[str, str, str] | None = None
    size: int = 0
    read: Read | None = None
    reads: int = 0
    most: int = 0
    head: bytes = b""

    def encode(self, *, more: bool) -> bytes:
        told: dict[str, Any] = {"decode": self.decode, "seconds": self.seconds, "more": more}
        told |= {"path": self.path} if self.path is not None else {"size": self.size}
        if self.decode:
            told["buffer"] = 1 << 20
        return msgspec.json.encode(told)


class Answer(Struct, frozen=True, kw_only=True):
    """What a helper says. ``media`` are the facts; ``known`` whether it was decoded, ``wrong`` why it cannot be.

    ``error`` says why there is no answer, ``unread`` that this is not the file's fault; ``read`` asks for bytes. The
    helper is no more where ``lost`` says how: it has ``broken`` down, or took too ``long``.
    """

    read: tuple[int, int] | None = None
    media: Media | None = None
    known: bool = False
    wrong: str = ""
    error: str = ""
    unread: bool = False
    lost: Literal["", "broken", "long"] = ""


class Broken(Exception):
    """A helper has crashed, hangs, or talks nonsense."""


class TooLong(Broken):
    """A helper has not answered in time."""


class NotStarted(Broken):
    """No helper can be started now."""


class Helper:
    """One process, and the frames between us: four bytes of length, then as many bytes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def start(cls, worker: str, memory: int) -> Helper:
        command = [sys.executable, "-P", "-m", worker, str(os.getpid()), str(memory)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environ_without_secrets(os.environ),
                start_new_session=True,  # a terminal's signals are not for it
            )
        except (OSError, ValueError, RuntimeError, MemoryError) as error:  # no process, no thread to watch it, no room
            told = getattr(error, "strerror", None) or str(error) or "there is not enough memory"
            raise NotStarted(f"a helper cannot be started: {told}") from None
        helper = cls(process)
        try:
            async with asyncio.timeout(_START):
                await helper._receive()  # it says that it is there
        except (Broken, TimeoutError):
            await helper.end()
            raise NotStarted("a helper cannot be started: it ends, or says nothing") from None
        except BaseException:
            await helper.end()
            raise
        return helper

    def send(self, *messages: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # that it has gone is seen by what it answers
            self._stdin.write(b"".join(len(message).to_bytes(4) + message for message in messages))

    async def answer(self, question: Question) -> Answer:
        """What it says of a file; the bytes that it asks for meanwhile are read.

        Raises:
            Broken: nothing, or nonsense.
            TooLong: nothing in time.
        """
        try:
            async with asyncio.timeout(question.seconds):
                reads, left = question.reads, question.most
                while True:
                    answer = await self._receive()
                    if answer.read is None:
                        return answer
                    start, stop = answer.read
                    if not 0 <= start < stop <= question.size:
                        raise Broken("the helper reads what is not there")
                    if stop <= len(question.head):
                        self.send(question.head[start:stop])
                        continue
                    reads, left = reads - 1, left - (stop - start)
                    self.send(await _read(question, start, stop) if reads >= 0 and left >= 0 else b"")
        except TimeoutError:
            raise TooLong(f"it takes more than {question.seconds:g} s") from None

    async def _receive(self) -> Answer:
        try:
            size = int.from_bytes(await self._stdout.readexactly(4))
            if size > _LARGEST_FRAME:
                raise Broken("the helper talks nonsense")
            answer = msgspec.json.decode(await self._stdout.readexactly(size), type=Answer)
        except (asyncio.IncompleteReadError, OSError):
            raise Broken("the helper has crashed") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Broken("the helper talks nonsense") from None
        if (answer.media is not None and not _is_sound(answer.media)) or not _is_text(answer.wrong + answer.error):
            raise Broken("the helper talks nonsense")
        return answer

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def has_used_its_time(self) -> bool:
        """Whether it was the limit of its processor time that ended it."""
        return self._process.returncode == -signal.SIGXCPU

    async def end(self) -> None:
        """Wait until it is gone."""
        await end(self._process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Have a helper end: by itself, since its stdin does; what is busy or hangs is killed after a moment.

    To kill one that has just ended takes its exit away from asyncio, which says so in the log.
    """
    assert process.stdin is not None
    process.stdin.close()
    gone = asyncio.ensure_future(process.wait())
    await asyncio.wait({gone}, timeout=_MOMENT)
    if not gone.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait({gone}, timeout=_GRACE)
    gone.cancel()


async def _read(question: Question, start: int, stop: int) -> bytes:
    assert question.read is not None
    try:
        data = await question.read(start, stop)
    except MirrorError:
        return b""
    return data if len(data) == stop - start else b""


def _is_sound(media: Media) -> bool:
    counts = [each for each in (media.width, media.height) if each is not None]
    numbers = [each for each in (media.seconds, media.frame_rate) if each is not None]
    return (
        media.kind in ("image", "video")
        and all(0 < each < _LARGEST for each in counts)
        and all(0 <= each < _LARGEST for each in numbers)
        and (media.codec is None or _NAMES.fullmatch(media.codec) is not None)
    )


def _is_text(text: str) -> bool:
    return len(text) <= 500 and text.isprintable()
