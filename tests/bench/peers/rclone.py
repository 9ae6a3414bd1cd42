"""rclone, from its HTTP backend, by a list of names."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path

_AT_ONCE = {"near-large": 8, "near-small": 32, "far-large": 20, "far-small": 200}
"""What was best of what was tried."""


def _common(job: Job, target: Path) -> list[str]:
    names = job.write("rclone.txt", "".join(f"{path.name}\n" for path in job.media.files))
    trust = [f"--ca-cert={job.ca_file}"] if job.tls else []
    copy = ["rclone", "copy", "--config", "/dev/null", ":http:", str(target), "--http-url", job.base]
    return [*copy, "--files-from-raw", str(names), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job, target), target)


def _best(job: Job, target: Path) -> Command:
    at_once = str(_AT_ONCE[job.kind])
    tuned = ["--transfers", at_once, "--checkers", at_once, "--multi-thread-streams", "0", "--no-check-dest"]
    return Command([*_common(job, target), *tuned], target)


TOOLS = tuple(
    Tool("rclone", variant, on_path("rclone"), ("version",), "apt install rclone", command)
    for variant, command in (("default", _default), ("best", _best))
)
