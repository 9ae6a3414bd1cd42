"""`puts`: objects into a bucket that is not the bottleneck, by the mirror's store and by boto3."""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from mirror import load_settings
from mirror.limits import shared_out
from mirror.stores import Head, Target
from mirror.stores.local import LocalStore
from mirror.stores.s3.store import S3Store
from tests.bench.servers import serving

_AT_ONCE = 64
_THREADS = {20 << 10: 16, 16 << 20: 8}
"""What serves boto3 best for each size."""


def run(*, quick: bool) -> None:
    """Print a row a size: objects a second of each, medians of alternating runs, and their ratio."""
    runs = 1 if quick else 5
    print(f"puts: mirror's sink ({_AT_ONCE} at once, SHA-256 checksums) and boto3's put_object (threads), {runs} runs")
    print(f"{'objects':>22} {'mirror /s':>10} {'boto3 /s':>10} {'ratio':>6}")
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_DEFAULT_REGION="us-east-1")
    with serving("sink") as port:
        for count, size in ((300, 20 << 10), (12, 16 << 20)) if quick else ((3000, 20 << 10), (60, 16 << 20)):
            rates: dict[str, list[float]] = {"mirror": [], "boto3": []}
            for number in range(runs):
                rates["mirror"].append(count / _timed(lambda: _with_mirror(port, count, size, number)))  # noqa: B023
                rates["boto3"].append(count / _timed(lambda: _with_boto3(port, count, size, number)))  # noqa: B023
            ours, theirs = statistics.median(rates["mirror"]), statistics.median(rates["boto3"])
            print(f"{f'{count} × {size >> 10} KiB':>22} {ours:>10.0f} {theirs:>10.0f} {ours / theirs:>6.1f}")


def _timed(call: Callable[[], Any]) -> float:
    since = time.monotonic()
    call()
    return time.monotonic() - since


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
