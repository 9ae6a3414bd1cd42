"""When and how often something is tried again: exponential backoff with full jitter, and the server's own word."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from mirror.errors import MirrorError, Severity
from mirror.events import Observer, Retrying

T = TypeVar("T")

PROGRESS = 1 << 20
"""An attempt that brought the work forward by this many bytes does not count as a failed one."""

LONGEST_PAUSE = 120.0
"""Seconds: a Retry-After that asks for more is cut to this, so that no server can park a run."""


_backoff = wait_random_exponential(multiplier=0.5, max=30)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to pause, from either form of ``Retry-After`` (RFC 9110, section 10.2.3); None if there is none.

    Bounded to 0 … :data:`LONGEST_PAUSE`. ``now`` is Unix time in seconds.
    """
    text = (value or "").strip()
    if re.fullmatch(r"\d+", text, re.ASCII):
        return min(float(text[:12]), LONGEST_PAUSE)
    try:
        moment = parsedate_to_datetime(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - (time.time() if now is None else now)), LONGEST_PAUSE)


class Patience:
    """Calls something until it succeeds, fails for good, or has failed ``attempts`` times without progress."""

    def __init__(self, attempts: int, what: str, observer: Observer, *, prompt_id: str = "") -> None:
        self._attempts = attempts
        self._prompt_id = prompt_id
        self._what = what
        self._observer = observer
        self._best = 0
        self.tried = 0
        self.spent = 0

    async def run(self, call: Callable[[], Awaitable[T]], progress: Callable[[], int] = lambda: 0) -> T:
        """``progress`` tells, in bytes, how far the work has come; starting over is no progress.

        What succeeds at once, as nearly everything does, does not pay for the machinery of trying again.

        Raises:
            MirrorError: the last error, when patience is at its end or the error is no transient one.
        """
        try:
            self.tried += 1
            return await call()
        except MirrorError as error:
            if error.severity is not Severity.TRANSIENT:
                raise
            failed: list[MirrorError] = [error]
        return await self._run_again(call, progress, failed)

    async def _run_again(
        self, call: Callable[[], Awaitable[T]], progress: Callable[[], int], failed: list[MirrorError]
    ) -> T:
        async def attempt() -> T:
            if failed:  # the attempt that was made already
                raise failed.pop()
            self.tried += 1
            return await call()

        def is_over(_state: RetryCallState) -> bool:
            reached = progress()
            if reached - self._best >= PROGRESS:
                self.spent = 0
            else:
                self.spent += 1
            self._best = max(self._best, reached)
            return self.spent >= self._attempts

        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception(_is_transient),
            stop=is_over,
            wait=self._pause,
            before_sleep=self._tell,
            reraise=True,
        )
        return await retrying(attempt)

    def _pause(self, state: RetryCallState) -> float:
        state.attempt_number = max(1, self.spent)
        asked = getattr(_error(state), "retry_after", None) or 0.0
        return max(float(asked), _backoff(state))

    def _tell(self, state: RetryCallState) -> None:
        error = _error(state)
        self._observer(
            Retrying(
                what=self._what,
                cause=type(error).__name__,
                message=str(error),
                attempt=self.tried,
                seconds=round(state.upcoming_sleep, 3),
                prompt_id=self._prompt_id,
            )
        )


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, MirrorError) and error.severity is Severity.TRANSIENT


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
