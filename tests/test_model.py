"""A stateful model: random sequences of commands, kills, damage and a service that changes its mind, against a simple
model of what the archive must hold (`tests/model.py` is the contract, `tests/model_machine.py` holds it to that).

`MIRROR_MODEL_EXAMPLES` sets the number of sequences, `MIRROR_MODEL_STEPS` their length, `MIRROR_MODEL_SEED` repeats a
campaign. Hypothesis prints the steps of a failure, shrunk.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests import faults
from tests import model_damage as damage
from tests.model import INCOMPLETE, OK, STOPPED, Order
from tests.model_archive import MANIFEST
from tests.model_machine import Ground
from tests.model_upstream import DENIALS, DONE, DOWN, FAILED, LARGE, PROMPTS, QUEUED, RUNNING, Member, paths_of

pytestmark = pytest.mark.usefixtures("unmeasured")

EXAMPLES = int(os.environ.get("MIRROR_MODEL_EXAMPLES", "8"))
STEPS = int(os.environ.get("MIRROR_MODEL_STEPS", "15"))
SEED = int(os.environ.get("MIRROR_MODEL_SEED", str(random.randrange(1 << 32))))

FAULTS = {
    "cut": faults.close_after(300),
    "cut late": faults.close_after((1 << 20) + 10_000),
    "503": faults.status(503),
    "404": faults.status(404),
    "a web page": faults.html_page(),
    "no length": faults.no_length(),
}

some_prompts = st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=3, unique=True)
a_prompt = st.sampled_from(PROMPTS)
a_path = a_prompt.flatmap(lambda prompt_id: st.sampled_from(paths_of(prompt_id)))
a_state = st.sampled_from([DONE, DONE, DONE, FAILED, QUEUED, RUNNING])
an_image = st.tuples(st.none() | st.integers(0, 6), st.integers(0, 6))


class ArchiveMachine(RuleBasedStateMachine):
    """An archive, its origin, and everybody who acts on them."""

    folders: ClassVar[Iterator[Path]]
    total: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.ground = Ground(next(self.folders))
        self.upstream = self.ground.upstream
        self.root = self.ground.root

    def teardown(self) -> None:
        self.ground.close()
        type(self).total.update(self.ground.steps)

    @initialize(first=an_image, second=an_image)
    def begin(self, first: tuple[int | None, int], second: tuple[int | None, int]) -> None:
        for prompt_id, image in zip(PROMPTS, (first, second, (None, 0)), strict=True):
            self.upstream.families[prompt_id] = [Member(images=[self.image(prompt_id, image)])]
        self.upstream.publish()
        self.ground.fetch(list(PROMPTS), Order())

    def image(self, prompt_id: str, places: tuple[int | None, int]) -> tuple[str | None, str]:
        paths = paths_of(prompt_id)
        return None if places[0] is None else paths[places[0]], paths[places[1]]

    # The service -------------------------------------------------------------------------------

    @rule(prompt_id=a_prompt, number=st.integers(0, 2), state=a_state, image=an_image)
    def say(self, prompt_id: str, number: int, state: int, image: tuple[int | None, int]) -> None:
        """A task has another state; or there is one more of them."""
        family = self.upstream.families[prompt_id]
        if number < len(family):
            family[number].state = state
        else:
            family.append(Member(state, [self.image(prompt_id, image)]))
        self.upstream.publish()

    @rule(prompt_id=a_prompt, number=st.integers(0, 2), image=an_image)
    def name(self, prompt_id: str, number: int, image: tuple[int | None, int]) -> None:
        family = self.upstream.families[prompt_id]
        family[number % len(family)].images.append(self.image(prompt_id, image))
        self.upstream.publish()

    @rule(prompt_id=a_prompt, a_child=st.booleans())
    def unname(self, prompt_id: str, a_child: bool) -> None:
        """A child, or an image, is in the answer no more."""
        family = self.upstream.families[prompt_id]
        if a_child and len(family) > 1:
            family.pop()
        elif len(family[-1].images) > 1:
            family[-1].images.pop(0)
        self.upstream.publish()

    @rule(path=a_path)
    def serve_others(self, path: str) -> None:
        """Other bytes stand at a URL; later the old ones again."""
        self.upstream.versions[path] = (self.upstream.versions.get(path, 0) + 1) % 2
        self.upstream.publish()

    @rule(path=a_path)
    def serve_or_not(self, path: str) -> None:
        self.upstream.gone ^= {path}
        self.upstream.publish()

    @rule(path=a_path, number=st.integers(0, 3))
    def sign(self, path: str, number: int) -> None:
        self.upstream.signatures[path] = number
        self.upstream.publish()

    @rule(prompt_id=a_prompt, refusal=st.sampled_from([*DENIALS, DOWN, None, None]))
    def refuse(self, prompt_id: str, refusal: int | None) -> None:
        self.upstream.refusals.pop(prompt_id, None)
        if refusal is not None:
            self.upstream.refusals[prompt_id] = refusal
        self.upstream.publish()

    # Commands ----------------------------------------------------------------------------------

    @rule(ids=some_prompts, refresh=st.booleans(), as_json=st.booleans())
    def fetch(self, ids: list[str], refresh: bool, as_json: bool) -> None:
        self.ground.fetch(ids, Order(refresh, as_json=as_json))

    @rule(ids=some_prompts, only=st.sampled_from(["origin", "thumbnail"]), refresh=st.booleans())
    def fetch_only(self, ids: list[str], only: str, refresh: bool) -> None:
        self.ground.fetch(ids, Order(refresh, only))

    @rule(ids=some_prompts, path=a_path, fault=st.sampled_from(sorted(FAULTS)))
    def fetch_badly(self, ids: list[str], path: str, fault: str) -> None:
        self.upstream.publish({path: FAULTS[fault]})
        self.ground.fetch(ids, Order(refresh=True, broken=frozenset([self.upstream.origin.url + path])))
        self.upstream.publish()

    @rule(
        ids=some_prompts,
        path=a_path,
        size=st.sampled_from([0, 400, 1 << 20, LARGE]),
        hold=st.booleans(),
        number=st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]),
    )
    def kill(self, ids: list[str], path: str, size: int, hold: bool, number: int) -> None:
        """A fetch ends in the middle: of a file that comes slowly, or right after so many of its bytes."""
        self.upstream.publish({path: faults.hold_after(size)} if hold else None)
        self.ground.kill(ids, path, size, number)
        self.upstream.publish()

    @rule(ids=st.just([]) | some_prompts)
    def repair(self, ids: list[str]) -> None:
        self.ground.repair(ids)

    @precondition(lambda self: self.ground.seen.things)
    @rule()
    def rebuild(self) -> None:
        if not self.ground.seen.liars:
            self.ground.rebuild()

    @precondition(lambda self: self.ground.seen.things)
    @rule(prompt_id=a_prompt, delete=st.booleans())
    def forget(self, prompt_id: str, delete: bool) -> None:
        ours = self.ground.seen.promised(prompt_id).values()
        folders = [file for file in ours if (self.root / prompt_id / file.path).is_dir()]
        if prompt_id not in self.ground.seen.liars and not (delete and (folders or self.manifest(prompt_id).is_dir())):
            self.ground.forget(prompt_id, delete=delete)

    @rule(older_than=st.sampled_from(["0", "1h"]))
    def cleanup(self, older_than: str) -> None:
        done = self.ground.run("cleanup", "--older-than", older_than)
        assert done.code == (STOPPED if self.ground.garbled else OK)
        self.ground.ended()

    @rule(ids=some_prompts)
    def ask_only(self, ids: list[str]) -> None:
        """A dry run, and the status: they change nothing."""
        seen = self.ground.seen
        self.ground.run("fetch", "--dry-run", "--refresh", *ids)
        self.ground.run("status", "--json")
        self.ground.ended()
        assert (self.ground.seen.things, self.ground.seen.rows) == (seen.things, seen.rows)

    @rule(refresh=st.booleans(), retry=st.booleans())
    def sync(self, refresh: bool, retry: bool) -> None:
        rows = [{"id": n, "promptId": p, "state": 30, "createdAt": 1_769_594_620} for n, p in enumerate(PROMPTS)]
        self.upstream.origin.history(rows)
        told = [*(["--refresh"] if refresh else []), *(["--retry-failed"] if retry else [])]
        done = self.ground.run("sync", *told)
        assert done.code in ([STOPPED] if self.ground.garbled else [OK, INCOMPLETE, 5]), done.err
        self.ground.ended()

    # Damage ------------------------------------------------------------------------------------

    def manifest(self, prompt_id: str) -> Path:
        return self.root / prompt_id / MANIFEST

    @precondition(lambda self: self.ground.seen.manifests)
    @rule(
        data=st.data(),
        how=st.sampled_from(["flip", "cut", "grow", "empty", "delete", "folder", "symlink", "touch", "put back"]),
    )
    def harm_file(self, data: st.DataObject, how: str) -> None:
        seen = self.ground.seen
        files = {f"{p}/{file.path}": (p, file) for p in PROMPTS for file in seen.promised(p).values()}
        if not files:
            return
        name = data.draw(st.sampled_from(sorted(files)))
        path, content = self.root / name, seen.things[name].content if name in seen.things else None
        if how == "put back":
            damage.put_back(path, self.upstream.ever[str(files[name][1].sha256)])
        elif content is not None:
            damage.harm_file(path, content, how, self.ground.outside)
        self.ground.harmed()

    @precondition(lambda self: self.ground.seen.manifests)
    @rule(
        prompt_id=a_prompt,
        how=st.sampled_from(["delete", "cut", "empty", "noise", "folder", "symlink", "another's", "lie"]),
    )
    def harm_manifest(self, prompt_id: str, how: str) -> None:
        path = self.manifest(prompt_id)
        if not path.is_file() or path.is_symlink():
            return
        if how == "lie":
            self.lie(prompt_id, path)
        elif how == "another's":
            others = [self.manifest(other) for other in PROMPTS if other != prompt_id]
            path.write_bytes(next((other.read_bytes() for other in others if other.is_file()), b"{}"))
        else:
            damage.harm_file(path, path.read_bytes(), how, self.ground.outside)
        self.ground.harmed()

    def lie(self, prompt_id: str, path: Path) -> None:
        """One digit of a digest is another: the manifest can be read, and the catalog knows better."""
        seen = self.ground.seen
        manifest = seen.manifests.get(prompt_id)
        row = (seen.rows or {}).get(prompt_id)
        if manifest is None or row is None or not manifest.files or prompt_id in self.ground.behind:
            return
        file = manifest.files[0]
        if file.url not in row.entries or file.sha256 is None:
            return
        other = ("0" if file.sha256[0] != "0" else "1") + file.sha256[1:]
        lie = path.read_bytes().replace(file.sha256.encode(), other.encode())
        path.write_bytes(lie)
        self.ground.lies[prompt_id] = lie

    @precondition(lambda self: self.ground.seen.rows is not None)
    @rule(garble=st.booleans())
    def harm_catalog(self, garble: bool) -> None:
        if not self.ground.seen.liars:
            self.ground.drop_catalog(garble=garble)

    @precondition(lambda self: self.ground.seen.things)
    @rule(prompt_id=a_prompt)
    def delete_folder(self, prompt_id: str) -> None:
        if (self.root / prompt_id).is_dir() and prompt_id not in self.ground.seen.liars:
            shutil.rmtree(self.root / prompt_id)
        self.ground.harmed()

    @precondition(lambda self: self.ground.seen.journaled)
    @rule(data=st.data(), how=st.sampled_from(["delete", "cut", "noise"]))
    def harm_partial(self, data: st.DataObject, how: str) -> None:
        names = sorted(path.name for path in (self.root / ".mirror" / "parts").iterdir())
        kinds = sorted({name.partition(".")[2] for name in names})
        kind = data.draw(st.sampled_from(kinds))
        path = self.root / ".mirror" / "parts" / next(name for name in names if name.endswith(kind))
        damage.harm_file(path, path.read_bytes(), how, self.ground.outside)
        self.ground.harmed()

    @rule(prompt_id=a_prompt, name=st.sampled_from(["a.png", "s.png", "notes.txt", ".hidden"]))
    def leave_a_stray(self, prompt_id: str, name: str) -> None:
        """Somebody's own file, perhaps under a name that a file of ours is going to want."""
        path = self.root / prompt_id / name
        ours = {file.path for file in self.ground.seen.promised(prompt_id).values()}
        if name not in ours and not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"somebody's own")
        self.ground.harmed()


def test_nothing_that_happens_makes_a_wrong_archive(tmp_path: Path) -> None:
    print(f"MIRROR_MODEL_SEED={SEED}")
    ArchiveMachine.folders = (tmp_path / f"example{number}" for number in itertools.count())
    ArchiveMachine.total.clear()
    run_state_machine_as_test(
        seed(SEED)(ArchiveMachine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(json.dumps(dict(sorted(ArchiveMachine.total.items())), indent=2))
