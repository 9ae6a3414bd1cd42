"""What the tests of the store contract share: a file on its way into a place, as a transfer brings it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import msgspec
import pytest

from mirror.errors import Changed
from mirror.models import ManifestFile, Receipt, Role
from mirror.stores import Head, Sink, Store, Target
from tests import media
from tests.store_places import MIB, Place

T = TypeVar("T")

PIECE = 700_001
"""Bytes that are written at once: no divisor of anything."""

SMALL = media.blob(200_000, seed=1)
LARGE = media.blob(8 * MIB + 1, seed=2)
"""Two parts."""
LARGER = media.blob(11 * MIB, seed=3)
"""Three parts: one can be there for certain, one on its way, and one in memory."""

small_and_large = pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
_numbers = count()


@dataclass
class Case:
    """A folder of a place for one test, and what a run does there."""

    place: Place
    folder: str
    before: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.place.files(self.folder)

    @property
    def read_back(self) -> dict[str, bytes]:
        return self.place.read_back(self.folder)

    @property
    def unfinished(self) -> list[str]:
        """What is not published, and was not there when the test began."""
        return [name for name in self.place.unfinished() if name not in self.before]

    def run(self, act: Callable[[Store], Awaitable[T]]) -> T:
        return self.place.run(act)

    def target(self, *names: str, sha256: str | None = None, which: str = "film", folder: str = "") -> Target:
        return Target(
            identity=f"http://o/{self.folder}/{which}.mp4",
            folder=folder or self.folder,
            names=names or ("film.mp4", "film-1.mp4"),
            sha256=sha256,
            prompt_id=self.folder,
        )

    def put(self, name: str, body: bytes) -> None:
        self.place.put(self.folder, name, body)

    def store(
        self, body: bytes, head: Head | None = None, target: Target | None = None, *, settled: bool = True
    ) -> Receipt:
        """A file comes in, as a transfer does it, and is recorded unless the process ends before."""
        wanted = target or self.target()

        async def act(store: Store) -> Receipt:
            sink = await store.sink(wanted)
            try:
                receipt = await bring(sink, body, head or head_of(body))
            finally:
                await sink.close()
            await sink.close()  # once more does no harm
            if settled:
                await store.settle(wanted.identity)
            return receipt

        return self.run(act)

    def leave(self, body: bytes, size: int, head: Head | None = None, target: Target | None = None) -> None:
        """A process that gets so many bytes, and ends."""

        async def act(store: Store) -> None:
            sink = await store.sink(target or self.target())
            await sink.begin(head or head_of(body))
            await write(sink, body[:size])
            await sink.close()

        self.run(act)
        self.place.restart()


def new_case(place: Place) -> Case:
    """A folder that no other test uses."""
    return Case(place, f"prompt-{next(_numbers)}", place.unfinished())


def head_of(body: bytes, **told: Any) -> Head:
    """What an origin says of a body."""
    facts = {"etag": '"v1"', "last_modified": "Wed, 28 Jan 2026 10:03:40 GMT", "content_type": "video/mp4"}
    return Head(**{"length": len(body), **facts, **told})


async def write(sink: Sink, body: bytes, at: int = 0) -> None:
    """A body from some offset on, in pieces."""
    while at < len(body):
        await sink.write(at, body[at : at + PIECE])
        at += PIECE


async def bring(
    sink: Sink, body: bytes, head: Head, *, meanwhile: Callable[[], None] = lambda: None, again: bool = False
) -> Receipt:
    """Write what is not held, and commit. Where the sink says that it must start over, once more, as a transfer does.

    ``meanwhile`` happens before the first commit; ``again`` writes what is held, too, as an upload from disk does.
    """
    for _ in range(3):
        try:
            if sink.committed is not None:
                return sink.committed
            if sink.head != head:
                await sink.begin(head)
            await write(sink, body, 0 if again else sum(span.size for span in sink.written()))
            await asyncio.to_thread(meanwhile)
            return await sink.commit()
        except Changed:
            await sink.abort()
            meanwhile = _nothing
    raise AssertionError("it starts over for ever")


def _nothing() -> None:
    pass


def entry_of(receipt: Receipt, target: Target) -> ManifestFile:
    """A stored file as the manifest has it."""
    facts = {name: getattr(receipt, name) for name in Receipt.__struct_fields__}
    return ManifestFile(role=Role.ORIGIN, url=target.identity, **facts)


def checks_of(body: bytes) -> dict[str, str]:
    """What an origin may state of a body, by the name of the check."""
    digests = {
        f"etag-{name}" if name == "md5" else name: hashlib.new(name, body).hexdigest() for name in ("md5", "sha1")
    }
    return {**digests, "sha256": hashlib.sha256(body).hexdigest()}


def without_checksum(receipt: Receipt) -> Receipt:
    """A receipt without the store's own checksum: not every answer to a write tells it."""
    where = msgspec.structs.replace(receipt.s3, checksum_sha256=None) if receipt.s3 is not None else None
    return msgspec.structs.replace(receipt, s3=where)
