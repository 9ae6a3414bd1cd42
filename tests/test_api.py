"""What a program can do beyond a fetch: one prompt, verify, observers, progress; and all of it without asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

import mirror
from mirror import Event, FetchOptions, Manifest, Mirror, Progress, PromptState, Sample
from mirror.errors import ConfigError, Locked, Unauthorized
from mirror.events import FileStored, PromptFinished, RequestSent
from mirror.settings import FOREVER
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, journaled, large_prompt, mirrored
from tests.origin import Origin
from tests.test_python_api import assert_free

NOTEBOOK = {
    "ipykernel/zmqshell.py": "import IPython",
    "IPython/__init__.py": "class Shell: ...\nget_ipython = Shell",
    "IPython/display.py": "import ipywidgets\ndisplay = ipywidgets.shown.append",
    "ipywidgets.py": """
from types import SimpleNamespace

shown = []

class HTML:
    def __init__(self, **traits):
        self.layout, self.style, self.value, self.bar_style = SimpleNamespace(), SimpleNamespace(), None, ""
        vars(self).update(traits)

class FloatProgress(HTML): ...

class HBox(HTML): ...
""",
}
"""Stand-ins for the modules by which tqdm knows a notebook, and for those of ipywidgets that it makes."""


# One prompt


def test_one_prompt(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")

    async def run() -> None:
        async with Mirror(archive.settings()) as m:
            manifest = await m.fetch_one("p")
            assert (manifest.state, {file.path for file in manifest.files}) == (PromptState.COMPLETE, set(bodies))
            assert manifest == await m.fetch_one("p")
            assert (await m.fetch_one("nobody")).state is PromptState.UNKNOWN
            assert m.exit_code == 3

    asyncio.run(run())
    assert asked(origin) == ["nobody", "p"]


@pytest.mark.parametrize("unusable", ["", "a\nb", "x" * 257])
def test_an_id_that_cannot_be_one_is_told_as_unknown_unasked(origin: Origin, archive: Archive, unusable: str) -> None:
    manifest = mirror.fetch_one(unusable, archive.settings())
    assert (manifest.state, [error.error for error in manifest.errors]) == (PromptState.UNKNOWN, ["BadParameter"])
    assert origin.requests == []


def test_the_same_prompt_at_once_is_fetched_once(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")

    async def run() -> list[Manifest]:
        async with Mirror(archive.settings()) as m:
            return await asyncio.gather(*(m.fetch_one("p") for _ in range(5)))

    assert {manifest.state for manifest in asyncio.run(run())} == {PromptState.COMPLETE}
    assert len(origin.media_requests) == 2


def test_what_one_prompt_may_raise(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.mp4(1 << 20), faults.hold_after(10))
    with pytest.raises(TimeoutError, match="p: not done after"):
        mirror.fetch_one("p", archive.settings(), FetchOptions(max_time=0.3))
    with pytest.raises(TypeError, match="to be a string"):
        mirror.fetch_one(7, archive.settings())  # type: ignore[arg-type]
    with pytest.raises(Unauthorized):
        mirror.fetch_one("p", archive.settings(api_token="another"))
    with pytest.raises(ConfigError):
        mirror.fetch_one("p", archive.settings(api_token=""))
    assert_free(archive)


# Verify


def test_verify_reads_beside_a_run_and_needs_no_token(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    large_prompt(origin, "q", media.mp4(1 << 20), faults.hold_after(10))

    async def run() -> None:
        async with Mirror(archive.settings()) as m, contextlib.aclosing(m.fetch(["p", "q"])) as manifests:
            await anext(manifests)
            with pytest.raises(Locked):
                mirror.fetch_one("p", archive.settings())
            found = [checked async for checked in m.verify(["p", "p"])]
            assert [checked.flaw for checked in found] == [None] * 3
            (archive.root / "p" / "a.png").write_bytes(b"other")
            [flawed] = [checked for checked in mirror.verify(archive.settings(api_token="")) if checked.is_wrong]
            assert (flawed.prompt_id, flawed.where, flawed.flaw) == ("p", "p/a.png", "damaged")

    asyncio.run(run())


def test_verify_as_the_command_does(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    with pytest.raises(ConfigError, match="there is no catalog"):
        list(mirror.verify(archive.settings()))
    mirrored(archive, "p")
    sample = Sample(count=1, seed=7)
    assert len([each for each in mirror.verify(archive.settings(), sample=sample) if each.file]) == 1
    assert (sample.total, sample.seed) == (2, 7)
    with pytest.raises(ConfigError, match="no bucket is configured"):
        list(mirror.verify(archive.settings(), bucket=True))
    with pytest.raises(ConfigError, match="in its bucket only"):
        list(mirror.verify(archive.settings(s3="s3://bucket", s3_only=True)))
    with pytest.raises(TypeError, match="put it into a list"):
        list(mirror.verify(archive.settings(), "p"))
    [unknown] = mirror.verify(archive.settings(), ["nobody"])
    assert (unknown.flaw, unknown.is_wrong) == ("missing", True)


def test_repair_without_asyncio(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")
    (archive.root / "p" / "a.png").unlink()
    [mended] = [checked for checked in mirror.repair(archive.settings()) if checked.flaw]
    assert (mended.flaw, mended.repaired, mended.is_wrong) == ("missing", True, False)
    assert archive.files()["p/a.png"] == bodies["a.png"]


# Observers


def test_an_observer_may_come_and_go(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q", "r"):
        done_prompt(origin, prompt_id, "a.png")
    told: list[str] = []

    async def run() -> None:
        m = Mirror(archive.settings())

        @m.on_event
        def take_away(event: Event) -> None:
            if isinstance(event, PromptFinished):
                told.append(event.prompt_id)

        again = m.on_event(lambda event: told.append("again") if isinstance(event, PromptFinished) else None)
        async with m:
            await m.fetch_one("p")
            again()
            again()
            await m.fetch_one("q")
            take_away()
            await m.fetch_one("r")

    asyncio.run(run())
    assert told == ["p", "again", "q"]


def test_an_observer_that_raises_is_told_nothing_more_and_ends_nothing(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    log, told = io.StringIO(), []
    handler = logging.StreamHandler(log)
    logging.getLogger("mirror").addHandler(handler)

    def broken(event: Event) -> None:
        told.append(event)
        raise LookupError("the observer's own")

    try:
        [manifest] = mirror.fetch(["p"], archive.settings(), on_event=broken)
    finally:
        logging.getLogger("mirror").removeHandler(handler)

    assert (manifest.state, len(told)) == (PromptState.COMPLETE, 1)
    assert log.getvalue().startswith("an observer failed, and is told nothing more: <function")
    assert log.getvalue().endswith("LookupError: the observer's own\n")


def test_the_functions_tell_what_happens(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    told: list[Event] = []
    mirror.fetch_one("p", archive.settings(), on_event=told.append)
    assert [event.path for event in told if isinstance(event, FileStored)] == ["a.png"]
    assert sum(isinstance(event, RequestSent) for event in told) == 2


# Progress


def test_progress_inside_a_running_loop(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    screen = io.StringIO()

    async def run() -> None:
        with Progress(screen, leave=True) as progress:
            async with Mirror(archive.settings(), observers=[progress]) as m:
                await m.fetch_one("p")

    asyncio.run(run())
    assert "1/1 prompts, 1/1 files 100%" in screen.getvalue().rsplit("\r", 1)[-1]


def test_progress_draws_nothing_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress(RequestSent(kind="api"))
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_widget_in_a_notebook(origin: Origin, archive: Archive, tmp_path: Path) -> None:
    done_prompt(origin, "p", "a.png")
    for name, text in NOTEBOOK.items():
        path = tmp_path / "notebook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = """
