"""Kill -9 at any moment of a large transfer into a bucket: the next run goes on, and ends with the right object.

`MIRROR_S3_KILL_TRIALS` sets the number of kills on each server, `MIRROR_S3_KILL_SEED` repeats a campaign; a failure
names its seed.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests import faults, media
from tests.conftest import Archive
from tests.crash_runs import ShortPipe
from tests.helpers import large_prompt, running, sha256
from tests.origin import Origin
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault, hold
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3_runs_e2e import MIB, Ground, named, told_by_store

pytestmark = pytest.mark.usefixtures("unmeasured")

TRIALS = int(os.environ.get("MIRROR_S3_KILL_TRIALS", "2"))
SEED = int(os.environ.get("MIRROR_S3_KILL_SEED", str(random.randrange(1 << 32))))

SIZE = 100_000_000


@pytest.fixture
def origin() -> Iterator[Origin]:
    with ShortPipe() as running_origin:
        yield running_origin


@functools.cache
def body_of(size: int) -> bytes:
    return media.mp4(size, seed=100)


class Campaign:
    """One file, killed on its way and fetched to the end; a bucket prefix and a root for each trial."""

    def __init__(self, archive: Archive, bucket: Bucket, luck: random.Random) -> None:
        self.origin = archive.origin
        self.parent = archive.root
        self.bucket = bucket
        self.luck = luck
        self.body = body_of(SIZE)
        self.told: list[str] = []

    def trial(self, number: int) -> bool:
        """True where the kill came before the run had ended: that of the first trial, whose file waits for it, does."""
        archive = Archive(self.parent / str(number), self.origin)
        command = ("fetch", "p", "--s3-only", "--s3", f"s3://{self.bucket.name}/{number}")
        key = f"{number}/p/large.mp4"
        self.origin.clear()
        is_held = number == 0
        after, late = self.luck.randrange(SIZE), not is_held and self.luck.random() < 0.25
        large_prompt(self.origin, "p", self.body, faults.hold_after(after) if is_held else None)
        pause = self.luck.uniform(0, 0.2 if late else 0.02)
        with running(
            archive, *command, environ=self.bucket.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            wanted = SIZE if late else after  # late ones land in the completion, or in what follows it
            self.origin.wait_for(lambda: process.poll() is not None or self.origin.body_bytes("/p") >= wanted, 300)
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            killed = process.wait() == -signal.SIGKILL
        before = self.origin.body_bytes("/p")
        published = self.bucket.read(key)
        assert published in ({}, {key: self.body})
        uploads = len(self.bucket.uploads())

        done = archive.run(*command, environ=self.bucket.environ)
        assert (done.code, done.err.count("Traceback")) == (0, 0)
        objects = self.bucket.read(f"{number}/")
        assert objects.keys() == {key, f"{number}/p/manifest.json"}
        assert objects[key] == self.body
        assert self.bucket.uploads() == []
        sent = self.origin.body_bytes("/p")
        self.told.append(f"{before}+{sent - before} bytes, {uploads} uploads left, published: {bool(published)}")
        assert sent <= 1.2 * SIZE
        return killed

    def check_manifest(self, number: int) -> None:
        ground_key = f"{number}/p/manifest.json"
        assert sha256(self.body).encode() in self.bucket.read(ground_key)[ground_key]


def test_no_kill_makes_it_lose_or_leave_anything(archive: Archive, bucket: Bucket) -> None:
    print(f"MIRROR_S3_KILL_SEED={SEED}")
    campaign = Campaign(archive, bucket, random.Random(f"{SEED} {bucket.server.kind}"))
    kills = 0
    try:
        for number in range(TRIALS):
            kills += campaign.trial(number)
            campaign.check_manifest(number)
    finally:
        print(bucket.server.kind, f"{kills} kills", *campaign.told, sep="\n  ")
    assert kills > TRIALS // 2 - 1


def test_an_upload_from_disk_goes_on_and_no_part_is_sent_twice(
    archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"MIRROR_S3_KILL_SEED={SEED}")
    ground = Ground.prepared(archive, bucket, proxy, monkeypatch)
    parts = random.Random(SEED).randrange(1, 5)
    body = body_of(26 * MIB)
    large_prompt(archive.origin, "p", body)

    is_first = True

    def stored() -> list[str]:
        return [seen.params["partNumber"] for seen in ground.written() if seen.operation == "UploadPart"]

    # What is on its way when the kill comes stays on its way: nobody could tell whether the store has it.
    proxy.fault("UploadPart", Fault(), times=parts)
    proxy.fault(lambda seen: is_first and seen.operation == "UploadPart", hold(), FOREVER)
    with running(archive, "fetch", "p") as process:
        proxy.wait_for(lambda: len(stored()) == parts, timeout=60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    is_first = False
    first, uploads = stored(), bucket.uploads()
    assert bucket.keys() == []
    assert archive.files() == {"p/large.mp4": body}
    assert len(uploads) == 1

    ground.forget()
    assert archive.run("fetch", "p").code == 0
    assert ground.media() == {"p/large.mp4": body}
    assert bucket.uploads() == []
    assert archive.origin.media_requests == []
    [completed] = filter(named("CompleteMultipartUpload"), ground.written())
    assert completed.params["uploadId"] == uploads[0]["UploadId"]
    assert set(first) & set(stored()) == set()
    assert sorted(first + stored()) == [str(number) for number in range(1, 7)]
    [file] = ground.manifest("p")["files"]
    assert (file["sha256"], file["s3"]["via"]) == (sha256(body), "upload")
    assert file["s3"]["checksum_sha256"] == told_by_store(bucket, file)["checksum_sha256"]
