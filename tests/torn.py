"""What a killed run has left, what a power cut does to files, and the run that has to make it good."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st

from mirror.manifests.document import decode
from mirror.models import PromptState
from tests import faults, media
from tests.conftest import Archive
from tests.crash_runs import Looker, Watch, check_catalog
from tests.helpers import Ran, done_prompt, large_prompt, mirrored, running

EXAMPLES = int(os.environ.get("MIRROR_TORN_EXAMPLES", "12"))
MIB = 1 << 20
chosen = examples(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
WHERE = st.floats(0, 1, exclude_max=True)

Damage = Callable[[Path], object]


class Torn:
    """What a killed run has left, a new copy of it for every damage, and the run that follows."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.origin = archive.origin
        self.bodies = {f"p/{name}": body for name, body in done_prompt(self.origin, "p", "a.png", "b.png").items()}
        self.bodies["q/large.mp4"] = media.mp4(6 * MIB)
        self.numbers = itertools.count()

    def serve(self, *script: faults.Fault) -> None:
        large_prompt(self.origin, "q", self.bodies["q/large.mp4"], script)

    def killed_when(self, happened: Callable[[], bool], **environ: str) -> None:
        """A run that is killed once something has happened and p is complete: q's large file alone is on its way."""
        small = self.archive.root / "p" / "manifest.json"
        with running(self.archive, "fetch", "p", "q", environ=environ) as process:
            self.wait_for(lambda: process.poll() is not None or (small.exists() and happened()))
            assert process.poll() is None
        self.serve()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not happened():
            assert time.monotonic() < end
            time.sleep(0.005)

    def copy(self) -> Archive:
        """What the kill left, once more."""
        root = self.archive.root.with_name(f"copy-{next(self.numbers)}")
        shutil.copytree(self.archive.root, root)
        return Archive(root, self.origin)

    def heals(self, *damages: tuple[Damage, Callable[[Archive], Path]]) -> Ran:
        """The next run finds the damage to these files, and all is right at its end and at every moment before."""
        archive = self.copy()
        for damage, of in damages:
            damage(of(archive))
        self.origin.clear()
        with Watch(Looker(archive.root, self.bodies).look):
            ran = mirrored(archive, "p", "q")
        assert ran.code == 0
        self.is_right(archive)
        assert [name for name in archive.partials() if name.endswith(".part")] == []
        shutil.rmtree(archive.root)
        return ran

    def is_right(self, archive: Archive) -> None:
        manifests, files = Looker(archive.root, self.bodies).look()
        assert {decode(content).state for content in manifests.values()} == {PromptState.COMPLETE}
        assert (set(manifests), set(files)) == ({"p", "q"}, set(self.bodies))
        check_catalog(
            archive.root / ".mirror" / "catalog.sqlite",
            lambda name, size: files[name].size == size,
            manifests.__contains__,
        )


def part(archive: Archive) -> Path:
    return _only(archive, ".part")


def journal(archive: Archive) -> Path:
    return _only(archive, ".journal")


def _only(archive: Archive, suffix: str) -> Path:
    [found] = (archive.root / ".mirror" / "parts").glob(f"*{suffix}")
    return found


# What is done to a file


def cut(where: float) -> Damage:
    return lambda path: os.truncate(path, int(where * path.stat().st_size))


def zeroed(where: float) -> Damage:
    """The length was written and the bytes were not."""

    def act(path: Path) -> None:
        size = path.stat().st_size
        os.truncate(path, int(where * size))
        os.truncate(path, size)

    return act


def garbled(where: float, size: int = 1) -> Damage:
    def act(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(int(where * path.stat().st_size))
            old = file.read(size)
            file.seek(-len(old), os.SEEK_CUR)
            file.write(bytes(byte ^ 0xFF for byte in old))

    return act


def longer(size: int) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes() + b"\xff" * size)


ANY: dict[str, Damage] = {
    "cut": cut(0.7),
    "cut to nothing": cut(0),
    "a tail of zeroes": zeroed(0.7),
    "nothing but zeroes": zeroed(0),
    "gone": Path.unlink,
    "as it was": lambda _: None,
}
