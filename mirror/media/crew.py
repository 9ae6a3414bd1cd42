"""Helper processes that read media for us: no library that decodes what strangers wrote runs in this process.

They are started when they are first needed, asked many files in one breath, and killed where one takes too long. What
they cannot tell is not told: nothing of this ever fails a file.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import deque
from collections.abc import Callable

from mirror.endings import ended
from mirror.media.helper import Answer, Helper, NotStarted, Question, TooLong

WORKER = "mirror.media.worker"

_MOST_BREAKDOWNS = 10
"""Files over which a helper may crash or hang; after that nobody is asked any more."""

_MORE_STARTS = 3
"""Times that we try again where no helper could be started, in the life of a crew."""

_PAUSE = 0.1
"""Seconds before the first of them; each waits twice as long as the one before."""

Asked = tuple[Question, asyncio.Future[Answer]]


def installed() -> bool:
    """Whether the extra ``media``, or a part of it, is there. Imports nothing."""
    try:
        return any(importlib.util.find_spec(name) is not None for name in ("av", "PIL"))
    except OSError:  # no descriptor is left to look with
        return False


def _untold(_: str) -> None:
    """Nobody listens."""


class Crew:
    """Up to ``size`` helpers, each with ``memory`` bytes; asked ``together`` files at once.

    ``tell`` hears of each file over which a helper broke down; after ``most_breakdowns`` nobody is asked any more, and
    ``has_given_up`` before it hears of that. ``cannot_start`` says why no helper can be started; ``worker`` is the
    module that it runs. An instance belongs to one event loop.
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
        self._at_work = 0
        self._starting = asyncio.Lock()
        self._failed_starts = 0
        self._is_over = ""

    @property
    def has_given_up(self) -> bool:
        return bool(self._is_over)

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
        await ended(self._members)
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
                        await self._end(helper)
                        helper = None
                    helper = helper or await self._start()
                    if helper is None:
                        break
                    await _put(helper, batch)
                except Exception as error:  # noqa: BLE001  a bug in here fails no file either
                    answer = Answer(error=str(error), lost="long" if isinstance(error, TooLong) else "broken")
                    if helper is not None:
                        await self._end(helper)
                        if helper.has_used_its_time:
                            answer = Answer(error="it takes more time than a helper may have", lost="long")
                        helper = None
                    self._broke_down(batch, answer)
        finally:
            self._waiting.extendleft(reversed(batch))  # for another one
            self._something.set()
            if self._is_over:
                self._give_up(self._is_over)
            if helper is not None:
                await self._end(helper)

    async def _start(self) -> Helper | None:
        """A helper; None where none can be started: those that are at work do it all, or nobody does."""
        while not self._is_over:
            failed_before = self._failed_starts
            try:
                helper = await Helper.start(self._worker, self._memory)
            except NotStarted as error:
                async with self._starting:
                    if self._at_work:
                        self._size = self._at_work
                        break
                    if self._failed_starts == failed_before:  # else another one has waited
                        await self._wait_or_give_up(str(error))
            else:
                self._at_work += 1
                return helper
        return None

    async def _wait_or_give_up(self, why: str) -> None:
        if self._failed_starts < _MORE_STARTS:
            await asyncio.sleep(_PAUSE * 2**self._failed_starts)
            self._failed_starts += 1
        elif not self._is_over:
            self.cannot_start = why
            self._give_up(why)
            self._tell(f"what is in files is not told: {why}")

    async def _end(self, helper: Helper) -> None:
        self._at_work -= 1
        await helper.end()

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

    def _broke_down(self, batch: deque[Asked], answer: Answer) -> None:
        if len(batch) > 1:  # over which of them?
            self._alone += len(batch)
            self._waiting.extendleft(reversed(batch))
            return
        self._breakdowns += 1
        question, future = batch[0]
        if not future.done():
            future.set_result(answer)
        name = question.path[1:] if question.path is not None else ("a file in the bucket",)
        self._tell(f"{'/'.join(name)}: nothing is told of what is in it: {answer.error}")
        if self._breakdowns >= self._most_breakdowns:
            self._give_up("helpers broke down over too many files")
            self._tell("what is in files is not told any more: helpers broke down over too many")


async def _put(helper: Helper, batch: deque[Asked]) -> None:
    """Ask all of a batch, and take what is answered out of it, in order."""
    helper.send(*(question.encode(more=question is not batch[-1][0]) for question, _ in batch))
    while batch:
        question, future = batch[0]
        answer = await helper.answer(question)
        batch.popleft()
        if not future.done():
            future.set_result(answer)
