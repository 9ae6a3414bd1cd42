"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from tests.bench import nginx


def described() -> str:
    """Cores, memory, system, interpreter and origin, in a line."""
    return ", ".join(
        [
            f"{os.cpu_count()} cores ({_processor()})",
            f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
            f"{_system()}, Linux {'.'.join(platform.release().split('.')[:2])}",
            f"Python {platform.python_version()}",
            *([nginx.version()] if nginx.found() else []),
        ]
    )


def load() -> float:
    """How many wait for a core, on average over a minute: over the number of cores, others take part of the time."""
    return os.getloadavg()[0]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text("utf-8")) if info.exists() else None
    return found[1].strip() if found else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
