"""curl with --parallel."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, on_path


def _common(job: Job) -> list[str]:
    urls = job.write("curl.conf", "".join(f'url = "{url}"\n' for url in job.urls))
    trust = ["--cacert", str(job.ca_file)] if job.tls else []
    return ["curl", "-q", "-sS", "--fail", "--parallel", "--remote-name-all", "-K", str(urls), *trust]


def _default(job: Job, target: Path) -> Command:
    return Command(_common(job), target)


def _best(job: Job, target: Path) -> Command:
    at_once = 8 if not job.small and not job.far else 20 if not job.small or not job.far else 300
    return Command([*_common(job), "--parallel-immediate", "--parallel-max", str(at_once)], target)


TOOLS = tuple(
    Tool("curl", variant, on_path("curl"), ("--version",), "apt install curl", command)
    for variant, command in (("default", _default), ("best", _best))
)
