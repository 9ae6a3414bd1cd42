"""What users of other tools complained about, where no other test shows it: docs/reliability-peers.md has them all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from mirror import Event, Mirror
from mirror.events import Retrying
from mirror.models import PromptId
from mirror.stores import Head, Target
from mirror.stores.local import LocalStore
from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER
from tests.helpers import done_prompt, journaled, large_prompt, running, sha256
from tests.origin import LAST_MODIFIED, Origin, answer, task
from tests.s3 import faults as s3_faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground, named, small_and_large

MIB = 1 << 20
FILM = media.mp4(6 * MIB, seed=1)
OTHER = media.mp4(6 * MIB, seed=2)
HELD = 2 * MIB + 1

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to look into")
with_ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def left(archive: Archive, size: int) -> None:
    """A fetch of the prompt p whose process ended when it had so many bytes of the film."""
    url = large_prompt(archive.origin, "p", FILM)
    etag = f'"{hashlib.md5(FILM, usedforsecurity=False).hexdigest()}"'
    store = LocalStore(archive.settings())

    async def act() -> None:
        sink = await store.sink(Target(identity=url, folder="p", names=("large.mp4",), prompt_id=PromptId("p")))
        await sink.begin(Head(length=len(FILM), etag=etag, last_modified=LAST_MODIFIED))
        await sink.write(0, FILM[:size])
        await sink.close()

    store.open()
    try:
        asyncio.run(act())
    finally:
        store.close()
    assert journaled(archive) == size


def ranges(origin: Origin) -> list[str | None]:
    """What each request for media asked for; None: the whole."""
    return [request.headers.get("range") for request in origin.media_requests]


@pytest.mark.parametrize("honoured", [True, False], ids=["If-Range honoured", "If-Range ignored"])
def test_a_file_that_changed_between_two_runs_is_not_an_old_head_with_a_new_tail(
    archive: Archive, origin: Origin, honoured: bool
) -> None:
    """aria2 #2280. Another file of the same length stands at the URL when the interrupted download is taken up."""
    left(archive, HELD)
    large_prompt(origin, "p", FILM, faults.changed(OTHER, honour_if_range=honoured))

    done = archive.run("fetch", "p")

    assert (done.code, ranges(origin)[0]) == (0, f"bytes={HELD}-")
    assert archive.files()["p/large.mp4"] == OTHER
    assert archive.manifest("p")["files"][0]["sha256"] == sha256(OTHER)


def test_a_partial_that_is_complete_is_published_and_not_asked_for(archive: Archive, origin: Origin) -> None:
    """curl #6740, yt-dlp #12994. All bytes are here, so a Range past the end could only bring 416, for ever."""
    left(archive, len(FILM))
    large_prompt(origin, "p", FILM, faults.unsatisfiable(times=FOREVER))

    done = archive.run("fetch", "p")

    assert (done.code, ranges(origin)) == (0, [])
    assert archive.files()["p/large.mp4"] == FILM


def test_a_partial_longer_than_the_file_is_dropped_once(archive: Archive, origin: Origin) -> None:
    """curl #6740, yt-dlp #12994. What is held is stale: 416 comes once, then the file is fetched from its start."""
    left(archive, HELD)
    shorter = media.mp4(MIB, seed=2)
    large_prompt(origin, "p", FILM, faults.changed(shorter, honour_if_range=False))

    done = archive.run("fetch", "p")

    assert (done.code, ranges(origin)) == (0, [f"bytes={HELD}-", None])
    assert archive.files()["p/large.mp4"] == shorter


def test_a_full_disk_takes_nothing_from_what_has_come(archive: Archive, origin: Origin) -> None:
    """img2dataset #358. The run says why it stops; the next one goes on from the last byte, not from zero."""
    left(archive, HELD)

    full = archive.run("fetch", "p", environ={"MIRROR_TRANSFER_MIN_FREE_SPACE": "900T"})
    assert (full.code, "make room and run again" in full.err) == (4, True)
    assert journaled(archive) == HELD

    large_prompt(origin, "p", FILM)
    origin.clear()
    assert archive.run("fetch", "p").code == 0
    assert ranges(origin) == [f"bytes={HELD}-"]
    assert archive.files()["p/large.mp4"] == FILM


