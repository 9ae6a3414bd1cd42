"""gallery-dl, with a list of direct links: one after the other, it has no other way."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, in_environment

_program = in_environment("gallery-dl", "gallery-dl")


def _command(job: Job, target: Path) -> Command:
    argv = [_program() or "gallery-dl", "--config-ignore", "-q", "-D", str(target), "-i", str(job.urls_file)]
    return Command(argv, target, {"REQUESTS_CA_BUNDLE": str(job.ca_file)} if job.tls else {})


TOOLS = (Tool("gallery-dl", "default", _program, ("--version",), "python -m tests.bench --install", _command),)
