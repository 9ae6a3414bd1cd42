"""Publishing: many small files at once, each by its own steps, in order; what one meets is no other's matter."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.stores.disk import Disk
from mirror.stores.publishing import Publisher


@dataclass
class Small:
    """A file of one line, that fails at a step if it is told to, and keeps a record of its steps."""

    root: Path
    name: str
    folder: str = "p"
    fails: str = ""
    error: type[BaseException] = OSError
    steps: list[str] = field(default_factory=list)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if self.fails == name:
            raise self.error(5, f"{name} failed")

    def write(self) -> None:
        self._step("write")
        (self.root / f"{self.name}.part").write_text(self.name)

    def sync(self) -> None:
        self._step("sync")

    def place(self, folder: int) -> str:
        self._step("place")
        os.replace(self.root / f"{self.name}.part", self.name, dst_dir_fd=folder)
        return f"{self.folder}/{self.name}"


@pytest.fixture(params=[True, False], ids=["durable", "fast"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, durable=request.param, min_free=0)
    yield disk
    disk.close()


def published(disk: Disk, *files: Small, brief: bool = True) -> list[str | BaseException]:
    async def main() -> list[str | BaseException]:
        publisher = Publisher(disk)
        each = (publisher.publish(file, brief=brief) for file in files)
        return list(await asyncio.gather(*each, return_exceptions=True))

    return asyncio.run(main())


@pytest.mark.parametrize("brief", [True, False])
def test_many_at_once_are_all_there_and_each_caller_gets_its_own(disk: Disk, brief: bool) -> None:
    files = [Small(disk.root, f"f{number}", folder=f"p{number % 3}") for number in range(500)]
    assert published(disk, *files, brief=brief) == [f"{file.folder}/{file.name}" for file in files]
    assert all(file.steps == ["write", "sync", "place"] for file in files)
    assert all((disk.root / file.folder / file.name).read_text() == file.name for file in files)


@pytest.mark.parametrize("step", ["write", "sync", "place"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_one_that_fails_fails_alone(disk: Disk, step: str, error: type[BaseException]) -> None:
    files = [Small(disk.root, f"f{number}") for number in range(20)]
    files[7] = Small(disk.root, "f7", fails=step, error=error)
    found = []

    async def one(publisher: Publisher, file: Small) -> None:
        try:
            found.append(await publisher.publish(file, brief=True))
        except BaseException as raised:  # noqa: BLE001
            found.append(f"{file.name}: {raised.args[1]}")

    async def main() -> None:
        publisher = Publisher(disk)
        await asyncio.gather(*(one(publisher, file) for file in files))

    asyncio.run(main())
    assert sorted(found) == sorted([f"f7: {step} failed", *(f"p/f{number}" for number in range(20) if number != 7)])
    assert files[7].steps[-1] == step
    assert not (disk.root / "p" / "f7").exists()


def test_where_a_folder_is_none_all_that_go_there_fail_and_no_other(disk: Disk) -> None:
    (disk.root / "file").write_text("in the way")
    files = [Small(disk.root, f"f{number}", folder=("p", "file")[number % 2]) for number in range(10)]
    found = published(disk, *files)
    assert [isinstance(each, Exception) for each in found] == [False, True] * 5
    assert (disk.root / "file").read_text() == "in the way"


def test_a_folder_is_synced_once_for_all_that_go_there_together(tmp_path: Path) -> None:
    """Each caller is told only after a sync of its folder that began after its name stood there."""
    synced: list[set[str]] = []

    class Watched(Disk):
        def sync_folder(self, folder: int | Path) -> None:
            if isinstance(folder, int):
                synced.append(set(os.listdir(folder)))  # noqa: PTH208
            super().sync_folder(folder)

    disk = Watched(tmp_path, durable=True, min_free=0)
    files = [Small(disk.root, f"f{number}") for number in range(200)]
    told: list[str] = []

    async def one(publisher: Publisher, file: Small) -> None:
        await publisher.publish(file, brief=True)
        assert any(file.name in names for names in synced)
        told.append(file.name)

    async def main() -> None:
        publisher = Publisher(disk)
        await asyncio.gather(*(one(publisher, file) for file in files))

    asyncio.run(main())
    disk.close()
    assert len(told) == 200
    assert len(synced) < 100


def test_who_is_cancelled_goes_on_after_the_end_only(disk: Disk) -> None:
    going, may_end = threading.Event(), threading.Event()

    class Slow(Small):
        def sync(self) -> None:
            going.set()
            may_end.wait(60)

    file = Slow(disk.root, "slow")

    async def main() -> bool:
        task = asyncio.create_task(Publisher(disk).publish(file, brief=False))
        await asyncio.to_thread(going.wait, 60)
        task.cancel()
        await asyncio.sleep(0.05)
        waits = not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return waits

    assert asyncio.run(main())
    assert (disk.root / "p" / "slow").exists()


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "fast"])
@pytest.mark.parametrize("fails", ["", "write", "sync", "place"])
def test_what_goes_alone_takes_its_steps_in_order_and_leaves_no_descriptor(
    tmp_path: Path, fails: str, *, durable: bool
) -> None:
    order: list[str] = []

    class Watched(Disk):
        def sync_folder(self, folder: int | Path) -> None:
            order.append("root" if isinstance(folder, Path) else "folder")

    async def main() -> None:
        disk = Watched(tmp_path, durable=durable, min_free=0)
        file = Small(tmp_path, "a", fails=fails, steps=order)
        try:
            await Publisher(disk).publish_alone(file)
        except OSError:
            assert fails
        finally:
            disk.close()

    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        asyncio.run(main())
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    steps = ["write", "sync", "root", "place", "folder"]
    expected = steps[: steps.index(fails) + 1] if fails else steps
    assert order[: len(expected)] == expected
