"""`puts`: objects into a store that is not the bottleneck, by the mirror's sink, by boto3 and by obstore."""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

from mirror import load_settings
from mirror.limits import shared_out
from mirror.stores import Head, Target
from mirror.stores.local import LocalStore
from mirror.stores.s3.store import S3Store
from tests.bench.options import Options
from tests.bench.results import Section, Used, Verdict
from tests.bench.servers import serving
from tests.bench.stores import ENVIRON
from tests.bench.tools import in_environment, version_of

_AT_ONCE = 64
_THREADS = {20 << 10: 16, 16 << 20: 8}
"""What serves boto3 best for each size, and obstore for the large one."""
_OBSTORE = in_environment("obstore", "python")
_SCRIPT = Path(__file__).parent / "peers" / "obstore_put.py"


def run(options: Options) -> list[Section]:
    """A row a size: objects a second of each, medians of alternating runs, and ratios."""
    os.environ.update(ENVIRON)
    sizes = ((300, 20 << 10), (12, 16 << 20)) if options.quick else ((3000, 20 << 10), (60, 16 << 20))
    rows, verdicts = [], []
    for count, size in sizes:
        ours, *theirs = _rates(options, count, size)
        rows.append(
            [
                f"{count:,} × {size >> 10:,} KiB",
                *(f"{rate:,.0f}" if rate else "" for rate in (ours, *theirs)),
                *(f"{ours / rate:.2f}" if rate else "" for rate in theirs),
            ]
        )
        if size < 1 << 20:
            verdicts.append(Verdict("small, times boto3's rate", ours / theirs[0], 5, at_least=True))
        if theirs[1]:
            kind = "small" if size < 1 << 20 else "large"
            verdicts.append(Verdict(f"{kind}, share of obstore's rate", ours / theirs[1], 0.5, at_least=True))
    used = [Used("boto3", f"boto3 {boto3.__version__}", "put_object with SHA-256 and If-None-Match, 16 or 8 threads")]
    if python := _OBSTORE():
        told = version_of((python, "-c", "import obstore; print('obstore', obstore.__version__)"))
        used.append(Used("obstore", told, "put_async with SHA-256 and mode=create, 64 or 8 at once"))
    notes = [
        "The mirror's sink, 64 at once: head, digests, signature, checksum header, If-None-Match, answer compared."
    ]
    header = ["objects", "mirror /s", "boto3 /s", "obstore /s", "of boto3", "of obstore"]
    return [Section("puts", "puts: objects a second into a store that drops them", header, rows, notes, verdicts, used)]


def _rates(options: Options, count: int, size: int) -> tuple[float, float, float]:
    """Objects a second of the mirror, boto3 and obstore; 0 where that is not installed."""
    ways: list[Callable[[int, int], float]] = [
        lambda port, number: _timed(lambda: _with_mirror(port, count, size, number)),
        lambda port, number: _timed(lambda: _with_boto3(port, count, size, number)),
    ]
    if python := _OBSTORE():
        ways.append(lambda port, number: _with_obstore(python, port, count, size, number))
    took: list[list[float]] = [[] for _ in ways]
    with serving("sink") as port:
        for number in range(options.times):
            for each, way in list(enumerate(ways))[:: -1 if number % 2 else 1]:
                took[each].append(way(port, number))
    rates = [count / statistics.median(seconds) for seconds in took]
    return rates[0], rates[1], rates[2] if len(rates) > 2 else 0.0


def _timed(call: Callable[[], Any]) -> float:
    since = time.monotonic()
    call()
    return time.monotonic() - since


def _with_obstore(python: str, port: int, count: int, size: int, number: int) -> float:
    """Its own seconds, without those of its process."""
    at_once = _AT_ONCE if size < 1 << 20 else _THREADS[size]
    argv = [python, "-P", _SCRIPT, f"http://127.0.0.1:{port}", count, size, at_once, f"o/run{number}/{size}"]
    return float(subprocess.run([*map(str, argv)], capture_output=True, check=True).stdout)


def _body(number: int, size: int) -> bytes:
    return hashlib.shake_256(str(number).encode()).digest(1024) * (size // 1024)


def _with_mirror(port: int, count: int, size: int, number: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        settings = load_settings(root=root, s3="s3://bench/m", s3_endpoint=f"http://127.0.0.1:{port}")
        disk = LocalStore(settings)
        disk.open()

        async def put_all() -> None:
            store = S3Store(
                settings, disk.disk, lambda _: None, shared_out(settings.transfer.memory, bucket=True).outgoing
            )
            await store.open()
            body, room = _body(number, size), asyncio.Semaphore(_AT_ONCE)

            async def put(key: str) -> None:
                async with room:
                    sink = await store.sink(Target(identity=key, folder=f"run{number}", names=(key,), prompt_id="p"))
                    await sink.begin(Head(length=size, etag='"1"', content_type="image/png"))
                    for start in range(0, size, 256 << 10):
                        await sink.write(start, body[start : start + (256 << 10)])
                    await sink.commit()
                    await store.settle(key)
                    await sink.close()

            await asyncio.gather(*(put(f"{each}-{size}.png") for each in range(count)))
            await store.close()

        asyncio.run(put_all())
        disk.close()


def _with_boto3(port: int, count: int, size: int, number: int) -> None:
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
    body = _body(number, size)

    def put(each: int) -> None:
        key = f"b/run{number}/{each}-{size}.png"
        client.put_object(Bucket="bench", Key=key, Body=body, ChecksumAlgorithm="SHA256", IfNoneMatch="*")

    with ThreadPoolExecutor(_THREADS[size]) as threads:
        list(threads.map(put, range(count)))