def test_the_first_file_comes_while_the_list_of_ids_is_still_being_made(archive: Archive, origin: Origin) -> None:
    """s5cmd #497, aws-cli #661. Nobody waits for the end of a list that takes hours."""
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "q", "a.png")
    with running(archive, "fetch", "-i", "-", stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        os.write(process.stdin.fileno(), b"p\n")
        origin.wait_for((archive.root / "p" / "manifest.json").exists, 60)
        assert process.poll() is None
        os.write(process.stdin.fileno(), b"q\n")
        process.stdin.close()
        assert process.wait(60) == 0
    assert sorted(archive.files()) == ["p/a.png", "p/manifest.json", "q/a.png", "q/manifest.json"]


@needs_proc
def test_millions_of_ids_wait_in_the_pipe_and_not_in_memory(archive: Archive) -> None:
    """s5cmd #447. While nothing is finished, no more than a few batches of ids are read."""
    lines = b"".join(b"%032x\n" % number for number in range(120_000))
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as silent,
        running(
            archive,
            *("fetch", "-i", "-"),
            stdin=subprocess.PIPE,
            environ={"MIRROR_API_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        ) as process,
    ):
        assert process.stdin
        taken = fed(process, lines, until=silent)
    assert 0 < taken < len(lines) / 4


def fed(process: subprocess.Popen[str], data: bytes, until: socket.socket) -> int:
    """How many bytes a process takes before it has called there, and all its threads wait for something."""
    assert process.stdin
    pipe = process.stdin.fileno()
    os.set_blocking(pipe, False)
    taken, quiet, end = 0, 0, time.monotonic() + 60
    while taken < len(data) and quiet < 10 and time.monotonic() < end:
        if select.select([], [pipe], [], 0.05)[1]:
            taken += os.write(pipe, data[taken : taken + 4096])
            quiet = 0
        else:
            quiet = quiet + 1 if select.select([until], [], [], 0)[0] and sleeps(process.pid) else 0
    assert process.poll() is None
    return taken


def sleeps(pid: int) -> bool:
    """Whether no thread of a process has anything to do."""
    try:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has ended since they were listed
        return False
    return set(states) == {"S"}


def peak_memory(pid: int) -> int:
    """The most that a process has had in memory so far, in bytes."""
    [found] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) << 10


@with_ministack
def test_a_slow_bucket_holds_up_the_downloads(ground: Ground) -> None:
    """scrapy #482. While the bucket takes nothing, no more comes in than the memory that was given."""
    size, memory = 20 * MIB, 16 * MIB
    bodies = {f"p{number}": media.mp4(size, seed=number) for number in range(3)}
    for prompt_id, body in bodies.items():
        large_prompt(ground.origin, prompt_id, body)
    in_sockets = len(bodies) * 10 * MIB  # what the kernel may hold of them, on both sides
    ground.proxy.fault("UploadPart", s3_faults.hold(), FOREVER)

    with running(ground.archive, "fetch", *bodies, "--s3-only", environ={"MIRROR_TRANSFER_MEMORY": str(memory)}) as run:
        ground.proxy.wait_for(lambda: ground.proxy.count("UploadPart") >= 1, 60)
        come = settled(ground.origin.body_bytes)
        assert ground.proxy.count("CompleteMultipartUpload") == 0
        ground.proxy.wait_for(lambda: ended(run, ground.proxy.release), 300)

    assert run.returncode == 0
    assert come < memory + in_sockets < size * len(bodies)
    assert ground.media() == {f"{prompt_id}/large.mp4": body for prompt_id, body in bodies.items()}


def ended(process: subprocess.Popen[str], otherwise: Callable[[], None]) -> bool:
    """Whether a process has ended; if not, it is helped on."""
    if process.poll() is None:
        otherwise()
    return process.returncode is not None


def settled(count: Callable[[], int]) -> int:
    """A count once it has stood still for half a second."""
    seen, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.02)
        if count() != seen:
            seen, since = count(), time.monotonic()
    return seen


