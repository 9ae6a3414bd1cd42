"""wget2."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path

_AT_ONCE = {"near-large": 4, "near-small": 16, "far-large": 20, "far-small": 200}
"""What was best of what was tried."""


def _common(job: Job) -> list[str]:
    trust = [f"--ca-certificate={job.ca_file}"] if job.tls else []
    return ["wget2", "--no-config", "-q", "-i", str(job.urls_file), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job), target)


def _best(job: Job, target: Path) -> Command:
    return Command([*_common(job), f"--max-threads={_AT_ONCE[job.kind]}", "--http2=off"], target)


TOOLS = tuple(
    Tool("wget2", variant, on_path("wget2"), ("--version",), "apt install wget2", command)
    for variant, command in (("default", _default), ("best", _best))
)
