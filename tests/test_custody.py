"""State without a disk: the catalog stands in the bucket, is taken from there and put back."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import answer, task
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3_runs_e2e import Ground, named
from tests.test_sync import row, tasks

one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
KEY = "pre/.mirror/catalog.sqlite.gz"


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    found = Ground.prepared(archive, bucket, proxy, monkeypatch)
    monkeypatch.setenv("MIRROR_S3_BUCKET", bucket.name)
    monkeypatch.setenv("MIRROR_S3_PREFIX", "pre")
    monkeypatch.setenv("MIRROR_S3_ONLY", "true")
    monkeypatch.setenv("MIRROR_S3_CATALOG", "true")
    return found


def pod(ground: Ground, name: str) -> Archive:
    """An archive on a machine that knows nothing yet."""
    return Archive(ground.archive.root.with_name(name), ground.origin)


def history(ground: Ground, *names: str) -> None:
    ground.origin.history([row(name, age=60 * number) for number, name in enumerate(names)])
    for name in names:
        done_prompt(ground.origin, name, f"{name}.png")


def in_bucket(ground: Ground, tmp_path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the catalog in the bucket says."""
    path = tmp_path / "read.sqlite"
    path.write_bytes(gzip.decompress(ground.bucket.read(KEY)[KEY]))
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def states(ground: Ground, tmp_path: Path) -> dict[str, str]:
    return dict(in_bucket(ground, tmp_path, "SELECT prompt_id, state FROM prompts"))


def test_each_night_goes_on_where_another_pod_stopped(ground: Ground, tmp_path: Path) -> None:
    history(ground, "a", "b")
    first = pod(ground, "pod1")
    done = first.run("sync")
    assert done.code == 0, done.err
    assert states(ground, tmp_path) == {"a": "complete", "b": "complete"}
    assert not list((first.root / ".mirror").glob("catalog*")), "the working copy is gone"
    history(ground, "c", "a", "b")
    ground.forget()
    done = pod(ground, "pod2").run("sync")
    assert done.code == 0, done.err
    assert tasks(ground.origin) == ["c"]
    assert [request.path for request in ground.origin.media_requests] == ["/c/c.png"]
    assert states(ground, tmp_path) == {"a": "complete", "b": "complete", "c": "complete"}
    [(floor, top)] = in_bucket(ground, tmp_path, "SELECT floor, top FROM histories")
    assert floor is None
    assert top is not None


def test_failures_and_tries_are_remembered_from_pod_to_pod(ground: Ground, tmp_path: Path) -> None:
    ground.origin.prompt("a", answer(task("a", 30, [(None, f"{ground.origin.url}/gone.png")])))
    ground.origin.history([row("a"), row("unknown", state=20)])
    assert [pod(ground, f"pod{night}").run("sync").code for night in range(3)] == [3, 0, 0]
    assert in_bucket(ground, tmp_path, "SELECT prompt_id, tries FROM prompts ORDER BY 1") == [("a", 1), ("unknown", 1)]
    told = pod(ground, "looking").run("status", "--failed")
    assert (told.code, told.out.splitlines()[0].partition(":")[0]) == (0, "a\t# partial")
    assert len(told.out.splitlines()) == 2


def under_way(ground: Ground) -> tuple[subprocess.Popen[str], threading.Event]:
    """A run that has taken the catalog, and waits for an answer about "slow" until the event is set."""
    reached, opened = threading.Event(), threading.Event()

    def slow(_: int) -> dict[str, Any]:
        reached.set()
        opened.wait(300)
        return answer(task("slow", 20))

    ground.origin.prompt("slow", slow)
    process = pod(ground, "pod1").start("fetch", "slow", environ={"MIRROR_API_TIMEOUT": "10m"})
    assert reached.wait(120)
    return process, opened


def test_two_runs_at_once_lose_nothing_of_each_other(ground: Ground, tmp_path: Path) -> None:
    done_prompt(ground.origin, "b", "b.png")
    process, opened = under_way(ground)
    other = pod(ground, "pod2").run("fetch", "b")
    assert other.code == 0, other.err
    opened.set()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 5, err
    assert "another run has put its catalog there meanwhile" in err
    assert states(ground, tmp_path) == {"b": "complete", "slow": "pending"}


def test_without_a_catalog_the_manifests_tell(ground: Ground, tmp_path: Path) -> None:
    history(ground, "a", "b", "c")
    assert pod(ground, "pod1").run("sync").code == 0
    ground.bucket.server.client().delete_object(Bucket=ground.bucket.name, Key=KEY)
    ground.forget()
    done = pod(ground, "pod2").run("sync")
    assert done.code == 0, done.err
    assert "3 prompts came back from the bucket's manifests" in done.err
    assert (tasks(ground.origin), ground.origin.media_requests) == ([], [])
    assert states(ground, tmp_path) == dict.fromkeys("abc", "complete")


@one
@pytest.mark.parametrize(
    "damage",
    [b"", b"not a catalog", gzip.compress(b"not a catalog" * 99), None],
    ids=["empty", "no gzip", "no catalog", "cut short"],
)
def test_a_damaged_catalog_is_told_and_stays(ground: Ground, damage: bytes | None) -> None:
    history(ground, "a")
    assert pod(ground, "pod1").run("sync").code == 0
    body = ground.bucket.read(KEY)[KEY][:-100] if damage is None else damage
    ground.bucket.put(KEY, body)
    done = pod(ground, "pod2").run("sync")
    assert (done.code, done.err.count("Traceback")) == (4, 0), done.err
    assert "damaged" in done.err
    assert KEY in done.err
    assert ground.bucket.read(KEY)[KEY] == body


