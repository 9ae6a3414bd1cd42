"""Kill -9, again and again, at any moment: what stands on disk is true at every instant, and nothing is fetched twice.

`MIRROR_CRASH_TRIALS` sets the number of kills, `MIRROR_CRASH_SEED` repeats a campaign; a failure names its seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from mirror import spans
from mirror.catalog.schema import MIGRATIONS
from mirror.manifests.document import decode
from mirror.models import PromptState, Span
from mirror.stores.journal import Claim, Started, journal_of
from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER, Fault, hold_after
from tests.helpers import done_prompt, mirrored, picture, running
from tests.origin import Origin, answer, task
from tests.test_sync import query

TRIALS = int(os.environ.get("MIRROR_CRASH_TRIALS", "8"))
SEED = int(os.environ.get("MIRROR_CRASH_SEED", str(random.randrange(1 << 32))))

PROMPTS = 25
CONCURRENCY = 6
BATCH = 1 << 20


class Campaign:
    """An archive of prompts with a thumbnail and an original each, and what must hold of it at any time."""

    def __init__(self, archive: Archive, luck: random.Random) -> None:
        self.archive = archive
        self.origin = archive.origin
        self.luck = luck
        self.bodies: dict[str, bytes] = {}  # by path below the root
        self.held: dict[str, int] = {}  # by URL path: what the journals claimed when the last run was killed
        ids = [self.serve(number) for number in range(PROMPTS)]
        self.ids = archive.root.with_name("ids.txt")
        self.ids.write_text("\n".join(ids))
        self.size = sum(map(len, self.bodies.values()))

    def serve(self, number: int) -> str:
        """One prompt. Some originals trickle, some break off once: kills land inside of files, not only between."""
        prompt_id = f"p{number}"
        small = media.png(width=40, height=self.luck.randrange(8, 40), seed=number)
        large = media.mp4(self.luck.randrange(200_000, 3_000_000), seed=number)
        slow: list[Fault] = [faults.trickle(self.luck.randrange(2, 8) * 1_000_000, times=FOREVER)]
        broken: list[Fault] = [faults.close_after(len(large) // 2), *slow]
        self.bodies |= {f"{prompt_id}/small.png": small, f"{prompt_id}/large.mp4": large}
        urls = (
            self.origin.add(f"/{prompt_id}/small.png", small),
            self.origin.add(f"/{prompt_id}/large.mp4", large, fault=self.luck.choice([None, slow, slow, broken])),
        )
        return self.origin.prompt(prompt_id, answer(task(prompt_id, images=[urls])))

    def start(self) -> subprocess.Popen[str]:
        told = ("--concurrency", str(CONCURRENCY), "--no-progress")
        nowhere = subprocess.DEVNULL
        return self.archive.start("fetch", "-i", str(self.ids), *told, stdout=nowhere, stderr=nowhere)

    def run_and_kill(self, kills_left: int) -> bool:
        """A run that is killed at a random moment; False where it came to its end before that."""
        self.origin.clear()
        missing = self.size - sum(path.stat().st_size for path in self.archive.root.rglob("*") if path.is_file())
        # On average each kill gets its share of what is missing, so that the last ones still have something to hit.
        # Some come early: while the root and the catalog are opened, and what the last run left is looked at.
        after = self.luck.randrange(max(1, 2 * max(0, missing) // (kills_left + 1)))
        after, longest = (-1, 0.7) if self.luck.random() < 0.15 else (after, 0.03)
        process = self.start()
        try:
            self.origin.wait_for(lambda: process.poll() is not None or self.origin.body_bytes("/p") > after, timeout=30)
            time.sleep(self.luck.uniform(0, longest))  # into the writing, hashing and committing of what came
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        assert process.returncode in (0, -signal.SIGKILL)
        return process.returncode != 0

    # What must hold at every instant

    def check(self) -> None:
        found = self.archive.files()
        manifests = {name: content for name, content in found.items() if name.endswith("/manifest.json")}
        files = {name: content for name, content in found.items() if name not in manifests}
        assert set(files) <= set(self.bodies)
        assert [name for name, content in files.items() if content != self.bodies[name]] == []
        for name, content in manifests.items():
            self.check_manifest(Path(name).parent.name, content, files)
        self.check_catalog(files)

    def check_manifest(self, prompt_id: str, content: bytes, files: dict[str, bytes]) -> None:
        manifest = decode(content)
        named = {f"{prompt_id}/{file.path}": file for file in manifest.files}
        assert set(named) <= set(files)
        for name, file in named.items():
            assert (file.bytes, file.sha256) == (len(files[name]), hashlib.sha256(files[name]).hexdigest())
        assert len(named) == 2 or manifest.state is not PromptState.COMPLETE

    def check_catalog(self, files: dict[str, bytes]) -> None:
        """It is sound, and each of its rows says that something is there, never that it will be."""
        with self.catalog() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            done = connection.execute("SELECT prompt_id FROM prompts WHERE state = 'complete'").fetchall()
        assert [
            prompt_id for (prompt_id,) in done if not (self.archive.root / prompt_id / "manifest.json").exists()
        ] == []
        assert [name for name, size in self.stored().items() if len(files.get(name, b"")) != size] == []

    def stored(self) -> dict[str, int]:
        """The files that the catalog says are stored, with their sizes."""
        with self.catalog() as connection:
            rows = connection.execute("SELECT prompt_id, path, bytes FROM files WHERE entry IS NOT NULL").fetchall()
        return {f"{prompt_id}/{path}": size for prompt_id, path, size in rows}

    def catalog(self) -> contextlib.closing[sqlite3.Connection]:
        """The catalog; an empty one where the kill came before it was made."""
        path = self.archive.root / ".mirror" / "catalog.sqlite"
        connection = sqlite3.connect(path if path.exists() else ":memory:")
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            connection.close()
            connection = sqlite3.connect(":memory:")
            connection.executescript(";".join(MIGRATIONS))
        return contextlib.closing(connection)

    # What is fetched

    def note_held(self) -> int:
        """What the next run has to take up: the prefix that each journal claims. Returns how many they are."""
        self.held = {}
        for path in (self.archive.root / ".mirror" / "parts").glob("*.journal"):
            records = journal_of(path).read()
            if records and isinstance(records[0], Started):
                claims = [Span(record.start, record.stop) for record in records if isinstance(record, Claim)]
                self.held[records[0].identity.removeprefix(self.origin.url)] = spans.prefix(claims)
        partial = len(self.held)
        self.held |= {f"/{name}": size for name, size in self.stored().items()}
        return partial

    def bytes_sent(self) -> int:
        """How many bytes the run has fetched. What a journal claimed, or the catalog knew, was not asked for again."""
        first: dict[str, int] = {}
        for request in self.origin.media_requests:
            start = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
            first.setdefault(request.path, int(start))
        assert {path: start for path, start in first.items() if start < self.held.get(path, 0)} == {}
        return self.origin.body_bytes("/p")


def test_no_kill_makes_it_lie_or_forget(archive: Archive) -> None:
    print(f"MIRROR_CRASH_SEED={SEED}")
    campaign = Campaign(archive, random.Random(SEED))
    sent = kills = partials = 0
    for number in range(TRIALS):
        kills += campaign.run_and_kill(TRIALS - number)
        campaign.check()
        sent += campaign.bytes_sent()
        partials += campaign.note_held()

    campaign.origin.clear()
    assert campaign.start().wait(60) == 0
    campaign.check()
    sent += campaign.bytes_sent()

    found = archive.files()
    manifests = {name: decode(found.pop(name)) for name in sorted(found) if name.endswith("/manifest.json")}
    assert found == campaign.bodies
    assert {manifest.state for manifest in manifests.values()} == {PromptState.COMPLETE}
    assert len(manifests) == PROMPTS
    assert campaign.stored() == {name: len(body) for name, body in campaign.bodies.items()}
    assert [name for name in archive.partials() if name.endswith(".part")] == []
    print(f"{kills} kills, {partials} partial files, {sent} bytes sent for {campaign.size}")
    assert kills > TRIALS // 2
    # A kill loses what was not claimed yet: of each open file at most one batch that is being collected. The fifth on
    # top is for what a broken connection loses between two sockets, and for files that were whole, but without a row.
    assert sent <= 1.2 * campaign.size + kills * CONCURRENCY * BATCH

    campaign.origin.clear()
    assert campaign.start().wait(60) == 0
    assert campaign.origin.requests == []


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
        origin.wait_for(lambda: len(query(archive, "SELECT 1 FROM files WHERE entry IS NOT NULL")) == 2, 20)
        archive.kill_when(process, lambda: origin.wait_bytes("/p/c.mp4", 1000, 20))
    assert "p/manifest.json\tdamaged" in archive.run("verify").out
    origin.add("/p/c.mp4", body)

    assert archive.run(*command).code == 0
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png", "b.png", "c.mp4"]
    assert archive.run("verify").code == 0
    origin.clear()
    assert (archive.run(*command).code, origin.count("/getTaskInfo")) == (0, 0)
