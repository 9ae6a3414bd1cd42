"""`soak`: very many files, and very many bytes, through one Mirror that lives on. What counts is that nothing grows.

Each prompt is checked when it is finished (its manifest, and the bytes on disk against both the manifest's SHA-256 and
what the origin has) and removed. All the while the process is sampled: memory, descriptors, threads, tasks, and the
write-ahead log of the catalog. The catalog itself has a few hundred bytes for each file, and is told beside them.

`small` and `large` run with ResourceWarning as an error, `debug` is `small` once more, shorter, under
PYTHONASYNCIODEBUG and PYTHONDEVMODE. What the process writes to stderr (a warning, an exception that nobody could
catch, a task that was destroyed, a step of the loop of over a second) is shown and counted: it should be nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mirror import Mirror, load_settings
from tests.bench.options import Options
from tests.bench.origin import content, size_of
from tests.bench.servers import serving

_GROWTH = 1.10
"""What the median of the last quarter may be of that of the second, of resident memory."""

_BUDGET = 256
"""MB: `transfer.memory`. Large files take more or less of it as more or fewer of them come at once."""

_SMALL = 1 << 20
"""A file of this size at most takes no part of the budget that would be seen."""

_ENOUGH = 40
"""Samples, below which growth says nothing."""

_FETCHES = 10
"""How many fetches the one Mirror makes, one after the other."""

_DEBUG = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}


class Load(NamedTuple):
    """Prompts, and of each how many files, of sizes between these."""

    prompts: int
    files: int
    largest: int
    smallest: int

    def __str__(self) -> str:
        sizes = f"{self.smallest >> 10} to {self.largest >> 10} KiB" if self.smallest < self.largest else ""
        return f"{self.prompts * self.files:,} files of {sizes or f'{self.largest >> 20} MiB'}"


class Sample(NamedTuple):
    """The process at one moment. Sizes in KiB."""

    seconds: float
    prompts: int
    rss: int
    files: int
    threads: int
    tasks: int
    catalog: int
    wal: int


def run(options: Options) -> None:
    """Print a table a load, and whether it was flat."""
    small = Load(400 if options.quick else 100_000, 2, 20 << 10, 2 << 10)
    large = Load(4, 1, 16 << 20, 16 << 20) if options.quick else Load(1_000, 1, 50 << 20, 50 << 20)
    debug = small._replace(prompts=small.prompts // 20)
    for name, load, environ in (("small", small, {}), ("large", large, {}), ("debug", debug, _DEBUG)):
        _soak(name, load, environ)


def _soak(name: str, load: Load, environ: dict[str, str]) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "AWS_"))}
    with tempfile.TemporaryDirectory() as root, serving("origin", *load) as port:
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", __name__, root, str(port), *map(str, load)]
        process = subprocess.Popen(
            command,
            env=inherited | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stderr
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.extend(process.stderr or ()))
        reader.start()
        samples = [Sample(*json.loads(line)) for line in process.stdout]
        reader.join()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    if process.returncode:
        raise SystemExit(f"soak {name} failed: nothing was measured\n{''.join(told)}")
    _report(name, load, samples, told)


def _report(name: str, load: Load, samples: list[Sample], told: list[str]) -> None:
    print(f"soak {name}: {load}, each checked and removed, {_FETCHES} fetches by one Mirror")
    print("seconds  prompts   RSS MB  files  threads  tasks  catalog MB  WAL MB")
    for one in [*samples[:: max(1, len(samples) // 12)], samples[-1]]:
        print(
            f"{one.seconds:>7.0f} {one.prompts:>8} {one.rss / 1024:>8.0f} {one.files:>6} {one.threads:>8} "
            f"{one.tasks:>6} {one.catalog / 1024:>11.1f} {one.wal / 1024:>7.1f}"
        )
    first, last, quarter = samples[0], samples[-1], max(1, len(samples) // 4)
    early, late = (
        statistics.median(one.rss for one in part) for part in (samples[quarter : 2 * quarter], samples[-quarter - 1 :])
    )
    peak = (max(one.rss for one in samples) - first.rss) / 1024
    within = peak <= _BUDGET and (load.largest > _SMALL or len(samples) < _ENOUGH or late <= _GROWTH * early)
    let_go = (last.files, last.tasks) == (first.files, first.tasks)
    print(f"  memory, last quarter : second  {late / early:.2f} (small files: ≤ {_GROWTH:g})")
    print(f"  memory, peak over the start  {peak:.0f} MB (≤ {_BUDGET})  {'ok' if within else 'MISSED'}")
    print(f"  descriptors and tasks at the end as before  {'ok' if let_go else 'MISSED'}")
    print(f"  lines on stderr  {len(told)}  {'ok' if not told else 'MISSED'}")
    for line in told[:20]:
        print(f"    {line.rstrip()}")


# The process that is watched --------------------------------------------------------------------


class _Soak:
    """One Mirror at work, and its samples on stdout: the first before it is made, the last when it is gone."""

    def __init__(self, root: Path, port: int, load: Load) -> None:
        self._root, self._port, self._load = root, port, load
        self._since = time.monotonic()
        self._done = 0

    async def run(self) -> None:
        asyncio.get_running_loop().slow_callback_duration = 1.0
        settings = load_settings(
            root=self._root,
            api_base_url=f"http://127.0.0.1:{self._port}",
            api_token="bench",
            security_allow_private_addresses=True,
        )
        await asyncio.to_thread(int)  # the loop's own threads are no leak
        self._sample()
        watch = asyncio.create_task(self._watch())
        each = -(-self._load.prompts // _FETCHES)
        async with Mirror(settings) as mirror:
            for start in range(0, self._load.prompts, each):
                async for manifest in mirror.fetch(self._ids(start, each)):
                    await asyncio.to_thread(self._check_and_remove, manifest.prompt_id)
                    self._done += 1
        if mirror.exit_code or self._done != self._load.prompts:
            raise SystemExit(f"{self._done} prompts, exit code {mirror.exit_code}")
        watch.cancel()
        await asyncio.wait({watch})
        await asyncio.sleep(0.1)  # what was closed is let go of by the loop
        self._sample()

    def _ids(self, start: int, count: int) -> Iterator[str]:
        return (f"{number:032x}" for number in range(start, min(start + count, self._load.prompts)))

    def _check_and_remove(self, prompt_id: str) -> None:
        folder = self._root / prompt_id
        told = json.loads((folder / "manifest.json").read_bytes())
        names = {file["path"] for file in told["files"]}
        there = {path.name for path in folder.iterdir()}
        if told["state"] != "complete" or len(names) != self._load.files or there != names | {"manifest.json"}:
            raise SystemExit(f"{prompt_id} is {told['state']}: {sorted(there)}")
        for file in told["files"]:
            with (folder / file["path"]).open("rb") as found:
                digest = hashlib.file_digest(found, "sha256").hexdigest()
            if digest != file["sha256"] or digest != self._expected(f"/{prompt_id}/{file['path']}"):
                raise SystemExit(f"{prompt_id}/{file['path']} is wrong")
            (folder / file["path"]).unlink()
        (folder / "manifest.json").unlink()
        folder.rmdir()

    def _expected(self, target: str) -> str:
        size = size_of(target, self._load.largest, self._load.smallest)
        digest = hashlib.sha256()
        for at in range(0, size, 1 << 20):
            digest.update(content(target, at, min(size, at + (1 << 20))))
        return digest.hexdigest()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.2 if self._load.prompts < 1_000 else 1)
            self._sample()

    def _sample(self) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
        catalog = self._root / ".mirror" / "catalog.sqlite"
        sizes = [path.stat().st_size >> 10 if path.exists() else 0 for path in (catalog, Path(f"{catalog}-wal"))]
        sample = Sample(
            round(time.monotonic() - self._since, 1),
            self._done,
            int(status["VmRSS"].split()[0]),
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            int(status["Threads"]),
            len(asyncio.all_tasks()),
            *sizes,
        )
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    asyncio.run(_Soak(Path(sys.argv[1]), int(sys.argv[2]), Load(*map(int, sys.argv[3:7]))).run())