def without_length(headers: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name.lower() != "content-length"}
    return kept | {"Connection": "close"}


@one
@pytest.mark.parametrize(
    "fault",
    [
        faults.Fault(edit=without_length, cut=700),
        faults.answer_with(200, b"<html>log in</html>", headers={"ETag": '"x"'}),
    ],
    ids=["cut short, its length not told", "a page of something between"],
)
def test_what_is_not_the_catalog_is_asked_for_again(ground: Ground, fault: faults.Fault) -> None:
    history(ground, "a")
    assert pod(ground, "pod1").run("sync").code == 0
    ground.proxy.fault(named("GetObject", "catalog.sqlite.gz"), fault)
    ground.forget()
    done = pod(ground, "pod2").run("sync")
    assert (done.code, tasks(ground.origin), ground.proxy.unused) == (0, [], 0), done.err


@one
def test_a_catalog_that_may_be_whole_is_not_to_be_deleted(ground: Ground) -> None:
    """Something between answers to HEAD and GET alike: what came is no catalog, and no digest says that it is ours."""
    history(ground, "a")
    assert pod(ground, "pod1").run("sync").code == 0
    page = faults.answer_with(200, b"<html>log in</html>", headers={"ETag": '"x"'})
    ground.proxy.fault(lambda seen: seen.key == KEY and seen.method in ("GET", "HEAD"), page, FOREVER)
    done = pod(ground, "pod2").run("sync")
    assert (done.code, "look at it by another way" in done.err, "delete it" in done.err) == (4, True, False), done.err


@one
def test_what_a_killed_run_knew_is_taken_in_by_the_next_one_there(ground: Ground, tmp_path: Path) -> None:
    history(ground, "a")
    first = pod(ground, "pod1")
    assert first.run("sync").code == 0
    history(ground, "b", "unknown", "a")
    ground.origin.prompt("unknown", answer(None, 900, "no data"))
    ground.forget()
    ground.proxy.fault(named("PutObject", "catalog.sqlite.gz"), faults.hold())
    process = first.start("sync")
    first.kill_when(process, lambda: ground.proxy.wait_for(lambda: held(ground.proxy), timeout=120))
    assert states(ground, tmp_path) == {"a": "complete"}
    ground.forget()
    assert first.run("sync").code == 0
    assert tasks(ground.origin) == ["unknown"], "the history says that it is done"
    assert states(ground, tmp_path) == {"a": "complete", "b": "complete", "unknown": "unknown"}


def held(proxy: FaultProxy) -> bool:
    return any(named("PutObject", "catalog.sqlite.gz")(seen) for seen in proxy.requests)


@one
def test_a_catalog_that_cannot_be_put_back_is_told_and_kept(ground: Ground, tmp_path: Path) -> None:
    history(ground, "a")
    ground.proxy.fault(named("PutObject", "catalog.sqlite.gz"), faults.answer(403, "AccessDenied"))
    first = pod(ground, "pod1")
    done = first.run("sync")
    assert (done.code, done.err.count("Traceback")) == (4, 0), done.err
    assert (first.root / ".mirror" / "catalog.sqlite").exists()
    assert ground.proxy.unused == 0
    ground.forget()
    assert first.run("sync").code == 0
    assert tasks(ground.origin) == []
    assert states(ground, tmp_path) == {"a": "complete"}


@one
def test_to_look_is_not_to_touch(ground: Ground) -> None:
    history(ground, "a")
    assert pod(ground, "pod1").run("sync").code == 0
    history(ground, "b", "a")
    before = ground.bucket.read()
    looking = pod(ground, "pod2")
    assert looking.run("status", "a").code == 0
    dry = looking.run("sync", "--dry-run")
    assert (dry.code, [line.split("\t")[0] for line in dry.out.splitlines()]) == (0, ["b"])
    assert ground.bucket.read() == before
    assert not looking.root.exists() or not list(looking.root.rglob("catalog*"))


@one
def test_a_catalog_in_the_bucket_needs_a_bucket_alone(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_S3_ONLY", "false")
    done = pod(ground, "pod1").run("sync")
    assert done.code == 2
    assert "only = true" in done.err


@one
def test_what_one_run_forgets_another_does_not_bring_back(ground: Ground, tmp_path: Path) -> None:
    history(ground, "a", "b")
    assert pod(ground, "pod1").run("sync").code == 0
    process, opened = under_way(ground)
    assert pod(ground, "pod2").run("forget", "a", "--delete").code == 0
    opened.set()
    process.communicate(timeout=300)
    assert process.returncode == 5
    assert states(ground, tmp_path) == {"b": "complete", "slow": "pending"}
    assert pod(ground, "pod3").run("fetch", "a").code == 0
    assert states(ground, tmp_path)["a"] == "complete"


@one
def test_a_stop_does_not_wait_for_a_bucket_that_hangs(ground: Ground, tmp_path: Path) -> None:
    ground.origin.prompt("a", answer(task("a", 20)))
    ground.origin.history([row("a")])
    first = pod(ground, "pod1")
    ground.proxy.fault(named("PutObject", "catalog.sqlite.gz"), faults.hold())
    process = first.start("sync", "--wait", "1h", environ={"MIRROR_TRANSFER_STALL_TIMEOUT": "1h"})
    ground.origin.wait_for(lambda: tasks(ground.origin) == ["a"])
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "stays here for the next run" in err
    assert (first.root / ".mirror" / "catalog.sqlite").exists()
    assert first.run("sync").code == 5
    assert states(ground, tmp_path) == {"a": "pending"}
