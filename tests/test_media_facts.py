"""What the manifest tells of what is in files: read by helper processes, which may break, hang and lie."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from mirror import FetchOptions
from mirror.events import Noted
from mirror.media.crew import Crew
from mirror.media.helper import Answer, Question
from mirror.models import Media
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import done_prompt, large_prompt, mirrored, running
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground
from tests.test_media_look import WHOLE, box, film, pictures, saved

MEMORY = 1 << 30


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def turned(form: str = "JPEG") -> bytes:
    """A photograph that is to be turned by a quarter when it is shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pictures(1)[0].resize((40, 20)).save(file, form, exif=exif)
    return file.getvalue()


def image(width: int, height: int, codec: str) -> dict[str, Any]:
    return {"kind": "image", "width": width, "height": height, "seconds": None, "frame_rate": None, "codec": codec}


def video(**facts: Any) -> dict[str, Any]:
    return {"kind": "video", "width": 64, "height": 48, "seconds": 2.0, "frame_rate": 10.0, "codec": "mpeg4"} | facts


FILES: dict[str, tuple[bytes, dict[str, Any] | None]] = {
    "a.png": (media.png(20, 30), image(20, 30, "png")),
    "b.jpg": (turned(), image(20, 40, "jpeg")),
    "c.webp": (WHOLE["webp, animated"], image(40, 40, "webp")),
    "c2.webp": (saved("WEBP"), image(40, 40, "webp")),
    "c3.webp": (turned("WEBP"), image(20, 40, "webp")),
    "c4.webp": (media.webp(300, 16384), image(300, 16384, "webp")),
    "c5.avif": (saved("AVIF"), image(40, 40, "avif")),
    "c6.avif": (turned("AVIF"), image(20, 40, "avif")),
    "c7.avif": (saved("AVIF", frames=3), image(40, 40, "avif")),
    "d.gif": (WHOLE["gif, animated"], image(40, 40, "gif")),
    "e.mp4": (film(), video()),
    "f.mp4": (film(movflags="faststart"), video()),
    "g.bin": (media.blob(5000), None),
    "h.png": (media.png()[:33] + b"\0\0\0\0IEND\xaeB`\x82", image(16, 16, "png")),
}


def prompt(origin: Origin, prompt_id: str = "p") -> None:
    urls = [origin.add(f"/{prompt_id}/{name}", body) for name, (body, _) in FILES.items()]
    origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url) for url in urls])))


def told(manifest: dict[str, Any]) -> dict[str, Any]:
    return {file["path"]: file["media"] for file in manifest["files"]}


EXPECTED = {name: facts for name, (_, facts) in FILES.items()}


def test_the_manifest_tells_what_is_in_files(archive: Archive, origin: Origin) -> None:
    prompt(origin)
    assert archive.run("fetch", "p").code == 0
    assert told(archive.manifest("p")) == EXPECTED
    written = archive.files()["p/manifest.json"]
    assert archive.run("fetch", "p").code == 0
    assert archive.run("rebuild").code == 0
    assert archive.run("fetch", "p", "--refresh").code == 0
    assert archive.files()["p/manifest.json"] == written


def test_into_a_bucket_only_the_same(ground: Ground) -> None:
    prompt(ground.origin)
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    assert told(ground.manifest("p")) == EXPECTED
    looks = [seen for seen in ground.proxy.requests if "range" in seen.headers]
    assert 0 < len(looks) <= 32 * len(FILES)


def test_the_facts_of_a_large_picture_in_a_bucket_take_few_bytes(ground: Ground) -> None:
    """More than may be read of one: of a WebP nothing but its first bytes is, and of an AVIF, too."""
    files = {
        "large.webp": media.webp(800, 600, size=9 << 20),
        "large.avif": saved("AVIF") + box(b"free", bytes(9 << 20)),
    }
    urls = [ground.origin.add(f"/p/{name}", body) for name, body in files.items()]
    ground.origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    expected = {"large.webp": image(800, 600, "webp"), "large.avif": image(40, 40, "avif")}
    assert told(ground.manifest("p")) == expected
    assert [seen.headers["range"] for seen in ground.proxy.requests if "range" in seen.headers] == ["bytes=0-65535"] * 2


def test_a_file_of_several_prompts_is_told_of_in_each(archive: Archive, origin: Origin) -> None:
    url = origin.add("/shared.png", FILES["a.png"][0])
    for prompt_id in ("p", "q", "r"):
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    assert mirrored(archive, "p", "q", "r").code == 0
    for prompt_id in ("p", "q", "r"):
        assert told(archive.manifest(prompt_id)) == {"shared.png": EXPECTED["a.png"]}


