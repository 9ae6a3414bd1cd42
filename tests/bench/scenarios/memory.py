"""`memory`: very many promptIds, and very many connections. What counts is that neither costs memory without end."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.check import Wrong, check_files, check_manifests
from tests.bench.measure import Command, start, stop
from tests.bench.media import head
from tests.bench.nginx import INSTALL
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import Stage, stage
from tests.bench.tools import mirror_command

_LIMIT = 200
_GROWTH = 1.10
_EVERY = 0.2
_PATIENCE = 2_000
_WELL = (0, 3)
"""Exit codes: everything came; everything was done, but the service did not know all of it."""

_HEADER = ["load", "done", "seconds", "median MB, 2nd quarter", "median MB, last quarter", "peak MB", "descriptors"]


@dataclass(frozen=True)
class _Sample:
    """The process at one moment: its resident memory in MB, and its open descriptors."""

    rss: float
    descriptors: int


def run(options: Options) -> list[Section]:
    """A million ids that the service does not know, and files over a thousand connections."""
    rows, verdicts = [], []
    with stage() as at:
        for name, ran in {"ids": _ids(at, options), "connections": _connections(at, options)}.items():
            if ran is None:
                continue
            load, done, seconds, samples = ran
            quarter = max(1, len(samples) // 4)
            early, late = (
                statistics.median(one.rss for one in part) for part in (samples[quarter:][:quarter], samples[-quarter:])
            )
            peak = max(one.rss for one in samples)
            most = max(one.descriptors for one in samples)
            rows.append(
                [load, f"{done:,}", f"{seconds:.0f}", f"{early:.0f}", f"{late:.0f}", f"{peak:.0f}", f"{most:,}"]
            )
            verdicts.append(Verdict(f"{name}: peak", peak, _LIMIT, "MB"))
            if name == "ids":
                verdicts.append(Verdict("ids: last quarter of the second", late / early, _GROWTH))
    notes = [
        "ids: from a file; the service answers each with 900 (no such prompt), which is the cheapest a request can be.",
        "connections: `--concurrency 1000`, 20 KiB each, a second to the first byte.",
    ]
    return [Section("memory", "memory: very many ids, very many connections", _HEADER, rows, notes, verdicts)]


_Ran = tuple[str, int, float, list[_Sample]]


def _ids(at: Stage, options: Options) -> _Ran:
    count, bound = (500, 20) if options.quick else (1_000_000, 1_800)
    job = at.job("ids", at.media("none", 1, 100), each=1)
    with job.ids_file.open("w", encoding="ascii") as file:
        file.writelines(f"unknown{number}\n" for number in range(count))
    with tempfile.TemporaryDirectory(dir=at.folder) as folder:
        summary, root = Path(folder) / "summary.json", Path(folder) / "archive"
        command = mirror_command(job, root, "--max-time", f"{bound}s", "--summary", str(summary))
        seconds, samples = _sampled(command)
        done = json.loads(summary.read_bytes())["prompts"]["unknown"]
    return f"{count:,} promptIds, {bound} s at most", done, seconds, samples


def _connections(at: Stage, options: Options) -> _Ran | None:
    if not at.origin.can_be_slow:
        print(f"memory: connections are left out, nginx lacks its echo module: {INSTALL}")
        return None
    count, connections = (200, 100) if options.quick else (10_000, 1_000)
    files = at.media("late", count, 20 << 10)
    job = at.job("connections", files, each=100, prefix="late/")
    with tempfile.TemporaryDirectory(dir=at.folder) as folder:
        seconds, samples = _sampled(mirror_command(job, Path(folder), "--concurrency", str(connections)))
        check_files(Path(folder), files, {head(path): path for path in files.files})
        check_manifests(Path(folder), files.sha256())
    return f"{files} over {connections:,} connections", count, seconds, samples


def _sampled(command: Command) -> tuple[float, list[_Sample]]:
    """Run to the end, and look at the process all the time."""
    since, samples = time.monotonic(), []
    with tempfile.TemporaryFile() as output:
        process = start(command, output)
        try:
            while process.poll() is None and time.monotonic() < since + _PATIENCE:
                with contextlib.suppress(OSError):
                    samples.append(_look(process.pid))
                time.sleep(_EVERY)
        finally:
            stop(process)
        if process.returncode not in _WELL:
            output.seek(0)
            raise Wrong(f"exit code {process.returncode}: {output.read()[-2000:].decode()}")
    return time.monotonic() - since, samples


def _look(pid: int) -> _Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
    return _Sample(
        int(status.get("VmRSS", "0 kB").split()[0]) / 1024, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    )
