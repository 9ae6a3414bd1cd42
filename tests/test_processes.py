"""`--processes N`: the same run, done by several processes, whatever happens to one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mirror import FetchOptions, PromptState
from mirror.engines.shares import share_of
from mirror.settings import ApiSettings, Settings, TransferSettings
from mirror.stores.journal import Claim, Started, journal_of
from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER, Reply
from tests.helpers import asked, done_prompt, large_prompt, mirrored, picture, running
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import LARGE, Ground

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")

MIB = 1 << 20
TWO = ("--processes", "2")


def children(pid: int) -> list[int]:
    """The worker processes of a driver."""
    with contextlib.suppress(FileNotFoundError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def claimed(archive: Archive, url: str) -> list[Path]:
    """The partial files of this URL, at desks of workers, of which a journal claims something."""
    journals = {path: journal_of(path).read() for path in (archive.root / ".mirror" / "parts").glob("*/*.journal")}
    return [
        path.with_suffix(".part")
        for path, records in journals.items()
        if any(isinstance(record, Started) and record.identity == url for record in records)
        and any(isinstance(record, Claim) and record.stop > record.start for record in records)
    ]


def many(origin: Origin, count: int) -> list[str]:
    """So many done prompts of two files each."""
    names = [f"prompt{number:03}" for number in range(count)]
    for name in names:
        done_prompt(origin, name, "a.png", "b.png")
    return names


def verified(archive: Archive, prompts: int) -> None:
    """The catalog knows so many complete prompts, and what is there is what it says."""
    checked = archive.run("verify", "--json")
    assert checked.code == 0, checked.err + checked.out
    [counted] = archive.run("status", "--json").lines
    assert {state: counted[state]["prompts"] for state in PromptState if state in counted} == {"complete": prompts}


def test_it_does_what_one_process_does(origin: Origin, archive: Archive, tmp_path: Path) -> None:
    names = many(origin, 60)
    one = Archive(tmp_path / "one", origin).run("fetch", *names, "--json")
    origin.clear()

    two = archive.run("fetch", *names, "--json", *TWO)

    assert (one.code, two.code) == (0, 0), two.err
    kept = {line["prompt_id"]: {**line, "mirrored_at": ""} for line in one.lines}
    assert {line["prompt_id"]: {**line, "mirrored_at": ""} for line in two.lines} == kept
    assert asked(origin) == names
    assert len(origin.media_requests) == 120
    told = {"prompts", "files", "files_failed", "bytes_downloaded", "bytes_reused", "requests", "exit_code"}
    assert {key: two.summary[key] for key in told} == {key: one.summary[key] for key in told}
    assert archive.partials() == []
    verified(archive, 60)

    origin.clear()
    again = archive.run("fetch", *names, "--json", *TWO)
    assert ([line["prompt_id"] for line in again.lines], origin.requests) == (names, [])


def test_both_work(origin: Origin, archive: Archive) -> None:
    held = [large_prompt(origin, f"p{number}", media.png(), faults.hold_after(10)) for number in range(40)]
    names = [f"p{number}" for number in range(40)]
    with running(archive, "fetch", *names, *TWO, "--concurrency", "80", "-q") as process:
        origin.wait_for(lambda: len(origin.media_requests) == 40, 60)
        ours = children(process.pid)
        assert len(ours) == 2
        desks = [path.name for path in (archive.root / ".mirror" / "parts").iterdir()]
        for url in held:
            origin.release(url)
        assert process.wait(60) == 0
    assert len(desks) == 2
    verified(archive, 40)


def test_one_file_of_many_prompts_is_fetched_once(origin: Origin, archive: Archive) -> None:
    url, body = picture(origin, "/shared.png", fault=faults.trickle(20_000))
    names = [f"p{number}" for number in range(50)]
    for name in names:
        origin.prompt(name, answer(task(name, images=[(None, url)])))

    done = archive.run("fetch", *names, *TWO)

    assert done.code == 0, done.err
    assert origin.count("/shared.png") == 1
    assert {archive.files()[f"{name}/shared.png"] for name in names} == {body}
    assert done.summary["bytes_reused"] == 49 * len(body)
    verified(archive, 50)


def test_a_file_that_fails_fails_for_all_that_wait_for_it(origin: Origin, archive: Archive) -> None:
    url, _ = picture(origin, "/gone.png", fault=[faults.status(404, times=FOREVER)])
    names = [f"p{number}" for number in range(40)]
    for name in names:
        origin.prompt(name, answer(task(name, images=[(None, url)])))
    done = archive.run("fetch", *names, "--json", *TWO)
    assert done.code == 3
    assert {(line["state"], line["errors"][0]["error"]) for line in done.lines} == {("partial", "Gone")}


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(origin: Origin, archive: Archive) -> None:
    names = many(origin, 80)
    body = media.mp4(6 * MIB)
    url = large_prompt(origin, "large", body, faults.hold_after(4 * MIB))
    with running(archive, "fetch", "large", *names, "--json", *TWO) as process:
        origin.wait_bytes("/large/large.mp4", 4 * MIB)
        until(lambda: claimed(archive, url) != [])
        [part] = claimed(archive, url)
        [victim] = [pid for pid in children(process.pid) if part in opened(pid)]
        os.kill(victim, signal.SIGKILL)
        origin.wait_for(lambda: origin.count("/large/") == 2, 60)
        origin.release("/large/large.mp4")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "a worker process died (signal 9): another one takes up what it was at" in err, err
    assert len(out.splitlines()) == 81
    ranges = [request.headers.get("range") for request in origin.media_requests if "/large/" in request.path]
    assert ranges[0] is None
    assert ranges[1] is not None  # it went on with what the dead one had
    assert archive.files()["large/large.mp4"] == body
    assert archive.partials() == []
    verified(archive, 81)


def opened(pid: int) -> list[Path]:
    """The files that a process has open."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(fd.readlink())
    return found