def test_what_an_earlier_manifest_did_not_tell_a_refresh_does(archive: Archive, origin: Origin) -> None:
    prompt(origin)
    assert mirrored(archive, "p").code == 0
    path = archive.root / "p" / "manifest.json"
    manifest = archive.manifest("p")
    for file in manifest["files"]:
        file["media"] = None
    path.write_bytes(msgspec.json.encode(manifest))
    (archive.root / ".mirror" / "catalog.sqlite").unlink()
    assert archive.run("rebuild").code == 0
    assert mirrored(archive, "p").code == 0
    assert set(told(archive.manifest("p")).values()) == {None}
    assert mirrored(archive, "p", options=FetchOptions(refresh=True)).code == 0
    assert told(archive.manifest("p")) == EXPECTED


def test_without_the_extra_nobody_is_asked(archive: Archive, origin: Origin) -> None:
    prompt(origin)
    code = (
        "import importlib.util as i, sys; i.find_spec = lambda name: None; from mirror.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "fetch", "p", "--no-progress"]
    done = subprocess.run(command, env=archive.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert set(told(archive.manifest("p")).values()) == {None}
    assert {"PIL", "av", "asyncio.subprocess"} & set(done.stderr.split()) <= {"asyncio.subprocess"}
    assert mirrored(archive, "p").code == 0
    assert set(told(archive.manifest("p")).values()) == {None}


# Helpers that break


def asked(*names: str, worker: str = "tests.media_workers", **told: Any) -> list[Answer]:
    """What is answered, each in its time: only for what hangs that is short."""

    async def ask() -> list[Answer]:
        crew = Crew(1, MEMORY, worker=worker, **told)
        try:
            seconds = {"hangs": 1}
            questions = [Question(seconds=seconds.get(name, 60), path=("/", "x", name)) for name in names]
            return list(await asyncio.gather(*map(crew.ask, questions)))
        finally:
            await crew.close()

    return asyncio.run(ask())


GOOD = Media(kind="image", width=1, height=1, codec="png")


@pytest.mark.parametrize("bad", ["crashes", "ends", "no json", "endless", "reads outside"])
def test_a_helper_that_breaks_costs_one_file(bad: str) -> None:
    notes: list[str] = []
    answers = asked("good", bad, "good", tell=notes.append, together=8)
    assert [each.media for each in answers] == [GOOD, None, GOOD]
    assert answers[1].error
    assert len(notes) == 1
    assert notes[0].startswith(f"x/{bad}: nothing is told")


@pytest.mark.parametrize("bad", ["odd kind", "odd codec", "odd width", "odd type", "huge", "odd text"])
def test_a_helper_is_not_believed(bad: str) -> None:
    answers = asked(bad, "good", together=8)
    assert [each.media for each in answers] == [None, GOOD]
    assert answers[0].error == "the helper talks nonsense"


def test_a_helper_that_hangs_is_killed() -> None:
    answers = asked("hangs", "good")
    assert [(each.media, each.error) for each in answers] == [(None, "it takes more than 1 s"), (GOOD, "")]


def test_after_many_breakdowns_nobody_is_asked() -> None:
    notes: list[str] = []
    answers = asked(*["ends"] * 9, tell=notes.append, most_breakdowns=3)
    assert {each.media for each in answers} == {None}
    assert len(notes) == 4


def test_without_a_helper_nothing_is_told() -> None:
    notes: list[str] = []
    answers = asked("good", "good", worker="tests.no_such_module", tell=notes.append)
    assert [each.media for each in answers] == [None, None]
    assert len(notes) == 1


BADLY_STARTED = """
import pathlib
from tests.media_workers import main
starts = pathlib.Path({starts!r})
before = starts.stat().st_size if starts.exists() else 0
starts.open("a").write("x")
if before not in {failing}:
    main()
"""


def badly_started(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: range) -> tuple[str, Path]:
    """A helper's module of which these starts fail, and a file with a byte for each of its starts."""
    starts = folder / "starts"
    (folder / "badly_started.py").write_text(BADLY_STARTED.format(starts=str(starts), failing=failing))
    paths = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return "badly_started", starts


def test_a_mishap_at_the_start_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    worker, starts = badly_started(tmp_path, monkeypatch, range(3))
    answers = asked("good", "good", worker=worker, tell=notes.append)
    assert ([each.media for each in answers], notes, starts.stat().st_size) == ([GOOD, GOOD], [], 4)


def test_in_a_run_a_start_is_tried_again_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not three times each time that one is needed."""
    notes: list[str] = []
    worker, starts = badly_started(tmp_path, monkeypatch, range(1, 99))
    answers = asked("good", "ends", "good", "good", worker=worker, tell=notes.append)
    assert ([each.media for each in answers], starts.stat().st_size) == ([GOOD, None, None, None], 5)
    assert notes[1:] == ["what is in files is not told: a helper cannot be started: it ends, or says nothing"]


def test_helpers_that_are_at_work_do_what_is_another_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, _ = badly_started(tmp_path, monkeypatch, range(1, 99))

    async def ask() -> list[Answer]:
        crew = Crew(4, MEMORY, worker=worker)
        try:
            question = Question(seconds=60, path=("/", "x", "good"))
            first = await crew.ask(question)
            return [first, *await asyncio.gather(*(crew.ask(question) for _ in range(50)))]
        finally:
            await crew.close()

    assert {each.media for each in asyncio.run(ask())} == {GOOD}


def test_a_helper_that_takes_much_memory_or_time_ends(tmp_path: Path) -> None:
    """Its limits are its own, whatever it reads."""
    script = (
        "import os, sys; from mirror.media.confinement import allow, confine\n"
        "confine(os.getppid(), 300 << 20)\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    print('memory')\n"
        "try:\n    open(sys.argv[1], 'wb', 0).write(b'x')\nexcept OSError:\n    print('file')\n"
        "allow(0)\n"
        "sys.stdout.flush()\n"
        "while True: pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new")]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGXCPU, ["memory", "file"])


@pytest.mark.parametrize("name", ["a link", "a pipe", "a folder", "nothing", "below a link"])
def test_a_helper_opens_files_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "file").write_bytes(media.png())
    (tmp_path / "p" / "a link").symlink_to("file")
    (tmp_path / "p" / "a folder").mkdir()
    (tmp_path / "q").symlink_to("p")
    os.mkfifo(tmp_path / "p" / "a pipe")
    path = (str(tmp_path), "q", "file") if name == "below a link" else (str(tmp_path), "p", name)

    async def ask() -> tuple[Answer, Answer]:
        crew = Crew(1, MEMORY)
        try:
            good = await crew.ask(Question(seconds=60, path=(str(tmp_path), "p", "file")))
            return good, await crew.ask(Question(seconds=60, path=path))
        finally:
            await crew.close()

    good, bad = asyncio.run(ask())
    assert good.media is not None
    assert (bad.media, bad.unread) == (None, True)


# The end of a run


def helpers_of(pid: int) -> list[int]:
    """The helper processes of a process, those included that have ended and are not waited for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == pid and (fields[0] == "Z" or b"mirror.media.worker" in command):
                found.append(int(entry.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_no_helper_is_left_behind(archive: Archive, origin: Origin) -> None:
    prompt(origin)
    assert mirrored(archive, "p").code == 0
    assert helpers_of(os.getpid()) == []


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_helper_ends_with_the_run_even_if_it_hangs(archive: Archive, origin: Origin, sig: signal.Signals) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3 << 20), faults.hold_after(1 << 20))
    with running(archive, "fetch", "p", "q") as process:
        origin.wait_for((archive.root / "p" / "manifest.json").exists)
        [helper] = helpers_of(process.pid)
        os.kill(helper, signal.SIGSTOP)
        process.send_signal(sig)
        assert process.wait(60) == (130 if sig == signal.SIGINT else -sig)
    deadline = time.monotonic() + 60
    while is_running(helper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(helper)


def test_a_helper_that_is_killed_fails_nothing(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    url = large_prompt(origin, "q", film(), faults.hold_after(1000))
    with running(archive, "fetch", "p", "q", "-v") as process:
        origin.wait_for((archive.root / "p" / "manifest.json").exists)
        [helper] = helpers_of(process.pid)
        os.kill(helper, signal.SIGKILL)
        origin.release(url)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    [first] = archive.manifest("q")["files"]
    assert first["media"] in (None, EXPECTED["e.mp4"])
    assert "Traceback" not in err


def test_a_run_tells_of_a_broken_helper_once(archive: Archive, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here no helper can be started: there is not even a Python."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    prompt(origin)
    ran = mirrored(archive, "p")
    assert ran.code == 0
    assert set(told(archive.manifest("p")).values()) == {None}
    notes = [event for event in ran.events if isinstance(event, Noted)]
    assert [note.level for note in notes] == ["warning"]
    assert notes[0].message == "what is in files is not told: a helper cannot be started: No such file or directory"
