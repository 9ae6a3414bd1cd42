"""Kill -9 at any moment of a run into a bucket, then a run to the end: the bucket is true at every instant.

Every trial fetches many small files and two large ones (multipart), into a disk and a bucket, into a bucket alone, or
as `sync` with the catalog in the bucket; or repairs what was damaged in both. `MIRROR_S3_CRASH_TRIALS` sets the number
of trials on each server, `MIRROR_S3_CRASH_SEED` repeats a campaign; a failure names its seed.

What a kill may lose: a body that comes in has a part that is collected and one that is being sent, 5 MiB each, and a
MiB in the sockets; the body before it may still be sending its last two. So some 24 MiB in the worst case, of an
archive of 64, and half of that as a rule. On disk less, see test_crash.py. A long campaign may cost a fifth of all
archives' bytes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faults, media
from tests.conftest import Archive
from tests.crash_runs import (
    Known,
    Looker,
    Moment,
    Served,
    ShortPipe,
    Watch,
    catalog_copy,
    check_catalog,
    kill_at,
    left_in,
)
from tests.faults import FOREVER
from tests.origin import Origin
from tests.s3.bucket import Bucket
from tests.s3.looker import BucketLooker
from tests.test_sync import row

pytestmark = pytest.mark.usefixtures("unmeasured")

TRIALS = int(os.environ.get("MIRROR_S3_CRASH_TRIALS", "2"))
SEED = int(os.environ.get("MIRROR_S3_CRASH_SEED", str(random.randrange(1 << 32))))

MIB = 1 << 20
LOST = 28 * MIB
ALLOWED = 0.2
MODES = {
    "disk and bucket": (4, ("fetch", "--concurrency", "2"), {}),
    "bucket alone": (4, ("fetch", "--concurrency", "1"), {"MIRROR_S3_ONLY": "true"}),
    "sync": (2, ("sync", "--concurrency", "1"), {"MIRROR_S3_ONLY": "true", "MIRROR_S3_CATALOG": "true"}),
    "repair": (2, ("fetch", "--concurrency", "2"), {}),
}
"""How often, which command, and with which settings."""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with ShortPipe() as running_origin:
        yield running_origin


class Campaign:
    """One set of prompts; a root and a prefix of one bucket for each trial."""

    def __init__(self, archive: Archive, bucket: Bucket, luck: random.Random) -> None:
        self.parent = archive.root
        self.parent.mkdir()
        self.origin = archive.origin
        self.bucket = bucket
        self.luck = luck
        self.served = Served(archive.origin)
        for number in range(12):
            self.served.add(f"s{number}", media.mp4(luck.randrange(1_000, 200_000), seed=number))
        for number in range(2):
            body = media.mp4(luck.randrange(28 * MIB, 34 * MIB), seed=100 + number)
            self.served.add(f"l{number}", body, faults.trickle(luck.randrange(16, 40) * MIB, times=FOREVER))
        now = time.time()
        self.origin.history(
            [row(prompt_id, age=60 * n, createdAt=int(now - 60 * n)) for n, prompt_id in enumerate(self.served.ids)]
        )
        self.told: Counter[str] = Counter()
        self.kills_by_phase: Counter[str] = Counter()

    def trial(self, number: int) -> None:
        modes = list(MODES)
        mode = modes[number % 4] if TRIALS < 8 else self.luck.choices(modes, [MODES[name][0] for name in modes])[0]
        trial = Trial(self, mode, Archive(self.parent / str(number), self.origin), f"{number}/")
        self.told[mode] += 1
        trial.repair() if mode == "repair" else trial.fetch()
        shutil.rmtree(trial.archive.root)
        trial.empty()

    def tell(self) -> None:
        print(self.bucket.server.kind, dict(self.told), dict(self.kills_by_phase), sep="\n  ", flush=True)


class Trial:
    """A run that is killed, and one that ends."""

    def __init__(self, campaign: Campaign, mode: str, archive: Archive, prefix: str) -> None:
        self.campaign = campaign
        self.archive = archive
        self.luck = campaign.luck
        self.served = campaign.served
        self.origin = campaign.origin
        self.told = campaign.told
        _, self.command, environ = MODES[mode]
        told = {"MIRROR_S3_PREFIX": prefix.rstrip("/"), "MIRROR_TRANSFER_MEMORY": "64M"}  # what is large goes in parts
        self.environ = {**campaign.bucket.environ, **told, **environ}
        self.on_disk = Looker(archive.root, self.served.bodies)
        self.in_bucket = BucketLooker(campaign.bucket, prefix, self.served.bodies)
        self.prefix = prefix
        self.log = archive.root.with_name("log")

    def start(self, *command: str) -> subprocess.Popen[str]:
        ids = self.luck.sample(self.served.ids, len(self.served.ids)) if command[0] == "fetch" else ()
        told = () if command[0] == "verify" else ("--no-progress",)
        with self.log.open("w") as log:
            nowhere = subprocess.DEVNULL
            return self.archive.start(*command, *ids, *told, environ=self.environ, stdout=nowhere, stderr=log)

    def end(self, *command: str) -> None:
        code = self.start(*command).wait(300)
        told = self.log.read_text()
        assert (code, "Traceback" in told) == (0, False), told

    def moment(self) -> Moment:
        after, count = self.luck.randrange(self.served.size), self.luck.randrange(2, 3 * len(self.served.ids))
        every = len(self.served.bodies) + len(self.served.ids)
        choices = (
            (1, Moment("start-up", lambda: True, self.luck.uniform(0, 1))),
            (4, Moment("download", lambda: self.origin.body_bytes("/l") > after, self.luck.uniform(0, 0.03))),
            (2, Moment("upload", lambda: self.origin.body_bytes("/l") > after, self.luck.uniform(0, 0.3))),
            (2, Moment("objects", lambda: self.in_bucket.objects >= count, self.luck.uniform(0, 0.05))),
            (1, Moment("end", lambda: self.in_bucket.objects == every, self.luck.uniform(0, 0.1))),
        )
        return self.luck.choices([moment for _, moment in choices], [weight for weight, _ in choices])[0]

    # A fetch

    def fetch(self) -> None:
        self.origin.clear()
        moment = self.moment()
        with Watch(self.in_bucket.look, pause=0.1) as watch, Watch(self.on_disk.look, pause=0.02):
            self.note(moment, kill_at(self.start(*self.command), moment))
            self.check()
            self.end(*self.command)
        self.told["looks at the bucket"] += watch.looks
        self.check_end()
        api = sum(request.bytes_sent for request in self.origin.api_requests)
        sent = self.origin.body_bytes() - api
        self.told["bytes"] += sent
        self.told["bytes of archives"] += self.served.size
        self.told["dearest kill"] = max(self.told["dearest kill"], sent - self.served.size)
        assert sent <= self.served.size + LOST

    def note(self, moment: Moment, hit: bool) -> None:
        self.campaign.kills_by_phase[moment.phase] += hit
        self.told["kills"] += hit
        self.told["uploads left by kills"] += len(self.uploads())
        self.told.update({f"left .{suffix}": count for suffix, count in left_in(self.archive.root).items()})

    def check(self) -> None:
        """What must hold of both places, and what the catalog may say of them."""
        (written, files), (_, objects) = self.on_disk.look(), self.in_bucket.look()
        manifests, _ = self.in_bucket.look()
        catalog = self.archive.root / ".mirror" / "catalog.sqlite"
        there = {name: file.size for found in (files, objects) for name, file in found.items()}
        check_catalog(catalog, lambda name, size: there.get(name) == size, (manifests | written).__contains__)
        if catalog.exists():
            assert placed_in(catalog) <= {self.prefix + name for name in objects}

    def check_end(self) -> None:
        """All is in every place, and nothing is left over."""
        self.check()
        assert self.uploads() == []
        assert [name for name in self.archive.partials() if name.endswith((".part", ".upload"))] == []
        places = [self.in_bucket.look()]
        if "MIRROR_S3_ONLY" not in self.environ:
            places.append(self.on_disk.look())
        for manifests, files in places:
            assert (set(manifests), set(files)) == (set(self.served.ids), set(self.served.bodies))
        content = self.in_bucket.catalog()
        assert (content is not None) == ("MIRROR_S3_CATALOG" in self.environ)
        if content is not None:
            copy = self.archive.root.with_name("taken.sqlite")
            copy.write_bytes(content)
            check_catalog(copy, lambda *_: True, set(self.served.ids).__contains__)
            assert len(placed_in(copy)) == len(self.served.bodies)
            assert list((self.archive.root / ".mirror").glob("catalog.sqlite*")) == []

    def uploads(self) -> list[str]:
        return [upload["Key"] for upload in self.campaign.bucket.uploads() if upload["Key"].startswith(self.prefix)]

    def empty(self) -> None:
        """The next trial has another prefix: a store that keeps all in memory need not keep this."""
        client = self.campaign.bucket.server.client()
        for key in self.campaign.bucket.keys(self.prefix):
            client.delete_object(Bucket=self.campaign.bucket.name, Key=key)

    # A repair

    def repair(self) -> None:
        """Of either place while both are damaged; killed, and run to the end."""
        self.end(*self.command)
        harmed = self.harm()
        commands = [("verify", "--repair"), ("verify", "--s3", "--repair")]
        for command in self.luck.sample(commands, 2):
            moment = Moment("repair", lambda: True, self.luck.uniform(0.3, 1.5))
            process = self.start(*command)
            try:
                time.sleep(moment.late)
            finally:
                process.kill()
                process.wait()
            self.note(moment, process.returncode != 0)
            for files in (files_below(self.archive.root), self.in_bucket.found()[1]):
                right = {name for name, file in files.items() if isinstance(file, Known) and file.right}
                right |= {name for name, file in files.items() if file == self.served.bodies[name]}
                assert set(self.served.bodies) - right <= harmed
        for command in commands:
            self.end(*command)
        self.on_disk = Looker(self.archive.root, self.served.bodies)
        self.check_end()

    def harm(self) -> set[str]:
        """Damage and lose files on disk and objects; what is harmed in one place is whole in the other."""
        harmed = self.luck.sample(sorted(self.served.bodies), 12)
        for name in harmed[:6]:
            path = self.archive.root / name
            content = bytearray(path.read_bytes())
            content[self.luck.randrange(len(content))] ^= 0xFF
            path.write_bytes(content) if self.luck.random() < 0.7 else path.unlink()
        for name in harmed[6:]:
            key = {"Bucket": self.campaign.bucket.name, "Key": self.prefix + name}
            self.campaign.bucket.server.client().delete_object(**key)
        return set(harmed)


def files_below(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.glob("*/*") if path.parent.name[0] != "." and path.name != "manifest.json")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def placed_in(catalog: Path) -> set[str]:
    """The keys that a catalog says are in the bucket."""
    with catalog_copy(catalog) as connection:
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            return set()
        entries = [entry for (entry,) in connection.execute("SELECT entry FROM files WHERE entry IS NOT NULL")]
    return {told["s3"]["key"] for told in map(json.loads, entries) if told.get("s3")}


def test_after_any_kill_a_run_completes_the_bucket(archive: Archive, bucket: Bucket) -> None:
    print(f"MIRROR_S3_CRASH_SEED={SEED}")
    campaign = Campaign(archive, bucket, random.Random(f"{SEED} {bucket.server.kind}"))
    first = 0 if bucket.server.kind == "ministack" else 2  # so that a few trials still cover every mode
    try:
        for number in range(first, first + TRIALS):
            campaign.trial(number)
            if number % 25 == 24:
                campaign.tell()
    finally:
        campaign.tell()
    assert campaign.told["kills"] > TRIALS // 2 or TRIALS < 20
    assert campaign.told["bytes"] <= (1 + ALLOWED) * campaign.told["bytes of archives"] or TRIALS < 20
