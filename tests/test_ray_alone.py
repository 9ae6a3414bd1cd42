"""`--engine ray` where there is no Ray, no cluster that answers, or a call that Ray cannot take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from tests.conftest import Archive
from tests.helpers import done_prompt

WITHOUT_RAY = """
import runpy, sys
sys.modules["ray"] = None  # as where it is not installed
runpy.run_module("mirror", run_name="__main__")
"""


def test_without_ray_nothing_is_begun(archive: Archive) -> None:
    command = [sys.executable, "-c", WITHOUT_RAY, "fetch", "p", "--engine", "ray"]
    done = subprocess.run(command, env=archive.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'prompt-mirror[ray]'" in done.stderr
    assert "started" not in done.stderr
    assert not archive.root.exists()


def test_arguments_that_are_no_text_are_refused_before_ray_breaks_on_them(archive: Archive) -> None:
    done = archive.run("fetch", "p", "--engine", "ray", "-i", os.fsdecode(b"ids-\xff"))
    assert (done.code, "no UTF-8" in done.err, "started" in done.err) == (2, True, False), done.err
    assert not archive.root.exists()


def test_a_cluster_that_does_not_answer_holds_up_nobody(archive: Archive) -> None:
    """Ray waits for it on and on; the command does not, and neither does its end."""
    done_prompt(archive.origin, "p", "a.png")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {"RAY_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}"}
        done = archive.run("fetch", "p", "--engine", "ray", "--max-time", "2s", environ=environ)
    assert (done.code, "max_time" in done.err) == (3, True), done.err
    assert archive.origin.requests == []
