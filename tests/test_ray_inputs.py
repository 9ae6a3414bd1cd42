"""Which inputs of `--engine ray` go to the cluster, and what is done with the others. No cluster is needed for it."""

from __future__ import annotations

import os
from pathlib import Path

from mirror.engines.ray.inputs import identity_of, read
from mirror.sources.inputs import Reading


def test_only_plain_files_go_to_the_cluster(tmp_path: Path) -> None:
    plain = tmp_path / "ids.csv"
    plain.write_text("id\np\n")
    status = plain.stat()
    (tmp_path / "link").symlink_to("ids.csv")
    for name in ("ids.csv", "./ids.csv", "link", str(plain)):
        assert identity_of(name) == (status.st_dev, status.st_ino), name
    os.mkfifo("fifo")
    (tmp_path / "stdin").symlink_to("/dev/stdin")
    (tmp_path / "fds").symlink_to("/dev/fd")
    (tmp_path / "ring").symlink_to("ring")
    with plain.open() as opened:
        own = f"/dev/fd/{opened.fileno()}"
        mine = [own, f"/proc/self/fd/{opened.fileno()}", f"/proc/{os.getpid()}/fd/{opened.fileno()}", "stdin"]
        for name in (*mine, f"fds/{opened.fileno()}", "fifo", "/dev/null", ".", "none", "ring", "a\0b"):
            assert identity_of(name) is None, name


def test_a_task_reads_the_file_that_was_meant(tmp_path: Path) -> None:
    Path("ids.csv").write_text("id\np\n")
    Path("other.csv").write_text("id\nq\n")

    def read_by_a_task(name: str, meant: str) -> list[object]:
        given = {"name": [name], "folder": [str(tmp_path)]}
        [rows] = list(read(given, Reading(), identity_of(meant)))
        return [rows["id"], rows["kind"]]

    assert read_by_a_task("ids.csv", "ids.csv") == [["p"], [""]]
    assert read_by_a_task("ids.csv", "other.csv") == [[None], ["ConfigError"]]
    assert read_by_a_task("gone.csv", "other.csv") == [[None], ["ConfigError"]]
