"""Memory stays within `transfer.memory`, and a base, whatever the downloads do. Peaks are the kernel's (VmHWM).

`MIRROR_CROWD_FILM=1500000 pytest -n 0 -s tests/test_memory.py` gives the thousand larger bodies, and prints the peaks.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.stream import watch
from tests.crowd import Crowd
from tests.helpers import code_of_slow_disk

pytestmark = pytest.mark.usefixtures("unmeasured")

FILM = int(os.environ.get("MIRROR_CROWD_FILM", "200000"))
MIB = 1 << 20


Peak = Callable[..., float]


@pytest.fixture
def peak(tmp_path: Path) -> Peak:
    """Runs `fetch` on the first prompts of a crowd; the peak of its resident memory in bytes."""

    def run(crowd: Crowd, count: int, memory: int, *, slow_disk: bool = False) -> float:
        root = tmp_path / f"archive{sum(1 for _ in tmp_path.iterdir())}"
        ids = root.with_suffix(".txt")
        ids.write_text("".join(f"p{number}\n" for number in range(count)))
        slowly = f"{code_of_slow_disk(0.05)}\nfrom mirror.cli import main\nmain()"
        start = ["-c", slowly] if slow_disk else ["-m", "mirror"]
        options = ["--root", str(root), "--concurrency", "1000", "--no-progress", "-q"]
        process = subprocess.Popen(
            [sys.executable, *start, "fetch", "-i", str(ids), *options],
            env={
                **os.environ,
                "MIRROR_API_BASE_URL": crowd.url,
                "MIRROR_API_TOKEN": crowd.token,
                "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
                "MIRROR_ARCHIVE_DURABILITY": "fast",
                "MIRROR_TRANSFER_MEMORY": str(memory),
                "MIRROR_TRANSFER_MIN_FREE_SPACE": "0",
                "MIRROR_API_TIMEOUT": "10m",  # nothing is asked for twice
                "MIRROR_TRANSFER_CONNECT_TIMEOUT": "10m",
                "MIRROR_TRANSFER_STALL_TIMEOUT": "10m",
                "MIRROR_TRANSFER_MIN_RATE": "0",
            },
        )
        found = watch(process) * MIB
        assert process.returncode == 0
        assert len(list(root.glob("p*/film.mp4"))) == count
        print(
            f"{count} films of {len(crowd.film)}, {memory >> 20} MiB: peak {found / MIB:.0f} MB, {crowd.most} at once"
        )
        return found

    return run


@pytest.fixture
def base(peak: Peak) -> float:
    """What one small file takes."""
    with Crowd(1, 20_000, 10_000) as crowd:
        return peak(crowd, 1, 64 * MIB)


def test_a_thousand_bodies_at_once(peak: Peak, base: float) -> None:
    """All of them are under way before the first one ends. So many are asked for at once by no default."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 6_064:
        pytest.skip("the hard limit on open files allows no thousand downloads: each may have six open")
    memory = 1000 * (MIB + min(FILM, 5 * MIB // 2))
    with Crowd(1000, FILM, FILM * 2 // 3) as crowd:
        grown = peak(crowd, 1000, memory) - base
        assert crowd.most == 1000
    assert grown <= 1.2 * memory


@pytest.mark.parametrize("slow_disk", [False, True], ids=["a fast disk", "a slow disk"])
def test_large_bodies_take_no_more_than_transfer_memory(peak: Peak, base: float, *, slow_disk: bool) -> None:
    """90 are wanted at once, and memory for a few dozen is there: the others wait for it.

    On a busy machine the allocator keeps up to 0.4 of it more; without the bound they would take 360 MB.
    """
    memory = 128 * MIB
    with Crowd(36, 4_000_000, 700_000) as crowd:
        grown = peak(crowd, 90, memory, slow_disk=slow_disk) - base
        assert crowd.most <= 128
    assert grown <= 1.5 * memory
