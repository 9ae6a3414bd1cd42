"""Failed calls: each kind of file-system call in turn fails, once or from there on, and the archive stays true.

Each run tries a sample of the kinds, `MIRROR_TORTURE_SEED` chooses another one. `MIRROR_TORTURE=all` tries every call
with every error, `MIRROR_TORTURE=kinds` each kind of call with one.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manifests.document import decode
from tests.helpers import sha256
from tests.origin import Origin
from tests.s3.bucket import Bucket
from tests.torture.ground import IDS, JOBS, Ground, Job
from tests.torture.trials import ERRORS, Call, Ended, Fault, Server, Shim

ALL = os.environ.get("MIRROR_TORTURE") == "all"
SAMPLE = "MIRROR_TORTURE" not in os.environ
SEED = int(os.environ.get("MIRROR_TORTURE_SEED", "1"))

BUG = ("Traceback", "a bug", "Exception ignored", "never retrieved", "was never awaited", "Timeout (")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    if not sys.platform.startswith("linux"):
        pytest.skip("the shim knows the calls of Linux's libc")
    try:
        return Shim(tmp_path_factory.mktemp("shim"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler that makes the shim: {error}")


@pytest.fixture
def ground(origin: Origin, tmp_path: Path) -> Ground:
    return Ground(origin, tmp_path)


@pytest.fixture
def server(shim: Shim, tmp_path: Path) -> Iterator[Server]:
    with Server(shim, tmp_path / "server") as running:
        yield running


class Campaign:
    """One command, tried again and again on copies of one archive."""

    def __init__(self, job: Job, ground: Ground, server: Server) -> None:
        self.job = job
        self.ground = ground
        self.server = server
        self.root = ground.folder / "root"
        self.template = ground.folder / "template"
        job.prepare(ground, self.template)
        self.codes: collections.Counter[tuple[str, int]] = collections.Counter()
        self.missed = 0

    def run(self, *arguments: str, fault: Fault | None = None) -> Ended:
        return self.server.run(arguments, self.ground.environ(self.root, self.job), self.root, fault)

    def begin(self, fault: Fault | None) -> Ended:
        shutil.rmtree(self.root, ignore_errors=True)
        if self.template.exists():
            shutil.copytree(self.template, self.root)
        return self.run(*self.job.arguments, fault=fault)

    def found(self, fault: Fault) -> Iterator[str]:
        """What is wrong after a command with this fault, and after the next one."""
        ended = self.begin(fault)
        if not ended.hit:
            self.missed += 1
            return
        self.codes[fault.error, ended.code] += 1
        yield from self.told_badly(fault, ended)
        yield from self.flaws()
        for arguments, codes in self.afterwards():
            done = self.run(*arguments)
            if done.code not in codes:
                yield f"then {arguments[0]} ends with {done.code}: {done.err[-700:]}{done.out}"
        yield from self.missing()

    def afterwards(self) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """The next run, and each time or now and then who looks at it; with the exit codes that are right."""
        yield self.job.arguments, self.job.again
        if self.job.arguments[0] not in ("fetch", "sync"):
            yield ("fetch", *IDS), (0,)
        if ALL or self.codes.total() % 8 == 1:
            yield ("verify",), (0,)
            yield ("status",), (0,)

    def flaws(self) -> Iterator[str]:
        return self.ground.flaws(self.root, self.job)

    def missing(self) -> Iterator[str]:
        return self.ground.missing(self.root)

    def told_badly(self, fault: Fault, ended: Ended) -> Iterator[str]:
        if ended.code not in (0, 3, 4):
            yield f"exit code {ended.code}: {ended.err[-700:]}"
        if any(word in ended.err for word in BUG):
            yield f"a traceback: {ended.err[-700:]}"
        if ended.code == 4 and not self.says(fault, ended.err):
            yield f"it does not say what happened, or where: {ended.err}"

    def says(self, fault: Fault, told: str) -> bool:
        where = (str(self.root), *(f"{each}/" for each in IDS))
        what = (os.strerror(ERRORS[fault.error]), "catalog")
        return any(word in told for word in where) and any(word in told for word in what)


class Uploads(Campaign):
    """From the disk into a bucket that is empty each time; with so little memory 9 MiB go in parts."""

    def __init__(self, bucket: Bucket, ground: Ground, server: Server) -> None:
        environ = (*bucket.environ.items(), ("MIRROR_TRANSFER_MEMORY", "64M"))
        super().__init__(Job("upload", ("fetch", *IDS), Ground.complete, environ=environ), ground, server)
        self.bucket = bucket

    def begin(self, fault: Fault | None) -> Ended:
        client, name = self.bucket.server.client(), self.bucket.name
        keys = self.bucket.keys()
        for key in keys:
            client.delete_object(Bucket=name, Key=key)
        for upload in self.bucket.uploads():
            client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
        return super().begin(fault)

    def flaws(self) -> Iterator[str]:
        yield from super().flaws()
        objects = self.bucket.read()
        for name, body in objects.items():
            if name.endswith("/manifest.json"):
                folder = name.partition("/")[0]
                yield from (
                    f"{name} in the bucket says that {file.path} is there"
                    for file in decode(body).files
                    if file.s3 is not None and sha256(objects.get(f"{folder}/{file.path}", b"")) != file.sha256
                )
            elif body != self.ground.bodies[name]:
                yield f"{name} in the bucket has other bytes"

    def missing(self) -> Iterator[str]:
        yield from super().missing()
        manifests = {f"{prompt_id}/manifest.json" for prompt_id in IDS}
        objects = self.bucket.read()
        if objects.keys() != self.ground.bodies.keys() | manifests:
            yield f"the bucket has {sorted(objects)}"
        if uploads := self.bucket.uploads():
            yield f"the bucket has unfinished uploads: {uploads}"


def run_all(campaign: Campaign, shim: Shim, most: int) -> None:
    """Every fault of the sample: at most so many of it, chosen by the seed."""
    print(f"MIRROR_TORTURE_SEED={SEED}")
    job = campaign.job
    calls = campaign.begin(None).calls
    luck = random.Random(SEED)
    faults = [fault for call in calls for fault in shim.faults(call)] if ALL else shim.sample(calls, luck)
    if SAMPLE:
        faults = luck.sample(faults, min(most, len(faults)))
    wrong = []
    for number, fault in enumerate(faults):
        if number % 20 == 19:
            print(f"{job.name}: {number} of {len(faults)}: {campaign.codes}", flush=True)
        if found := list(campaign.found(fault)):
            wrong.append(fault)
            print("\n  ".join([f"{job.name}: {fault}", *found]), flush=True)
    print(f"{job.name}: {len(calls)} calls, {len(faults)} faults, {campaign.missed} not reached, {campaign.codes}")
    assert wrong == []


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_no_call_that_fails_makes_it_lie(job: Job, ground: Ground, server: Server, shim: Shim) -> None:
    run_all(Campaign(job, ground, server), shim, most=8 if job.name == "fetch" else 3)


@pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
def test_no_call_that_fails_makes_the_bucket_lie(
    bucket: Bucket, origin: Origin, tmp_path: Path, server: Server, shim: Shim
) -> None:
    run_all(Uploads(bucket, Ground(origin, tmp_path, size=9 << 20), server), shim, most=3)


@pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
def test_an_upload_whose_journal_cannot_be_read_is_not_forgotten(
    bucket: Bucket, origin: Origin, tmp_path: Path, server: Server
) -> None:
    """It is all that names what lies in the bucket, and costs money there."""
    campaign = Uploads(bucket, Ground(origin, tmp_path, size=9 << 20), server)
    calls = campaign.begin(None).calls
    noted = [call for call in calls if call.kind == ("fsync", ".mirror/parts/*.upload")][1]
    assert campaign.begin(Fault(noted, "EIO", sticky=False)).code == 4
    begun = [upload["UploadId"] for upload in bucket.uploads()]
    assert len(begun) == 1

    blind = campaign.run(*campaign.job.arguments, fault=Fault(Call("open", noted.path, 1, 0), "EIO", sticky=False))
    assert blind.code == 4
    assert f"{noted.path}: Input/output error" in blind.err
    assert [upload["UploadId"] for upload in bucket.uploads()] == begun
    assert campaign.run(*campaign.job.arguments).code == 0
    assert list(campaign.missing()) == []


def test_bytes_whose_sync_failed_are_not_believed(ground: Ground, server: Server) -> None:
    """The kernel may call their pages clean: a second sync succeeds, and what reads well is gone with the cache."""
    campaign = Campaign(JOBS[0], ground, server)
    calls = campaign.begin(None).calls
    [journal] = {call.path for call in calls if call.kind == ("fsync", ".mirror/parts/*.journal")}
    part = journal.replace(".journal", ".part")
    [sync] = [call for call in calls if call.name == "fsync" and call.path == part]
    assert lock_of(campaign).stat().st_size == 0, "all that a run wrote is durable when it has ended well"

    ended = campaign.begin(Fault(sync, "EIO", sticky=False))
    assert (ended.code, ended.hit) == (4, 1), ended.err
    assert not (campaign.root / part).exists()
    assert lock_of(campaign).stat().st_size > 0, "the next run is told"

    ground.origin.clear()
    assert campaign.run(*campaign.job.arguments).code == 0
    assert [request.headers.get("range") for request in ground.origin.media_requests if "large" in request.path] == [
        None
    ]
    assert list(campaign.missing()) == []
    assert lock_of(campaign).stat().st_size == 0


def lock_of(campaign: Campaign) -> Path:
    """Filled while a run is under way, and where one ended with something that may not be durable."""
    return campaign.root / ".mirror" / "lock"
