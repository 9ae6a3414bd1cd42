"""`mirror export`: lists that sha256sum checks, where an output goes, what is left out, and what a kill leaves."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror import outputs
from mirror.errors import ConfigError
from mirror.manifests.sha256sums import line
from mirror.stores.local import LocalStore
from tests.conftest import Archive
from tests.export_runs import bound, check_sums, flip, generated, hidden, hostile, listed
from tests.helpers import done_prompt, mirrored, running, tree


def two(archive: Archive) -> None:
    done_prompt(archive.origin, "p", "a.png", "b.png")
    done_prompt(archive.origin, "q", "c.png")
    assert mirrored(archive, "p", "q").code == 0
    archive.origin.clear()


def seen(condition: Callable[[], bool]) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_whole_archive_is_listed_and_checked_by_sha256sum(archive: Archive, tmp_path: Path) -> None:
    ids = hostile(archive)
    done = archive.run("export", "sha256sums")
    assert (done.code, done.err.splitlines()[-1].startswith("20 files of 4 prompts, ")) == (0, True)
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(done.out)
    checked = check_sums(archive.root, sums)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert len(checked.stdout.splitlines()) == len(archive.files()) == 6 * len(ids)
    assert archive.origin.requests == []


@pytest.mark.parametrize("path", ["a.png", "manifest.json"])
def test_one_flipped_bit_is_found_by_sha256sum(archive: Archive, tmp_path: Path, path: str) -> None:
    two(archive)
    sums = tmp_path / "SHA256SUMS"
    assert archive.run("export", "sha256sums", "--output", str(sums)).code == 0
    assert check_sums(archive.root, sums).returncode == 0
    flip(archive.root / "p" / path, 60)
    checked = check_sums(archive.root, sums)
    assert checked.returncode == 1
    assert [told for told in checked.stdout.splitlines() if not told.endswith(": OK")] == [f"p/{path}: FAILED"]


def test_one_flipped_bit_of_the_list_is_found_by_sha256sum(archive: Archive, tmp_path: Path) -> None:
    two(archive)
    sums = tmp_path / "SHA256SUMS"
    assert archive.run("export", "sha256sums", "--output", str(sums)).code == 0
    for at in (0, 63, 64, 66):  # a digit, the last, the space behind it, the name
        whole = sums.read_bytes()
        flip(sums, at)
        assert check_sums(archive.root, sums).returncode == 1
        sums.write_bytes(whole)


def test_a_list_for_each_prompt(archive: Archive, tmp_path: Path) -> None:
    two(archive)
    lists = tmp_path / "lists"
    for _ in range(2):  # the second time they are replaced
        done = archive.run("export", "sha256sums", "--per-prompt", "--output", str(lists))
        assert (done.code, listed(lists)) == (0, ["p.sha256", "q.sha256"])
    for name, files in (("p.sha256", 3), ("q.sha256", 2)):
        checked = check_sums(archive.root, lists / name)
        assert (checked.returncode, checked.stdout.count(": OK")) == (0, files)


def test_an_obstacle_in_one_prompts_place_is_told_and_the_others_are_exported(archive: Archive, tmp_path: Path) -> None:
    ids = generated(archive.root, 4)
    obstacle = tmp_path / "lists" / f"{ids[1]}.csv"
    obstacle.mkdir(parents=True)
    done = archive.run("export", "csv", "--per-prompt", "--output", str(tmp_path / "lists"))
    told, summary = done.err.splitlines()
    assert (done.code, listed(tmp_path / "lists")) == (3, [f"{each}.csv" for each in ids])
    assert told.startswith(f"mirror: {ids[1]}: {obstacle}: Is a directory: ")
    assert summary.startswith("6 files of 3 prompts, ")


@pytest.mark.parametrize("form", ["bagit", "csv"])
def test_what_came_to_stand_in_its_place_meanwhile(archive: Archive, tmp_path: Path, form: str) -> None:
    """Another bag, say: this one was made for nothing, which is not what exit code 3 says."""
    ids = generated(archive.root, 2)
    place = tmp_path / "place"
    place.mkdir()
    with running(archive, "export", form, "-i", "-", "--output", str(place / "out"), stdin=subprocess.PIPE) as process:
        seen(lambda: bool(hidden(place)))
        (place / "out" / "else").mkdir(parents=True)
        _, err = process.communicate(ids[0], timeout=120)
    assert (process.returncode, "move it away" in err, listed(place)) == (4, True, ["out"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("p/a b.png", "{0}  p/a b.png\n"),
        ("p/a\\b", "\\{0}  p/a\\\\b\n"),
        ("p/a\nb\r", "\\{0}  p/a\\nb\\r\n"),
        ("p/漢 *", "{0}  p/漢 *\n"),
    ],
)
def test_names_are_spelled_as_coreutils_spells_them(tmp_path: Path, name: str, told: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    expected = told.format(hashlib.sha256(b"x").hexdigest())
    assert line(hashlib.sha256(b"x").hexdigest(), name) == expected
    theirs = subprocess.run(["sha256sum", name], cwd=tmp_path, capture_output=True, check=True)
    assert theirs.stdout == expected.encode()
    (tmp_path / "sums").write_text(expected, newline="")
    assert check_sums(tmp_path, tmp_path / "sums").returncode == 0


class TestSelection:
    def test_ids_and_lists_of_ids(self, archive: Archive, tmp_path: Path) -> None:
        ids = generated(archive.root, 30)
        table = tmp_path / "ids.csv"
        table.write_text("number,promptId\n" + "".join(f"{n},{i}\n" for n, i in enumerate(ids[5:9])))
        done = archive.run("export", "jsonl", ids[7], ids[20], "-i", str(table), "-i", "-", stdin=f"{ids[1]}\n")
        told = list(dict.fromkeys(row["prompt_id"] for row in done.lines))
        assert (done.code, told) == (0, [ids[7], ids[20], ids[5], ids[6], ids[8], ids[1]])
        assert done.err == "12 files of 6 prompts, " + done.err.partition("prompts, ")[2]

    def test_no_ids_in_a_list_are_not_all(self, archive: Archive) -> None:
        generated(archive.root, 3)
        done = archive.run("export", "jsonl", "-i", "-", stdin="# none\n")
        assert (done.code, done.out, done.err) == (0, "", "0 files of 0 prompts, 0 B\n")

    def test_a_prompt_that_had_to_make_room_is_found_by_its_id(self, archive: Archive) -> None:
        hostile(archive)
        for prompt_id in ("Case", "cASE", "an id of words"):
            (row, *_) = archive.run("export", "jsonl", prompt_id).lines
            assert row["prompt_id"] == prompt_id
            assert (archive.root / row["path"]).is_file()

    def test_neither_a_catalog_nor_a_token_is_needed_and_nothing_is_changed(self, archive: Archive) -> None:
        two(archive)
        shutil.rmtree(archive.root / ".mirror")
        before = tree(archive.root)
        done = archive.run("export", "csv", environ={"MIRROR_API_TOKEN": "", "MIRROR_API_BASE_URL": ""})
        assert (done.code, len(done.out.splitlines()), tree(archive.root)) == (0, 4, before)

    def test_a_run_under_way_is_not_in_the_way(self, archive: Archive, store: LocalStore) -> None:
        generated(archive.root, 2)
        assert archive.run("cleanup").code == 4
        assert len(archive.run("export", "sha256sums").out.splitlines()) == 6


class TestWhatIsLacking:
    def test_it_is_told_and_the_rest_is_exported(self, archive: Archive) -> None:
        ids = generated(archive.root, 6)
        (archive.root / ids[0] / "manifest.json").write_text("{")
        (archive.root / ids[1] / "manifest.json").unlink()
        (archive.root / ids[1] / "manifest.json").mkdir()
        shutil.copy(archive.root / ids[3] / "manifest.json", archive.root / ids[2] / "manifest.json")
        (archive.root / "empty").mkdir()
        done = archive.run("export", "jsonl")
        assert (done.code, sorted({row["prompt_id"] for row in done.lines})) == (3, ids[3:])
        *told, summary = done.err.splitlines()
        assert [words.split(": ")[1] for words in told] == [f"{each}/manifest.json" for each in ids[:3]]
        assert summary.startswith("6 files of 3 prompts")

    def test_an_id_that_is_not_there(self, archive: Archive) -> None:
        two(archive)
        done = archive.run("export", "sha256sums", "p", "nobody", "evil\nid")
        assert (done.code, len(done.out.splitlines())) == (3, 3)
        assert done.err.splitlines()[:2] == [
            "mirror: nobody: no manifest.json of it is there",
            "mirror: evil\\nid: no manifest.json of it is there",
        ]

    def test_a_folder_that_is_a_symlink(self, archive: Archive, tmp_path: Path) -> None:
        """Moved to another disk, or by somebody who has it look like that: nothing is read through it."""
        one, other, gone, *rest = generated(archive.root, 5)
        for moved in (one, gone):
            (archive.root / moved).rename(tmp_path / moved)
            (archive.root / moved).symlink_to(tmp_path / moved)
        shutil.rmtree(tmp_path / gone)
        (tmp_path / "else").mkdir()
        for nothing in ("notes", ".#lock"):
            (archive.root / nothing).symlink_to(tmp_path / "else" if nothing == "notes" else "nowhere")
        (archive.root / "readme").symlink_to(tmp_path / "file")
        (tmp_path / "file").touch()
        told = {
            f"mirror: {one}: is a symlink: nothing is read through it",
            f"mirror: {gone}: is a symlink to nothing: is the disk mounted that it leads to?",
        }
        for ids in ((), (one, other, gone, *rest)):
            done = archive.run("export", "jsonl", *ids)
            assert (done.code, {row["prompt_id"] for row in done.lines}) == (3, {other, *rest})
            assert set(done.err.splitlines()[:-1]) == told
        rebuilt = archive.run("rebuild")
        assert rebuilt.code == 3
        assert {line.split(":")[0] for line in rebuilt.err.splitlines()} == {one, gone, "notes"}

    def test_a_manifest_that_cannot_be_read_by_id(self, archive: Archive) -> None:
        ids = generated(archive.root, 3)
        manifests = [archive.root / each / "manifest.json" for each in ids]
        for manifest in manifests[:2]:
            manifest.unlink()
        os.mkfifo(manifests[0])
        manifests[1].mkdir()
        done = archive.run("export", "jsonl", *ids)
        assert (done.code, len(done.lines)) == (3, 2)
        assert done.err.splitlines()[:2] == [f"mirror: {each}/manifest.json: cannot be read" for each in ids[:2]]

    @pytest.mark.parametrize(
        ("told_instead", "why"),
        [
            ("null", "is not known: the store that copied it tells none"),
            ('"none"', "is no lower-case hex digest"),
            (f'"{"A0" * 32}"', "is no lower-case hex digest"),
            ('"0\\n0  /etc/passwd"', "is no lower-case hex digest"),
        ],
    )
    def test_a_digest_that_nobody_knows(self, archive: Archive, told_instead: str, why: str) -> None:
        two(archive)
        path = archive.root / "p" / "manifest.json"
        path.write_text(re.sub(r'"sha256": "\w+"', lambda _: f'"sha256": {told_instead}', path.read_text(), count=1))
        done = archive.run("export", "sha256sums")
        assert (done.code, [told[66:] for told in done.out.splitlines()]) == (
            3,
            ["p/b.png", "p/manifest.json", "q/c.png", "q/manifest.json"],
        )
        assert done.err.splitlines()[0] == f"mirror: p/a.png: its SHA-256 {why}"
        assert done.err.splitlines()[1].startswith("2 files of 2 prompts")
        rows = archive.run("export", "jsonl")
        assert (rows.code, [row["sha256"] is None for row in rows.lines]) == (0, [True, False, False])


class TestOutput:
    def test_it_appears_whole_and_replaces_the_one_before(self, archive: Archive, tmp_path: Path) -> None:
        two(archive)
        sums = tmp_path / "sums"
        sums.write_text("old")
        (tmp_path / "link").symlink_to(sums)
        done = archive.run("export", "sha256sums", "--output", str(tmp_path / "link"))
        assert (done.code, done.out) == (0, "")
        assert (tmp_path / "link").is_symlink()
        assert sums.read_text() == archive.run("export", "sha256sums").out
        assert hidden(tmp_path) == []

    def test_a_file_in_the_root_is_no_part_of_the_archive(self, archive: Archive) -> None:
        two(archive)
        assert archive.run("export", "sha256sums", "--output", str(archive.root / "SHA256SUMS")).code == 0
        assert check_sums(archive.root, archive.root / "SHA256SUMS").returncode == 0
        done = archive.run("verify")
        assert (done.code, done.out) == (0, "")
        assert archive.run("export", "sha256sums").out == (archive.root / "SHA256SUMS").read_text()

    @pytest.mark.parametrize(
        ("form", "output"),
        [
            ("jsonl", "{root}/p/x.jsonl"),
            ("jsonl", "{root}/.mirror/x.jsonl"),
            ("jsonl", "{root}/.mirror"),
            ("jsonl", "{root}"),
            ("jsonl", "{root}/../way-in/x.jsonl"),
            ("bagit", "{root}/bag"),
            ("bagit", "{root}"),
            ("jsonl", "{root}/../no/folder"),
            ("jsonl", "/dev/null"),
            ("bagit", "{root}/../full"),
            ("bagit", "{root}/../file"),
        ],
    )
    def test_it_goes_nowhere_else(self, archive: Archive, tmp_path: Path, form: str, output: str) -> None:
        two(archive)
        (tmp_path / "way-in").symlink_to(archive.root / "p")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        (tmp_path / "file").touch()
        before = tree(tmp_path)
        done = archive.run("export", form, "--output", output.format(root=archive.root))
        assert (done.code, done.out, done.err.startswith("mirror: --output ")) == (2, "", True)
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("part", [".", "p", ".mirror", ".mirror/parts"])
    def test_a_second_mount_of_the_archive_is_the_archive(self, archive: Archive, tmp_path: Path, part: str) -> None:
        two(archive)
        before = tree(archive.root)
        with bound(archive.root / part, tmp_path / "mount"):
            name = "p/a.png" if part == "." else "x"
            for form, output in (("csv", f"mount/{name}"), ("bagit", "mount/bag"), ("csv", "mount/.mirror/parts/x")):
                done = archive.run("export", form, "--output", str(tmp_path / output))
                assert (done.code, "nothing is put into the archive" in done.err) == (2, True)
            done = archive.run("export", "csv", "--per-prompt", "--output", str(tmp_path / "mount"))
            assert (done.code, "nothing is put into the archive" in done.err) == (2, True)
            assert tree(archive.root) == before
            done = archive.run("export", "csv", "--output", str(tmp_path / "mount" / "files.csv"))
            assert done.code == (0 if part == "." else 2)

    @pytest.mark.parametrize("arguments", [("bagit",), ("csv",), ("csv", "--per-prompt")])
    @pytest.mark.parametrize("output", ["", "x" * 300, "/x" * 3000, "file/x/y", "loop/x", "no\nfolder/x"])
    def test_a_path_that_is_none(
        self, archive: Archive, tmp_path: Path, arguments: tuple[str, ...], output: str
    ) -> None:
        two(archive)
        (tmp_path / "file").touch()
        (tmp_path / "loop").symlink_to("loop")
        before = tree(tmp_path)
        done = archive.run("export", *arguments, "--output", output)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith("mirror: --output ")
        assert tree(tmp_path) == before

    def test_a_folder_that_may_not_be_searched(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        (closed / "in").mkdir(parents=True)
        closed.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            for output in (closed / "x", closed / "in" / "x"):
                for folder in (False, True):
                    with pytest.raises(ConfigError, match="Permission denied"):
                        outputs.checked(str(output), tmp_path / "archive", folder=folder)
        finally:
            os.seteuid(user)
            closed.chmod(0o700)

    def test_an_open_pipe_is_no_place(self, archive: Archive, tmp_path: Path) -> None:
        two(archive)
        done = archive.run("export", "csv", "--output", "/dev/stdout")
        assert (done.code, done.out, done.err) == (2, "", "mirror: --output /dev/stdout: is no plain file\n")
        with (tmp_path / "gone").open("w") as gone, running(archive, "export", "csv", stdout=gone) as process:
            assert process.wait(120) == 0
        with (tmp_path / "gone").open("w") as gone:
            (tmp_path / "gone").unlink()
            with running(archive, "export", "csv", "--output", "/dev/stdout", stdout=gone) as process:
                _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (2, "mirror: --output /dev/stdout: is no plain file\n")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("bagit",),
            ("sha256sums", "--per-prompt"),
            ("bagit", "--per-prompt", "--output", "bag"),
            ("csv", "--link"),
            ("nothing",),
            (),
            ("bagit", "--link", "--s3", "--bucket", "s3://bucket", "--output", "bag"),
        ],
    )
    def test_flags_that_make_no_sense(self, archive: Archive, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        archive.root.mkdir()
        done = archive.run("export", *arguments)
        assert (done.code, done.out, "Error: " in done.err) == (2, "", True)
        assert not (tmp_path / "bag").exists()

    def test_what_is_not_there_to_be_exported(self, archive: Archive) -> None:
        done = archive.run("export", "csv")
        assert (done.code, done.out, "is --root right?" in done.err) == (2, "", True)
        archive.root.mkdir()
        done = archive.run("export", "csv", "-i", "nowhere.txt")
        assert (done.code, done.out, "cannot be read" in done.err) == (2, "", True)
        only = {"MIRROR_S3_BUCKET": "bucket", "MIRROR_S3_ONLY": "true"}
        done = archive.run("export", "csv", environ=only)
        assert (done.code, done.out, "mirror export --s3" in done.err) == (2, "", True)
        done = archive.run("export", "csv", "--s3")
        assert (done.code, done.out, "no bucket is configured" in done.err) == (2, "", True)

    def test_parquet_is_nothing_for_a_terminal(self, archive: Archive) -> None:
        two(archive)
        terminal, ours = pty.openpty()
        try:
            with running(archive, "export", "parquet", stdout=ours) as process:
                _, err = process.communicate(timeout=120)
            assert (process.returncode, "nothing for a terminal" in err) == (2, True)
            with running(archive, "export", "sha256sums", stdout=ours) as process:
                process.communicate(timeout=120)
            assert process.returncode == 0
        finally:
            os.close(terminal)
            os.close(ours)

    def test_parquet_without_its_library(self, archive: Archive, tmp_path: Path) -> None:
        two(archive)
        without = "import sys; sys.modules['pyarrow'] = None; from mirror.cli import main; main()"
        command = [sys.executable, "-c", without, "export", "parquet", "--output", str(tmp_path / "out")]
        done = subprocess.run(
            command, env=archive.environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, "pip install 'prompt-mirror[tables]'" in done.stderr) == (2, True)
        assert not (tmp_path / "out").exists()
        assert hidden(tmp_path) == []

    def test_a_reader_that_goes_away(self, archive: Archive) -> None:
        generated(archive.root, 2000)
        with running(archive, "export", "jsonl") as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["state"] == "complete"
            process.stdout.close()
            assert process.wait(120) == 141
            assert process.stderr is not None
            assert process.stderr.read() == ""

    def test_a_signal_where_nobody_reads(self, archive: Archive) -> None:
        generated(archive.root, 2000)
        with running(archive, "export", "jsonl") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
            assert process.wait(120) == 143

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
    def test_a_stdout_that_is_full(self, archive: Archive) -> None:
        generated(archive.root, 3)
        with Path("/dev/full").open("wb") as full, running(archive, "export", "csv", stdout=full) as process:
            _, err = process.communicate(timeout=120)
        assert (process.returncode, "stdout cannot be written to" in err) == (4, True)


@pytest.mark.parametrize(
    ("form", "sig"),
    [
        ("jsonl", signal.SIGKILL),
        ("jsonl", signal.SIGINT),
        ("parquet", signal.SIGKILL),
        ("bagit", signal.SIGKILL),
        ("bagit", signal.SIGTERM),
    ],
)
def test_a_kill_leaves_the_old_one_or_none(archive: Archive, tmp_path: Path, form: str, sig: signal.Signals) -> None:
    """The ids come from a pipe that stays open, so the export is in its middle. The next one removes what is left."""
    ids = generated(archive.root, 40)
    place = tmp_path / "place"
    place.mkdir()
    target = place / "out"
    if form != "bagit":
        target.write_bytes(b"old")
    before = tree(place)
    command = ("export", form, "-i", "-", "--output", str(target))
    with running(archive, *command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{each}\n" for each in ids[:30]))
        process.stdin.flush()
        seen(lambda: bool(hidden(place)))
        assert len(hidden(place)) == 1
        process.send_signal(sig)
        assert process.wait(120) == (-9 if sig == signal.SIGKILL else 128 + sig)
    left = hidden(place)
    assert len(left) == (sig == signal.SIGKILL)
    assert {name: body for name, body in tree(place).items() if not name.startswith(".mirror-output-")} == before

    with running(archive, *command, stdin=subprocess.PIPE) as process:  # beside another one that is under way
        seen(lambda: not set(hidden(place)) <= set(left))
        assert len(hidden(place)) == 1
        other = archive.run("export", "csv", "--output", str(place / "other"))
        assert (other.code, len(hidden(place))) == (0, 1)
        process.communicate(f"{ids[0]}\n", timeout=120)
        assert process.returncode == 0
    assert hidden(place) == []
    assert (target / "bagit.txt").exists() if form == "bagit" else target.stat().st_size > 200