def test_workers_that_die_all_the_time_end_the_run(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.mp4(MIB), faults.hold_after(10))
    killed: set[int] = set()
    with running(archive, "fetch", "p", *TWO) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            for pid in children(process.pid):
                if pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "a worker process died (signal 9), as 5 before it: is there memory enough for them?" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["KILL", "TERM", "INT"])
def test_when_the_driver_is_stopped_so_are_its_workers(origin: Origin, archive: Archive, sig: int) -> None:
    names = many(origin, 20)
    body = media.mp4(6 * MIB)
    url = large_prompt(origin, "large", body, faults.hold_after(4 * MIB))
    with running(archive, "fetch", "large", *names, *TWO) as process:
        origin.wait_bytes("/large/large.mp4", 4 * MIB)
        until(lambda: claimed(archive, url) != [])
        workers = children(process.pid)
        process.send_signal(sig)
        _, err = process.communicate(timeout=60)
    assert process.returncode == (-sig if sig == signal.SIGKILL else 128 + sig), err
    assert "Traceback" not in err
    until(lambda: all(map(is_gone, workers)))
    if sig != signal.SIGKILL:
        assert {Path(name).suffix for name in archive.partials()} == {".journal", ".part"}

    origin.release("/large/large.mp4")
    origin.clear()
    again = archive.run("fetch", "large", *names)
    assert again.code == 0, again.err
    [request] = [request for request in origin.media_requests if "/large/" in request.path]
    assert request.headers["range"] != "bytes=0-"  # it went on with what was claimed
    assert archive.files()["large/large.mp4"] == body
    assert archive.partials() == []
    verified(archive, 21)


def test_a_fatal_error_of_one_worker_ends_the_run(origin: Origin, archive: Archive) -> None:
    names = many(origin, 40)
    origin.prompt("secret", Reply(status=401))
    done = archive.run("fetch", *names, "secret", *TWO)
    assert done.code == 4
    assert "Unauthorized" in done.err or "token" in done.err
    assert "Traceback" not in done.err
    assert origin.token not in done.err


