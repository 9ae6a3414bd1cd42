"""`--engine ray` on a real local cluster of two nodes, one of which is killed in the middle.

One cluster for all, which takes its time to start: the first node is the head, and the second is lost, and replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import StoreError
from mirror.stores.desks import desk_lock, desks
from tests.conftest import Archive, Done
from tests.faults import hold_after
from tests.helpers import picture, running
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own

_STORE = 80 << 20


def descendants(processes: set[int]) -> set[int]:
    """Of these processes: they, their children, theirs, and so on."""
    listed = [path for process in processes for path in Path(f"/proc/{process}/task").glob("*/children")]
    children = {int(child) for path in listed for child in read(path).split()}
    return processes | descendants(children) if children else processes


class Nodes:
    """The cluster; ``environ`` is what a command line must know to find it, ``own`` what each node has."""

    def __init__(self, own: dict[str, str]) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - it takes two seconds

        options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
        soon = {"initial_delay_ms": 500, "period_ms": 300, "failure_threshold": 3}
        told = {f"health_check_{name}": value for name, value in soon.items()}
        self._own = own
        with pytest.MonkeyPatch.context() as patch:
            self._furnish(patch)
            self.cluster: Any = Cluster(initialize_head=True, head_node_args={**options, "_system_config": told})
        self._second: Any = None
        self.environ = {"RAY_ADDRESS": self.cluster.address}

    def add(self) -> None:
        """Have a second node."""
        with pytest.MonkeyPatch.context() as patch:
            self._furnish(patch)
            if self._second is None:
                self._second = self.cluster.add_node(num_cpus=1, object_store_memory=_STORE)

    def _furnish(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in self._own.items():
            patch.setenv(name, value)

    @property
    def logs(self) -> list[Path]:
        """All that Ray has written down."""
        head: Any = self.cluster.head_node
        return sorted(Path(head.get_session_dir_path(), "logs").rglob("*"))

    def kill(self) -> None:
        """The second node is gone, with all its processes, as if its power had failed."""
        own = {process.pid for _, process in self._second.live_processes()}
        actors = descendants(own) - own
        self.cluster.remove_node(self._second, allow_graceful=False)
        self._second = None
        for actor in actors:  # they would find out, and end, but could do something until then
            with contextlib.suppress(ProcessLookupError):
                os.kill(actor, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{actor}/exe").exists() for actor in actors))


@pytest.fixture(scope="module")
def nodes(ministack: Server) -> Iterator[Nodes]:
    keys = {name: value for name, value in Bucket.new(ministack).environ.items() if name.startswith("AWS_")}
    made = Nodes({**keys, "RAY_USAGE_STATS_ENABLED": "0"})
    try:
        yield made
    finally:
        made.cluster.shutdown()


@pytest.fixture
def two(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    nodes.add()
    for name, value in nodes.environ.items():
        monkeypatch.setenv(name, value)
    return nodes


def served(origin: Origin, count: int) -> list[str]:
    """Serve prompts of a picture that comes at once, and one whose first answer does not end. Their ids."""
    for number in range(count):
        quick, _ = picture(origin, f"/quick/{number}.png")
        held, _ = picture(origin, f"/held/{number}-held.png", fault=hold_after(100))
        origin.prompt(f"p{number}", answer(task(f"p{number}", images=[(None, quick), (None, held)])))
    return [f"p{number}" for number in range(count)]


def kill_in_the_middle(two: Nodes, archive: Archive, *arguments: str) -> Done:
    """Run with 16 prompts of :func:`served` to its end, and kill the second node while two batches are on each."""
    origin = archive.origin
    with running(archive, "fetch", *arguments, "--engine", "ray", "--json") as process:
        origin.wait_for(lambda: origin.count("/held/") >= 8 or process.poll() is not None, timeout=180)
        assert process.poll() is None, process.communicate()
        wait_until(lambda: len(noted(archive)) >= 8)
        two.kill()
        for number in range(16):
            origin.release(f"/held/{number}-held.png")
        out, err = process.communicate(timeout=180)
    return Done(process.returncode, out, err)


def check_nothing_came_twice(origin: Origin) -> None:
    """But for what was on its way to the node that was killed."""
    asked = [request.target for request in origin.media_requests]
    quick = [target for target in asked if target.startswith("/quick/")]
    assert sorted(quick) == sorted(f"/quick/{number}.png" for number in range(16))
    assert 16 <= len(asked) - len(quick) <= 16 + 8


def test_a_lost_node_costs_what_was_on_its_way(two: Nodes, archive: Archive) -> None:
    origin = archive.origin
    ids = served(origin, 16)
    Path("ids.csv").write_text("n,id\n" + "".join(f"{n},{each}\n" for n, each in enumerate([*ids, "", "p0"])))
    done = kill_in_the_middle(two, archive, "-i", "ids.csv")
    assert done.code == 3, done.err
    assert "ids.csv:18: the id is empty" in done.err
    assert "Traceback" not in done.err
    assert sorted(line["prompt_id"] for line in done.lines) == sorted(ids)
    check_nothing_came_twice(origin)
    assert archive.run("verify").code == 0
    told = b"".join(path.read_bytes() for path in two.logs if path.is_file())
    assert b"MirrorStage" in told or b"RayStage" in told
    assert origin.token.encode() not in told

    origin.clear()
    wait_until(lambda: are_deserted(archive.root / ".mirror" / "parts"))
    again = archive.run("fetch", *ids)
    assert (again.code, again.summary["prompts"]) == (0, {"complete": 16})
    assert origin.requests == [], "the catalog knows all of it"
    assert {Path(name).suffix for name in archive.partials()} <= {".manifest"}, "a kill may have come there"


def are_deserted(parts: Path) -> bool:
    """Nobody is at a desk. Actors may outlive their run a little, and what they leave then is gathered by the next."""
    try:
        for desk in desks(parts):
            lock = desk_lock(desk)
            lock.take()
            lock.release(unmark=False)
    except StoreError:
        return False
    return True


def test_the_same_in_a_bucket(two: Nodes, archive: Archive, ministack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket.new(ministack)
    for name, value in bucket.environ.items():
        monkeypatch.setenv(name, value)
    ids = served(archive.origin, 16)
    done = kill_in_the_middle(two, archive, *ids, "--s3-only")
    assert (done.code, done.err.count("Traceback")) == (0, 0)
    assert sorted(line["prompt_id"] for line in done.lines) == sorted(ids)
    check_nothing_came_twice(archive.origin)
    names = ("manifest.json", "{}.png", "{}-held.png")
    assert bucket.keys() == sorted(f"p{n}/{name.format(n)}" for n in range(16) for name in names)
    assert archive.run("verify", "--s3").code == 0

    archive.origin.clear()
    wait_until(lambda: are_deserted(archive.root / ".mirror" / "parts"))
    assert archive.run("fetch", *ids, "--s3-only").code == 0
    assert archive.origin.requests == []
    assert (archive.files(), archive.partials()) == ({}, [])


def test_a_root_that_only_the_driver_sees_is_none(two: Nodes, archive: Archive, tmp_path: Path) -> None:
    served(archive.origin, 1)
    seen = os.open(tmp_path, os.O_RDONLY)
    unshared = Archive(Path(f"/proc/self/fd/{seen}/other"), archive.origin)
    with running(unshared, "fetch", "p0", "--engine", "ray", "--processes", "1", pass_fds=(seen,)) as process:
        os.close(seen)
        _, err = process.communicate(timeout=180)
    assert (process.returncode, "--s3-only" in err, "Traceback" in err) == (2, True, False), err
    assert archive.origin.requests == []


def test_an_interrupt_ends_it_at_once(two: Nodes, archive: Archive) -> None:
    ids = served(archive.origin, 4)
    with running(archive, "fetch", *ids, "--engine", "ray", "--processes", "1") as process:
        archive.origin.wait_for(lambda: archive.origin.count("/held/") >= 2, timeout=180)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "4 left" in err, "Traceback" in err) == (130, True, False), err


def noted(archive: Archive) -> list[str]:
    """The files that workers have noted as stored."""
    notes = (archive.root / ".mirror" / "parts").glob("*/*.stored")
    return [line for path in notes for line in read(path).splitlines() if '"type":"stored"' in line]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def wait_until(happened: Callable[[], bool], timeout: float = 60.0) -> None:
    end = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
