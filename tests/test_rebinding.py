"""No name server can lead a request to a private address, whatever it answers and when."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests import rebinding

NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net"]


def own_machine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NAMESPACES, *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_an_address_is_judged_when_it_is_connected_to() -> None:
    """A resolver that is real, addresses that are public, and listeners at private ones that nobody may come to."""
    if shutil.which("unshare") is None or own_machine("true").returncode:
        pytest.skip("needs Linux and leave to make namespaces")
    done = own_machine(sys.executable, "-m", "tests.rebinding")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for row, outcomes in zip(rebinding.ROWS, found["outcomes"], strict=True):
        expected = zip(row.runs, outcomes, strict=True)
        assert all(re.fullmatch(pattern, outcome) for pattern, outcome in expected), (row, outcomes)
    assert found["connections"] == dict.fromkeys(rebinding.PRIVATE, 0)
