"""Kill -9 at any moment, then a run to the end: what stands on disk is true at every instant, and little is fetched
twice.

`MIRROR_CRASH_TRIALS` sets the number of trials, `MIRROR_CRASH_SEED` repeats a campaign; a failure names its seed.

What a kill may lose: of each body that is coming in a batch that is collected, one that waits and one that is being
written (1 MiB each) and what only the sockets held (1 MiB here; without `ShortPipe` as much as the kernel takes); and
small files that were whole, but without a row. With two requests at once that is some 10 MiB in the worst case and two
or three as a rule, of an archive of 60. So each kill may cost a fifth of the archive's bytes, and the whole campaign,
in which most trials have one kill, not more than that.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from mirror import spans
from mirror.models import Span
from mirror.stores.journal import Claim, Committed, Started, journal_of
from tests import faults, media
from tests.conftest import Archive
from tests.crash_runs import (
    Looker,
    Served,
    ShortPipe,
    Watch,
    check_catalog,
    kill_at,
    left_in,
    moments,
    old_catalog,
)
from tests.faults import FOREVER, Fault, hold_after
from tests.helpers import done_prompt, mirrored, picture, running
from tests.origin import Origin, answer, task
from tests.test_sync import query

pytestmark = pytest.mark.usefixtures("unmeasured")

TRIALS = int(os.environ.get("MIRROR_CRASH_TRIALS", "4"))
SEED = int(os.environ.get("MIRROR_CRASH_SEED", str(random.randrange(1 << 32))))

MIB = 1 << 20
SMALL, LARGE = 18, 8
CONCURRENCY = 2
ALLOWED = 0.2
TOLD = ("--concurrency", str(CONCURRENCY), "--no-progress")
ENVIRON = {"MIRROR_TRANSFER_SEGMENT_SIZE": str(2 * MIB)}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with ShortPipe() as running_origin:
        yield running_origin


class Campaign:
    """One set of prompts, mirrored in every trial into a new folder."""

    def __init__(self, archive: Archive, luck: random.Random) -> None:
        self.parent = archive.root
        self.origin = archive.origin
        self.luck = luck
        self.served = Served(archive.origin)
        for number in range(SMALL):
            self.served.add(f"s{number}", media.mp4(luck.randrange(1_000, 400_000), seed=number))
        for number in range(LARGE):
            self.served.add(f"l{number}", media.mp4(luck.randrange(6 * MIB, 8 * MIB), seed=100 + number))
        self.ids = self.parent.with_name("ids.txt")
        self.told: Counter[str] = Counter()
        self.kills_by_phase: Counter[str] = Counter()

    def faults_anew(self) -> None:
        """Large originals trickle, one in ten breaks off once: kills land inside of files, not only between."""
        for prompt_id in self.served.ids:
            body = self.served.bodies[f"{prompt_id}/large.mp4"]
            slow: list[Fault] = [faults.trickle(self.luck.randrange(8, 40) * MIB, times=FOREVER)]
            broken: list[Fault] = [faults.close_after(len(body) // 2), *slow]
            self.served.again(prompt_id, broken if self.luck.random() < 0.1 else slow)

    def start(self, archive: Archive) -> subprocess.Popen[str]:
        ids = self.luck.sample(self.served.ids, len(self.served.ids))
        self.ids.write_text("\n".join(ids))
        nowhere = subprocess.DEVNULL
        return archive.start("fetch", "-i", str(self.ids), *TOLD, environ=ENVIRON, stdout=nowhere, stderr=nowhere)

    def trial(self, number: int) -> None:
        """One kill, or a few in a row; then a run to the end."""
        archive = Archive(self.parent / str(number), self.origin)
        looker = Looker(archive.root, self.served.bodies)
        self.faults_anew()
        if self.luck.random() < 0.25:
            old_catalog(archive.root / ".mirror" / "catalog.sqlite", self.luck.choice([1, 2]))
        sent, kills = 0, self.luck.choice([1, 1, 1, 1, 2, 3])
        held: dict[str, int] = {}
        with Watch(looker.look) as watch:
            for _ in range(kills):
                self.origin.clear()
                moment = moments(archive, self.served, self.luck)
                hit = kill_at(self.start(archive), moment)
                self.kills_by_phase[moment.phase] += hit
                self.told["kills"] += hit
                self.told.update({f"left .{suffix}": count for suffix, count in left_in(archive.root).items()})
                sent += self.bytes_sent(held)
                self.check(archive, looker)
                held = self.held(archive)
            self.origin.clear()
            process = self.start(archive)
            assert process.wait(300) == 0
            sent += self.bytes_sent(held)
        self.told["looks"] += watch.looks
        self.check_end(archive, looker)
        self.told["trials"] += 1
        self.told["bytes"] += sent
        worst = "dearest kill, in thousandths"
        self.told[worst] = max(self.told[worst], round(1000 * (sent / self.served.size - 1) / kills))
        assert sent <= (1 + kills * ALLOWED) * self.served.size
        if number % 5 == 0:
            self.origin.clear()
            assert self.start(archive).wait(300) == 0
            assert self.origin.requests == []
        shutil.rmtree(archive.root)

    # What must hold

    def check(self, archive: Archive, looker: Looker) -> None:
        manifests, files = looker.look()
        check_catalog(
            archive.root / ".mirror" / "catalog.sqlite",
            lambda name, size: name in files and files[name].size == size,
            lambda prompt_id: prompt_id in manifests,
        )

    def check_end(self, archive: Archive, looker: Looker) -> None:
        self.check(archive, looker)
        manifests, files = looker.look()
        assert (set(manifests), set(files)) == (set(self.served.ids), set(self.served.bodies))
        left = [name for name in archive.partials() if name.endswith((".part", ".journal"))]
        assert all(is_of_a_stored_file(archive.root / ".mirror" / "parts" / name) for name in left)
        if left:
            assert archive.run("cleanup", "--older-than", "0").code == 0
            assert archive.partials() == []

    # What is fetched

    def held(self, archive: Archive) -> dict[str, int]:
        """What the next run has to take up: the prefix that each journal claims, by path."""
        held = {}
        for path in (archive.root / ".mirror" / "parts").glob("*.journal"):
            records = journal_of(path).read()
            if records and isinstance(records[0], Started):
                claims = [Span(record.start, record.stop) for record in records if isinstance(record, Claim)]
                held[records[0].identity.removeprefix(self.origin.url)] = spans.prefix(claims)
        self.told["partials taken up"] += len(held)
        return held

    def bytes_sent(self, held: dict[str, int]) -> int:
        """How many bytes the run has fetched. What a journal claimed was not asked for again."""
        first: dict[str, int] = {}
        for request in self.origin.media_requests:
            start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            first[request.path] = min(start, first.get(request.path, start))
        assert {path: start for path, start in first.items() if start < held.get(path, 0)} == {}
        return self.origin.body_bytes() - sum(request.bytes_sent for request in self.origin.api_requests)

    def tell(self) -> None:
        ratio = self.told["bytes"] / max(1, self.told["trials"] * self.served.size)
        print(f"{self.served.size} bytes in {len(self.served.bodies)} files; bytes sent in all: {ratio:.3f} times that")
        print(dict(self.told), "kills by phase:", dict(self.kills_by_phase), sep="\n  ", flush=True)


def is_of_a_stored_file(journal: Path) -> bool:
    """All that a run leaves: a kill between a file's row and the end of its journal. `mirror cleanup` takes it away."""
    return journal.suffix == ".journal" and isinstance(journal_of(journal).read()[-1], Committed)