import sys
import ipykernel.zmqshell, ipywidgets, mirror
with mirror.Progress() as progress:
    [manifest] = mirror.fetch(["p"], mirror.load_settings(), on_event=progress)
[(text, gauge, _)] = [box.children for box in ipywidgets.shown]
print(manifest.state, text.value.replace("\\u2007", " "), gauge.value == gauge.max > 0, gauge.bar_style)
"""
    environ = archive.environment() | {"PYTHONPATH": f"{tmp_path / 'notebook'}:{Path(mirror.__file__).parents[1]}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=PIPE, stderr=PIPE, text=True)
    assert process.communicate(timeout=120) == ("complete 1/1 prompts, 1/1 files 100% True success\n", "")


# Without asyncio


def test_in_several_threads(origin: Origin, archive: Archive) -> None:
    """Each with an archive of its own, and all with one, where each waits for the others."""
    for number in range(4):
        done_prompt(origin, f"p{number}", "a.png")
    found: list[str] = []

    def work(root: Path, number: int) -> None:
        options = FetchOptions(wait_lock=FOREVER)
        found.extend(m.state for m in mirror.fetch([f"p{number}"], archive.settings(root=root), options))

    roots = [archive.root / "0", archive.root / "1", archive.root / "one", archive.root / "one"]
    threads = [threading.Thread(target=work, args=(root, number)) for number, root in enumerate(roots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == ["complete"] * 4


def test_lazy_ids_are_taken_no_faster_than_the_loop_goes(origin: Origin, archive: Archive) -> None:
    taken = 0

    def ids() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f"bad\n{number}"  # refused unasked: nothing but the reader can hold these up

    with contextlib.closing(mirror.fetch(ids(), archive.settings())) as manifests:
        next(manifests)
        before = -1
        while before != taken:
            before = taken
            threading.Event().wait(0.1)
        assert taken < 200
    assert_free(archive)


def test_what_the_ids_raise_is_raised(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    def ids() -> Iterator[str]:
        yield "p"
        raise LookupError("the source's own")

    with pytest.raises(LookupError, match="the source's own"):
        list(mirror.fetch(ids(), archive.settings()))
    with pytest.raises(TypeError, match="put it into a list"):
        list(mirror.fetch("p", archive.settings()))
    assert_free(archive)


def test_leaving_the_loop_leaves_nothing(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(1 << 20), faults.hold_after(10))
    for _ in mirror.fetch(["p", "q"], archive.settings()):
        break
    with contextlib.suppress(LookupError):
        for _ in mirror.fetch(["p", "q"], archive.settings()):
            raise LookupError("the caller's own")
    assert not [each for each in threading.enumerate() if each.name == "mirror-blocking" and each.is_alive()]
    assert_free(archive)


def test_ctrl_c_stops_the_run_and_is_raised(origin: Origin, archive: Archive) -> None:
    """As in a script, or a cell of a notebook that is interrupted while it waits."""
    body = media.mp4(3 << 20)
    large_prompt(origin, "p", body, faults.hold_after(5 << 19))
    code = """
