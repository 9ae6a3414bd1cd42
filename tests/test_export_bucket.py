"""`mirror export --s3`: the same from the bucket's manifests and objects, with or without a copy on disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Archive
from tests.export_runs import check_sums, library, validate
from tests.helpers import mirrored, picture
from tests.origin import answer, task
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground, small_and_large

one = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def downloaded(ground: Ground, folder: Path) -> dict[str, bytes]:
    """The objects as a client that is not ours reads them, put into a folder."""
    objects = {key.removeprefix("pre/"): body for key, body in ground.bucket.read("pre/").items()}
    for key, body in objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(body)
    return objects


def test_a_bucket_that_is_the_only_place(ground: Ground, tmp_path: Path) -> None:
    """From a machine that knows nothing of it: no catalog, no root."""
    ground.bucket.put("pre/p/a.png", b"somebody else's")  # so ours gets another name there
    small_and_large(ground.origin)
    assert ground.archive.run("fetch", "p", "q", "--s3", ground.url, "--s3-only").code == 0
    copy = tmp_path / "copy"
    there = downloaded(ground, copy)
    ground.forget()
    away = ground.elsewhere()
    bucket = ("--s3", "--bucket", ground.url)

    sums = tmp_path / "sums"
    done = away.run("export", "sha256sums", *bucket, "--output", str(sums))
    assert (done.code, done.err.startswith("3 files of 2 prompts, ")) == (0, True)
    listed = {line[66:] for line in sums.read_text().splitlines()}
    assert listed == set(there) - {"p/a.png"}
    checked = check_sums(copy, sums)
    assert (checked.returncode, checked.stderr) == (0, "")

    done = away.run("export", "bagit", *bucket, "--output", str(tmp_path / "bag"))
    assert done.code == 0
    assert validate(tmp_path / "bag").returncode == 0
    assert len(list((tmp_path / "bag" / "data").glob("*/*"))) == 5

    done = away.run("export", "parquet", "q", *bucket, "--output", str(tmp_path / "q.parquet"))
    (row,) = library("pyarrow.parquet").read_table(tmp_path / "q.parquet").to_pylist()
    assert (row["path"], row["s3_bucket"], row["s3_key"], row["s3_via"]) == (
        "q/large.mp4",
        ground.bucket.name,
        "pre/q/large.mp4",
        "stream",
    )
    assert {seen.operation for seen in ground.proxy.requests} <= {
        "HeadBucket",
        "ListObjectsV2",
        "GetObject",
        "HeadObject",
    }
    assert not away.root.exists()
    assert ground.asked[:2] == (0, 0)


@one
def test_what_the_bucket_lacks_is_told(ground: Ground, tmp_path: Path) -> None:
    names = ("a.png", "b.png", "c.png")
    images = [(None, picture(ground.origin, f"/p/{name}")[0]) for name in names]
    ground.origin.prompt("p", answer(task("p", images=images)))
    assert ground.archive.run("fetch", "p", "--s3", ground.url).code == 0
    client = ground.bucket.server.client()
    client.delete_object(Bucket=ground.bucket.name, Key="pre/p/a.png")
    client.put_object(Bucket=ground.bucket.name, Key="pre/p/b.png", Body=b"short")
    client.put_object(Bucket=ground.bucket.name, Key="pre/bad/manifest.json", Body=b"{")
    client.put_object(Bucket=ground.bucket.name, Key="pre/stranger/x.png", Body=b"no manifest, no prompt")
    done = ground.archive.run("export", "bagit", "--s3", "--bucket", ground.url, "--output", str(tmp_path / "bag"))
    *told, summary = done.err.splitlines()
    assert (done.code, summary.startswith("1 file of 1 prompt, ")) == (3, True)
    assert sorted(line.split(": ")[1] for line in told) == ["bad/manifest.json", "p/a.png", "p/b.png"]
    assert validate(tmp_path / "bag").returncode == 0
    assert sorted(path.name for path in (tmp_path / "bag" / "data" / "p").iterdir()) == ["c.png", "manifest.json"]


@one
def test_a_manifest_whose_objects_are_elsewhere(ground: Ground) -> None:
    """It was put under this prefix by hand: its files stand under another, and are told to be lacking here."""
    images = [(None, picture(ground.origin, "/p/a.png")[0])]
    ground.origin.prompt("p", answer(task("p", images=images)))
    assert mirrored(ground.archive, "p").code == 0
    ground.bucket.put("pre/p/manifest.json", (ground.archive.root / "p" / "manifest.json").read_bytes())
    for form, output in (("sha256sums", ()), ("bagit", ("--output", "bag"))):
        done = ground.archive.run("export", form, "--s3", "--bucket", ground.url, *output)
        assert (done.code, "no object of this bucket" in done.err) == (3, True)
        assert done.err.splitlines()[-1] == "0 files of 1 prompt, 0 B"
    rows = ground.archive.run("export", "jsonl", "--s3", "--bucket", ground.url)
    assert (rows.code, [row["s3_key"] for row in rows.lines]) == (0, ["p/a.png"])


@one
def test_a_key_that_leads_elsewhere_is_none_of_this_bucket(ground: Ground, tmp_path: Path) -> None:
    """A manifest that somebody put there: whoever takes its keys for paths would be led out of the copy."""
    evil = ["../../etc/x", "p/../q/c.png", "./x", "p//x", "", "p/", "p/a\nb", "p/a\x7f", "..", "/p/x"]
    images = [(None, picture(ground.origin, f"/p/{number}.png")[0]) for number in range(len(evil) + 1)]
    ground.origin.prompt("p", answer(task("p", images=images)))
    assert ground.archive.run("fetch", "p", "--s3", ground.url).code == 0
    manifest = ground.archive.manifest("p")
    for file, key in zip(manifest["files"], evil, strict=False):
        file["s3"]["key"] = f"pre/{key}"
        if key and not key.endswith("/"):
            ground.bucket.put(f"pre/{key}", b"x" * file["bytes"])
    ground.bucket.put("pre/p/manifest.json", json.dumps(manifest).encode())
    for form, output in (("sha256sums", ()), ("bagit", ("--output", str(tmp_path / "bag")))):
        done = ground.archive.run("export", form, "--s3", "--bucket", ground.url, *output)
        assert (done.code, done.err.splitlines()[-1][:18]) == (3, "1 file of 1 prompt")
        assert done.err.count("the manifest names no object of this bucket") == len(evil)
        assert [line[66:] for line in done.out.splitlines()] in ([f"p/{len(evil)}.png", "p/manifest.json"], [])
    assert len(list((tmp_path / "bag" / "data" / "p").iterdir())) == 2


@one
def test_one_flipped_bit_of_an_object_is_found_by_the_list(ground: Ground, tmp_path: Path) -> None:
    bodies = small_and_large(ground.origin)
    assert ground.archive.run("fetch", "p", "q", "--s3", ground.url).code == 0
    sums = tmp_path / "sums"
    assert ground.archive.run("export", "sha256sums", "--s3", "--bucket", ground.url, "--output", str(sums)).code == 0
    body = bytearray(bodies["p/a.png"])
    body[100] ^= 1
    ground.bucket.put("pre/p/a.png", bytes(body))
    downloaded(ground, tmp_path / "copy")
    checked: subprocess.CompletedProcess[str] = check_sums(tmp_path / "copy", sums)
    assert (checked.returncode, "p/a.png: FAILED" in checked.stdout, checked.stdout.count("FAILED")) == (1, True, 1)
