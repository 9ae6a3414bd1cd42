"""The demo, as a person runs it."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Archive


def test_the_demo_shows_what_it_promises(archive: Archive, tmp_path: Path) -> None:
    """It checks every byte itself, against the manifests and against what its service has."""
    root = tmp_path / "shown"
    done = archive.run("demo", "--root", str(root))
    assert done.code == 0, done.out + done.err
    assert "11 files, 1.8 MiB, nothing wrong" in done.out
    assert "was interrupted by the kill and was resumed at byte" in done.out
    assert "broke half way and was resumed at byte" in done.out
    assert "exit code 0, 0 requests" in done.out
    assert f"open it: {root}/gallery/index.html" in done.out
    assert f"The files are in {root}" in done.out
    assert (root / "gallery" / "index.html").is_file()
    assert sorted(path.suffix for path in root.glob("*/*.*") if path.suffix in (".mp4", ".webp", ".jpg")) == [
        ".jpg",
        *(".mp4",) * 3,
        *(".webp",) * 3,
    ]


def test_it_wants_a_folder_of_its_own(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    done = archive.run("demo", "--root", str(tmp_path))
    assert done.code == 2
    assert "is not empty" in done.err


def test_with_a_bucket_it_is_verified_from_there(archive: Archive, tmp_path: Path) -> None:
    done = archive.run("demo", "--s3", "--root", str(tmp_path / "shown"))
    assert done.code == 0, done.out + done.err
    assert "11 files, 1.8 MiB, nothing wrong" in done.out
    assert "16 objects read back with boto3, the same as on disk" in done.out
    assert "16 files, 1.8 MiB, nothing wrong" in done.err
    assert (tmp_path / "shown" / "gallery" / "index.html").is_file()