def test_after_any_kill_a_run_completes_the_archive(archive: Archive) -> None:
    print(f"MIRROR_CRASH_SEED={SEED}")
    campaign = Campaign(archive, random.Random(SEED))
    try:
        for number in count():
            if number >= TRIALS and campaign.told["kills"] > TRIALS // 4:  # one that comes after the end kills nothing
                break
            assert number < 10 * TRIALS
            campaign.trial(number)
            if number % 25 == 24:
                campaign.tell()
    finally:
        campaign.tell()
    assert campaign.told["bytes"] <= (1 + ALLOWED) * campaign.told["trials"] * campaign.served.size


@pytest.mark.parametrize("command", [["fetch", "p"], ["sync"]], ids=["fetch", "sync"])
def test_a_kill_in_the_middle_of_a_refresh_is_made_good_by_the_next_run(
    archive: Archive, origin: Origin, command: list[str]
) -> None:
    """The prompt was complete, and the catalog has more than its manifest: nobody has to think of --refresh again."""
    done_prompt(origin, "p", "a.png")
    origin.history([{"promptId": "p", "state": 30, "createdAt": 1_769_594_620}])
    assert mirrored(archive, "p").code == 0
    body = media.mp4(100_000)
    names = ("a.png", "b.png")
    urls = [*(picture(origin, f"/p/{name}")[0] for name in names), origin.add("/p/c.mp4", body, fault=hold_after(1000))]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    with running(archive, "fetch", "p", "--refresh") as process:
        origin.wait_for(lambda: len(query(archive, "SELECT 1 FROM files WHERE entry IS NOT NULL")) == 2)
        archive.kill_when(process, lambda: origin.wait_bytes("/p/c.mp4", 1000))
    assert "p/manifest.json\tdamaged" in archive.run("verify").out
    origin.add("/p/c.mp4", body)

    assert archive.run(*command).code == 0
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png", "b.png", "c.mp4"]
    assert archive.run("verify").code == 0
    origin.clear()
    assert (archive.run(*command).code, origin.count("/getTaskInfo")) == (0, 0)
