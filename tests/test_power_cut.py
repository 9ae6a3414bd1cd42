"""The plug is pulled at any moment: what the manifests say is there, is there, and what the run told is not forgotten.

Needs root, to mount a file system of its own. `MIRROR_POWER_TRIALS` sets the number of trials, `MIRROR_POWER_SEED`
repeats a campaign; a failure names its seed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mirror.manifests.document import decode
from mirror.models import PromptState
from tests import faults, media, power
from tests.conftest import Archive
from tests.crash_runs import Looker, Served, check_catalog, left_in, moments, old_catalog, wait_for
from tests.faults import FOREVER

TRIALS = int(os.environ.get("MIRROR_POWER_TRIALS", "4"))
SEED = int(os.environ.get("MIRROR_POWER_SEED", str(random.randrange(1 << 32))))

MIB = 1 << 20
OPTIONS = ("", "data=writeback,noauto_da_alloc", "data=writeback,noauto_da_alloc,commit=1", "nodelalloc,data=writeback")
"""How ext4 is mounted: as usual, and in the ways that promise least about what was not synced."""

_WHY_NOT = power.why_not()
pytestmark = [pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.usefixtures("unmeasured")]


class Campaign:
    """One set of prompts, mirrored in every trial onto a new disk."""

    def __init__(self, archive: Archive, luck: random.Random) -> None:
        self.parent = archive.root
        self.origin = archive.origin
        self.luck = luck
        self.served = Served(archive.origin)
        slow = faults.trickle(8 * MIB, times=FOREVER)
        for number in range(12):
            self.served.add(f"s{number}", media.mp4(luck.randrange(1_000, 400_000), seed=number))
        for number in range(3):
            self.served.add(f"l{number}", media.mp4(luck.randrange(3 * MIB, 5 * MIB), seed=100 + number), slow)
        self.told: Counter[str] = Counter()

    def start(self, archive: Archive, out: Path) -> subprocess.Popen[str]:
        ids = self.luck.sample(self.served.ids, len(self.served.ids))
        with out.open("a") as stdout:
            return archive.start("fetch", *ids, "--json", "--no-progress", stdout=stdout)

    def trial(self, number: int) -> None:
        """The plug is pulled once, or a few times in a row; then a run to the end."""
        folder, options = self.parent / str(number), self.luck.choice(OPTIONS)
        with power.disk(folder, options) as disk:
            archive = Archive(disk.path / "of" / "ours" / "archive", self.origin)
            if self.luck.random() < 0.25:
                old_catalog(archive.root / ".mirror" / "catalog.sqlite", self.luck.choice([1, 2]))
            out = folder / "out"
            for _ in range(self.luck.choice([1, 1, 2, 3])):
                self.cut(archive, disk, out)
            process = self.start(archive, out)
            _, err = process.communicate(timeout=300)
            assert (process.returncode, "Traceback" in err) == (0, False)
            manifests, files = self.check(archive, out)
            assert (set(manifests), set(files)) == (set(self.served.ids), set(self.served.bodies))
            disk.unplug()
        self.told["trials"] += 1

    def cut(self, archive: Archive, disk: power.Disk, out: Path) -> None:
        """A run that loses its disk: it ends, says why, and has told nothing that is not so."""
        self.origin.clear()
        process = self.start(archive, out)
        moment = moments(archive, self.served, self.luck)
        try:
            wait_for(process, moment)
            self.told[f"cut, {moment.phase}"] += process.poll() is None
            disk.cut()
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        assert (process.returncode in (0, 4), "Traceback" in err) == (True, False), err
        disk.again()
        self.told.update({f"left .{suffix}": count for suffix, count in left_in(archive.root).items()})
        self.check(archive, out)

    def check(self, archive: Archive, out: Path) -> tuple[dict[str, bytes], set[str]]:
        manifests, files = Looker(archive.root, self.served.bodies).look()
        check_catalog(
            archive.root / ".mirror" / "catalog.sqlite",
            lambda name, size: name in files and files[name].size == size,
            lambda prompt_id: prompt_id in manifests,
        )
        for line in out.read_text().splitlines():
            told = json.loads(line)
            if told["state"] == "complete":
                assert decode(manifests[told["prompt_id"]]).state is PromptState.COMPLETE
        return manifests, set(files)


def test_what_was_told_is_there_after_a_power_cut(archive: Archive) -> None:
    print(f"MIRROR_POWER_SEED={SEED}")
    campaign = Campaign(archive, random.Random(SEED))
    try:
        for number in range(TRIALS):
            campaign.trial(number)
            if number % 25 == 24:
                print(dict(campaign.told), flush=True)
    finally:
        print(dict(campaign.told))
