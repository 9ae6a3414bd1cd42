"""What several end-to-end tests share: a run inside this process, done prompts, and looks at what stands on disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mirror import Event, FetchOptions, Manifest, Mirror
from mirror.stores.journal import Claim, journal_of
from tests import media
from tests.conftest import Archive, by_id
from tests.faults import Fault
from tests.origin import Origin, answer, task


@dataclass(frozen=True)
class Ran:
    """A run through the Python API that has ended. ``code`` is what the command line would have exited with."""

    manifests: dict[str, Manifest]
    code: int
    events: list[Event]

    @property
    def states(self) -> dict[str, str]:
        return {prompt_id: str(manifest.state) for prompt_id, manifest in self.manifests.items()}

    @property
    def errors(self) -> list[str]:
        """The names of all errors in the manifests."""
        return [error.error for manifest in self.manifests.values() for error in manifest.errors]


def mirrored(archive: Archive, *ids: str, options: FetchOptions | None = None, **settings: Any) -> Ran:
    """Mirror these prompts with the Python API."""
    events: list[Event] = []

    async def run() -> tuple[list[Manifest], int]:
        async with Mirror(archive.settings(**settings), observers=[events.append]) as mirror:
            return [manifest async for manifest in mirror.fetch(ids, options)], int(mirror.exit_code)

    manifests, code = asyncio.run(run())
    return Ran(by_id(manifests), code, events)


@contextlib.contextmanager
def running(archive: Archive, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line under way; a test that fails leaves no process behind."""
    process = archive.start(*arguments, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def picture(origin: Origin, path: str, *, fault: Fault | Sequence[Fault] | None = None) -> tuple[str, bytes]:
    """Serve a picture of its own at ``path``; its URL and its bytes."""
    body = media.png(seed=zlib.crc32(path.encode()))
    return origin.add(path, body, fault=fault), body


def done_prompt(origin: Origin, prompt_id: str, *names: str) -> dict[str, bytes]:
    """Serve a done prompt with these originals, each at /<promptId>/<name>; name → bytes."""
    made = {name: picture(origin, f"/{prompt_id}/{name}") for name in names}
    origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url) for url, _ in made.values()])))
    return {name: body for name, (_, body) in made.items()}


def large_prompt(origin: Origin, prompt_id: str, body: bytes, fault: Fault | Sequence[Fault] | None = None) -> str:
    """Serve a done prompt with one original, /<promptId>/large.mp4; its URL."""
    url = origin.add(f"/{prompt_id}/large.mp4", body, fault=fault)
    origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    return url


def asked(origin: Origin) -> list[str]:
    """The promptIds that the API was asked for, sorted."""
    return sorted(unquote(request.query.removeprefix("promptId=")) for request in origin.api_requests)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder by its path: a file's bytes, None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def journaled(archive: Archive) -> int:
    """How many bytes the journals of partial files claim."""
    journals = (journal_of(path) for path in (archive.root / ".mirror" / "parts").glob("*.journal"))
    return sum(r.stop - r.start for journal in journals for r in journal.read() if isinstance(r, Claim))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def code_of_slow_disk(seconds: float) -> str:
    """Code that a process runs first: its disk takes so long for every write."""
    return f"""
import os, time
write = os.pwritev
def pwritev(fd, buffers, offset):
    time.sleep({seconds})
    return write(fd, buffers, offset)
os.pwritev = pwritev
"""
