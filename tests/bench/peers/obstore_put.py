"""Puts objects of one size with obstore; prints the seconds. Arguments: endpoint, count, size, at once, prefix."""

import asyncio
import os
import sys
import time

import obstore
from obstore.store import S3Store


async def _main(endpoint: str, count: int, size: int, at_once: int, prefix: str) -> float:
    body, room = os.urandom(size), asyncio.Semaphore(at_once)
    since = time.monotonic()
    store = S3Store(
        "bench",
        endpoint=endpoint,
        access_key_id="bench",
        secret_access_key="bench",
        region="us-east-1",
        client_options={"allow_http": True},
        checksum_algorithm="SHA256",
    )

    async def put(name: str) -> None:
        async with room:
            await obstore.put_async(store, name, body, mode="create", use_multipart=False)

    await asyncio.gather(*(put(f"{prefix}/{number}.png") for number in range(count)))
    return time.monotonic() - since


if __name__ == "__main__":
    _, where, *numbers, below = sys.argv
    many, large, at_once = map(int, numbers)
    print(asyncio.run(_main(where, many, large, at_once, below)), flush=True)
    os._exit(0)  # its threads abort the process now and then while the interpreter ends
