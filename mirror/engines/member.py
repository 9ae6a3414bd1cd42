"""A worker process as the driver sees it: how it is started, spoken to and ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Sequence

from mirror.catalog import PromptRecord
from mirror.engines.channel import Channel
from mirror.engines.messages import ToDriver, to_driver
from mirror.errors import StoreUnavailable
from mirror.models import PromptId
from mirror.stores.files import store_error

_MOMENT = 0.3
"""Seconds that a worker may take to be gone when nobody listens any more."""


class Member:
    """A worker process as the driver sees it.

    ``holding`` are the prompts that it has, and no result of; ``waiting`` those of them that wait for the service.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.holding: dict[PromptId, None] = {}
        self.waiting: set[str] = set()
        self.ready = asyncio.Event()
        self.has_begun = False
        self.has_ended = False
        self.broke: Exception | None = None
        self.channel: Channel[ToDriver] = Channel(to_driver)
        self._process: asyncio.subprocess.Process

    @property
    def load(self) -> int:
        """How many prompts it is at."""
        return len(self.holding) - len(self.waiting)

    def hold(self, records: Sequence[PromptRecord]) -> None:
        """These are its to deal with."""
        self.holding |= dict.fromkeys(record.prompt_id for record in records)

    async def start(self, locks: Sequence[int]) -> None:
        """Start the process. It inherits ``locks``.

        Raises:
            StoreUnavailable: the system has no process to spare.
        """
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                await self.channel.open(ours)
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-c", _worker(), str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *locks),
                    start_new_session=True,  # a terminal's signals are for the driver
                )
        except BaseException as error:
            await self.channel.close()
            if not isinstance(error, OSError):
                raise
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise store_error("a worker process", error) from None
            told = f"a worker process cannot be started: {error.strerror}"
            raise StoreUnavailable(f"{told}: raise the limit (ulimit -u) or ask for fewer --processes") from None

    async def end(self) -> int:
        """Have it gone, whatever it does. Returns its exit status."""
        await self.channel.close()  # it ends when it hears that
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                return await self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await self._process.wait()


def _worker() -> str:
    """What a worker's Python runs: it finds modules where this one does, a checkout that was not installed too.

    What it imports stays: nothing looks for rings in it meanwhile.
    """
    return f"import gc, sys; gc.disable(); sys.path[:] = {sys.path!r}; from mirror.engines.process import main; main()"
