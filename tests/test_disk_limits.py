"""Real limits: a disk that is full, or read-only, or taken away; files that may not grow; too few descriptors."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, journaled, large_prompt, running
from tests.origin import Origin

MIB = 1 << 20
FILM = media.mp4(3 * MIB, seed=1)


@contextlib.contextmanager
def mounted(root: Path, size: str) -> Iterator[None]:
    """A file system of its own at this place; the test is skipped where nobody may mount one."""
    root.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(root)]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    if told.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {told.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def remount(root: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", root], check=True)


def limited(archive: Archive, ulimit: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command under a limit of the shell's, and what was told."""
    command = ["sh", "-c", f'ulimit {ulimit}; exec "$@"', "sh", sys.executable, "-m", "mirror", *arguments]
    environ = {**os.environ, **archive.environ}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        return ended(process)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and what was told; never a traceback."""
    err = process.communicate(timeout=300)[1]
    assert "Traceback" not in err
    assert "bug" not in err
    return process.returncode, err


def films(origin: Origin, *, hold: bool = False) -> dict[str, bytes]:
    """A film, which waits in its middle if it is told to, and two pictures; every file by its path."""
    large_prompt(origin, "p1", FILM, fault=faults.hold_after(2 * MIB) if hold else None)
    pictures = done_prompt(origin, "p2", "a.png", "b.png")
    return {"p1/large.mp4": FILM, **{f"p2/{name}": body for name, body in pictures.items()}}


def media_of(archive: Archive) -> dict[str, bytes]:
    return {name: body for name, body in archive.files().items() if not name.endswith("/manifest.json")}


def test_a_file_over_the_limit_on_files_fails_alone(archive: Archive, origin: Origin) -> None:
    """The write that reaches the limit is short, the next one fails: as on a file system for files up to 4 GiB."""
    bodies = films(origin)
    blocks = len(FILM) // 2 // 512 + 3
    code, err = limited(archive, f"-f {blocks}", "fetch", "p1", "p2")
    assert code == 3, err
    assert "p1/large.mp4: File too large" in err
    assert set(media_of(archive)) == bodies.keys() - {"p1/large.mp4"}
    assert archive.run("fetch", "p1", "p2").code == 0
    assert media_of(archive) == bodies
    assert archive.partials() == []


@pytest.mark.parametrize("most", [12, 20, 40])
def test_too_few_descriptors_are_told_and_the_next_run_completes(archive: Archive, origin: Origin, most: int) -> None:
    bodies: dict[str, bytes] = {}
    ids = [f"p{number}" for number in range(12)]
    for prompt_id in ids:
        bodies |= {
            f"{prompt_id}/{name}": body for name, body in done_prompt(origin, prompt_id, "a.png", "b.png").items()
        }
    code, err = limited(archive, f"-n {most}", "fetch", *ids)
    assert code in (0, 3, 4)
    assert code == 0 or "Too many open files" in err, err
    assert media_of(archive).items() <= bodies.items()
    assert archive.run("fetch", *ids).code == 0
    assert media_of(archive) == bodies


def test_a_disk_that_others_fill_ends_the_run_and_keeps_what_came(archive: Archive, origin: Origin) -> None:
    bodies = films(origin, hold=True)
    with mounted(archive.root, "8m"), running(archive, "fetch", "p1", "p2") as process:
        origin.wait_for(lambda: journaled(archive) >= MIB)
        ballast = archive.root / ".mirror/ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        origin.release("/p1/large.mp4")
        code, err = ended(process)
        assert code == 4, err
        assert "make room and run again" in err
        assert str(archive.root) in err or "p1/" in err
        assert media_of(archive).items() <= bodies.items()
        held = journaled(archive)
        assert held >= MIB

        ballast.unlink()
        origin.clear()
        assert archive.run("fetch", "p1", "p2").code == 0
        assert media_of(archive) == bodies
        assert origin.body_bytes("/p1/large.mp4") <= len(FILM) - held
        assert archive.run("verify").code == 0


def test_what_does_not_fit_today_is_tried_again_tomorrow(archive: Archive, origin: Origin) -> None:
    """It fails alone, and not for good: the next night finds room."""
    bodies = films(origin) | {"p1/large.mp4": FILM + bytes(96 * MIB)}
    large_prompt(origin, "p1", bodies["p1/large.mp4"])
    origin.history([{"id": 1, "promptId": each, "state": 30, "createdAt": int(time.time())} for each in ("p1", "p2")])
    with mounted(archive.root, "80m"):
        full = archive.run("sync")
        assert full.code == 3
        assert "do not fit" in full.err
        assert set(media_of(archive)) == bodies.keys() - {"p1/large.mp4"}
        remount(archive.root, "size=160m")
        assert archive.run("sync").code == 0
        assert media_of(archive) == bodies


def test_a_root_that_is_mounted_read_only(archive: Archive, origin: Origin) -> None:
    bodies = films(origin)
    with mounted(archive.root, "8m"):
        assert archive.run("fetch", "p1").code == 0
        remount(archive.root, "ro")
        for command in (("fetch", "p1", "p2"), ("rebuild",), ("forget", "p1", "--delete"), ("cleanup",)):
            done = archive.run(*command)
            assert done.code == 4
            assert "Read-only file system" in done.err
            assert str(archive.root) in done.err
            assert "Traceback" not in done.err
        assert archive.run("verify").code == 0
        assert archive.run("status").code == 0
        remount(archive.root, "rw")
        assert archive.run("fetch", "p1", "p2").code == 0
        assert media_of(archive) == bodies


def test_a_root_that_is_taken_away_in_the_middle(archive: Archive, origin: Origin) -> None:
    bodies = films(origin, hold=True)
    with running(archive, "fetch", "p1", "p2") as process:
        origin.wait_for(lambda: journaled(archive) >= MIB)
        origin.wait_for((archive.root / "p2" / "manifest.json").exists)  # from here on no new name comes to stand there
        shutil.rmtree(archive.root)
        origin.release("/p1/large.mp4")
        code, err = ended(process)
    assert code == 4
    assert "p1/" in err or str(archive.root) in err
    assert not archive.root.exists()
    assert archive.run("fetch", "p1", "p2").code == 0
    assert media_of(archive) == bodies


def test_a_folder_on_another_file_system_fails_its_prompt_alone(archive: Archive, origin: Origin) -> None:
    bodies = films(origin)
    archive.root.mkdir()
    with mounted(archive.root / "p1", "8m"):
        done = archive.run("fetch", "p1", "p2")
        assert done.code == 3, done.err
        assert "p1/large.mp4: Invalid cross-device link: it is on another file system than .mirror/parts" in done.err
        assert set(media_of(archive)) == bodies.keys() - {"p1/large.mp4"}
    assert archive.run("fetch", "p1", "p2").code == 0
    assert media_of(archive) == bodies
