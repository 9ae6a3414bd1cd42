"""Nothing is named before it is durable: asserted on the system calls of a run, with `durability = "full"`.

Bytes before the final name; the name, and the folders above it, before the row and the manifest; the manifest before
its prompt's row and before `--json` tells of it; the file's row before its journal goes. And so after a kill, too:
what the killed run had not synced is not durable because it is there.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import media, traced
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, sha256
from tests.origin import answer, task
from tests.traced import Call, Durability

_WHY_NOT = traced.why_not()
pytestmark = [pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.usefixtures("unmeasured")]

MIB = 1 << 20


class Order:
    """Follows runs call by call and asserts what must hold at each; ``seen`` counts what there was to assert."""

    def __init__(self, archive: Archive, bodies: dict[str, bytes], there: list[Path]) -> None:
        self.root = archive.root
        self.files = {self.root / name: sha256(body) for name, body in bodies.items()}
        self.prompts = {path.parent.name for path in self.files}
        urls = {sha256(body): f"{archive.origin.url}/{name}" for name, body in reversed(bodies.items())}
        self.journals = {f"{sha256(url.encode())[:32]}.journal": digest for digest, url in urls.items()}
        self.keys = {path: f"{path.parent.name}{urls[digest]}" for path, digest in self.files.items()}
        self.durability = Durability(archive.root.parents[2], there)
        self.seen: Counter[str] = Counter()
        self._rows: dict[str, bool] = {}  # the digests in the catalog's log, and whether they are synced

    def follow(self, trace: Path) -> None:
        for call in traced.calls(trace):
            if call.result is None:
                self.begins(call)
            self.durability.see(call)
            if call.result == 0 and call.name in ("fsync", "fdatasync") and call.file.endswith("catalog.sqlite-wal"):
                self._rows = dict.fromkeys(self._rows, True)
        self.durability.end()

    def begins(self, call: Call) -> None:
        if call.name.startswith(("rename", "link")):
            self.naming(*call.paths)
        elif call.name.startswith("unlink"):
            self.removal(call)
        elif "write" in call.name and call.file.endswith("catalog.sqlite-wal"):
            self.row(call)
        elif call.name == "write" and call.arguments.startswith("1<"):
            self.told(call)

    def naming(self, source: str, target: str) -> None:
        """A final name is given to what is durable, and to a manifest only once its files are."""
        if Path(target).parent.parent != self.root or Path(target).parent.name == ".mirror":
            return
        assert self.durability.has_content(source), f"{target} gets its name before its bytes are durable"
        self.seen["names"] += 1
        if target.endswith("/manifest.json"):
            named = [path for path in self.files if path.parent == Path(target).parent]
            assert [path for path in named if not self.durability.has(path)] == []
            self.seen["manifests"] += 1

    def row(self, call: Call) -> None:
        """A page with a file's digest says that the file is there; one with a prompt's state, that its manifest is."""
        for text in traced.texts(call):
            for path in [path for path, key in self.keys.items() if key in text and self.files[path] in text]:
                self.seen["rows of files"] += 1
                # A page is written again with each row that comes onto it; what was synced of it once stays durable.
                self._rows.setdefault(self.files[path], False)
                assert self.durability.has(path), f"{path}: its row came first"
            for prompt_id in [prompt_id for prompt_id in self.prompts if f"{prompt_id * 3}complete" in text]:
                self.seen["rows of prompts"] += 1
                assert self.durability.has(self.manifest(prompt_id)), f"{prompt_id}: its row came before its manifest"

    def removal(self, call: Call) -> None:
        """The journal of a published file goes after the file's row."""
        digest = self.journals.get(Path(call.paths[0]).name)
        if digest in self._rows:
            assert self._rows[digest], f"{call.paths[0]} went before the row"
            self.seen["journals gone"] += 1

    def told(self, call: Call) -> None:
        """What a program behind a pipe reads is so."""
        for text in traced.texts(call):
            for prompt_id in self.prompts:
                if f'\\"prompt_id\\":\\"{prompt_id}\\"' in text and r"\"state\":\"complete\"" in text:
                    assert self.durability.has(self.manifest(prompt_id)), f"{prompt_id}: told too early"
                    self.seen["lines"] += 1

    def manifest(self, prompt_id: str) -> Path:
        return self.root / prompt_id / "manifest.json"


class Traced:
    """An archive two folders deep that are not there yet, and runs into it that are followed."""

    def __init__(self, parent: Archive, tmp_path: Path) -> None:
        self.archive = Archive(parent.root / "of" / "ours" / "archive", parent.origin)
        parent.root.mkdir()
        self.traces = tmp_path
        origin = parent.origin
        self.bodies = {f"first/{name}": body for name, body in done_prompt(origin, "first", "a.png", "b.png").items()}
        self.bodies["large/large.mp4"] = media.mp4(3 * MIB)
        large_prompt(origin, "large", self.bodies["large/large.mp4"])
        # Another prompt with one of these files: it is linked, not fetched.
        origin.prompt("again", answer(task("again", images=[(None, f"{origin.url}/first/a.png")])))
        self.bodies["again/a.png"] = self.bodies["first/a.png"]
        self.order = Order(self.archive, self.bodies, [parent.root])
        self.ids = ("first", "large", "again")

    def start(self, *, slow: bool = False) -> subprocess.Popen[str]:
        self.trace = self.traces / "trace"
        run = [sys.executable, "-m", "mirror", "fetch", *self.ids, "--json", "--no-progress"]
        return subprocess.Popen(
            traced.command(self.trace, *run, slow=slow),
            env=self.archive.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def to_the_end(self) -> None:
        with self.start() as process:
            told, _ = process.communicate(timeout=120)
        assert (process.returncode, len(told.splitlines())) == (0, len(self.ids))
        self.order.follow(self.trace)
        found = self.archive.files()
        assert {name: body for name, body in found.items() if not name.endswith("/manifest.json")} == self.bodies

    def killed_when(self, happened: Callable[[], bool]) -> None:
        """A run whose every sync of a folder is late: what has just got its name is not durable when the kill comes."""
        end = time.monotonic() + 120
        with self.start(slow=True) as process:
            while not happened():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.001)
            traced.kill(process)
        self.order.follow(self.trace)


@pytest.fixture
def run(archive: Archive, tmp_path: Path) -> Traced:
    return Traced(archive, tmp_path)


def test_nothing_is_named_before_it_is_durable(run: Traced) -> None:
    run.to_the_end()
    seen = run.order.seen
    assert (seen["names"], seen["manifests"], seen["lines"], seen["journals gone"]) == (7, 3, 3, 1)
    assert min(seen["rows of files"], seen["rows of prompts"]) >= 3


@pytest.mark.parametrize("what", ["", "first", "large", "first/a.png", "large/large.mp4", "large/manifest.json"])
def test_nor_is_what_a_killed_run_had_named(run: Traced, what: str) -> None:
    """The run after it makes durable what it takes for granted."""
    path = run.archive.root / what
    run.killed_when(path.exists)
    run.to_the_end()
