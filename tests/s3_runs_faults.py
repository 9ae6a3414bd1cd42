"""Runs a table of a bucket's failures through its sink; a row is what goes wrong, and the end it must come to.

The rows of a table run at the same time against one server, each in a folder of its own, since what they do most is
wait. When a row has come to its end the fault is lifted and the file stored again: whatever happened must not stand in
the way of that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mirror.errors import MirrorError, Severity
from mirror.events import Event, Retrying
from mirror.models import Receipt
from mirror.stores import Target
from mirror.stores.local import LocalStore
from mirror.stores.s3.store import S3Store
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault
from tests.s3.proxy import FaultProxy
from tests.s3.seen import Seen
from tests.store_contract import SMALL, bring, head_of
from tests.store_places import MIB, credentials, settings_for

T = TypeVar("T")

TARGET = Target(identity="http://o/film", folder="p", names=("film.mp4", "film-1.mp4"), prompt_id="p")

ATTEMPTS = 2
on_ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)

_AT_ONCE = 12
_LONGEST = 180  # seconds, where a few are much: what loops must not hang the tests

Fails = tuple[str, Fault, int]
"""An operation, what happens to it, and how often."""


@dataclass(frozen=True, eq=False)
class Row:
    """``error`` is what the sink raises, None where it succeeds all the same; ``says`` stands in its message.

    ``asked`` are the numbers of requests, by operation; ``pause`` is the least that is waited before one is repeated.
    """

    name: str
    fails: Sequence[Fails]
    asked: Mapping[str, int]
    error: type[MirrorError] | None = None
    severity: Severity = Severity.ITEM
    says: Sequence[str] = ()
    pause: float = 0.0
    body: bytes = field(default=SMALL, repr=False)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def folder(self) -> str:
        return str(self).replace(",", "")


@dataclass(frozen=True)
class End:
    """What came of a row: of the first run, and what stood there after the second one."""

    error: MirrorError | None
    receipt: Receipt | None
    asked: Counter[str]
    pauses: list[float]
    files: dict[str, bytes]
    uploads: int
    later_files: dict[str, bytes]
    later_uploads: int


def table(rows: Sequence[Row], bucket: Bucket, root: Path) -> dict[str, End]:
    """Run the rows, each to its end; by name. ``bucket`` is the real one."""
    with FaultProxy(bucket.server.endpoint, ca_file=bucket.server.ca_file) as proxy:
        running = _Table(bucket, proxy)
        ends = in_store(
            bucket.through(proxy), root, lambda store: running.all(store, rows), observer=running.events.append
        )
    assert list((root / ".mirror" / "parts").iterdir()) == [], "a journal is left on disk"
    return ends


class _Table:
    def __init__(self, bucket: Bucket, proxy: FaultProxy) -> None:
        self._bucket = bucket
        self._proxy = proxy
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._read: dict[tuple[str, str], bool] = {}
        self.events: list[Event] = []

    async def all(self, store: S3Store, rows: Sequence[Row]) -> dict[str, End]:
        ends = await asyncio.gather(*(self._one(store, row) for row in rows))
        return dict(zip([row.name for row in rows], ends, strict=True))

    async def _one(self, store: S3Store, row: Row) -> End:
        async with self._room, asyncio.timeout(_LONGEST):
            target = Target(identity=f"http://o/{row.folder}", folder=row.folder, names=("film.mp4", "film-1.mp4"))
            broken = [True]
            for operation, fault, times in row.fails:

                def met(seen: Seen, which: str = operation) -> bool:
                    return broken[0] and seen.operation == which and self._is_about(seen, row)

                self._proxy.fault(met, fault, times)
            error, receipt = None, None
            try:
                receipt = await store_file(store, target, row.body)
            except MirrorError as caught:
                error = caught
            asked = Counter(seen.operation for seen in self._proxy.requests if self._is_about(seen, row))
            where = f"s3://{self._bucket.name}/{row.folder}/"
            retries = [event for event in self.events if isinstance(event, Retrying)]
            pauses = [retry.seconds for retry in retries if retry.what.startswith(where)]
            files, uploads = await asyncio.to_thread(self._look, row)
            broken[0] = False
            await store_file(store, target, row.body)
            return End(error, receipt, asked, pauses, files, uploads, *await asyncio.to_thread(self._look, row))

    def _is_about(self, seen: Seen, row: Row) -> bool:
        return (seen.key or seen.params.get("prefix", "")).startswith(f"{row.folder}/")

    def _look(self, row: Row) -> tuple[dict[str, bytes], int]:
        """What stands there; an object is read once."""
        prefix, client = f"{row.folder}/", self._bucket.server.client()
        listed = client.list_objects_v2(Bucket=self._bucket.name, Prefix=prefix).get("Contents", [])
        found = {}
        for item in listed:
            which = item["Key"], item["ETag"]
            if which not in self._read:
                answer = client.get_object(Bucket=self._bucket.name, Key=item["Key"])
                self._read[which] = answer["Body"].read() == row.body
            found[item["Key"].removeprefix(prefix)] = row.body if self._read[which] else b"others"
        return found, sum(upload["Key"].startswith(prefix) for upload in self._bucket.uploads())


async def store_file(store: S3Store, target: Target, body: bytes) -> Receipt:
    """A file comes in and is recorded; what cannot be stored is let go of."""
    sink = await store.sink(target)
    try:
        receipt = await bring(sink, body, head_of(body))
    finally:
        await sink.close()
    await store.settle(target.identity)
    return receipt


def in_store(
    bucket: Bucket,
    root: Path,
    act: Callable[[S3Store], Awaitable[T]],
    *,
    s3: dict[str, Any] | None = None,
    memory: int = 32 * MIB,
    observer: Callable[[Event], object] = lambda _: None,
) -> T:
    """What a process does with the store in this bucket, from its opening to its end."""
    settings = settings_for(root, bucket, s3, attempts=ATTEMPTS)

    def tell(event: Event, /) -> None:
        observer(event)

    async def run() -> T:
        local = LocalStore(settings)
        local.open()
        store = S3Store(settings, local.disk, tell, memory)
        try:
            async with asyncio.timeout(_LONGEST):
                await store.open()
                return await act(store)
        finally:
            await store.close()
            local.close()

    with credentials(bucket):
        return asyncio.run(run())


def asked(proxy: FaultProxy, operation: str) -> list[Seen]:
    return [seen for seen in proxy.requests if seen.operation == operation]


def stored(through: Bucket, root: Path, body: bytes, **how: Any) -> Receipt:
    """A file is stored in a process of its own."""
    return in_store(through, root, lambda store: store_file(store, TARGET, body), **how)


def is_there(bucket: Bucket, body: bytes) -> bool:
    return bucket.read() == {"p/film.mp4": body} and bucket.uploads() == []
