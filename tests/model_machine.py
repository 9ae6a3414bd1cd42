"""The archive under test in the stateful model: commands on one side, what must hold after each on the other."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from mirror import cli
from tests.conftest import Archive, Done
from tests.model import INCOMPLETE, OK, STOPPED, Flaw, Order, fetched, flaws, is_repaired, worst
from tests.model_archive import CATALOG, MANIFEST, Seen, Thing, look
from tests.model_upstream import Upstream
from tests.origin import Origin

ENVIRON = {"MIRROR_TRANSFER_ATTEMPTS": "1", "MIRROR_ARCHIVE_DURABILITY": "fast"}


class Ground:
    """An archive, its origin, and what the test knows of both.

    ``behind`` are prompts of runs that were killed: their manifest may know less than the catalog until the next run.
    """

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        self.upstream = Upstream(self.origin)
        self.root = folder / "archive"
        self.outside = folder / "outside"
        self.archive = Archive(self.root, self.origin)
        self.behind: set[str] = set()
        self.lies: dict[str, bytes] = {}
        self.garbled = False
        self.steps: dict[str, int] = {}
        self.root.mkdir(parents=True)
        self.outside.write_bytes(b"nobody's file")
        self.seen = self.look()

    def close(self) -> None:
        self.origin.close()
        logging.getLogger("mirror").handlers.clear()
        shutil.rmtree(self.root)

    # Commands ----------------------------------------------------------------------------------

    def run(self, *arguments: str) -> Done:
        """The command line, in this process: a hundred times as many runs in the same time."""
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with _environ(self.archive.environ | ENVIRON), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.run(list(arguments))
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        done = Done(code, out.buffer.getvalue().decode(), err.getvalue())
        name = f"{arguments[0]}: {code}"
        self.steps[name] = self.steps.get(name, 0) + 1
        return done

    def look(self) -> Seen:
        liars = set()
        for prompt_id, lie in self.lies.items():
            path = self.root / prompt_id / MANIFEST
            if path.is_file() and path.read_bytes() == lie:
                liars.add(prompt_id)
        return look(self.root, frozenset(liars), garbled=self.garbled)

    def harmed(self) -> None:
        """The test has changed something on disk: from here on that is how it was."""
        self.seen = self.look()
        self.verified()

    # What must hold ----------------------------------------------------------------------------

    def ended(self, *, released: Iterable[str] = (), removed: Iterable[str] = ()) -> Seen:
        """A command has ended, in whatever way. Returns what was there before it.

        ``released`` are prompts that may be forgotten, ``removed`` the paths that must be gone.
        """
        before, self.seen = self.seen, self.look()
        self._nothing_is_changed(before, set(removed))
        self._nothing_is_forgotten(before, set(released))
        self._manifests_are_true(before)
        assert self.outside.read_bytes() == b"nobody's file"
        self.verified()
        return before

    def _nothing_is_changed(self, before: Seen, removed: set[str]) -> None:
        """A file that was damaged may be whole again, a new one holds what was served under some URL; no more."""
        for path, was in before.things.items():
            now = self.seen.things.get(path)
            folder, _, name = path.partition("/")
            if path in removed:
                assert now is None, f"{path} is still there"
            elif now != was and name != MANIFEST and not (not name and was == Thing() and removed):
                ours = [file for file in before.promised(folder).values() if file.path == name]
                assert [now] != [None], f"{path} was deleted"
                assert any(now.holds(file) and not was.holds(file) for file in ours if now), f"{path} was overwritten"
        for path in self.seen.things.keys() - before.things.keys():
            now, (_, _, name) = self.seen.things[path], path.partition("/")
            if name and name != MANIFEST:
                assert now.content is not None, f"{path} appeared"
                assert self.upstream.was_served(now.content), f"{path} holds what was never served"

    def _nothing_is_forgotten(self, before: Seen, released: set[str]) -> None:
        """What was mirrored is known by catalog and manifest, both, with path and digest as ever."""
        for prompt_id in self.upstream.families:
            now, row = self.seen.promised(prompt_id), (self.seen.rows or {}).get(prompt_id)
            if prompt_id not in released:
                for which, file in before.promised(prompt_id).items():
                    assert which in now, f"{prompt_id}: {which} was forgotten"
                    assert (now[which].path, now[which].sha256) == (file.path, file.sha256)
            if row is not None and not row.is_only_listed:
                assert now.keys() == row.entries.keys(), f"{prompt_id}: the catalog does not know all"
            if prompt_id in self.seen.manifests and prompt_id not in self.behind:
                told = {error.was.url for error in self.seen.manifests[prompt_id].errors if error.was}
                named = {file.url for file in self.seen.manifests[prompt_id].files}
                assert now.keys() == told | named, f"{prompt_id}: the manifest does not know all"

    def _manifests_are_true(self, before: Seen) -> None:
        """What a manifest names stands there with its digest, unless the test itself had damaged it before."""
        for prompt_id, manifest in self.seen.manifests.items():
            for file in manifest.files if prompt_id not in self.seen.liars else ():
                was, now = before.at(prompt_id, file), self.seen.at(prompt_id, file)
                assert self.seen.has_whole(prompt_id, file) or now == was, f"{prompt_id}/{file.path} is not there"
                assert self.upstream.was_promised(file.sha256), f"{prompt_id}/{file.path}: never served"
        for path, thing in self.seen.things.items():
            folder, _, name = path.partition("/")
            if name == MANIFEST and thing != before.things.get(path):
                assert folder in self.seen.manifests, f"{path} cannot be read"

    def verified(self) -> None:
        """Verify tells the flaws that are there, and no others; it changes nothing and asks nobody."""
        self.origin.clear()
        done = self.run("verify", "--json")
        assert self.origin.requests == []
        if self.garbled or self.seen.rows is None:
            assert done.code == (STOPPED if self.garbled else 2), done.err
            return
        assert self.look().things == self.seen.things
        told = _told(done)
        late = {(prompt_id, f"{prompt_id}/{MANIFEST}", "damaged") for prompt_id in self.behind}
        due = flaws(self.seen)
        assert set(told) - late == due - late, f"told only: {set(told) - due}, not told: {due - set(told)}"
        assert done.code == (INCOMPLETE if any(flaw != "unexpected" for _, _, flaw in told) else OK)

    # What they must bring ----------------------------------------------------------------------

    def fetch(self, ids: list[str], order: Order) -> None:
        told = [*(["--refresh"] if order.refresh else []), *(["--json"] if order.as_json else [])]
        told += ["--only", order.only] if order.only else []
        self.origin.clear()
        done = self.run("fetch", *ids, *told)
        asked = {request.query.removeprefix("promptId=") for request in self.origin.api_requests}
        if self.garbled:
            assert (done.code, asked) == (STOPPED, set())
            self.ended()
            return
        before, after = self.seen, self.look()
        expected = {prompt_id: fetched(prompt_id, self.upstream, before, after, order) for prompt_id in ids}
        for prompt_id in ids:
            if not expected[prompt_id].asks or prompt_id not in self.upstream.refusals:
                self.behind.discard(prompt_id)
        self.ended()
        assert asked == {prompt_id for prompt_id in ids if expected[prompt_id].asks}, (asked, expected)
        for prompt_id, one in expected.items():
            self._came_of(prompt_id, before, one.state, one.named)
        assert done.code == worst([one.code for one in expected.values()]), (expected, done.err)
        if done.code == OK and order.only is None:
            self.origin.clear()
            assert self.run("fetch", *ids).code == OK
            again = {request.query.removeprefix("promptId=") for request in self.origin.api_requests}
            assert again == {prompt_id for prompt_id, one in expected.items() if one.runs_again}
            assert self.origin.media_requests == []
            self.ended()

    def _came_of(self, prompt_id: str, before: Seen, state: str, named: frozenset[str] | None) -> None:
        rows, manifest = self.seen.rows or {}, self.seen.manifests.get(prompt_id)
        assert rows[prompt_id].state == state, (prompt_id, rows[prompt_id], state)
        if named is None:
            path = f"{prompt_id}/{MANIFEST}"
            assert self.seen.things.get(path) == before.things.get(path)
        else:
            assert manifest is not None
            urls = {file.url for file in manifest.files}
            assert (str(manifest.state), urls) == (state, set(named)), (prompt_id, manifest, state, named)
            assert all(self.seen.has(prompt_id, file) for file in manifest.files)

    def repair(self, ids: list[str]) -> None:
        done = self.run("verify", "--repair", "--json", *ids)
        behind = set(self.behind)
        # What was put back by hand is known again at once; its manifest follows when the service answers.
        self.behind |= {prompt_id for prompt_id, _, _ in _told(done)} & self.upstream.refusals.keys()
        if self.garbled or self.seen.rows is None:
            self.ended()
            assert done.code == (STOPPED if self.garbled else 2)
            return
        before = self.ended()
        told, rows = _told(done), before.rows or {}
        late = {(prompt_id, f"{prompt_id}/{MANIFEST}", "damaged") for prompt_id in behind}
        due = {flaw for flaw in flaws(before) if not ids or flaw[0] in ids}
        due |= {(prompt_id, f"{prompt_id}/{MANIFEST}", "missing") for prompt_id in ids if prompt_id not in rows}
        assert set(told) - late == due - late, f"told only: {set(told) - due}, not told: {due - set(told)}"
        for flaw, mended in told.items():
            if flaw[2] != "unexpected":
                may = is_repaired(flaw, self.upstream, before) if flaw[0] in rows else False
                assert may in (None, mended), (flaw, mended, done.out)
        wrong = [flaw for flaw, mended in told.items() if flaw[2] != "unexpected" and not mended]
        assert done.code == (INCOMPLETE if wrong else OK)

    def rebuild(self) -> None:
        done = self.run("rebuild")
        self.garbled = False
        folders = {path for path, thing in self.seen.things.items() if "/" not in path and thing == Thing()}
        self.ended(released=self.upstream.families.keys() - self.seen.manifests.keys() | self.behind)
        assert (self.seen.rows or {}).keys() == self.seen.manifests.keys(), self.seen.rows
        assert done.code == (INCOMPLETE if folders - self.seen.manifests.keys() else OK), done.err

    def forget(self, prompt_id: str, *, delete: bool) -> None:
        row = (self.seen.rows or {}).get(prompt_id)
        done = self.run("forget", prompt_id, *(["--delete"] if delete else []))
        if self.garbled or self.seen.rows is None:
            self.ended()
            assert done.code == (STOPPED if self.garbled else 2)
            return
        ours = [MANIFEST, *(file.path for file in row.entries.values())] if row is not None and delete else []
        removed = {f"{prompt_id}/{name}" for name in ours} & self.seen.things.keys()
        self.ended(released=[prompt_id], removed=removed)
        assert prompt_id not in (self.seen.rows or {})
        assert done.code == (OK if row is not None else INCOMPLETE)

    def kill(self, ids: list[str], path: str, size: int, number: int) -> None:
        """A fetch whose process is sent a signal once so much of a file was served, or that has ended before."""
        self.origin.clear()
        summary = self.root.with_name("summary.json")
        summary.unlink(missing_ok=True)
        told = ("--refresh", "--no-progress", "--summary", str(summary))
        nowhere = subprocess.DEVNULL
        process = self.archive.start("fetch", *ids, *told, environ=ENVIRON, stdout=nowhere, stderr=nowhere)
        try:
            self.origin.wait_for(lambda: process.poll() is not None or self._has_begun(path, size), 120)
            process.send_signal(number)
            process.wait(timeout=120)
        finally:
            process.kill()
            process.wait()
        # Python takes its handlers away before the process ends: by then the run has told all.
        ends = [-signal.SIGTERM] if summary.exists() else []
        ends += [STOPPED] if self.garbled else []
        assert process.returncode in (-signal.SIGKILL, 143, OK, INCOMPLETE, 5, *ends)
        name = f"killed: {process.returncode}"
        self.steps[name] = self.steps.get(name, 0) + 1
        self.behind |= set(ids)
        self.ended()

    def _has_begun(self, path: str, size: int) -> bool:
        return bool(self.origin.requests) and self.origin.body_bytes(path) >= size

    # Damage ------------------------------------------------------------------------------------

    def drop_catalog(self, *, garble: bool) -> None:
        catalog = self.root / ".mirror" / CATALOG
        for suffix in ("", "-wal", "-shm"):
            catalog.with_name(CATALOG + suffix).unlink(missing_ok=True)
        if garble:
            catalog.write_bytes(b"what a disk returns that is worn out " * 500)
        self.garbled = garble
        self.harmed()


def _told(done: Done) -> dict[Flaw, bool]:
    lines = [json.loads(line) for line in done.out.splitlines()]
    found = {(line["prompt_id"], line["where"], line["flaw"]): line.get("repaired", False) for line in lines}
    assert len(found) == len(lines), "a flaw was told twice"
    return found


@contextlib.contextmanager
def _environ(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
