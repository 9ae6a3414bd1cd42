"""Parts of a large file: what the bucket holds is not sent twice, what changed on its way is, and memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.errors import ChecksumMismatch, MirrorError, Severity, StoreUnavailable
from mirror.models import Receipt
from mirror.stores import Target
from mirror.stores.s3.store import S3Store
from tests.helpers import sha256
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3_runs_faults import TARGET, asked, in_store, is_there, on_ministack, store_file, stored
from tests.store_contract import LARGE, LARGER, SMALL, bring, head_of, write
from tests.store_places import MIB, PART


@pytest.fixture
def through(bucket: Bucket, proxy: FaultProxy) -> Bucket:
    return bucket.through(proxy)


class TestResumed:
    @pytest.fixture(autouse=True)
    def _left(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        """A process got two parts and a byte, and ended."""

        async def act(store: S3Store) -> None:
            sink = await store.sink(TARGET)
            await sink.begin(head_of(LARGER))
            await write(sink, LARGER[: 2 * PART + 1])
            await sink.close()

        in_store(through, root, act)
        proxy.clear()

    @pytest.mark.parametrize(
        ("bucket", "again"), [("swift", False), ("ministack", False), ("ministack", True)], indirect=["bucket"]
    )
    def test_what_the_bucket_holds_is_not_sent_twice(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, again: bool
    ) -> None:
        async def act(store: S3Store) -> Receipt:
            sink = await store.sink(TARGET)
            receipt = await bring(sink, LARGER, head_of(LARGER), again=again)
            await sink.close()
            return receipt

        assert in_store(through, root, act).sha256 == sha256(LARGER)
        sent = {seen.params["partNumber"] for seen in asked(proxy, "UploadPart")}
        assert "1" not in sent
        assert "3" in sent
        assert proxy.count("GetObject") == (0 if again else 1)  # read back once, for its digest
        assert is_there(bucket, LARGER)

    @on_ministack
    def test_reading_back_goes_on_where_it_broke(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        proxy.fault("GetObject", faults.cut_answer(3 * MIB))
        proxy.fault("GetObject", faults.answer(503, "SlowDown"))
        assert stored(through, root, LARGER).sha256 == sha256(LARGER)
        ranges = [seen.headers.get("range") for seen in asked(proxy, "GetObject")]
        assert len(ranges) == 3
        assert ranges[0] is None
        assert ranges[1] == ranges[2]
        assert ranges[2] is not None
        assert ranges[2].startswith("bytes=")
        assert len({seen.headers["if-match"] for seen in asked(proxy, "GetObject")}) == 1
        assert is_there(bucket, LARGER)

    @on_ministack
    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            (faults.answer(412, "PreconditionFailed"), "changed while it was read"),
            (faults.answer(503, "SlowDown"), "cannot be read back"),
        ],
        ids=["changed", "busy"],
    )
    def test_what_cannot_be_read_back_fails_this_file_only(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, fault: Fault, says: str
    ) -> None:
        proxy.fault("GetObject", fault, FOREVER)
        with pytest.raises(StoreUnavailable, match=says) as caught:
            stored(through, root, LARGER)
        assert caught.value.severity is Severity.ITEM
        assert stored(bucket, root, LARGER).sha256 == sha256(LARGER)  # the next run
        assert is_there(bucket, LARGER)


POLICIES: dict[str, dict[str, str]] = {
    "sha256": {"x-amz-checksum-sha256": "A" * 43 + "="},
    "crc64nvme": {"x-amz-checksum-crc64nvme": "A" * 11 + "="},
    "when_required": {"ETag": f'"{"0" * 32}"'},
}
"""What in an answer says, under each policy, that other bytes came there."""


@on_ministack
@pytest.mark.parametrize(
    ("policy", "body"),
    [("sha256", SMALL), ("crc64nvme", SMALL), ("when_required", SMALL), ("sha256", LARGE)],
    ids=["sha256", "crc64nvme", "when_required", "large"],
)
class TestChecksums:
    def test_bytes_that_change_on_their_way_are_sent_again(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, policy: str, body: bytes
    ) -> None:
        operation = "PutObject" if body is SMALL else "UploadPart"
        proxy.fault(operation, faults.corrupt_upload(100_000))
        stored(through, root, body, s3={"checksum": policy})
        assert asked(proxy, operation)[0].upstream == 400
        assert is_there(bucket, body)

    def test_an_answer_that_says_otherwise_is_not_believed(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, policy: str, body: bytes
    ) -> None:
        operation = "PutObject" if body is SMALL else "UploadPart"

        def lying(headers: dict[str, str]) -> dict[str, str]:
            told = {name.lower(): value for name, value in POLICIES[policy].items()}
            return {name: value for name, value in headers.items() if name.lower() not in told} | POLICIES[policy]

        proxy.fault(operation, faults.edit_response_headers(lying))
        stored(through, root, body, s3={"checksum": policy})
        assert proxy.count(operation) == (2 if body is SMALL else 3)
        assert is_there(bucket, body)


@contextlib.contextmanager
def held(proxy: FaultProxy, operation: str, times: int) -> Iterator[None]:
    """The first so many are kept from the server until the block ends."""
    proxy.fault(operation, faults.hold(), times)
    try:
        yield
    finally:
        proxy.release()


@on_ministack
class TestMemory:
    """However many files come at once, their parts take no more than they are given, and none waits for ever."""

    def test_no_more_is_taken_in_than_fits(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        budget, many = 11 * MIB, 4
        taken = dict.fromkeys(range(many), 0)

        async def take_in(store: S3Store, number: int) -> None:
            target = Target(identity=f"i{number}", folder="p", names=(f"{number}.mp4",))
            sink = await store.sink(target)
            await sink.begin(head_of(LARGE))
            for at in range(0, len(LARGE), 100_000):
                await sink.write(at, LARGE[at : at + 100_000])
                taken[number] = min(at + 100_000, len(LARGE))
            await sink.commit()
            await sink.close()
            await store.settle(target.identity)

        async def act(store: S3Store) -> int:
            with held(proxy, "UploadPart", 1):
                async with asyncio.TaskGroup() as group:
                    for number in range(many):
                        group.create_task(take_in(store, number))
                    await asyncio.to_thread(proxy.wait_for, lambda: proxy.count("UploadPart") == 1)
                    while sum(taken.values()) <= PART:
                        await asyncio.sleep(0.01)
                    for _ in range(20):  # what could go on without the part on hold does so now
                        await asyncio.sleep(0.01)
                    most = sum(taken.values())
                    proxy.release()
            return most

        assert PART < in_store(through, root, act, memory=budget) <= budget
        assert bucket.read() == {f"p/{number}.mp4": LARGE for number in range(many)}
        assert bucket.uploads() == []

    @pytest.mark.parametrize("budget", [1, PART, PART + len(SMALL)])
    def test_little_is_enough(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, budget: int
    ) -> None:
        bodies = {f"p/{number}.mp4": LARGE if number % 3 == 0 else SMALL for number in range(9)}
        proxy.fault("UploadPart", faults.answer(503, "SlowDown"))
        proxy.fault("PutObject", faults.answer(400, "BadDigest"))

        async def act(store: S3Store) -> None:
            async with asyncio.TaskGroup() as group:
                for key, body in bodies.items():
                    target = Target(identity=key, folder="p", names=(key.removeprefix("p/"),))
                    group.create_task(store_file(store, target, body))

        in_store(through, root, act, memory=budget)
        assert bucket.read() == bodies
        assert bucket.uploads() == []

    def test_what_failed_gives_back_what_it_took(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        """With room for one: a failure that kept its room would stop the next file for ever."""
        operations = ("PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload", "HeadObject")

        async def act(store: S3Store) -> None:
            for operation in operations:
                proxy.fault(operation, faults.answer(403, "EntityTooLarge"))
                target = Target(identity=operation, folder="q", names=(operation,))
                with pytest.raises(MirrorError):
                    await store_file(store, target, SMALL if operation == "PutObject" else LARGE)
            sink = await store.sink(TARGET)
            with pytest.raises(ChecksumMismatch):
                await bring(sink, SMALL, head_of(SMALL, checks={"sha256": "00"}))
            await sink.begin(head_of(LARGE))
            await write(sink, LARGE[: PART + 1])
            await sink.abort()
            await sink.begin(head_of(SMALL))
            await write(sink, SMALL)
            await sink.close()
            await store_file(store, TARGET, LARGE)

        in_store(through, root, act, memory=PART)
        assert bucket.read() == {"p/film.mp4": LARGE}
        assert proxy.unused == 0