import signal, threading, mirror
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    mirror.fetch_one("p", mirror.load_settings())
except KeyboardInterrupt:
    print("interrupted", [each.name for each in threading.enumerate() if each.name.startswith("mirror")])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=archive.environment(), stdout=subprocess.PIPE, text=True
    )
    origin.wait_for(lambda: journaled(archive) >= 2 << 20)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)

    assert (process.returncode, out) == (0, "interrupted []\n")
    origin.release("/p/large.mp4")
    assert mirrored(archive, "p").code == 0
    assert archive.files()["p/large.mp4"] == body


def test_sync_without_asyncio(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    origin.history([{"promptId": "p", "createTime": 1_700_000_000, "state": 30}])
    assert [(m.prompt_id, m.state) for m in mirror.sync(archive.settings())] == [("p", PromptState.COMPLETE)]


def test_several_fetches_of_the_same_prompts_at_once_make_each_prompt_once(origin: Origin, archive: Archive) -> None:
    names = [f"p{number}" for number in range(30)]
    for name in names:
        done_prompt(origin, name, "a.png", "b.png")

    async def run() -> list[list[Manifest]]:
        async def fetch() -> list[Manifest]:
            return [manifest async for manifest in m.fetch(names)]

        async with Mirror(archive.settings()) as m:
            found = await asyncio.gather(fetch(), fetch(), fetch())
            assert m.exit_code == 0
            return [*found]

    for manifests in asyncio.run(run()):
        assert {manifest.prompt_id: manifest.state for manifest in manifests} == dict.fromkeys(names, "complete")
    assert len(origin.media_requests) == 60
    assert asked(origin) == sorted(names)
    assert archive.run("verify").code == 0
