"""`mirror export bagit`: bags that bagit.py finds valid, and what it finds in one that was tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import ConfigError
from mirror.outputs import Draft, require_empty, sweep
from tests import media
from tests.conftest import Archive
from tests.export_runs import bound, check_sums, flip, generated, hidden, hostile, listed, validate
from tests.helpers import done_prompt, large_prompt, mirrored, picture
from tests.origin import answer, task
from tests.test_disk_limits import mounted

TAGS = ["bag-info.txt", "bagit.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"]


def bagged(archive: Archive, *arguments: str, code: int = 0) -> Path:
    """The bag that an export makes."""
    bag = archive.root.with_name("bag")
    done = archive.run("export", "bagit", *arguments, "--output", str(bag))
    assert (done.code, done.out, hidden(bag.parent)) == (code, "", [])
    return bag


def payload(bag: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bag / "data")): path.read_bytes() for path in bag.rglob("data/*/*")}


def info(bag: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in (bag / "bag-info.txt").read_text().splitlines())


@pytest.mark.parametrize("flags", [(), ("--link",)])
def test_a_bag_of_the_archive_is_valid(archive: Archive, flags: tuple[str, ...]) -> None:
    hostile(archive)
    bag = bagged(archive, *flags)
    checked = validate(bag)
    assert (checked.returncode, "is valid" in checked.stderr) == (0, True)
    assert payload(bag) == archive.files()
    assert listed(bag) == [*TAGS[:2], "data", *TAGS[2:]]
    told = info(bag)
    oxum = f"{sum(map(len, archive.files().values()))}.{len(archive.files())}"
    assert (told["Payload-Oxum"], "External-Identifier" in told, "Source-Organization" in told) == (oxum, False, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["Bagging-Date"])
    assert (bag / "bagit.txt").read_bytes() == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
    for each in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        assert check_sums(bag, bag / each).returncode == 0
    shared = {path.stat().st_nlink for path in bag.rglob("data/*/*") if path.name != "manifest.json"}
    assert shared == ({2} if flags else {1})


def test_a_bag_of_one_prompt_says_whose_it_is(archive: Archive) -> None:
    hostile(archive)
    bag = bagged(archive, "cASE")
    assert validate(bag).returncode == 0
    assert info(bag)["External-Identifier"] == "cASE"
    assert len(listed(bag / "data")) == 1


@pytest.mark.parametrize("path", ["data/p/a.png", "data/p/manifest.json", *TAGS])
def test_one_flipped_bit_is_found(archive: Archive, path: str) -> None:
    done_prompt(archive.origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    bag = bagged(archive)
    assert validate(bag).returncode == 0
    flip(bag / path, (bag / path).stat().st_size // 2)
    assert validate(bag).returncode == 1


def test_what_was_damaged_in_the_archive_is_found_in_the_bag(archive: Archive) -> None:
    """Nothing is hashed on the way: the digests are those of what was mirrored."""
    done_prompt(archive.origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    flip(archive.root / "p" / "a.png", 100)
    checked = validate(bagged(archive))
    assert (checked.returncode, "data/p/a.png sha256 validation failed" in checked.stderr) == (1, True)


def test_a_percent_sign_is_spelled_as_the_standard_says(archive: Archive) -> None:
    """bagit.py 1.9 does not read that spelling (RFC 8493, 2.1.3), so it is read here."""
    url, body = picture(archive.origin, "/p/100%25%20%250A.png")
    archive.origin.prompt("p", answer(task("p", images=[(None, url)])))
    assert mirrored(archive, "p").code == 0
    bag = bagged(archive)
    assert payload(bag) == archive.files()
    assert payload(bag)["p/100% %0A.png"] == body
    lines = [line.split("  ", 1) for line in (bag / "manifest-sha256.txt").read_text().splitlines()]
    assert [path for _, path in lines] == ["data/p/100%25 %250A.png", "data/p/manifest.json"]
    for digest, path in lines:
        decoded = path.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
        assert hashlib.sha256((bag / decoded).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("flags", [(), ("--link",)])
def test_what_is_not_there_is_told_and_the_bag_is_valid_without_it(archive: Archive, flags: tuple[str, ...]) -> None:
    ids = generated(archive.root, 5)
    gone, short, odd = (archive.root / prompt_id / "origin.png" for prompt_id in ids[:3])
    gone.unlink()
    short.write_bytes(b"x")
    odd.unlink()
    odd.mkdir()
    done = archive.run("export", "bagit", *flags, "--output", "bag")
    *told, summary = done.err.splitlines()
    assert sorted(line.split(": ")[1] for line in told) == [f"{prompt_id}/origin.png" for prompt_id in ids[:3]]
    assert (done.code, summary.startswith("7 files of 5 prompts")) == (3, True)
    assert validate(Path("bag")).returncode == 0
    assert len(payload(Path("bag"))) == 12


@pytest.mark.parametrize("flags", [(), ("--link",)])
def test_a_file_that_its_manifest_names_twice(archive: Archive, flags: tuple[str, ...]) -> None:
    """None of ours does."""
    done_prompt(archive.origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    manifest = archive.manifest("p")
    manifest["files"] *= 2
    (archive.root / "p" / "manifest.json").write_text(json.dumps(manifest))
    bag = bagged(archive, *flags, code=3)
    assert (validate(bag).returncode, len(payload(bag))) == (0, 2)


def test_an_unknown_digest_is_found_out_while_copying(archive: Archive) -> None:
    done_prompt(archive.origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    path = archive.root / "p" / "manifest.json"
    path.write_text(re.sub(r'"sha256": "\w+"', '"sha256": null', path.read_text()))
    bag = bagged(archive, "--link")
    assert validate(bag).returncode == 0
    assert (bag / "data" / "p" / "a.png").stat().st_nlink == 1


def test_large_files_come_whole(archive: Archive) -> None:
    """Of more than a hop, and with holes."""
    large_prompt(archive.origin, "p", media.mp4(1 << 20))
    assert mirrored(archive, "p").code == 0
    size = (130 << 20) + 17
    file = archive.root / "p" / "large.mp4"
    with file.open("r+b") as stream:
        stream.truncate(size)
        stream.seek(size - 3)
        stream.write(b"end")
    manifest = archive.manifest("p")
    manifest["files"][0]["bytes"] = size
    manifest["files"][0]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (archive.root / "p" / "manifest.json").write_text(json.dumps(manifest))
    assert validate(bagged(archive)).returncode == 0


def test_a_bag_goes_into_an_empty_folder_and_into_no_other(archive: Archive, tmp_path: Path) -> None:
    generated(archive.root, 2)
    (tmp_path / "bag").mkdir()
    bag = bagged(archive)
    assert validate(bag).returncode == 0
    done = archive.run("export", "bagit", "--output", str(bag))
    assert (done.code, "is not empty" in done.err, validate(bag).returncode) == (2, True, 0)


@pytest.mark.parametrize("mount", [lambda at: mounted(at, "1m"), lambda at: bound(at.parent / "else", at)])
def test_a_mount_point_cannot_be_replaced_and_a_folder_in_it_can(archive: Archive, tmp_path: Path, mount: Any) -> None:
    generated(archive.root, 2)
    (tmp_path / "else").mkdir()
    with mount(tmp_path / "mount"):
        before = listed(tmp_path)
        done = archive.run("export", "bagit", "--output", str(tmp_path / "mount"))
        assert (done.code, done.err.count("\n"), "in it if it is a mount point" in done.err) == (2, 1, True)
        assert (listed(tmp_path), listed(tmp_path / "mount")) == (before, [])
        (tmp_path / "mount" / "bag").mkdir()
        assert archive.run("export", "bagit", "--output", str(tmp_path / "mount" / "bag")).code == 0
        assert validate(tmp_path / "mount" / "bag").returncode == 0


def test_an_empty_folder_in_one_that_may_not_be_written_to() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "bag"
        folder.mkdir()
        if user == 0:
            os.chown(folder, 65534, -1)
        Path(parent).chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match="cannot be replaced by a finished one: Permission denied"):
                require_empty(folder)
        finally:
            os.seteuid(user)
            Path(parent).chmod(0o755)
        inode = folder.stat().st_ino
        require_empty(folder)
        assert (folder.stat().st_ino, listed(Path(parent))) == (inode, ["bag"])


@pytest.mark.parametrize("folder", [False, True])
def test_what_others_sweep_is_never_what_is_being_made(tmp_path: Path, folder: bool) -> None:
    """Neither between its name and its lock: that is when a sweep may have it."""
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(1000):
            draft = Draft(tmp_path / str(number), durable=False, folder=folder)
            draft.begin()
            draft.publish()
    finally:
        ended.set()
        for sweeper in sweepers:
            sweeper.join()
    assert len(listed(tmp_path)) == 1000


def test_an_empty_bag(archive: Archive) -> None:
    archive.root.mkdir()
    bag = bagged(archive)
    assert (info(bag)["Payload-Oxum"], info(bag)["Bag-Size"], listed(bag / "data")) == ("0.0", "0 B", [])


@pytest.mark.parametrize(("form", "flags"), [("bagit", ()), ("bagit", ("--link",)), ("jsonl", ())])
def test_a_disk_that_is_full_leaves_nothing(archive: Archive, form: str, flags: tuple[str, ...]) -> None:
    """Hard links do not reach into another file system: there a link is a copy."""
    ids = generated(archive.root, 300)
    small = archive.root.with_name("small")
    with mounted(small, "256k"):
        done = archive.run("export", form, *flags, "--output", str(small / "out"))
        assert (done.code, "make room" in done.err, "Traceback" in done.err) == (4, True, False)
        assert listed(small) == []
        assert archive.run("export", form, *flags, ids[0], "--output", str(small / "out")).code == 0
        assert listed(small) == ["out"]
