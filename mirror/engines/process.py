"""A worker as a process of its own. A socket, whose descriptor is its argument, is its whole world.

It ends at once when the driver is gone. Terminals and service managers signal the driver, which tells it to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence

from mirror.catalog import PromptRecord, Write
from mirror.engines.channel import Channel
from mirror.engines.collector import Collector
from mirror.engines.messages import (
    Ended,
    Enter,
    Finished,
    Given,
    Leave,
    NoMore,
    Paced,
    Ready,
    Shard,
    Start,
    Stop,
    Told,
    ToWorker,
    Trusted,
    Writes,
    Written,
    spelled,
    to_worker,
    unpacked,
)
from mirror.engines.worker import Worker
from mirror.events import Event, Noted
from mirror.inflight import Fetched, Inflight, Turn
from mirror.run import Result
from mirror.stores.desks import Desk

_MOMENT = 0.05
"""Seconds that what is told may wait for more of it."""

_OBJECTS = 20_000
"""New objects after which Python looks for rings among them, as in the command line's process."""


class _Telling:
    """Events on their way to the driver, many at once."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._collected = Collector()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Event, /) -> None:
        self._collected(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MOMENT, self.flush)

    def flush(self) -> None:
        """Say it now: what follows must not overtake it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if events := self._collected.take():
            self._channel.post(Told(events=events))


class _Logging(logging.Handler):
    """What a library has to say goes to the driver, too, which knows what must not be shown."""

    def __init__(self, tell: Callable[[Noted], None]) -> None:
        super().__init__(logging.WARNING)
        self._loop = asyncio.get_running_loop()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        noted = Noted(level="warning", message=self.format(record))
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell, noted)


class _Writing:
    """Writes on their way to the catalog: those of one moment together, and one group under way."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._under_way: list[tuple[Write, asyncio.Future[None]]] = []

    async def hand_on(self, write: Write) -> None:
        """Returns when it stands in the catalog."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if len(self._waiting) == 1 and not self._under_way:
            asyncio.get_running_loop().call_soon(self._send)
        await done

    def _send(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._channel.post(Writes(writes=[write for write, _ in self._under_way]))

    def written(self) -> None:
        """The group that is under way has been committed."""
        ended, self._under_way = self._under_way, []
        for _, done in ended:
            if not done.done():
                done.set_result(None)
        if self._waiting:
            self._send()


class _Turns(Inflight):
    """Files in flight among all workers: one that nobody here is at may be another one's."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        super().__init__()
        self._channel = channel
        self._asked: dict[str, asyncio.Future[Turn]] = {}

    async def enter(self, identity: str) -> Turn:
        turn: Turn = await super().enter(identity)
        if not turn.mine:
            return turn
        asked = self._asked[identity] = asyncio.get_running_loop().create_future()
        self._channel.post(Enter(identity=identity))
        try:
            turn = await asked
        except asyncio.CancelledError:
            self.leave(identity, None)
            raise
        if not turn.mine:
            super().leave(identity, None)
        return turn

    def given(self, message: Given) -> None:
        """The driver's answer."""
        asked = self._asked.pop(message.identity, None)
        if asked is not None and not asked.done():
            asked.set_result(message.turn)

    def leave(self, identity: str, ended: Fetched) -> None:
        super().leave(identity, ended)
        self._channel.post(Leave(identity=identity, ended=ended))


class _Process:
    """One conversation with the driver, from its first word to our last."""

    def __init__(self) -> None:
        self._channel: Channel[ToWorker] = Channel(to_worker)
        self._telling = _Telling(self._channel)
        self._writing = _Writing(self._channel)
        self._turns = _Turns(self._channel)
        self._shards: asyncio.Queue[list[PromptRecord] | None] = asyncio.Queue()
        self._worker: Worker | None = None

    async def run(self, end: socket.socket) -> None:
        await self._channel.open(end)
        logging.basicConfig(handlers=[_Logging(self._telling)], level=logging.WARNING)
        first, *more = await self._hear()
        assert isinstance(first, Start)
        working = asyncio.create_task(self._work(first))
        working.add_done_callback(lambda _: self._heeding.cancel())
        self._heeding = asyncio.create_task(self._heed(more, working))
        with contextlib.suppress(asyncio.CancelledError):
            await self._heeding
        with contextlib.suppress(ConnectionError):
            await self._channel.drain()

    async def _hear(self) -> Sequence[ToWorker]:
        messages = await self._channel.hear()
        if not messages:  # nobody would record what we do; all that is on disk is as a kill would leave it
            os._exit(1)
        return messages

    async def _heed(self, messages: Sequence[ToWorker], working: asyncio.Task[None]) -> None:
        while True:
            for message in messages:
                match message:
                    case Written():
                        self._writing.written()
                    case Given():
                        self._turns.given(message)
                    case Shard():
                        self._shards.put_nowait(message.records)
                    case NoMore():
                        self._shards.put_nowait(None)
                    case Stop():
                        working.cancel()
                    case _:
                        self._adapt(message)
            messages = await self._hear()

    def _adapt(self, message: ToWorker) -> None:
        """What other workers are at, or have found out, changes what this one may do."""
        if self._worker is not None and isinstance(message, Trusted):
            self._worker.trust()
        elif self._worker is not None and isinstance(message, Paced):
            self._worker.pace(message.bytes, message.requests)

    async def _work(self, start: Start) -> None:
        """What goes wrong is said, and so is that it has ended."""
        in_doubt = True
        worker: Worker | None = None
        try:
            worker = self._worker = Worker(
                unpacked(start.settings),
                self._telling,
                self._writing.hand_on,
                desk=Desk(name=start.desk),
                inflight=self._turns,
            )
            if start.is_trusted:
                worker.trust()
            await worker.open()
            await worker.run(self._come(), self._emit, start.options, start.run_id, want_manifests=start.want_manifests)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001  the driver must hear of it, whatever it is
            self._channel.post(spelled(error, traceback.format_exc()))
        finally:
            try:
                in_doubt = worker is None or await worker.close()
            except Exception as error:  # noqa: BLE001  as above
                self._channel.post(spelled(error, traceback.format_exc()))
            self._telling.flush()
            self._channel.post(Ended(in_doubt=in_doubt))

    async def _come(self) -> AsyncGenerator[list[PromptRecord], None]:
        """Shards, each asked for when there is room."""
        while True:
            self._channel.post(Ready())
            records = await self._shards.get()
            if records is None:
                return
            yield records

    async def _emit(self, result: Result) -> None:
        self._telling.flush()
        self._channel.post(Finished(result=result))


def main() -> None:
    """Until the driver needs us no more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(os.umask(0o077) | 0o002)
    gc.freeze()
    gc.set_threshold(_OBJECTS, 10, 10)
    gc.enable()
    end = socket.socket(fileno=int(sys.argv[1]))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_Process().run(end))
    os._exit(0)  # no thread that a name server holds keeps us
