"""What the campaigns of kills share: what is served, what must hold at every instant, who watches, and when to kill."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mirror.catalog.schema import MIGRATIONS
from mirror.manifests.document import decode
from mirror.models import PromptState
from tests import media
from tests.conftest import Archive
from tests.faults import Fault
from tests.origin import Origin, answer, task

_SMALL_BUFFER = 128 << 10


class ShortPipe(Origin):
    """It is never far ahead of what its client has read: a kill then loses little that only the kernel held.

    The kernel would take 32 MiB for a client that reads nothing.
    """

    ahead = 512 << 10

    def __init__(self) -> None:
        super().__init__()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)  # inherited by what it accepts


@dataclass
class Served:
    """Prompts on an origin, each with a thumbnail and an original, and the bytes of every file by its path."""

    origin: Origin
    bodies: dict[str, bytes] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def add(self, prompt_id: str, large: bytes, fault: Fault | Sequence[Fault] | None = None) -> None:
        small = media.png(width=40, height=8 + len(self.ids) % 32, seed=len(self.ids))
        self.bodies |= {f"{prompt_id}/small.png": small, f"{prompt_id}/large.mp4": large}
        self.ids.append(prompt_id)
        self.again(prompt_id, fault)

    def again(self, prompt_id: str, fault: Fault | Sequence[Fault] | None = None) -> None:
        """Serve a prompt as on the first day: a script of faults starts over."""
        names = [f"{prompt_id}/small.png", f"{prompt_id}/large.mp4"]
        small, large = (self.origin.add(f"/{name}", self.bodies[name]) for name in names)
        self.origin.add(f"/{names[1]}", self.bodies[names[1]], fault=fault)
        self.origin.prompt(prompt_id, answer(task(prompt_id, images=[(small, large)])))

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies.values()))


@dataclass(frozen=True)
class Known:
    """A file that was looked at."""

    size: int
    sha256: str
    right: bool


def known(content: bytes, expected: bytes | None) -> Known:
    return Known(len(content), hashlib.sha256(content).hexdigest(), content == expected)


def check(manifests: Mapping[str, bytes], files: Mapping[str, Known], bodies: Mapping[str, bytes]) -> None:
    """What must hold at every instant: no wrong byte under a final name, no manifest that says more than is there.

    ``manifests`` are to be read before ``files``, by who looks while a run is under way.
    """
    assert set(files) <= set(bodies)
    assert [name for name, file in files.items() if not file.right] == []
    for prompt_id, content in manifests.items():
        manifest = decode(content)
        named = {f"{prompt_id}/{file.path}": (file.bytes, file.sha256) for file in manifest.files}
        assert named == {name: (files[name].size, files[name].sha256) for name in named if name in files}
        wanted = {name for name in bodies if name.startswith(f"{prompt_id}/")}
        assert set(named) == wanted or manifest.state is not PromptState.COMPLETE


class Looker:
    """Looks at an archive's folder; a file that has not changed since the last look is not read again."""

    def __init__(self, root: Path, bodies: Mapping[str, bytes]) -> None:
        self._root = root
        self._bodies = bodies
        self._seen: dict[tuple[str, int, int, int], Known] = {}

    def look(self) -> tuple[dict[str, bytes], dict[str, Known]]:
        """Manifests by prompt, and files by path; what must hold of them holds.

        Raises:
            AssertionError: it does not.
        """
        manifests = {path.parent.name: path.read_bytes() for path in self._root.glob("*/manifest.json")}
        paths = (path for path in self._root.glob("*/*") if path.name != "manifest.json")
        files = {f"{path.parent.name}/{path.name}": self._known(path) for path in paths if path.parent.name[0] != "."}
        check(manifests, files, self._bodies)
        return manifests, files

    def _known(self, path: Path) -> Known:
        name, status = f"{path.parent.name}/{path.name}", path.stat()
        key = (name, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._seen:
            self._seen[key] = known(path.read_bytes(), self._bodies.get(name))
        return self._seen[key]


class Watch(threading.Thread):
    """Looks again and again while a block runs; what it saw wrong is raised at the block's end."""

    def __init__(self, look: Callable[[], object], pause: float = 0.005) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._pause = pause
        self._over = threading.Event()
        self._error: BaseException | None = None
        self.looks = 0

    def run(self) -> None:
        try:
            while not self._over.wait(self._pause):
                self._look()
                self.looks += 1
        except BaseException as error:  # noqa: BLE001  whatever it is, the test is told
            self._error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class Moment:
    """When to kill: ``late`` seconds after something came to hold."""

    phase: str
    reached: Callable[[], bool]
    late: float


def wait_for(process: subprocess.Popen[str], moment: Moment, patience: float = 300) -> None:
    """Until this moment, or the process's end."""
    end = time.monotonic() + patience
    while process.poll() is None and not moment.reached():
        assert time.monotonic() < end, f"{moment.phase}: it never came to that"
        time.sleep(0.001)
    time.sleep(moment.late)


def kill_at(process: subprocess.Popen[str], moment: Moment) -> bool:
    """SIGKILL at this moment; False where the process came to its end before that."""
    try:
        wait_for(process, moment)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def moments(archive: Archive, served: Served, luck: random.Random) -> Moment:
    """A random moment of a run that fetches what is served into an archive's folder: any phase of it."""
    root, origin = archive.root, archive.origin
    after, count = luck.randrange(served.size), luck.randrange(1, len(served.ids) + 1)
    files = sum(1 for path in root.glob("*/*") if path.parent.name != ".mirror")
    choices = (
        (2, Moment("start-up", lambda: True, luck.uniform(0, 0.7))),
        (2, Moment("catalog", (root / ".mirror" / "catalog.sqlite").exists, luck.uniform(0, 0.03))),
        (7, Moment("download", lambda: origin.body_bytes() > after, luck.uniform(0, 0.03))),
        (3, Moment("names", lambda: sum(1 for _ in root.glob("*/*")) > files + count, luck.uniform(0, 0.003))),
        (3, Moment("manifests", lambda: len([*root.glob("*/manifest.json")]) >= count, luck.uniform(0, 0.003))),
        (3, Moment("end", lambda: len([*root.glob("*/manifest.json")]) == len(served.ids), luck.uniform(0, 0.15))),
    )
    return luck.choices([moment for _, moment in choices], [weight for weight, _ in choices])[0]


# The catalog


@contextlib.contextmanager
def catalog_copy(path: Path) -> Iterator[sqlite3.Connection]:
    """A catalog as another program finds it, read from a copy: what stands there stays as the kill left it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                shutil.copyfile(source, copy.with_name(copy.name + suffix))
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            yield connection


def check_catalog(path: Path, is_there: Callable[[str, int], bool], has_manifest: Callable[[str], bool]) -> None:
    """It is sound, and each of its rows says that something is there, never that it will be."""
    if not path.exists():
        return
    with catalog_copy(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [version] = connection.execute("PRAGMA user_version").fetchone()
        assert 0 <= version <= len(MIGRATIONS)
        if version == 0:
            return
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        done = [row for (row,) in connection.execute("SELECT prompt_id FROM prompts WHERE state = 'complete'")]
        stored = connection.execute("SELECT prompt_id, path, bytes FROM files WHERE entry IS NOT NULL").fetchall()
    assert [prompt_id for prompt_id in done if not has_manifest(prompt_id)] == []
    assert [row for row in stored if not is_there(f"{row[0]}/{row[1]}", row[2])] == []


def old_catalog(path: Path, version: int) -> None:
    """An empty catalog as an earlier mirror left it: the next run brings it up to date first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"{''.join(MIGRATIONS[:version])} PRAGMA user_version = {version};")


def left_in(root: Path) -> dict[str, int]:
    """What of each kind a kill left in the folder for what is not finished."""
    found: dict[str, int] = {}
    parts = root / ".mirror" / "parts"
    for path in parts.iterdir() if parts.exists() else ():
        suffix = path.name.partition(".")[2]
        found[suffix] = found.get(suffix, 0) + 1
    return found
