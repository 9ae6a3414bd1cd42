"""The benchmark's own judgement: it takes no wrong result for a right one, and says what was not reached."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.bench import duel, page, results
from tests.bench.check import Wrong, check_files, check_manifests
from tests.bench.measure import Command, Failed, Ran, measured
from tests.bench.media import Media, make
from tests.bench.results import Section, Verdict
from tests.bench.stores import check_objects, sink
from tests.bench.tools import MIRROR, Tool


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return make(tmp_path / "source", 3, 5_000)


@pytest.fixture
def fetched(tmp_path: Path, media: Media) -> Path:
    """What a tool brought, under names of its own."""
    shutil.copytree(media.folder, tmp_path / "got" / "deeper")
    (tmp_path / "got" / "deeper" / "0.png").rename(tmp_path / "got" / "other.png")
    return tmp_path / "got"


def test_the_same_bytes_under_other_names_are_right(media: Media, fetched: Path) -> None:
    check_files(fetched, media, media.by_head())


def test_a_byte_that_differs_is_wrong(media: Media, fetched: Path) -> None:
    content = bytearray((fetched / "other.png").read_bytes())
    content[-1] ^= 1
    (fetched / "other.png").write_bytes(content)
    with pytest.raises(Wrong, match=r"other\.png is not what the origin has"):
        check_files(fetched, media, media.by_head())


def test_a_file_that_is_cut_or_begins_otherwise_is_wrong(media: Media, fetched: Path) -> None:
    content = (fetched / "other.png").read_bytes()
    (fetched / "other.png").write_bytes(content[:-1])
    with pytest.raises(Wrong, match="is not what"):
        check_files(fetched, media, media.by_head())
    (fetched / "other.png").write_bytes(b"x" + content[1:])
    with pytest.raises(Wrong, match="begins like no file"):
        check_files(fetched, media, media.by_head())


def test_a_file_that_is_missing_or_there_twice_is_wrong(media: Media, fetched: Path) -> None:
    (fetched / "other.png").unlink()
    with pytest.raises(Wrong, match="2 files"):
        check_files(fetched, media, media.by_head())
    shutil.copy(fetched / "deeper" / "1.png", fetched / "again.png")
    with pytest.raises(Wrong, match="3 files, 2 of 3"):
        check_files(fetched, media, media.by_head())


def test_a_manifest_must_tell_the_origin_s_digests(tmp_path: Path, media: Media) -> None:
    digests = media.sha256()
    told = {"state": "complete", "files": [{"path": name, "sha256": sha256} for name, sha256 in digests.items()]}
    (tmp_path / "root" / "p").mkdir(parents=True)
    manifest = tmp_path / "root" / "p" / "manifest.json"
    manifest.write_text(json.dumps(told))
    check_manifests(tmp_path / "root", digests)
    manifest.write_text(json.dumps(told | {"state": "partial"}))
    with pytest.raises(Wrong, match="says partial"):
        check_manifests(tmp_path / "root", digests)
    manifest.write_text(json.dumps(told | {"files": told["files"][1:]}))
    with pytest.raises(Wrong, match="other digests"):
        check_manifests(tmp_path / "root", digests)


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"exit code 3.*\n.*sorry"):
        measured(Command([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"], tmp_path))


def test_the_memory_of_what_a_command_starts_counts(tmp_path: Path) -> None:
    child = "import time; held = bytearray(64 << 20); time.sleep(2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    ran = measured(Command([sys.executable, "-c", parent], tmp_path))
    assert ran.peak > 64


def _entry(name: str, variant: str, walls: list[float], after: float = 0.0) -> duel.Entry:
    tool = Tool(name, variant, MIRROR.program, (), "", MIRROR.command)
    return duel.Entry(tool, "", [Ran(wall, wall, 10.0) for wall in walls], [after] * len(walls))


def test_ratios_are_of_medians_and_of_the_fastest_peer() -> None:
    entries = [
        _entry("mirror", "default", [9.0, 2.0, 2.0]),
        _entry("one", "default", [4.0, 4.0, 90.0], after=1.0),
        _entry("one", "best", [1.0], after=4.0),
    ]
    assert duel.bare(entries) == 2.0
    assert duel.bare(entries, "default") == 0.5
    assert duel.verified(entries) == 0.4


def test_what_was_not_reached_is_written_into_the_page(tmp_path: Path) -> None:
    where = tmp_path / "page.md"
    where.write_text("by hand\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nby hand, too\n")
    section = Section("s", "s: a title", ["tool"], [["mirror"]], verdicts=[Verdict("bare", 1.5, 1.0)])
    results.save(tmp_path / "kept.json", [section])
    results.save(tmp_path / "kept.json", [section])
    page.write(results.load(tmp_path / "kept.json"), where)
    written = where.read_text()
    assert "| s | bare | 1.50 | ≤ 1 | **not reached** |" in written
    assert "old" not in written
    assert written.startswith("by hand\n")
    assert written.endswith("by hand, too\n")


@pytest.mark.parametrize("damage", ["", "a byte", "an end", "a file"])
def test_a_store_that_compares_what_comes_tells_what_is_right(tmp_path: Path, media: Media, damage: str) -> None:
    """It keeps nothing of it; what it did not get, or got otherwise, is wrong all the same."""
    (tmp_path / "store").mkdir()
    with sink(tmp_path / "store", media.folder) as store:
        for path in media.files[: 2 if damage == "a file" else None]:
            body = bytearray(path.read_bytes())
            if path == media.files[1] and damage == "a byte":
                body[4_000] ^= 1
            if path == media.files[1] and damage == "an end":
                del body[4_000:]
            request = urllib.request.Request(f"{store.endpoint}/bench/p/{path.name}", bytes(body), method="PUT")
            urllib.request.urlopen(request, timeout=120).close()
        told = store.told()
        if damage:
            with pytest.raises(Wrong, match=r"2 objects|1\.png in the bucket is not"):
                check_objects(told, media.files, "bench/p/")
        else:
            check_objects(told, media.files, "bench/p/")
            assert told.received == 3 * 5_000
            assert {path for files in told.objects.values() for path in files} == set(map(str, media.files))
