"""`stream`: one large file from the service straight into the bucket. What counts is the peak memory."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.options import Options
from tests.bench.servers import serving

_TARGET = 200
"""MB of resident memory at most, whatever the file's size (interpreter, boto3 and aiohttp included)."""


def run(options: Options) -> None:
    """Print a row a size: the memory must not grow with it."""
    print("stream: HTTP → bucket, no local copy (one file, --s3-only)")
    print(f"{'size':>10} {'wall s':>8} {'CPU s':>8} {'peak MB':>8}   target: peak ≤ {_TARGET} MB")
    for size in (200_000_000,) if options.quick else (200_000_000, 2_000_000_000):
        wall, cpu, peak = _transfer(size)
        print(f"{size:>10} {wall:>8.2f} {cpu:>8.2f} {peak:>8.0f}   {'ok' if peak <= _TARGET else 'MISSED'}")


def _transfer(size: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as root, serving("origin", 1, 1, size) as origin, serving("sink") as sink:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "AWS_"))},
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "MIRROR_API_BASE_URL": f"http://127.0.0.1:{origin}",
            "MIRROR_API_TOKEN": "bench",
            "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
        }
        bucket = ("--s3", "s3://bench/archive", "--s3-endpoint", f"http://127.0.0.1:{sink}", "--s3-only")
        command = [sys.executable, "-m", "mirror", "fetch", "p0", "--root", root, "-q", *bucket]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        before, since = used.ru_utime + used.ru_stime, time.monotonic()
        process = subprocess.Popen(command, env=environ, cwd=Path(__file__).parents[2])
        peak = watch(process)
        wall = time.monotonic() - since
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit("the transfer failed: nothing was measured")
    return wall, used.ru_utime + used.ru_stime - before, peak


def watch(process: subprocess.Popen[bytes]) -> float:
    """The peak of a process's resident memory in MB, until its end; ru_maxrss would count the parent's, too."""
    peak = 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{process.pid}/status").read_text("ascii")
            peak = max([peak, *(int(kb) / 1024 for kb in re.findall(r"VmHWM:\s+(\d+) kB", told))])
        time.sleep(0.02)
    return peak
