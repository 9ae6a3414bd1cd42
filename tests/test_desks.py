"""Several workers under one root: what one leaves, and what keeps them and a run apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import mirror
from mirror import MirrorStage
from mirror.errors import Locked
from mirror.inflight import Company
from mirror.stores.desks import desk_lock, gather
from mirror.stores.disk import Disk
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, running
from tests.origin import Origin


def test_what_a_killed_worker_left_is_made_durable_before_its_mark_goes(tmp_path: Path) -> None:
    for name, is_marked in (("killed", True), ("ended", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.part").write_bytes(b"x")
        lock = desk_lock(tmp_path / name)
        lock.take()
        if is_marked:
            lock.mark()
        lock.release(unmark=False)
    seen: list[bool] = []
    gather(tmp_path, lambda: seen.append((tmp_path / "killed" / "killed.part").exists()))
    assert seen == [True]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix) == ["ended.part", "killed.part"]
    assert not (tmp_path / "killed").exists()


def test_a_worker_that_is_alive_keeps_its_desk(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    (parts / "alive").mkdir(parents=True)
    (parts / "alive" / "a.part").write_bytes(b"x")
    lock = desk_lock(parts / "alive")
    lock.take()
    gather(parts, lambda: None)
    assert (parts / "alive" / "a.part").exists()
    lock.release(unmark=True)
    gather(parts, lambda: None)
    assert (parts / "a.part").exists()


class Syncing(Disk):
    """Remembers which folders were made durable."""

    def sync_folder(self, folder: int | Path) -> None:
        self.synced = [*getattr(self, "synced", []), folder]
        super().sync_folder(folder)


@pytest.mark.parametrize(("desk", "times"), [("a-desk", 1), ("", 0)])
def test_another_worker_s_new_folder_is_made_durable_once(tmp_path: Path, desk: str, times: int) -> None:
    (tmp_path / "p").mkdir()
    disk = Syncing(tmp_path, durable=True, min_free=0, desk=desk)
    for _ in range(2):
        with disk.folder("p", create=True) as fd:
            assert fd >= 0
    assert getattr(disk, "synced", []).count(tmp_path) == times
    disk.close()


@pytest.mark.usefixtures("patient_stages")
def test_stages_share_a_root_and_a_run_has_it_for_itself(origin: Origin, archive: Archive) -> None:
    for name in "pqr":
        done_prompt(origin, name, "a.png")
    one, other = (MirrorStage(archive.settings(), column="id") for _ in range(2))
    for stage, name in ((one, "p"), (other, "q")):
        assert list(stage({"id": [name]})["state"]) == ["complete"]
    refused = archive.run("fetch", "r")
    assert refused.code == 4, refused.err
    assert "is in use by another run" in refused.err
    one.close()
    other.close()
    assert archive.run("fetch", "r").code == 0

    url = large_prompt(origin, "large", media.mp4(1 << 20), faults.hold_after(1000))
    with running(archive, "fetch", "large") as process:
        origin.wait_for(lambda: origin.count("/large/") == 1)
        with pytest.raises(Locked):
            list(mirror.mirror_partition(["p"], archive.settings()))
        origin.release(url)
        assert process.wait(120) == 0


def test_a_run_with_workers_waits_for_the_others_of_its_mirror_and_they_for_it() -> None:
    order: list[str] = []

    async def work(company: Company, name: str, *, alone: bool) -> None:
        async with company.joined(alone=alone):
            order.append(f"{name} begins")
            await asyncio.sleep(0.01)
            order.append(f"{name} ends")

    async def run() -> None:
        company = Company()
        await asyncio.gather(
            work(company, "a", alone=False), work(company, "b", alone=False), work(company, "c", alone=True)
        )

    asyncio.run(run())
    assert order[:2] == ["a begins", "b begins"]
    assert order[-2:] == ["c begins", "c ends"]
