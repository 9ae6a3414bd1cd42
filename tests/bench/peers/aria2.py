"""aria2."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path

_AT_ONCE = {"near-large": 4, "near-small": 16, "far-large": 20, "far-small": 200}
"""What was best of what was tried."""


def _common(job: Job, target: Path) -> list[str]:
    trust = [f"--ca-certificate={job.ca_file}"] if job.tls else []
    return ["aria2c", "--no-conf", "-q", "-i", str(job.urls_file), "-d", str(target), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job, target), target)


def _best(job: Job, target: Path) -> Command:
    return Command([*_common(job, target), f"-j{_AT_ONCE[job.kind]}", "-x1", "--file-allocation=none"], target)


TOOLS = tuple(
    Tool("aria2", variant, on_path("aria2c"), ("--version",), "apt install aria2", command)
    for variant, command in (("default", _default), ("best", _best))
)
