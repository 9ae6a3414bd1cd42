"""Previews: what they are like, and that a picture that ends its decoder ends nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mirror.gallery.worker import ASK, READY, TOLD
from tests import media
from tests.conftest import Archive
from tests.shelf import Shelf
from tests.test_gallery import records

Image = pytest.importorskip("PIL.Image")


def asked(*bodies: bytes) -> list[Any]:
    """What a helper answers: a picture for each body, None where it cannot be read."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "mirror.gallery.worker", str(os.getpid())],
        input=b"".join(ASK.pack(len(body)) + body for body in bodies),
        capture_output=True,
        timeout=60,
        check=True,
    )
    told = io.BytesIO(process.stdout)
    assert told.read(len(READY)) == READY
    found = []
    for _ in bodies:
        size, width, height = TOLD.unpack(told.read(TOLD.size))
        picture = Image.open(io.BytesIO(told.read(size))) if size else None
        assert (width, height) == (picture.size if picture is not None else (0, 0))
        found.append(picture)
    assert told.read() == b""
    return found


def saved(picture: Any, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **more)
    return out.getvalue()


def test_it_is_small_upright_and_of_the_first_frame() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = Image.new("RGB", (1200, 600), (200, 10, 10))
    red, blue = Image.new("RGB", (40, 30), (255, 0, 0)), Image.new("RGB", (40, 30), (0, 0, 255))
    moving = saved(red, "GIF", save_all=True, append_images=[blue], duration=100)
    clear = saved(Image.new("RGBA", (20, 10), (0, 255, 0, 0)), "PNG")
    deep = saved(Image.new("CMYK", (20, 10)), "JPEG")
    first, upright, still, transparent, other = asked(
        saved(wide, "JPEG"), saved(wide, "JPEG", exif=turned), moving, clear, deep
    )
    assert [first.format, first.size, upright.size] == ["WEBP", (480, 240), (240, 480)]
    assert (still.size, getattr(still, "n_frames", 1)) == ((40, 30), 1)
    assert still.convert("RGB").getpixel((20, 15))[0] > 200
    assert transparent.mode == "RGBA"
    assert other.size == (20, 10)


def test_what_cannot_be_read_is_answered_and_the_next_one_read() -> None:
    sound = media.png(30, 20)
    found = asked(b"", b"%!PS-Adobe-3.0 EPSF-3.0\n", media.png()[:50], b"<svg/>", sound)
    assert [picture is not None for picture in found] == [False, False, False, False, True]


def test_a_helper_writes_no_file(tmp_path: Path) -> None:
    code = (
        "import mirror.gallery.worker as worker, resource, sys\n"
        "sys.stdin = open('/dev/null')\n"
        "worker.main()\n"
        "try:\n    open(sys.argv[2], 'wb', buffering=0).write(b'x')\n"
        "except OSError as error:\n    print(error.errno)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0])"
    )
    told = (str(os.getpid()), str(tmp_path / "file"))
    done = subprocess.run([sys.executable, "-c", code, *told], capture_output=True, check=True)
    assert b"27\n1073741824" in done.stdout or sys.platform != "linux"


@pytest.fixture
def shelf(archive: Archive) -> Shelf:
    return Shelf(archive.root)


def imitation(folder: Path, code: str) -> dict[str, str]:
    """An environment in which Pillow is something else."""
    (folder / "PIL").mkdir(parents=True)
    (folder / "PIL" / "__init__.py").write_text(code)
    (folder / "PIL" / "features.py").write_text("def check(name): return True\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_a_helper_is_told_no_secret(shelf: Shelf, archive: Archive, tmp_path: Path) -> None:
    """A helper that finds one in its environment ends before it has made a preview."""
    shelf.pair("p", 1)
    secrets = {"MIRROR_API_TOKEN": "a token", "AWS_SECRET_ACCESS_KEY": "a key"}
    is_helper, is_told = "'mirror.gallery.worker' in sys.orig_argv", f"{set(secrets)} & set(os.environ)"
    code = f"import os, sys\nif {is_helper} and {is_told}:\n    os.abort()\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = archive.run("gallery", environ={**secrets, "PYTHONPATH": path})
    assert (done.code, "1 preview, 1 made anew" in done.err) == (0, True), done.err


DIES = "import os\ndef __getattr__(name):\n    if name == 'Image':\n        os.abort()\n    raise AttributeError(name)"


@pytest.mark.parametrize(
    "code",
    ["raise ImportError('not here')", DIES],
    ids=["Pillow that cannot be loaded", "a decoder that dies"],
)
def test_without_previews_the_thumbnails_are_shown(shelf: Shelf, archive: Archive, tmp_path: Path, code: str) -> None:
    shelf.pair("p", 1)
    shelf.pair("q", 2)
    done = archive.run("gallery", environ=imitation(tmp_path / "imitation", code))
    assert (done.code, "0 previews" in done.err) == (0, True), done.err
    assert ("thumbnails are shown as they are" in done.err) == ("not here" in code)
    cards = records(archive.root / "gallery" / "index.html", "cards")
    assert [card["tiles"][0]["src"] for card in cards] == ["../q/small-2.png", "../p/small-1.png"]


def test_an_emptied_preview_is_made_again(shelf: Shelf, archive: Archive) -> None:
    """A power cut may leave a name without its bytes."""
    shelf.pair("p", 1)
    assert archive.run("gallery").code == 0
    [preview] = (archive.root / "gallery" / "previews-1").iterdir()
    before = preview.read_bytes()
    preview.write_bytes(b"")
    assert "1 preview, 1 made anew" in archive.run("gallery").err
    assert preview.read_bytes() == before
