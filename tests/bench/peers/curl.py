"""curl with --parallel."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path

_AT_ONCE = {"near-large": 4, "near-small": 32, "far-large": 20, "far-small": 200}
"""What was best of what was tried."""


def _common(job: Job) -> list[str]:
    urls = job.write("curl.conf", "".join(f'url = "{url}"\n' for url in job.urls))
    trust = ["--cacert", str(job.ca_file)] if job.tls else []
    return ["curl", "-q", "-sS", "--fail", "--parallel", "--remote-name-all", "-K", str(urls), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job), target)


def _best(job: Job, target: Path) -> Command:
    return Command([*_common(job), "--parallel-immediate", "--parallel-max", str(_AT_ONCE[job.kind])], target)


TOOLS = tuple(
    Tool("curl", variant, on_path("curl"), ("--version",), "apt install curl", command)
    for variant, command in (("default", _default), ("best", _best))
)