@needs_proc
@with_ministack
def test_a_file_on_its_way_into_the_bucket_is_never_whole_in_memory(ground: Ground) -> None:
    """aioboto3 #273. The peak of the whole run, with a bucket that is slower than the origin."""
    body = media.mp4(128 * MIB, seed=3)
    large_prompt(ground.origin, "p", body)
    ground.proxy.fault("UploadPart", s3_faults.hold())
    ground.proxy.fault(named("PutObject", "manifest.json"), s3_faults.hold())

    with running(ground.archive, "fetch", "p", "--s3-only", environ={"MIRROR_TRANSFER_MEMORY": "32M"}) as run:
        ground.proxy.wait_for(lambda: ground.proxy.count("UploadPart") >= 1, 60)
        begun = settled(ground.origin.body_bytes)
        ground.proxy.release()
        ground.proxy.wait_for(lambda: ground.proxy.count(named("PutObject", "manifest.json")) >= 1, 300)
        peak = peak_memory(run.pid)
        ground.proxy.release()
        run.communicate(timeout=60)

    assert run.returncode == 0
    assert begun < 64 * MIB
    assert peak < len(body)
    assert ground.manifest("p")["files"][0]["sha256"] == sha256(body)


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what it hands to threads."""

    hops = 0

    def run_in_executor(self, *call: Any) -> Any:  # type: ignore[override]
        self.hops += 1
        return super().run_in_executor(*call)


def test_bytes_go_to_disk_in_batches_and_not_in_a_thread_hop_each(archive: Archive, origin: Origin) -> None:
    """aiofile #88. A hop for each MiB of a large file, and for a small one no more than a few altogether."""
    large, small = media.mp4(48 * MIB, seed=4), {f"{number}.png": media.png(seed=number) for number in range(100)}
    large_prompt(origin, "p", large)
    done_prompt(origin, "q", *small)
    hops, since = {}, time.monotonic()
    for prompt_id in ("p", "q"):
        loop = CountingLoop()
        try:
            loop.run_until_complete(fetched(archive, prompt_id))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        hops[prompt_id] = loop.hops

    assert archive.files()["p/large.mp4"] == large
    assert len(archive.files()) == len(small) + 3
    # A chunk is half a MiB at most. What is there after a second is written, so a slow machine takes some more.
    assert hops["p"] < 48 + 24 + time.monotonic() - since
    assert hops["q"] < 3 * len(small)


async def fetched(archive: Archive, prompt_id: str) -> None:
    async with Mirror(archive.settings()) as mirror:
        assert [manifest.state async for manifest in mirror.fetch([prompt_id])] == ["complete"]


@with_ministack
def test_a_store_that_knows_no_checksums_is_sent_none(ground: Ground) -> None:
    """botocore #3352. With the setting, no request of a run, nor of those that look after it, has a new checksum."""
    bodies = small_and_large(ground.origin)
    environ = {"MIRROR_S3_CHECKSUM": "when_required"}
    for command in (["doctor"], ["fetch", "p", "q"], ["forget", "p", "--delete"]):
        done = ground.archive.run(*command, environ=environ)
        assert done.code == 0, (command, done.out, done.err)

    assert set(ground.media()) == {"q/large.mp4"} < set(bodies)
    sent = {name for seen in ground.proxy.requests for name in seen.headers}
    assert [name for name in sent if "checksum" in name or name in ("x-amz-trailer", "content-encoding")] == []
    assert {"content-md5"} <= sent


def test_a_server_that_says_when_to_come_back_is_taken_at_its_word(archive: Archive, origin: Origin) -> None:
    """s5cmd #507, aria2 #2295, scrapy #3849. 429 and 503, in seconds and as a date, from the service and a file."""
    date = formatdate(time.time() + 90, usegmt=True)
    by_number = origin.add("/p/a.png", media.png(), fault=faults.status(503, retry_after=60, times=FOREVER))
    by_date = origin.add("/p/b.png", media.png(), fault=faults.status(429, retry_after=date, times=FOREVER))
    origin.prompt("p", answer(task("p", images=[(None, by_number), (None, by_date)])))
    origin.prompt("q", answer(task("q")), fault=faults.status(429, retry_after=60, times=FOREVER))
    told: asyncio.Queue[Retrying] = asyncio.Queue()

    def listen(event: Event, /) -> None:
        if isinstance(event, Retrying):
            told.put_nowait(event)

    async def run() -> dict[str, float]:
        async with Mirror(archive.settings(), observers=[listen]) as mirror:
            fetch = asyncio.create_task(anext(mirror.fetch(["p", "q"])))
            pauses = [await asyncio.wait_for(told.get(), 60) for _ in range(3)]
            fetch.cancel()
            await asyncio.wait({fetch})
        return {event.what: event.seconds for event in pauses}

    pauses = asyncio.run(run())
    assert set(pauses) == {by_number, by_date, "q"}
    assert pauses[by_number] == pauses["q"] == 60
    assert 60 < pauses[by_date] <= 91
