"""A disk that fills up under a run, on a real small one: the run stops in time, keeps everything, and is gone on with.

Where no tmpfs can be mounted (that takes root) these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.errors import Full
from mirror.stores.disk import Disk
from tests import media
from tests.conftest import Archive, Done
from tests.faults import FOREVER, chunked, hold_after, huge_length
from tests.helpers import journaled, large_prompt, running, sha256
from tests.origin import Origin

MIB = 1 << 20


class Volume:
    """A file system of its own, in memory."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.path)], check=True, capture_output=True)

    def grow(self, size: int) -> None:
        self._mount("-o", f"remount,size={size}")

    @property
    def free(self) -> int:
        usage = os.statvfs(self.path)
        return usage.f_bavail * usage.f_frsize


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """24 MiB, on which the archive of this test stands."""
    path = tmp_path / "volume"
    path.mkdir()
    try:
        mounted = Volume(path, 24 * MIB)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no tmpfs can be mounted here")
    yield mounted
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def archive(volume: Volume, origin: Origin) -> Archive:
    return Archive(volume.path / "archive", origin)


def films(origin: Origin, count: int, size: int) -> dict[str, bytes]:
    """Serve so many prompts of one film each; its path in the archive → its bytes."""
    bodies = {f"p{number:02}": media.mp4(size, seed=number) for number in range(count)}
    for prompt_id, body in bodies.items():
        large_prompt(origin, prompt_id, body)
    return {f"{prompt_id}/large.mp4": body for prompt_id, body in bodies.items()}


def stopped(done: Done, *told: str) -> None:
    """The run has stopped for want of room, and says so."""
    assert (done.code, done.summary["exit_code"]) == (4, 4)
    for text in (*told, "make room and run again"):
        assert text in done.err
    assert "Traceback" not in done.err


def sound(archive: Archive, bodies: dict[str, bytes]) -> None:
    """What stands under its final name is right, and what a manifest names is there."""
    found = archive.files()
    assert {path: sha256(body) for path, body in found.items() if path in bodies} == {
        path: sha256(bodies[path]) for path in found if path in bodies
    }
    assert {path for path in found if path not in bodies} <= {f"{path.split('/')[0]}/manifest.json" for path in bodies}
    verified = archive.run("verify")
    assert verified.code in (0, 3), verified.err  # 3: a prompt that failed has no file to verify
    for name in (path for path in found if path.endswith("manifest.json")):
        folder = name.split("/")[0]
        for file in archive.manifest(folder)["files"]:
            assert sha256(found[f"{folder}/{file['path']}"]) == file["sha256"]


@pytest.mark.parametrize("keep", [0, 6 * MIB], ids=["to its last byte", "but for min_free_space"])
def test_what_fills_up_stops_the_run_and_costs_nothing(
    archive: Archive, origin: Origin, volume: Volume, keep: int
) -> None:
    bodies = films(origin, 16, 3 * MIB)
    environ = {"MIRROR_TRANSFER_MIN_FREE_SPACE": str(keep)}

    done = archive.run("fetch", *(f"p{number:02}" for number in range(16)), environ=environ)

    stopped(done, *(["transfer.min_free_space"] if keep else []))
    kept = journaled(archive)
    assert kept
    assert volume.free >= keep - MIB  # journals, manifests and the catalog are let into what stays free
    sound(archive, bodies)

    volume.grow(80 * MIB)
    done = archive.run("fetch", *(f"p{number:02}" for number in range(16)), environ=environ)

    assert done.code == 0, done.err
    assert {path: body for path, body in archive.files().items() if path in bodies} == bodies
    assert archive.run("cleanup", "--older-than", "0").code == 0  # a proof may be left of what is recorded
    assert archive.partials() == []
    assert done.summary["bytes_downloaded"] <= sum(map(len, bodies.values())) - kept


def test_what_another_process_takes_in_the_middle_stops_the_run(
    archive: Archive, origin: Origin, volume: Volume
) -> None:
    body = media.mp4(10 * MIB)
    url = large_prompt(origin, "p", body, hold_after(4 * MIB))
    environ = {"MIRROR_TRANSFER_MIN_FREE_SPACE": str(4 * MIB)}
    with running(archive, "fetch", "p", environ=environ) as process:
        origin.wait_for(lambda: journaled(archive) >= 3 * MIB)
        (volume.path / "filler").write_bytes(bytes(volume.free - 5 * MIB))
        origin.release(url)
        _, err = process.communicate(timeout=120)

    assert process.returncode == 4
    assert "transfer.min_free_space): make room and run again" in err
    assert not (archive.root / "p").exists()
    assert volume.free >= 3 * MIB
    kept = journaled(archive)
    assert kept >= 3 * MIB

    (volume.path / "filler").unlink()
    origin.clear()
    assert archive.run("fetch", "p", environ=environ).code == 0
    assert archive.files()["p/large.mp4"] == body
    assert [request.headers["range"] for request in origin.media_requests] == [f"bytes={kept}-"]


def test_a_body_without_an_end_is_given_up_before_it_fills_the_disk(
    archive: Archive, origin: Origin, volume: Volume
) -> None:
    """It has no length that could be looked at first; what came of it makes room for the others."""
    volume.grow(192 * MIB)
    large_prompt(origin, "endless", bytes(media.mp4(1 << 16)) + bytes(96 * MIB), chunked(times=FOREVER))
    good = films(origin, 3, 3 * MIB)

    done = archive.run("fetch", "endless", "p00", "p01", "p02")

    assert done.code == 3, done.err
    assert [error["error"] for error in archive.manifest("endless")["errors"]] == ["Full"]
    assert origin.count("/endless/") == 1
    assert {path: body for path, body in archive.files().items() if path in good} == good
    assert archive.partials() == []
    assert volume.free >= 192 * MIB - sum(map(len, good.values())) - 4 * MIB


def test_terabytes_that_are_claimed_end_one_file_only(archive: Archive, origin: Origin, volume: Volume) -> None:
    volume.grow(192 * MIB)
    large_prompt(origin, "liar", media.mp4(3 * MIB), huge_length(times=FOREVER))
    good = films(origin, 1, 3 * MIB)

    done = archive.run("fetch", "liar", "p00")

    assert done.code == 3, done.err
    assert [error["error"] for error in archive.manifest("liar")["errors"]] == ["Full"]
    assert archive.files()["p00/large.mp4"] == good["p00/large.mp4"]


def test_room_is_not_given_twice(tmp_path: Path) -> None:
    """Two files that are written at the same time, for one of which there is room."""
    free = Disk(tmp_path, durable=False, min_free=0).free_space()
    disk = Disk(tmp_path, durable=False, min_free=free // 2)
    with disk.room(free // 3), pytest.raises(Full), disk.room(free // 3):
        pass
    with disk.room(free // 3):
        pass
