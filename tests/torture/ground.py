"""Two prompts to mirror, the archives that commands are tried on, and what must hold of such an archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mirror.manifests.document import decode
from mirror.models import PromptState
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import journaled, running
from tests.origin import Origin, answer, task

IDS = ("p1", "p2")
DAMAGED = b"damaged"

_FETCH = ("fetch", *IDS, "--no-progress")


@dataclass(frozen=True)
class Job:
    """A command that is tried: what stands there before it, and which codes the same command may end with next time.

    ``damaged`` are files that are missing or wrong before it, ``going`` prompts that it removes.
    """

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Ground, Path], None]
    again: tuple[int, ...] = (0,)
    damaged: frozenset[str] = frozenset()
    going: frozenset[str] = frozenset()
    environ: tuple[tuple[str, str], ...] = ()


class Ground:
    """An origin with two prompts: a film and its thumbnail; three pictures, of which one is that thumbnail."""

    def __init__(self, origin: Origin, folder: Path, size: int = 3 << 20) -> None:
        self.origin = origin
        self.folder = folder
        small = {f"p2/{name}.png": media.png(seed=number) for number, name in enumerate("ab", 2)}
        thumbnail, film = media.png(seed=4), media.mp4(size, seed=1)
        self.bodies = {"p1/t.png": thumbnail, "p1/large.mp4": film, "p2/t.png": thumbnail, **small}
        held = [faults.hold_after(2 << 20)]
        urls = {name: origin.add(f"/{name}", body) for name, body in small.items()}
        shared = origin.add("/p1/t.png", thumbnail)
        url = origin.add("/p1/large.mp4", film, fault=held)
        origin.prompt("p1", answer(task("p1", images=[(shared, url)])))
        origin.prompt("p2", answer(task("p2", images=[(None, url) for url in (*urls.values(), shared)])))
        now = int(time.time())
        origin.history(
            [{"id": 1, "promptId": each, "state": 30, "createdAt": now - 60 * age} for age, each in enumerate(IDS)]
        )

    def archive(self, root: Path) -> Archive:
        return Archive(root, self.origin)

    def environ(self, root: Path, job: Job) -> dict[str, str]:
        return {**os.environ, **self.archive(root).environ, **dict(job.environ)}

    # What stands there before a command

    def nothing(self, root: Path) -> None:
        """The first run of all."""
        self.origin.release("/p1/large.mp4")

    def killed(self, root: Path) -> None:
        """A run was killed in the middle of the film."""
        archive = self.archive(root)
        with running(archive, *_FETCH) as process:
            self.origin.wait_for(lambda: journaled(archive) >= 1 << 20, timeout=60)
            process.kill()
        self.origin.release("/p1/large.mp4")

    def complete(self, root: Path) -> None:
        self.origin.release("/p1/large.mp4")
        assert self.archive(root).run(*_FETCH).code == 0

    def damage(self, root: Path) -> None:
        """A file is gone, one has another's bytes, and one is a byte short."""
        self.complete(root)
        (root / "p1/t.png").unlink()
        (root / "p2/a.png").write_bytes(DAMAGED)
        os.truncate(root / "p1/large.mp4", len(self.bodies["p1/large.mp4"]) - 1)

    # What must hold

    def flaws(self, root: Path, job: Job) -> Iterator[str]:
        """What is wrong on disk after a command that could not do all it was to do."""
        files = self.archive(root).files()
        manifests = {name: files.pop(name) for name in list(files) if name.endswith("/manifest.json")}
        for name, content in files.items():
            if name not in self.bodies:
                yield f"{name} stands there"
            elif content != self.bodies[name] and name not in job.damaged:
                yield f"{name} has other bytes"
        for name, content in manifests.items():
            yield from self._lies(name, content, files, job)
        kept = (".mirror/parts/", ".mirror/lock", ".mirror/catalog.sqlite")
        for path in root.rglob("*"):
            name = str(path.relative_to(root))
            if path.is_file() and name.startswith(".mirror/") and not name.startswith(kept):
                yield f"{name} stands there"
        yield from self._catalog_lies(root, files, job)

    def _lies(self, name: str, content: bytes, files: dict[str, bytes], job: Job) -> Iterator[str]:
        manifest = decode(content)
        folder = name.partition("/")[0]
        named = {f"{folder}/{file.path}": file.sha256 for file in manifest.files}
        for path, digest in named.items():
            if path not in job.damaged and digest != hashlib.sha256(files.get(path, b"")).hexdigest():
                yield f"{name} says that {path} is there"
        wanted = {path for path in self.bodies if path.startswith(f"{folder}/")}
        if manifest.state is PromptState.COMPLETE and set(named) != wanted:
            yield f"{name} is complete without {wanted - set(named)}"

    def _catalog_lies(self, root: Path, files: dict[str, bytes], job: Job) -> Iterator[str]:
        with self._catalog(root) as connection:
            if connection is None:
                return
            if (found := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                yield f"the catalog is damaged: {found}"
            rows = connection.execute(
                "SELECT folder || '/' || path, bytes, prompt_id FROM files JOIN prompts USING (prompt_id)"
                " WHERE entry IS NOT NULL AND failure IS NULL"
            ).fetchall()
            done = connection.execute("SELECT folder, prompt_id FROM prompts WHERE state = 'complete'").fetchall()
        for name, size, prompt_id in rows:
            there = len(files.get(name, b"")) == size
            if not there and name not in job.damaged and prompt_id not in job.going:
                yield f"the catalog says that {name} is there"
        for folder, prompt_id in done:
            if prompt_id not in job.going and not (root / folder / "manifest.json").exists():
                yield f"the catalog says that {prompt_id} is complete, and it has no manifest"

    @contextlib.contextmanager
    def _catalog(self, root: Path) -> Iterator[sqlite3.Connection | None]:
        """A copy of the catalog, so that to look changes nothing; None where it has no table yet."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in (root / ".mirror").glob("catalog.sqlite*"):
            if not path.name.endswith("-shm"):
                shutil.copyfile(path, copy / path.name)
        with contextlib.closing(sqlite3.connect(copy / "catalog.sqlite")) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'prompts'").fetchall()
            yield connection if tables else None

    def missing(self, root: Path) -> Iterator[str]:
        """What an archive lacks that is to be complete."""
        found = self.archive(root).files()
        for prompt_id in IDS:
            content = found.pop(f"{prompt_id}/manifest.json", None)
            if content is None or decode(content).state is not PromptState.COMPLETE:
                yield f"{prompt_id} is not complete"
        if found != self.bodies:
            yield f"the files are {sorted(found)}, or have other bytes"
        # A file's row may stand in the catalog although its commit, or the end of its journal, was told as failed: then
        # that stays, for cleanup to see that it proves nothing any more.
        if left := [name for name in self.archive(root).partials() if not name.endswith((".journal", ".upload"))]:
            yield f"{left} are left"


JOBS = (
    Job("fetch", _FETCH, Ground.nothing),
    Job("resume", _FETCH, Ground.killed),
    Job("sync", ("sync", "--no-progress"), Ground.nothing),
    Job(
        "repair",
        ("verify", "--repair"),
        Ground.damage,
        damaged=frozenset({"p1/t.png", "p2/a.png", "p1/large.mp4"}),
    ),
    Job("rebuild", ("rebuild",), Ground.complete),
    Job("forget", ("forget", "p1", "--delete"), Ground.complete, again=(0, 3), going=frozenset({"p1"})),
    Job("cleanup", ("cleanup", "--older-than", "0"), Ground.killed),
)
