"""Fetch <base>0.png and so on with obstore: `obstore_get.py BASE COUNT FOLDER AT_ONCE`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from obstore.store import HTTPStore


async def main(base: str, count: int, folder: Path, at_once: int) -> None:
    """Each file's pieces are written as they come."""
    parts = urlsplit(base)
    store = HTTPStore.from_url(f"{parts.scheme}://{parts.netloc}", client_options={"allow_http": True})
    room = asyncio.Semaphore(at_once)

    async def fetch(name: str) -> None:
        async with room:
            answer = await store.get_async(f"{parts.path.lstrip('/')}{name}")
            with (folder / name).open("wb") as file:
                async for piece in answer.stream():
                    file.write(piece)

    await asyncio.gather(*(fetch(f"{number}.png") for number in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
    os._exit(0)  # all is written; now and then its threads abort while the interpreter is taken down
