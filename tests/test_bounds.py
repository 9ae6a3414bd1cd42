"""Too large, too many, too slow, too far: each through the real command line, and each the trouble of one prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import media
from tests.bench.stream import watch
from tests.conftest import Archive
from tests.faults import FOREVER, chunked, no_length, redirect, trickle
from tests.helpers import asked, code_of_slow_disk, done_prompt, large_prompt, picture
from tests.origin import Origin, answer, task

MIB = 1 << 20

# The command line where time flies: a minute is over in three seconds, for all but the network and the disk.
HASTE = """
import time
monotonic = time.monotonic
time.monotonic = lambda: 20 * monotonic()
"""
PATIENT = {
    "MIRROR_API_TIMEOUT": "0",
    "MIRROR_TRANSFER_CONNECT_TIMEOUT": "1h",
    "MIRROR_TRANSFER_STALL_TIMEOUT": "1h",
    "MIRROR_TRANSFER_ATTEMPTS": "1",
}


def hasty(archive: Archive, *arguments: str, more: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{HASTE}{more}\nfrom mirror.cli import main\nmain()", *arguments],
        env={**os.environ, **archive.environ, **PATIENT, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_files_over_max_file_size(archive: Archive, origin: Origin) -> None:
    """Told by their length before a byte is kept, and without one as soon as they are over it."""
    for name, fault in {"told": None, "chunks": chunked(times=FOREVER), "old": no_length(times=FOREVER)}.items():
        large_prompt(origin, name, media.mp4(8 * MIB), fault)
    done_prompt(origin, "good", "a.png")

    done = archive.run("fetch", "told", "chunks", "old", "good", environ={"MIRROR_TRANSFER_MAX_FILE_SIZE": "2M"})

    assert (done.code, done.summary["prompts"]) == (3, {"partial": 3, "complete": 1})
    for name in ("told", "chunks", "old"):
        [error] = archive.manifest(name)["errors"]
        assert (error["error"], error["attempts"]) == ("TooLarge", 1)
        assert "transfer.max_file_size" in error["message"]
        assert origin.count(f"/{name}/") == 1
    assert {path for path in archive.files() if not path.endswith("manifest.json")} == {"good/a.png"}
    assert archive.partials() == []


def test_ten_redirects_are_followed_and_no_more(archive: Archive, origin: Origin) -> None:
    for prompt_id, hops in (("near", 10), ("far", 11)):
        url, _ = picture(origin, f"/{prompt_id}0")
        for hop in range(1, hops + 1):
            url = origin.add(f"/{prompt_id}{hop}", b"", fault=redirect(f"/{prompt_id}{hop - 1}", times=FOREVER))
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))

    done = archive.run("fetch", "near", "far")

    assert done.code == 3, done.err
    assert (origin.count("/near"), origin.count("/far")) == (11, 11)
    assert archive.manifest("near")["errors"] == []
    assert [error["error"] for error in archive.manifest("far")["errors"]] == ["Refused"]


def test_very_many_children_in_one_answer(archive: Archive, origin: Origin) -> None:
    """Each names two files, and there are eight: each is fetched once, and every child is in the manifest."""
    count = 5_000
    urls = [picture(origin, f"/film{number}.png")[0] for number in range(8)]
    children = [
        task(f"child{number}", taskId=number + 1, images=[(urls[number % 4], urls[4 + number % 4])])
        for number in range(count)
    ]
    origin.prompt("p", answer(task("p", children=children)))
    done_prompt(origin, "good", "a.png")

    done = archive.run("fetch", "p", "good")

    assert done.code == 0, done.err
    manifest = archive.manifest("p")
    assert (manifest["state"], len(manifest["task"]["taskList"])) == ("complete", count)
    assert sum(len(file["named_by"]) for file in manifest["files"]) == 3 * count
    assert sorted(request.path for request in origin.media_requests if request.path != "/good/a.png") == sorted(
        f"/film{number}.png" for number in range(8)
    )
    assert asked(origin) == ["good", "p"]


def test_very_many_files_in_one_answer(archive: Archive, origin: Origin) -> None:
    urls = [picture(origin, f"/film{number}.png")[0] for number in range(500)]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    done = archive.run("fetch", "p", environ={"MIRROR_ARCHIVE_DURABILITY": "fast"})
    assert done.code == 0, done.err
    assert len(archive.manifest("p")["files"]) == 500
    assert len(origin.media_requests) == 500


def test_a_body_that_only_trickles_is_given_up(archive: Archive, origin: Origin) -> None:
    """It never stalls; but a minute of it brings less than `min_rate`."""
    url = large_prompt(origin, "p", media.mp4(MIB), trickle(10_000, times=FOREVER))
    done = hasty(archive, "fetch", "p")
    assert done.returncode == 3, done.stderr
    [error] = archive.manifest("p")["errors"]
    assert error["error"] == "Unavailable"
    assert "slower than transfer.min_rate" in error["message"]
    assert origin.body_bytes(url) < MIB


def test_a_slow_disk_is_not_a_slow_origin(archive: Archive, origin: Origin) -> None:
    """Writing takes over a minute, in which far less than `min_rate` comes in."""
    large_prompt(origin, "p", media.mp4(6 * MIB))
    done = hasty(archive, "fetch", "p", more=code_of_slow_disk(0.7), MIRROR_TRANSFER_MIN_RATE="1M")
    assert done.returncode == 0, done.stderr
    assert archive.files()["p/large.mp4"] == media.mp4(6 * MIB)
    assert len(origin.media_requests) == 1


def no_ids(count: int) -> Iterator[bytes]:
    """Lines that can be no promptIds: too long, and with control characters."""
    for number in range(0, count, 100):
        yield b"".join(
            b"%0300d\n" % each if each % 10 == 0 else b"x\x01%d\n" % each for each in range(number, number + 100)
        )


def test_ids_on_stdin_cost_no_memory(archive: Archive, tmp_path: Path) -> None:
    """Each is refused, told and forgotten; twenty times as many take no more."""

    def peak(count: int) -> float:
        lines, out = tmp_path / "lines", tmp_path / "out"
        with lines.open("wb") as written:
            written.writelines(no_ids(count))
        options: dict[str, Any] = {"env": {**os.environ, **archive.environ}, "stderr": subprocess.DEVNULL}
        with lines.open("rb") as stdin, out.open("wb") as stdout:
            command = [sys.executable, "-m", "mirror", "fetch", "-i", "-", "-q", "--json"]
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, **options)
            found = watch(process)
        assert process.returncode == 3
        assert out.read_bytes().count(b"\n") == count
        return found

    few = int(os.environ.get("MIRROR_BOUNDS_IDS", "20000")) // 20
    assert peak(20 * few) - peak(few) < 8
