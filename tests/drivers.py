"""Two ways to have prompts mirrored that a table of faults goes: the Python API, and the real command line.

Both are told the same settings, and both tell the exit code and the manifests they printed or yielded.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from mirror import Mirror
from mirror.errors import ExitCode, MirrorError
from mirror.events import BytesReceived, Event
from mirror.manifests.document import encode_line
from mirror.stores.journal import Claim, Started, journal_of
from tests.conftest import Archive
from tests.origin import Origin

_LONGEST = 300  # seconds, where a few are much: what loops must not hang the tests


@dataclass(frozen=True)
class Job:
    """What is to be mirrored into an archive.

    ``held`` says which answers wait in their middle, by path, and how many bytes of each must have arrived before they
    go on: none is to be lost in a buffer. ``besides`` are the bytes of the other files.
    """

    archive: Archive
    ids: Sequence[str]
    settings: Mapping[str, Any]
    held: Mapping[str, int]
    besides: int = 0


@dataclass(frozen=True)
class Ran:
    """A run that has ended: its exit code, and its manifests by promptId as plain JSON."""

    code: int
    manifests: Mapping[str, Any]


Driver: TypeAlias = Callable[[Job], Ran]


class Release:
    """Lets answers that are on hold go on once the mirror has received so many bytes in all."""

    def __init__(self, origin: Origin, paths: Sequence[str], size: int) -> None:
        self._origin = origin
        self._paths = paths
        self._missing = size

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, BytesReceived):
            self._missing -= event.bytes
            if self._missing <= 0:
                for path in self._paths:
                    self._origin.release(path)


def python_api(job: Job) -> Ran:
    """``async for manifest in Mirror(settings).fetch(ids)``."""
    release = Release(job.archive.origin, list(job.held), sum(job.held.values()) + job.besides)

    told: list[Any] = []

    async def run() -> ExitCode:
        nonlocal told
        settings = job.archive.settings(**job.settings)
        async with asyncio.timeout(_LONGEST), Mirror(settings, observers=[release] if job.held else []) as mirror:
            try:
                async for manifest in mirror.fetch(job.ids):
                    told += [json.loads(encode_line(manifest))]
            except MirrorError as error:
                return error.exit_code
            return mirror.exit_code

    code = asyncio.run(run())
    return Ran(int(code), _by_id(told))


def command_line(job: Job) -> Ran:
    """``mirror fetch --json ID…`` in a process of its own."""
    environ = {f"MIRROR_{name.upper()}": str(value).lower() for name, value in job.settings.items()}
    if job.held:
        environ["MIRROR_TRANSFER_MEMORY"] = "256K"  # no room for a batch: every byte goes straight to the partial file
    out, err = (job.archive.root.with_name(f"{job.archive.root.name}-{name}") for name in ("out", "err"))
    with out.open("w") as stdout, err.open("w") as stderr:
        process = job.archive.start("fetch", "--json", *job.ids, environ=environ, stdout=stdout, stderr=stderr)
        try:
            _wait(process, job)
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in err.read_text(), err.read_text()
    return Ran(process.returncode, _by_id([json.loads(line) for line in out.read_text().splitlines()]))


def _wait(process: subprocess.Popen[str], job: Job) -> None:
    """Until the command has ended. What is on hold goes on once the journal of its partial file has all of it."""
    deadline = time.monotonic() + _LONGEST
    held = dict(job.held)
    while process.poll() is None:
        assert time.monotonic() < deadline, "the command does not end"
        claims = _claimed(job.archive.root / ".mirror" / "parts") if held else {}
        for path in [path for path, size in held.items() if claims.get(path, 0) >= size]:
            del held[path]
            job.archive.origin.release(path)
        time.sleep(0.01)


def _claimed(parts: Path) -> dict[str, int]:
    """How many bytes the journals claim, by the path in the file's URL."""
    journals = [journal_of(path).read() for path in parts.glob("*.journal")]
    return {
        urlsplit(journal[0].identity).path: sum(
            record.stop - record.start for record in journal if isinstance(record, Claim)
        )
        for journal in journals
        if journal and isinstance(journal[0], Started)
    }


def _by_id(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    found = {manifest["prompt_id"]: manifest for manifest in manifests}
    assert len(found) == len(manifests), "a prompt came twice"
    return found


DRIVERS: Mapping[str, Driver] = {"python": python_api, "command line": command_line}
