"""Each target of tests/fuzz on its seeds and on what is nearly valid: so they are alive, and find a little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from tests.fuzz.seeds import TOKENS, seeds
from tests.fuzz.targets import TARGETS
from tests.properties import examples, near

SEEDS = seeds()


def test_each_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys() >= TOKENS.keys()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_is_valid_and_what_is_nearly_so(target: str) -> None:
    for seed in SEEDS[target]:
        TARGETS[target](seed)

    @examples(60)
    @given(near(SEEDS[target], TOKENS.get(target, ())))
    def holds(data: bytes) -> None:
        TARGETS[target](data)

    holds()


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b'"' * 5000])
def test_what_is_no_input_at_all(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_a_campaign_tells_its_seed(tmp_path: Path) -> None:
    here = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.fuzz", "page", "--seconds", "1", "--seed", "7"]
    environ = {**os.environ, "PYTHONPATH": str(here)}
    told = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=True)
    assert "python -m tests.fuzz page --seconds 1 --seed 7" in told.stderr
