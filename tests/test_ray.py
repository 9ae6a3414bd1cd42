"""`--engine ray` on a real local cluster of two nodes, one of which is killed in the middle.

One cluster for all, which takes its time to start: the first node is the head, and the second is lost, and replaced.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.engines.notes import Notes
from tests.conftest import Archive, Done
from tests.faults import hold_after
from tests.helpers import done_prompt, picture, running
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own

_STORE = 80 << 20


class Nodes:
    """The cluster; ``environ`` is what a command line must know to find it."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=options)
        self._second: Any = None
        self.environ = {"RAY_ADDRESS": self.cluster.address}

    def add(self) -> None:
        """Have a second node."""
        if self._second is None:
            self._second = self.cluster.add_node(num_cpus=1, object_store_memory=_STORE, wait=True)

    def kill(self) -> None:
        """The second node is gone, with all its processes, as if its power had failed."""
        self.cluster.remove_node(self._second, allow_graceful=False)
        self._second = None


@pytest.fixture(scope="module")
def nodes(ministack: Server) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
        for name in keys:  # as every node would be given them
            patch.setenv(name, Bucket.new(ministack).environ[name])
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Nodes()
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


def held_prompts(origin: Origin, count: int) -> dict[str, bytes]:
    """Serve prompts of a picture that comes at once, and one whose first answer does not end; path → bytes."""
    bodies = {}
    for number in range(count):
        prompt_id = f"p{number}"
        quick, body = picture(origin, f"/quick/{number}.png")
        held, late = picture(origin, f"/held/{number}.png", fault=hold_after(100))
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, quick), (None, held)])))
        bodies |= {f"{prompt_id}/{number}.png": body, f"{prompt_id}/held-{number}.png": late}
    return bodies


def test_a_lost_node_costs_what_was_on_its_way(two: Nodes, archive: Archive) -> None:
    origin = archive.origin
    ids = [f"p{number}" for number in range(16)]
    for number, prompt_id in enumerate(ids):
        quick, _ = picture(origin, f"/quick/{number}.png")
        held, _ = picture(origin, f"/held/{number}.gif.png", fault=hold_after(100))
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, quick), (None, held)])))
    with running(archive, "fetch", *ids, "--engine", "ray", "--json", "--summary", "s.json") as process:
        origin.wait_for(lambda: origin.count("/held/") >= 8, timeout=60)
        wait_until(lambda: len(noted(archive)) >= 8)
        two.kill()
        for number in range(16):
            origin.release(f"/held/{number}.gif.png")
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert sorted(json.loads(line)["prompt_id"] for line in out.splitlines()) == sorted(ids)
    assert archive.run("verify").code == 0
    assert archive.run("status", "--json").code == 0
    assert archive.partials() == []
    quick = [request.target for request in origin.media_requests if request.target.startswith("/quick/")]
    assert sorted(quick) == sorted(f"/quick/{number}.png" for number in range(16)), "no file that is there comes again"
    assert len(origin.media_requests) <= 16 + 16 + 8
    origin.clear()
    assert archive.run("fetch", *ids).code == 0
    assert origin.requests == [], "the catalog is whole"


def noted(archive: Archive) -> list[str]:
    """The files that workers have noted as stored."""
    parts = archive.root / ".mirror" / "parts"
    return [line for path in parts.glob("*/*.stored") for line in read(path).splitlines() if '"type":"stored"' in line]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def wait_until(happened: Any, timeout: float = 30.0) -> None:
    import time

    end = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
