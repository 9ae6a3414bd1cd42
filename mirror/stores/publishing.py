"""What is small on its way to its final name: many at once, each durable before anybody is told.

The order holds for each: its content, a sync of that, its name, a sync of its folder. What is shared is a hop to a
thread and back, and the sync of a folder that several of them went to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from mirror.stores.disk import Disk
from mirror.stores.files import let_go
from mirror.stores.workers import Uninterrupted

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_TOGETHER = 64
"""So many at most go in one hop: the last one's caller waits for the first one's sync."""

_HOPS = 4
"""At once: more threads wait for one another more than for the disk."""


class Publication(Protocol[T_co]):
    """A small file: its steps, each of which blocks. After one that fails no other is taken; it cleans up itself."""

    @property
    def folder(self) -> str:
        """Where it goes, relative to the root."""
        ...

    def write(self) -> None:
        """Write the content, under a name that nobody looks at."""
        ...

    def sync(self) -> None:
        """Make the content durable."""
        ...

    def place(self, folder: int) -> T_co:
        """Give it its final name in the folder that is open there."""
        ...


class Publisher:
    """Publishes on a disk. Where nobody waits for it, without a thread."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._waiting: list[_Job] = []
        self._hops = 0
        self._called = False

    async def publish(self, publication: Publication[T], *, brief: bool) -> T:
        """Publish, and return what :meth:`Publication.place` did. ``brief``: to write it takes no time worth a thread.

        Whoever is cancelled meanwhile goes on only after the end. Raises what a step raised; then nothing is promised.
        """
        if not self._disk.is_durable:
            alone = partial(self._alone, publication)
            return await (self._disk.brief(alone) if brief else self._disk.start(alone))
        job = _Job(publication)
        done = job.done = Uninterrupted(loop=asyncio.get_running_loop())
        self._waiting.append(job)
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._send)
        await done
        return cast("T", job.outcome())

    async def publish_alone(self, publication: Publication[T]) -> T:
        """As :meth:`publish`, for what is large: in a hop of its own."""
        return await self._disk.start(partial(self._alone, publication))

    def _alone(self, publication: Publication[T]) -> T:
        """Blocks."""
        publication.write()
        publication.sync()
        folder = self._disk.open_folder(publication.folder, create=True)
        try:
            result = publication.place(folder)
            self._disk.sync_folder(folder)
        finally:
            let_go(folder)
        return result

    def _send(self) -> None:
        """Share out what waits among the threads that are free; the rest goes with the next that is."""
        self._called = False
        while self._waiting and (free := _HOPS - self._hops) > 0:
            size = min(_TOGETHER, -(-len(self._waiting) // free))
            jobs, self._waiting = self._waiting[:size], self._waiting[size:]
            try:
                hop = self._disk.start(partial(self._together, jobs))
            except RuntimeError as error:  # the system gives no thread
                self._end(jobs, error)
            else:
                self._hops += 1
                hop.add_done_callback(partial(self._sent, jobs))

    def _sent(self, jobs: list[_Job], hop: asyncio.Future[None]) -> None:
        self._hops -= 1
        self._end(jobs, hop.exception())
        self._send()

    def _end(self, jobs: list[_Job], error: BaseException | None) -> None:
        for job in jobs:
            job.error = job.error or error
            if job.done is not None:
                job.done.set_result(None)

    def _together(self, jobs: list[_Job]) -> None:
        """Blocks."""
        folders: dict[str, list[_Job]] = {}
        for job in jobs:
            if job.go_on(job.publication.write) and job.go_on(job.publication.sync):
                folders.setdefault(job.publication.folder, []).append(job)
        for folder, those in folders.items():
            self._place(folder, those)

    def _place(self, folder: str, jobs: list[_Job]) -> None:
        try:
            there = self._disk.open_folder(folder, create=True)
            try:
                for job in jobs:
                    job.go_on(partial(job.place, there))
                self._disk.sync_folder(there)
            finally:
                let_go(there)
        except Exception as error:  # noqa: BLE001  each caller gets it: none of their names may be durable
            for job in jobs:
                job.error = job.error or error


class _Job:
    """A publication under way: ``error`` is what ended it, if something did."""

    def __init__(self, publication: Publication[Any]) -> None:
        self.publication = publication
        self.error: BaseException | None = None
        self.done: Uninterrupted[None] | None = None
        self._result: Any = None

    def place(self, folder: int) -> None:
        self._result = self.publication.place(folder)

    def go_on(self, step: Callable[[], None]) -> bool:
        """Take a step; False where it failed, and no other is to follow."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001  its caller gets it
            self.error = error
        return self.error is None

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._result
