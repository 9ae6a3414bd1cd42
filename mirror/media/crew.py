"""Helper processes that read media for us: no library that decodes what strangers wrote runs in this process.

They are started when they are first needed, asked many files in one breath, killed where one takes too long, and their
answers are not trusted. What they cannot tell is not told: nothing of this ever fails a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from mirror.errors import MirrorError
from mirror.models import Media

WORKER = "mirror.media.worker"

_LARGEST_FRAME = 64 << 10
_MOST_BREAKDOWNS = 10
"""Files over which a helper may crash or hang; after that nobody is asked any more."""

_GRACE = 0.5
"""Seconds that a process which was killed may take to be gone."""

_START = 30.0
_LARGEST = 1 << 31
_NAMES = re.compile(r"[a-z0-9_.-]{1,40}")
_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "VIRTUAL_ENV")
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", *_PYTHON)
"""What a helper sees of our environment: no secret is in there."""

Read = Callable[[int, int], Awaitable[bytes]]
"""Reads bytes of a file that stands elsewhere, from one offset up to another."""


def installed() -> bool:
    """Whether the extra ``media``, or a part of it, is there. Imports nothing."""
    try:
        return any(importlib.util.find_spec(name) is not None for name in ("av", "PIL"))
    except OSError:  # no descriptor is left to look with
        return False


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

    ``error`` says why there is no answer, ``unread`` that it could not be read; ``read`` asks for bytes.
    """

    read: tuple[int, int] | None = None
    media: Media | None = None
    known: bool = False
    wrong: str = ""
    error: str = ""
    unread: bool = False


Asked = tuple[Question, asyncio.Future[Answer]]


class Broken(Exception):
    """A helper has crashed, hangs, or talks nonsense."""


class NotStarted(Broken):
    """No helper can be started: nobody needs to try again."""


def _untold(_: str) -> None:
    """Nobody listens."""


class Crew:
    """Up to ``size`` helpers, each with ``memory`` bytes; asked ``together`` files at once.

    ``tell`` hears of each file over which a helper broke down; after ``most_breakdowns`` nobody is asked any more.
    ``cannot_start`` says why no helper can be started; ``worker`` is the module that it runs. An instance belongs to
    one event loop.
    """

    def __init__(
        self,
        size: int,
        memory: int,
        tell: Callable[[str], None] = _untold,
        *,
        together: int = 1,
        most_breakdowns: int = _MOST_BREAKDOWNS,
        worker: str = WORKER,
    ) -> None:
        self.cannot_start = ""
        self._size = size
        self._memory = memory
        self._worker = worker
        self._tell = tell
        self._together = together
        self._waiting: deque[Asked] = deque()
        self._something = asyncio.Event()
        self._members: set[asyncio.Task[None]] = set()
        self._most_breakdowns = most_breakdowns
        self._alone = 0
        """So many of those that wait are asked one by one: a helper broke down over one of them."""
        self._breakdowns = 0
        self._is_over = ""

    async def ask(self, question: Question) -> Answer:
        """The answer; one with an ``error`` where there is none."""
        if self._is_over:
            return Answer(error=self._is_over)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._something.set()
        if len(self._members) < min(self._size, len(self._waiting)):
            member = asyncio.create_task(self._work())
            self._members.add(member)
            member.add_done_callback(self._members.discard)
        return await future

    async def close(self) -> None:
        """End the helpers; who still waits is told nothing."""
        self._give_up("it was stopped")
        for member in self._members:
            member.cancel()
        if self._members:
            await asyncio.wait(self._members)
        self._give_up("it was stopped")

    def _give_up(self, why: str) -> None:
        """Ask nobody any more."""
        self._is_over = why
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(Answer(error=why))

    async def _work(self) -> None:
        helper: Helper | None = None
        batch: deque[Asked] = deque()
        try:
            while True:
                batch = self._take()
                if not batch:
                    self._something.clear()
                    await self._something.wait()
                    continue
                try:
                    if helper is not None and helper.has_ended:
                        await helper.end()
                        helper = None
                    helper = helper or await Helper.start(self._worker, self._memory)
                    await _put(helper, batch)
                except NotStarted as error:
                    self._waiting.extendleft(reversed(batch))
                    self._stop_asking(str(error))
                except Exception as error:  # noqa: BLE001  a bug in here fails no file either
                    if helper is not None:
                        await helper.end()
                        helper = None
                    self._broke_down(batch, str(error))
        finally:
            self._waiting.extend(batch)
            if helper is not None:
                await helper.end()

    def _stop_asking(self, why: str) -> None:
        if not self.cannot_start:
            self._tell(f"nothing is told of what is in files: {why}")
        self.cannot_start = why
        self._give_up(why)

    def _take(self) -> deque[Asked]:
        """What is asked next; of files that we read for the helper, one at a time."""
        taken: deque[Asked] = deque()
        together = 1 if self._alone else self._together
        self._alone = max(0, self._alone - 1)
        while self._waiting and len(taken) < (together if self._waiting[0][0].path else 1):
            each = self._waiting.popleft()
            if not each[1].done():  # who asked has been cancelled
                taken.append(each)
        return taken

    def _broke_down(self, batch: deque[Asked], why: str) -> None:
        if len(batch) > 1:  # over which of them?
            self._alone += len(batch)
            self._waiting.extendleft(reversed(batch))
            return
        self._breakdowns += 1
        question, future = batch[0]
        if not future.done():
            future.set_result(Answer(error=why))
        name = question.path[1:] if question.path is not None else ("a file in the bucket",)
        self._tell(f"{'/'.join(name)}: nothing is told of what is in it: {why}")
        if self._breakdowns >= self._most_breakdowns:
            self._give_up("helpers broke down over too many files")
            self._tell("nothing more is told of what is in files: helpers broke down over too many")


async def _put(helper: Helper, batch: deque[Asked]) -> None:
    """Ask all of a batch, and take what is answered out of it, in order."""
    helper.send(*(question.encode(more=question is not batch[-1][0]) for question, _ in batch))
    while batch:
        question, future = batch[0]
        answer = await helper.answer(question)
        batch.popleft()
        if not future.done():
            future.set_result(answer)


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
                env=_environ(os.environ),
                start_new_session=True,  # a terminal's signals are not for it
            )
        except (OSError, ValueError) as error:
            raise NotStarted(f"a helper cannot be started: {getattr(error, 'strerror', None) or error}") from None
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
            Broken: nothing, nonsense, or too late.
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
            raise Broken(f"it takes more than {question.seconds:g} s") from None

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

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._stdin.close()
        gone = asyncio.ensure_future(self._process.wait())
        await asyncio.wait({gone}, timeout=_GRACE)
        gone.cancel()


async def _read(question: Question, start: int, stop: int) -> bytes:
    assert question.read is not None
    try:
        data = await question.read(start, stop)
    except MirrorError:
        return b""
    return data if len(data) == stop - start else b""


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in _KEPT if name in environ}


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
