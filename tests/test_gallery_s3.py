"""``mirror gallery --s3``: read from the bucket, and put into it, so that its prefix is a page with its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mirror.errors import Locked
from mirror.gallery.bucket import BucketFolder
from mirror.gallery.folder import MARKER
from mirror.places import Places
from tests import media
from tests.conftest import Archive
from tests.helpers import mirrored
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3_runs_small import as_user, in_places, settings_for
from tests.test_gallery import generation, records

pytestmark = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def filled(origin: Origin, archive: Archive, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Two prompts in the bucket, below a prefix with a space in it, and nowhere else."""
    for name, value in bucket.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIRROR_S3_PREFIX", "my pre")
    for number, prompt_id in enumerate(("p", "q")):
        small = origin.add(f"/{prompt_id}/small.png", media.png(60, 40, number))
        large = origin.add(f"/{prompt_id}/a%20b.png", media.png(90, 60, number + 10))
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(small, large)])))
    settings: dict[str, Any] = {
        "s3_bucket": bucket.name,
        "s3_prefix": "my pre",
        "s3_endpoint_url": bucket.environ["MIRROR_S3_ENDPOINT_URL"],
    }
    assert mirrored(archive, "p", "q", s3_only=True, s3_addressing="path", **settings).code == 0
    return archive


def copied(bucket: Bucket, folder: Path) -> Path:
    """The bucket as files, as a server of static files would have it."""
    for key, body in bucket.read().items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder / "my pre" / "gallery" / "index.html"


def test_the_page_stands_in_the_bucket_beside_what_it_shows(filled: Archive, bucket: Bucket, tmp_path: Path) -> None:
    done = filled.run("gallery", "--s3")
    assert (done.code, done.out) == (0, f"s3://{bucket.name}/my pre/gallery/index.html\n"), done.err
    assert "2 prompts, 4 files, 2 previews, 2 made anew" in done.err
    page = copied(bucket, tmp_path / "copy")
    for detail in records(page, "detail"):
        for link in (detail["manifest"], *(file["src"] for file in detail["files"])):
            assert (page.parent / unquote(link)).is_file()
    kinds = {Path(key).suffix: bucket.head(key)["ContentType"] for key in bucket.keys("my pre/gallery/")}
    assert kinds == {
        "": "text/plain; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".webp": "image/webp",
    }
    assert filled.run("verify", "--s3").code == 0, "to verify it is no prompt"


def test_written_anew_nothing_old_is_left(filled: Archive, bucket: Bucket, tmp_path: Path) -> None:
    assert filled.run("gallery", "--s3").code == 0
    before = generation(copied(bucket, tmp_path / "before")).name
    done = filled.run("gallery", "--s3", "p")
    assert "1 prompt, 2 files, 1 preview, 0 made anew" in done.err
    page = copied(bucket, tmp_path / "after")
    assert generation(page).name != before
    assert {path.name for path in page.parent.iterdir()} == {
        MARKER,
        "index.html",
        "previews-1",
        generation(page).name,
    }
    assert len(list((page.parent / "previews-1").iterdir())) == 1


def test_what_is_no_gallery_is_not_touched(filled: Archive, bucket: Bucket) -> None:
    bucket.put("my pre/gallery/index.html", b"mine")
    done = filled.run("gallery", "--s3")
    assert (done.code, "holds objects, and no gallery" in done.err) == (2, True)
    assert bucket.read("my pre/gallery/") == {"my pre/gallery/index.html": b"mine"}


def test_into_a_folder_it_has_the_links_of_the_bucket(filled: Archive, bucket: Bucket, tmp_path: Path) -> None:
    done = filled.run("gallery", "--s3", "--output", str(tmp_path / "out"))
    assert (done.code, done.out) == (0, f"{tmp_path}/out/index.html\n")
    assert bucket.keys("my pre/gallery/") == []
    details = records(tmp_path / "out" / "index.html", "detail")
    links = {unquote(file["src"]) for detail in details for file in detail["files"]}
    assert links == {f"../{prompt_id}/{name}" for prompt_id in ("p", "q") for name in ("small.png", "a b.png")}


def test_of_two_at_once_the_later_one_gives_up(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(bucket.server, monkeypatch)

    async def race(places: Places) -> None:
        assert places.bucket is not None
        one, other = BucketFolder(places.bucket), BucketFolder(places.bucket)
        await one.open()
        await other.open()
        await one.publish(b"one")
        with pytest.raises(Locked, match="another run"):
            await other.publish(b"other")

    in_places(settings_for(bucket, tmp_path / "root"), race)
    assert bucket.read("gallery/index.html") == {"gallery/index.html": b"one"}
