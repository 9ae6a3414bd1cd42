"""`again`: everything is mirrored already. A run over all ids makes no request; what counts is how long it takes.

The archive is made without a service: real folders, files, manifests and rows. The service is a port where nobody
listens, so that a single request would fail the run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mirror.adoption import record_from
from mirror.catalog import Catalog
from mirror.manifests.document import encode
from mirror.models import Manifest, ManifestApi, ManifestFile, PromptState, Role
from mirror.stores import Document
from tests.bench.options import Options
from tests.bench.stream import watch

_TARGET = 5.0
"""Seconds for 100,000 ids."""


def run(options: Options) -> None:
    """Print a row a source: the ids from a file with a line each, and no ids at all."""
    count, times = (2_000, 1) if options.quick else (100_000, 5)
    print(f"again: {count:,} complete prompts, no request (median of {times})")
    print(f"{'command':<24} {'wall s':>8} {'peak MB':>8}   target: ≤ {_TARGET:g} s for 100,000")
    with tempfile.TemporaryDirectory() as folder:
        root, ids = Path(folder) / "archive", Path(folder) / "ids.txt"
        asyncio.run(_make(root, count))
        ids.write_text("".join(f"{_id(number)}\n" for number in range(count)), "ascii")
        for command in (["fetch", "-i", str(ids)], ["fetch", "-i", str(ids), "--json"], ["status"]):
            taken = [_time([*command, "--root", str(root)]) for _ in range(times)]
            wall, peak = statistics.median(each[0] for each in taken), max(each[1] for each in taken)
            shown = " ".join(word for word in command if not word.startswith("/"))
            print(f"{shown:<24} {wall:>8.2f} {peak:>8.0f}   {'ok' if wall <= _TARGET else 'MISSED'}")


def _id(number: int) -> str:
    return f"{number:032x}"


async def _make(root: Path, count: int) -> None:
    (root / ".mirror").mkdir(parents=True)
    catalog = Catalog.open(root / ".mirror" / "catalog.sqlite", durable=False)
    for start in range(0, count, 1000):
        await asyncio.gather(*(_add(catalog, root, _id(number)) for number in range(start, min(start + 1000, count))))
    await catalog.close()


async def _add(catalog: Catalog, root: Path, prompt_id: str) -> None:
    folder = root / prompt_id
    folder.mkdir()
    files = []
    for role, name in ((Role.THUMBNAIL, "small.jpeg"), (Role.ORIGIN, "large.mp4")):
        (folder / name).write_bytes(name.encode())
        url = f"https://media.example/{prompt_id}/{name}"
        files.append(ManifestFile(path=name, role=role, url=url, bytes=len(name), sha256="0" * 64))
    manifest = Manifest(
        prompt_id=prompt_id,
        state=PromptState.COMPLETE,
        mirrored_at="2026-01-29T13:54:20Z",
        api=ManifestApi(url="https://api.example/getTaskInfo", code=200, msg="SUCCESS"),
        task={"promptId": prompt_id, "state": 30},
        files=tuple(files),
    )
    content = encode(manifest)
    (folder / "manifest.json").write_bytes(content)
    record = record_from(Document(content=content), prompt_id)
    assert record is not None
    await catalog.save_prompt(record, "")


def _time(arguments: list[str]) -> tuple[float, float]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "AWS_"))}
    nowhere = {"MIRROR_API_BASE_URL": "http://127.0.0.1:9", "MIRROR_API_TOKEN": "bench"}
    since = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror", *arguments],
        env={**environ, **nowhere},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    peak = watch(process)
    wall = time.monotonic() - since
    if process.returncode:
        raise SystemExit("a request was made, or something failed: nothing was measured")
    return wall, peak
