"""The demo's script: the whole job by the real command line, killed once, resumed, repeated, and checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mirror import names
from mirror.demo.origin import DemoOrigin, Served
from mirror.errors import ExitCode
from mirror.manifests.document import decode
from mirror.models import Manifest, PromptState
from mirror.observers.text import counted, size

if TYPE_CHECKING:
    from mirror.demo.bucket import DemoBucket

_KILL_AFTER = 270_000
_THROTTLE = 200_000
_TRICKLE = 5_000
"""Bytes a second, before and after so many of the slow file: it must not end before it is killed."""
_PATIENCE = 120
"""Seconds for each step, which takes a few: a machine may be busy, and only what hangs is given up."""

_EXPECTED = ("complete", "complete", "complete", "failed", "complete")


class Demo:
    """One showing, with a bucket or without. ``say`` takes a line for the person who watches."""

    def __init__(self, root: Path, say: Callable[[str], None], bucket: DemoBucket | None = None) -> None:
        self._root = root
        self._say = say
        self._bucket = bucket
        self._wrong: list[str] = []

    async def run(self) -> ExitCode:
        """Show everything; OK only if each step went as it should."""
        async with DemoOrigin() as origin:
            self._origin = origin
            self._say(f"A service on loopback, {origin.url}: no account, no network. Five promptIds:\n")
            for prompt in origin.prompts:
                self._say(f"  {prompt.prompt_id}  {prompt.about}")
            await self._kill()
            await self._resume()
            await self._repeat()
            self._verify()
            await self._verify_bucket()
            await self._gallery()
        self._say(f"\nThe files are in {self._root}")
        for wrong in self._wrong:
            self._say(f"WRONG: {wrong}")
        return ExitCode.BUG if self._wrong else ExitCode.OK

    async def _kill(self) -> None:
        origin = self._origin
        self._say(f"\n1. mirror fetch of the first one, killed with SIGKILL in the middle of {origin.slow}")
        origin.throttle = _THROTTLE
        process = await self._start(ids=[origin.prompts[0].prompt_id])
        await asyncio.wait_for(origin.sent(origin.slow, _KILL_AFTER), _PATIENCE)
        origin.throttle = _TRICKLE
        await asyncio.wait_for(self._part_is_kept(), _PATIENCE)
        process.kill()
        await process.wait()
        origin.throttle = None
        self._expect(not any(self._manifests_of(origin.prompts[0].prompt_id)), "a manifest stands before its files")
        stored = [path for path in self._root.glob("*/*") if path.suffix != ".json" and path.parent.name != ".mirror"]
        self._say(f"   {counted(len(stored), 'file')} stored under final names, the others are kept as parts")

    async def _part_is_kept(self) -> None:
        """Whatever the machine is busy with: until the journal of the part claims something."""
        parts = self._root / ".mirror" / "parts"
        while not any(  # noqa: ASYNC110  nobody tells us when it does
            journal.read_bytes().count(b"\n") > 1 for journal in parts.glob("*.journal")
        ):
            await asyncio.sleep(0.02)

    async def _resume(self) -> None:
        origin = self._origin
        self._say("\n2. mirror fetch --wait 1m of all five\n")
        before = len(origin.log)
        process = await self._start("--wait", "1m", quiet=False)
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
        self._expect(code == ExitCode.INCOMPLETE, f"exit code {code}, not 3 for the prompt that failed upstream")
        self._say("")
        for name in (origin.slow, origin.broken):
            self._tell_resumed(name, [served for served in origin.log[before:] if served.name == name])

    def _tell_resumed(self, name: str, served: list[Served]) -> None:
        if not served:
            self._wrong.append(f"{name} was not asked for again")
            return
        last = served[-1]
        resumed = last.status == 206 and last.span.start > 0
        self._expect(resumed, f"{name} was not resumed")
        cause = "broke half way" if name == self._origin.broken else "was interrupted by the kill"
        self._say(f"   {name} {cause} and was resumed at byte {last.span.start:,} of {last.span.stop:,}")

    async def _repeat(self) -> None:
        origin = self._origin
        self._say("\n3. mirror fetch of what is complete, once more")
        before = origin.requests.total()
        complete = [prompt.prompt_id for prompt in origin.prompts if self._state(prompt.prompt_id) == "complete"]
        process = await self._start(ids=complete)
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
        asked = origin.requests.total() - before
        self._expect(code == ExitCode.OK and asked == 0, f"exit code {code} and {asked} requests, not 0 and 0")
        self._say(f"   exit code {code}, {counted(asked, 'request')}")

    def _verify(self) -> None:
        """Against the manifests, and against the service's own bytes."""
        self._say("\n4. every file against its manifest, and against what the service has\n")
        files = total = 0
        for prompt, expected in zip(self._origin.prompts, _EXPECTED, strict=True):
            state = self._state(prompt.prompt_id)
            self._expect(state == expected, f"{prompt.prompt_id} is {state}, not {expected}")
            self._say(f"   {prompt.prompt_id}  {state}")
            for manifest in self._manifests_of(prompt.prompt_id):
                for file in manifest.files:
                    content = (self._root / prompt.prompt_id / file.path).read_bytes()
                    good = hashlib.sha256(content).hexdigest() == file.sha256 and content == _original(file.path)
                    self._expect(good, f"{prompt.prompt_id}/{file.path} is not what it should be")
                    self._say(f"     {file.path:<20} {size(len(content)):>10}  sha256 {(file.sha256 or '')[:16]}…")
                    files, total = files + 1, total + len(content)
                if manifest.state is PromptState.FAILED and manifest.task:
                    self._say(f"     the service's reason: {manifest.task['reason']}")
        self._say(f"\n   {counted(files, 'file')}, {size(total)}, {len(self._wrong) or 'nothing'} wrong")

    async def _verify_bucket(self) -> None:
        """By the bucket's own word and by reading it back, with our command line and without it."""
        if self._bucket is None:
            return
        where = f"s3://{self._bucket.environ['MIRROR_S3_BUCKET']}/archive in OpenStack Swift"
        self._say(f"\n5. mirror verify --s3 --deep of {where}\n")
        process = await self._start("--s3", "--deep", command="verify", ids=(), quiet=False)
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
        self._expect(code == ExitCode.OK, f"exit code {code}, not 0")
        objects = await asyncio.to_thread(self._bucket.objects)
        on_disk = {
            f"archive/{path.relative_to(self._root)}": path.read_bytes()
            for path in self._root.glob("*/*")
            if path.parent.name != ".mirror"
        }
        self._expect(objects == on_disk, "the bucket has other objects than the disk has files")
        self._say(f"   {counted(len(objects), 'object')} read back with boto3, the same as on disk")

    async def _gallery(self) -> None:
        """Written from the manifests; to look at it takes a browser, and nothing else."""
        number = 5 if self._bucket is None else 6
        self._say(f"\n{number}. mirror gallery, a page of all this\n")
        process = await self._start(command="gallery", ids=(), quiet=False)
        code = await asyncio.wait_for(process.wait(), _PATIENCE)
        page = self._root / names.GALLERY / "index.html"
        self._expect(code == ExitCode.OK and page.is_file(), f"exit code {code}, and no page perhaps")
        self._say(f"   open it: {page}")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self._wrong.append(otherwise)

    def _state(self, prompt_id: str) -> str:
        return next((str(manifest.state) for manifest in self._manifests_of(prompt_id)), "missing")

    def _manifests_of(self, prompt_id: str) -> Iterator[Manifest]:
        path = self._root / prompt_id / "manifest.json"
        if path.exists():
            yield decode(path.read_bytes())

    async def _start(
        self, *flags: str, command: str = "fetch", ids: Sequence[str] | None = None, quiet: bool = True
    ) -> asyncio.subprocess.Process:
        """The command line, in a process of its own, with no setting but ours."""
        settings = {
            "MIRROR_API_BASE_URL": self._origin.url,
            "MIRROR_API_TOKEN": self._origin.token,
            "MIRROR_ARCHIVE_ROOT": str(self._root),
            "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
            "MIRROR_TRANSFER_MIN_FREE_SPACE": "16M",
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MIRROR_", "AWS_")) and not name.lower().endswith("_proxy")
        }
        if self._bucket is not None:
            settings |= self._bucket.environ
        named = ids if ids is not None else [prompt.prompt_id for prompt in self._origin.prompts]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mirror", "--config", os.devnull, command, *flags, *named),
            env={**inherited, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL if quiet else None,
        )


def _original(name: str) -> bytes:
    return resources.files("mirror.demo").joinpath("media", name).read_bytes()
