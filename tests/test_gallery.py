"""``mirror gallery`` from the command line: what is written where, what is used again, and what it does not touch."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mirror.gallery.folder import MARKER, is_generation, new_generation
from mirror.gallery.links import relative
from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored
from tests.origin import Origin, answer, task
from tests.shelf import Shelf, child

HOSTILE = (
    "<script>window.owned = 1</script>",
    "</script><script>window.owned = 1</script>",
    '"onerror="window.owned = 1',
    "<img src=x onerror='window.owned = 1'>",
    "line\u2028separator\u2029and ]]> --> <!--",
    "javascript:window.owned = 1",
    "{{ 7 * 7 }} {% raw %} ${window.owned = 1}",
    "left \u202eright\u202c \u2066isolate",
)


def generation(page: Path) -> Path:
    """The folder of the files that a page refers to."""
    found = re.search(r'data-generation="([^"]+)"', page.read_text("utf-8"))
    assert found is not None
    return page.parent / found[1]


def records(page: Path, kind: str) -> list[dict[str, Any]]:
    """What is told to the page in its data files of one kind."""
    found: list[dict[str, Any]] = []
    for path in sorted(generation(page).glob(f"{kind}-*.js")):
        text = path.read_text("ascii")
        assert "<" not in text
        assert ">" not in text
        call = re.fullmatch(r'mirrorGallery\.page\("(\w+)",(\d+),(".*")\);\n', text)
        assert call is not None
        found += json.loads(json.loads(call[3]))
    return found


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HELD = """
import os, threading, time
from mirror.cli import main

free, replace = threading.Lock(), os.replace

def held(source, target, **more):
    if not target.endswith({ending!r}) or not free.acquire(blocking=False):
        return replace(source, target, **more)
    while threading.main_thread().is_alive():
        time.sleep(0.01)

