"""aria2."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path


def _common(job: Job, target: Path) -> list[str]:
    trust = [f"--ca-certificate={job.ca_file}"] if job.tls else []
    return ["aria2c", "--no-conf", "-q", "-i", str(job.urls_file), "-d", str(target), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job, target), target)


def _best(job: Job, target: Path) -> Command:
    at_once = 8 if not job.small and not job.far else 16 if not job.far else 200 if job.small else 20
    return Command([*_common(job, target), f"-j{at_once}", "-x1", "--file-allocation=none"], target)


TOOLS = tuple(
    Tool("aria2", variant, on_path("aria2c"), ("--version",), "apt install aria2", command)
    for variant, command in (("default", _default), ("best", _best))
)