def test_what_waits_for_the_service_holds_nobody_up(origin: Origin, archive: Archive) -> None:
    """They are under way upstream until the others have been told of."""
    url, _ = picture(origin, "/late.png")
    late, others_are_told = [f"late{number}" for number in range(60)], threading.Event()
    for name in late:
        queued, done = answer(task(name, 20)), answer(task(name, images=[(None, url)]))
        origin.prompt(name, partial(lambda queued, done, _: done if others_are_told.is_set() else queued, queued, done))
    names = many(origin, 10)
    with running(archive, "fetch", *late, *names, "--wait", "2m", "--json", *TWO) as process:
        assert process.stdout
        first = [json.loads(process.stdout.readline())["prompt_id"] for _ in names]
        others_are_told.set()
        _, err = process.communicate(timeout=120)
    assert (process.returncode, set(first)) == (0, set(names)), err
    verified(archive, 70)


def test_sync_has_several_processes_too(origin: Origin, archive: Archive) -> None:
    names = many(origin, 30)
    origin.history([{"promptId": name, "state": 30, "createdAt": 1769594620000 + n} for n, name in enumerate(names)])
    done = archive.run("sync", *TWO)
    assert done.code == 0, done.err
    assert done.summary["prompts"] == {"complete": 30}
    origin.clear()
    assert archive.run("sync", *TWO).code == 0
    assert origin.media_requests == []
    verified(archive, 30)


def test_a_manifest_without_a_row_is_taken_for_what_it_says(origin: Origin, archive: Archive) -> None:
    names = many(origin, 20)
    assert archive.run("fetch", *names).code == 0
    for path in (archive.root / ".mirror").glob("catalog*"):
        path.unlink()
    origin.clear()
    done = archive.run("fetch", *names, *TWO)
    assert (done.code, origin.requests) == (0, []), done.err
    verified(archive, 20)


def test_from_python_too_and_what_is_left_by_break_is_gone_on_with(origin: Origin, archive: Archive) -> None:
    names = many(origin, 30)
    ran = mirrored(archive, *names, options=FetchOptions(processes=2))
    assert (ran.code, set(ran.states.values()), len(ran.manifests)) == (0, {"complete"}, 30)
    assert {type(event).__name__ for event in ran.events} >= {"RunStarted", "PromptFinished", "FileStored", "Answered"}


def test_everything_is_shared_out() -> None:
    whole = Settings(
        transfer=TransferSettings(memory=400, limit_rate=1000, concurrency=9), api=ApiSettings(requests_per_second=10)
    )
    share = share_of(whole, 4)
    assert (share.transfer.memory, share.transfer.limit_rate, share.transfer.concurrency) == (100, 250, 2)
    assert share.api.requests_per_second == 2.5
    none = share_of(Settings(), 4)
    assert (none.transfer.limit_rate, none.transfer.concurrency, none.api.requests_per_second) == (0, 0, 0)
    assert share_of(Settings(transfer=TransferSettings(concurrency=1)), 4).transfer.concurrency == 1


def test_the_token_is_on_no_command_line(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.mp4(MIB), faults.hold_after(10))
    with running(archive, "fetch", "p", *TWO) as process:
        origin.wait_for(lambda: origin.count("/p/") == 1)
        until(lambda: children(process.pid) != [])
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process.pid)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert lines
    assert all(origin.token.encode() not in line for line in lines)