os.replace = held
main()
"""


def held(archive: Archive, ending: str) -> subprocess.Popen[str]:
    """``mirror gallery``, which does not get to its end: the first file of such a name is never given it."""
    command = [sys.executable, "-c", HELD.format(ending=ending), "gallery"]
    return subprocess.Popen(
        command, env=archive.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def shelf(archive: Archive) -> Shelf:
    return Shelf(archive.root)


def test_the_whole_archive_is_shown(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    origin.prompt("failed", answer(task("failed", state=2, reason="no face")))
    origin.prompt("nobody", answer(None, code=900, msg="no data"))
    assert mirrored(archive, "p", "failed", "nobody").states["nobody"] == "unknown"
    done = archive.run("gallery")
    page = archive.root / "gallery" / "index.html"
    assert (done.code, done.out) == (0, f"{page}\n")
    assert re.search(r"^3 prompts, 1 file, 0 previews, 0 made anew$", done.err, re.M)
    cards = {card["id"]: card for card in records(page, "cards")}
    assert {prompt_id: card["state"] for prompt_id, card in cards.items()} == {
        "p": "complete",
        "failed": "failed",
        "nobody": "unknown",
    }
    assert cards["failed"]["reason"] == "no face"
    assert "NoData" in cards["nobody"]["reason"]
    [start] = records(page, "start")
    assert start["states"] == {"complete": 1, "failed": 1, "unknown": 1}
    [detail] = [detail for detail in records(page, "detail") if detail["id"] == "p"]
    for link in (detail["manifest"], *(file["src"] for file in detail["files"])):
        assert (page.parent / link).is_file()


def test_it_needs_neither_lock_nor_catalog_nor_token(shelf: Shelf, archive: Archive) -> None:
    shelf.pair("p")
    archive.environ = {"MIRROR_ARCHIVE_ROOT": str(archive.root)}
    assert archive.run("gallery").code == 0
    assert not (archive.root / ".mirror").exists()


def test_a_catalog_that_is_damaged_keeps_nobody_from_looking(shelf: Shelf, archive: Archive) -> None:
    shelf.pair("p")
    (archive.root / ".mirror").mkdir()
    (archive.root / ".mirror" / "catalog.sqlite").write_bytes(b"not a catalog" * 100)
    done = archive.run("gallery")
    assert done.code == 0
    assert "catalog" in done.err


def test_these_prompts_only_from_arguments_and_a_file(shelf: Shelf, archive: Archive, tmp_path: Path) -> None:
    for number, prompt_id in enumerate(("one", "two", "three")):
        shelf.pair(prompt_id, number)
    assert "3 prompts, 6 files, 3 previews, 3 made anew" in archive.run("gallery").err
    (tmp_path / "ids.txt").write_text("two\nabsent # with a comment\n")
    done = archive.run("gallery", "one", "-i", str(tmp_path / "ids.txt"))
    assert done.code == 3
    assert "absent: no manifest.json of it is there" in done.err
    page = archive.root / "gallery" / "index.html"
    assert {card["id"] for card in records(page, "cards")} == {"one", "two"}
    assert len(list((page.parent / "previews-1").iterdir())) == 2, "what the page does not show is not left with it"


def test_a_manifest_that_cannot_be_read_is_told_of(shelf: Shelf, archive: Archive) -> None:
    shelf.pair("p")
    (archive.root / "broken").mkdir()
    (archive.root / "broken" / "manifest.json").write_text("{")
    done = archive.run("gallery")
    assert done.code == 3
    assert "broken/manifest.json: not a manifest" in done.err
    assert [card["id"] for card in records(archive.root / "gallery" / "index.html", "cards")] == ["p"]


def test_written_anew_it_uses_its_previews_and_leaves_nothing_old(shelf: Shelf, archive: Archive) -> None:
    shelf.pair("p")
    assert "1 made anew" in archive.run("gallery").err
    page = archive.root / "gallery" / "index.html"
    first = generation(page)
    shelf.pair("q", 1)
    done = archive.run("gallery", "--title", "Second")
    assert "2 prompts, 4 files, 2 previews, 1 made anew" in done.err
    assert not first.exists()
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(
        [MARKER, "index.html", "previews-1", generation(page).name]
    )
    assert Tags(page).text.strip().startswith("Second")


def test_verify_and_rebuild_leave_it_alone(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    assert archive.run("gallery").code == 0
    checked = archive.run("verify")
    assert (checked.code, checked.out, "unexpected" in checked.err) == (0, "", False)
    shutil.rmtree(archive.root / ".mirror")
    assert archive.run("rebuild").code == 0
    assert archive.run("rebuild").out.count("gallery") == 0
    assert "no catalog" not in archive.run("status", "p").err


def test_elsewhere_its_links_lead_back(shelf: Shelf, archive: Archive, tmp_path: Path) -> None:
    prompt_id = "an id with spaces, 100% 🏔️ #1"
    shelf.pair(prompt_id)
    output = tmp_path / "some where" / "else"
    done = archive.run("gallery", "--output", str(output))
    assert (done.code, done.out) == (0, f"{output}/index.html\n")
    [detail] = records(output / "index.html", "detail")
    for link in (detail["manifest"], *(file["src"] for file in detail["files"])):
        assert re.fullmatch(r"[A-Za-z0-9./_~%-]+", link)
        assert (output / unquote(link)).is_file()


@pytest.mark.parametrize("output", ["../page", "link/../page", "link/page"])
def test_its_links_lead_back_however_the_folder_is_named(
    shelf: Shelf, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A step back from a symlink is one from where it leads to."""
    shelf.pair("p")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "here" / "below").mkdir(parents=True)
    (tmp_path / "here" / "below" / "link").symlink_to(tmp_path / "far" / "away", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    done = archive.run("gallery", "--output", output)
    real = {"../page": "here/page", "link/../page": "far/page", "link/page": "far/away/page"}[output]
    page = tmp_path / real / "index.html"
    assert (done.code, done.out) == (0, f"{page}\n")
    [detail] = records(page, "detail")
    for link in (detail["manifest"], *(file["src"] for file in detail["files"])):
        assert (page.parent / link).is_file()
        assert Path(os.path.normpath(page.parent / link)).is_file(), "a browser takes the steps by their names"


@pytest.mark.parametrize("inside", ["", "new", ".mirror/g", "p/g", "gallery/g", "link/new"])
def test_nothing_but_its_own_folder_is_written_in_the_archive(
    shelf: Shelf, archive: Archive, tmp_path: Path, inside: str
) -> None:
    shelf.pair("p")
    (archive.root / "link").symlink_to(archive.root, target_is_directory=True)
    before = sorted(archive.root.rglob("*"))
    done = archive.run("gallery", "--output", str(archive.root / inside))
    assert (done.code, "nothing is put into the archive" in done.err) == (2, True)
    assert sorted(archive.root.rglob("*")) == before
    (tmp_path / "same").symlink_to(archive.root, target_is_directory=True)
    assert archive.run("gallery", "--output", str(tmp_path / "same" / "gallery")).code == 0


@pytest.mark.parametrize(
    ("output", "why"), [("a file/below", "is no folder"), ("a file", "is no folder"), ("n" * 300, "too long a name")]
)
def test_a_place_that_cannot_be_is_said_to_be_wrong(
    shelf: Shelf, archive: Archive, tmp_path: Path, output: str, why: str
) -> None:
    shelf.pair("p")
    (tmp_path / "a file").write_text("mine")
    done = archive.run("gallery", "--output", str(tmp_path / output))
    assert done.code == 2
    assert why in done.err or "is a file" in done.err
    assert "check the disk" not in done.err


def test_what_is_no_gallery_is_not_touched(shelf: Shelf, archive: Archive, tmp_path: Path) -> None:
    shelf.pair("p")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    done = archive.run("gallery", "--output", str(tmp_path / "mine"))
    assert (done.code, "no gallery" in done.err) == (2, True)
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"
    (archive.root / "gallery").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    assert archive.run("gallery").code == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_of_two_runs_in_a_second_the_later_one_is_the_younger() -> None:
    made = []
    for _ in range(20):
        made.append(new_generation())
        time.sleep(0.001)
    assert made == sorted(made)
    assert all(map(is_generation, [*made, "g20260101T000000-00000000"])), "nor are earlier versions' left"


@pytest.mark.parametrize("planted", ["previews-1", "g20260101T000000-00000000"])
def test_nothing_is_written_or_removed_through_a_link(
    shelf: Shelf, archive: Archive, tmp_path: Path, planted: str
) -> None:
    shelf.pair("p")
    assert archive.run("gallery").code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    shutil.rmtree(archive.root / "gallery" / planted, ignore_errors=True)
    (archive.root / "gallery" / planted).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    archive.run("gallery")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_two_at_once_do_not_mix(shelf: Shelf, archive: Archive) -> None:
    shelf.pair("p")
    assert archive.run("gallery").code == 0
    with (archive.root / "gallery" / MARKER).open() as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        done = archive.run("gallery")
    assert (done.code, "another run" in done.err) == (4, True)


def test_an_interrupted_run_leaves_the_page_that_was_there(shelf: Shelf, archive: Archive) -> None:
    """Killed when files of it are there, and not the page; the next run removes what it left."""
    for number in range(150):
        shelf.pair(f"p{number}", number)
    assert archive.run("gallery", "p1").code == 0
    page = archive.root / "gallery" / "index.html"
    before, kept = page.read_bytes(), generation(page)
    process = held(archive, "index.html")

    def has_begun() -> None:
        while process.poll() is None and not any(set(page.parent.glob("g2*/*.js")) - set(kept.glob("*.js"))):
            time.sleep(0.002)

    assert archive.kill_when(process, has_begun) == -signal.SIGKILL
    assert page.read_bytes() == before
    assert kept.is_dir()
    assert len(list(page.parent.glob("g2*"))) == 2
    assert archive.run("gallery").code == 0
    assert [path.name for path in page.parent.glob("g2*")] == [generation(page).name]


def test_a_stop_is_clean(shelf: Shelf, archive: Archive) -> None:
    for number in range(150):
        shelf.pair(f"p{number}", number)
    process = held(archive, ".webp")
    previews = archive.root / "gallery" / "previews-1"

    def has_begun() -> None:
        while process.poll() is None and not list(previews.glob("*.webp")):
            time.sleep(0.002)

    assert archive.kill_when(process, has_begun, signal.SIGTERM) == 143
    assert not (archive.root / "gallery" / "index.html").exists()


def test_a_list_of_ids_that_is_not_there(shelf: Shelf, archive: Archive, tmp_path: Path) -> None:
    shelf.pair("p")
    done = archive.run("gallery", "-i", str(tmp_path / "none.txt"))
    assert (done.code, "none.txt" in done.err) == (2, True)
    assert not (archive.root / "gallery" / "index.html").exists()


@pytest.mark.parametrize("listed", ["", "# nobody\n", "nobody\nnor-me\n"])
def test_a_selection_of_nothing_leaves_the_page_that_is_there(
    shelf: Shelf, archive: Archive, tmp_path: Path, listed: str
) -> None:
    shelf.pair("p")
    assert archive.run("gallery").code == 0
    page = archive.root / "gallery" / "index.html"
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    (tmp_path / "ids.txt").write_text(listed)
    done = archive.run("gallery", "-i", str(tmp_path / "ids.txt"))
    assert (done.code, done.out) == (3, "")
    assert "none of the prompts that were asked for is here" in done.err
    assert {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()} == before


def test_an_archive_of_damaged_manifests_leaves_it_too_and_an_empty_one_does_not(
    shelf: Shelf, archive: Archive
) -> None:
    assert list(shelf.root.iterdir()) == []
    assert archive.run("gallery").code == 0
    page = archive.root / "gallery" / "index.html"
    before = page.read_bytes()
    (archive.root / "broken").mkdir()
    (archive.root / "broken" / "manifest.json").write_text("{")
    done = archive.run("gallery")
    assert (done.code, "no manifest can be read" in done.err) == (3, True)
    assert page.read_bytes() == before


def test_hostile_text_is_text(shelf: Shelf, archive: Archive) -> None:
    for number, text in enumerate(HOSTILE):
        shelf.put(
            f"{text[:60]} {number}",
            state="failed",
            task={"reason": text, "__proto__": text, "prompt": text, "taskList": [child(text, 2, text)]},
            errors=[{"error": text, "message": text, "url": text}],
        )
    done = archive.run("gallery", "--title", HOSTILE[1])
    assert done.code == 0, done.err
    page = archive.root / "gallery" / "index.html"
    tags = Tags(page)
    assert HOSTILE[1] in tags.text, "the title is told, as text"
    assert [attributes for tag, attributes in tags.found if tag == "script" and "src" not in attributes] == []
    assert [name for _, attributes in tags.found for name in attributes if name.startswith(("on", "style"))] == []
    addresses = [value or "" for _, found in tags.found for name, value in found.items() if name in ("src", "href")]
    assert all(re.fullmatch(r"#grid|[\w.-]+/[\w.-]+", address) for address in addresses)
    cards, details = records(page, "cards"), records(page, "detail")
    assert {card["reason"] for card in cards} == set(HOSTILE), "nothing is lost either"
    assert {detail["errors"][0]["url"] for detail in details} == set(HOSTILE)


@pytest.mark.parametrize(
    ("name", "kind", "opens"),
    [
        ("a.png", "image/png", True),
        ("a.mp4", "video/mp4", True),
        ("a.jpg", "binary/octet-stream", True),
        ("a.svg", "image/svg+xml", False),
        ("a.html", "image/png", False),
        ("a.png", "text/html", False),
        ("a.png", "image/svg+xml", False),
        ("a", None, False),
    ],
)
def test_a_click_opens_pictures_and_videos_only(
    shelf: Shelf, archive: Archive, name: str, kind: str | None, opens: bool
) -> None:
    shelf.put("p", [shelf.file("p", name, b"content", content_type=kind)])
    assert archive.run("gallery").code == 0
    [detail] = records(archive.root / "gallery" / "index.html", "detail")
    assert detail["files"][0].get("opens", False) is opens


def test_thumbnails_that_are_damaged_bombs_or_no_pictures_have_no_preview(shelf: Shelf, archive: Archive) -> None:
    bomb = media.png(8, 8).replace((8).to_bytes(4, "big") * 2, (60_000).to_bytes(4, "big") * 2, 1)
    bodies = {
        "cut.png": media.png()[:60],
        "bomb.png": bomb,
        "page.jpg": b"<html>",
        "ps.png": b"%!PS-Adobe-3.0 EPSF-3.0",
    }
    files = [
        shelf.file("p", name, body, "thumbnail", image=number) for number, (name, body) in enumerate(bodies.items())
    ]
    changed = shelf.file("p", "changed.png", media.png(seed=1), "thumbnail", image=9)
    (archive.root / "p" / "changed.png").write_bytes(media.png(seed=2))
    gone = shelf.file("p", "gone.png", media.png(seed=3), "thumbnail", image=10)
    (archive.root / "p" / "gone.png").unlink()
    sound = shelf.file("p", "sound.png", media.png(600, 300), "thumbnail", image=11)
    shelf.put("p", [*files, changed, gone, sound])
    done = archive.run("gallery")
    assert (done.code, "1 preview, 1 made anew" in done.err) == (0, True), done.err
    [preview] = (archive.root / "gallery" / "previews-1").iterdir()
    assert preview.name == f"{sound['sha256']}-480x240.webp"


def test_with_the_bucket_only_it_says_what_to_do(archive: Archive) -> None:
    archive.root.mkdir()
    done = archive.run("gallery", environ={"MIRROR_S3_BUCKET": "bucket", "MIRROR_S3_ONLY": "true"})
    assert (done.code, "mirror gallery --s3" in done.err) == (2, True)
    done = archive.run("gallery", "--s3")
    assert (done.code, "no bucket is configured" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("page", "to", "link"),
    [
        (("/", "a", "gallery"), ("/", "a", "p", "x.png"), "../p/x.png"),
        (("/", "b"), ("/", "a", "p", "x.png"), "../a/p/x.png"),
        (("/", "a"), ("/", "a", "p", "x.png"), "p/x.png"),
        (("gallery",), ("p", "x y?#%&.png"), "../p/x%20y%3F%23%25%26.png"),
        (("pre", "gallery"), ("other", "x.png"), "../../other/x.png"),
        (("p", "x.png"), ("p", "x.png"), "../x.png"),
    ],
)
def test_a_link_leads_from_the_page_to_the_file(page: tuple[str, ...], to: tuple[str, ...], link: str) -> None:
    assert relative(page, to) == link