def test_while_a_worker_lives_nobody_else_has_the_root(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.mp4(MIB), faults.hold_after(10))
    with running(archive, "fetch", "p", *TWO) as process:
        origin.wait_for(lambda: origin.count("/p/") == 1)
        workers = children(process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        refused = archive.run("cleanup")
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        until(lambda: all(map(is_gone, workers)))
    assert refused.code == 4, refused.err
    assert "that process is gone, and a worker of it is not: look for mirror.engines.process" in refused.err
    assert archive.run("cleanup").code == 0


def test_the_limits_are_those_of_all_together_and_an_idle_worker_takes_nothing_of_them(
    origin: Origin, archive: Archive
) -> None:
    """One id is one worker's, which has all of the rate: with a 64th of it this would take two minutes."""
    large_prompt(origin, "p", media.mp4(2 * MIB))
    done = archive.run("fetch", "p", "--limit-rate", "1M", "--processes", "64", "--max-time", "100s")
    assert done.code == 0, done.err


def test_of_one_connection_to_a_host_there_is_one(origin: Origin, archive: Archive) -> None:
    held = [large_prompt(origin, f"p{number}", media.png(), faults.hold_after(10)) for number in range(6)]
    with running(archive, "fetch", *(f"p{n}" for n in range(6)), "--concurrency", "1", "--processes", "3") as process:
        origin.wait_for(lambda: len(origin.media_requests) == 1, 60)
        time.sleep(0.5)
        at_once = sum(request.ended is None for request in origin.media_requests)
        for url in held:
            origin.release(url)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, at_once) == (0, 1), err


def test_a_folder_that_is_no_text_is_one_all_the_same(origin: Origin, tmp_path: Path) -> None:
    names = many(origin, 4)
    archive = Archive(tmp_path / os.fsdecode(b"no\xfftext"), origin)
    done = subprocess.run(
        [sys.executable, "-m", "mirror", "fetch", *names, *TWO, "-q"],
        env=archive.environment(),
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert len(archive.files()) == 12


def test_without_descriptors_it_says_so(origin: Origin, archive: Archive) -> None:
    names = many(origin, 60)
    command = f"ulimit -n 40; exec {sys.executable} -m mirror fetch {' '.join(names)} --processes 40"
    done = subprocess.run(
        ["bash", "-c", command], env=archive.environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in (0, 4), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 4:
        assert "Too many open files: raise the limit (ulimit -n)" in done.stderr


def test_what_is_no_worker_s_desk_is_left_alone(origin: Origin, archive: Archive) -> None:
    names = many(origin, 4)
    parts = archive.root / ".mirror" / "parts"
    for name in "abcd":
        (parts / name).mkdir(parents=True)
    (parts / "a" / "lock").mkdir()
    os.mkfifo(parts / "b" / "lock")
    (parts / "c" / "lock").symlink_to(archive.root.parent / "elsewhere")
    (parts / "d" / "x.part").symlink_to("/etc/passwd")
    done = archive.run("fetch", *names, *TWO)
    assert done.code == 0, done.err
    assert (parts / "d" / "x.part").is_symlink()
    assert not (archive.root.parent / "elsewhere").exists()


@pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
def test_into_a_bucket_alone_whatever_happens_to_a_worker(
    archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground.prepared(archive, bucket, proxy, monkeypatch)
    names = many(ground.origin, 20)
    large_prompt(ground.origin, "large", LARGE, faults.hold_after(8 * MIB))
    flags = ("--s3", ground.url, "--s3-only", *TWO)
    with running(archive, "fetch", "large", *names, *flags) as process:
        until(lambda: any((archive.root / ".mirror" / "parts").glob("*/*.upload")) and bucket.uploads() != [])
        [desk] = {path.parent for path in (archive.root / ".mirror" / "parts").glob("*/*.upload")}
        [victim] = [pid for pid in children(process.pid) if desk / "lock" in opened(pid)]
        os.kill(victim, signal.SIGKILL)
        ground.origin.wait_for(lambda: ground.origin.count("/large/") == 2, 60)
        ground.origin.release("/large/large.mp4")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert ground.media()["pre/large/large.mp4"] == LARGE
    assert (len(ground.media()), bucket.uploads(), archive.files()) == (41, [], {})
    assert archive.partials() == []
    checked = archive.run("verify", "--s3", "--bucket", ground.url, "--deep")
    assert checked.code == 0, checked.out


def test_more_than_a_machine_has_are_refused(origin: Origin, archive: Archive) -> None:
    done = archive.run("fetch", "p", "--processes", "65")
    assert done.code == 2, done.err
    assert "processes: 65: on one machine there may be 64 at most" in done.err
    assert origin.requests == []
