"""``mirror verify --repair`` with a bucket: either place from the other, else from the origin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import faults as origin_faults
from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored, picture
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3_runs_e2e import Ground, named
from tests.test_verify import flaws

pytestmark = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def remove(ground: Ground, *keys: str) -> None:
    client = ground.bucket.server.client()
    for key in keys:
        client.delete_object(Bucket=ground.bucket.name, Key=key)


def test_the_disk_is_repaired_from_the_bucket(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png", "c.png")
    assert mirrored(ground.archive, "p").code == 0
    before = ground.archive.files()
    (ground.archive.root / "p" / "a.png").unlink()
    (ground.archive.root / "p" / "b.png").write_bytes(media.blob(len(bodies["b.png"])))
    (ground.archive.root / "p" / "manifest.json").write_bytes(b"rot")
    ground.forget()
    done = ground.archive.run("verify", "--repair")
    assert (done.code, {what for _, _, what in flaws(done.out)}, len(flaws(done.out))) == (0, {"repaired"}, 3)
    assert ground.archive.files() == before
    assert ground.origin.requests == []  # neither the service nor an origin


def test_the_disk_is_repaired_from_the_origin_where_the_bucket_lost_it_too(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png")
    assert mirrored(ground.archive, "p").code == 0
    (ground.archive.root / "p" / "a.png").unlink()
    remove(ground, "p/a.png")
    ground.forget()
    done = ground.archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/a.png", "repaired")])
    assert ground.archive.files()["p/a.png"] == bodies["a.png"]
    assert [request.path for request in ground.origin.media_requests] == ["/p/a.png"]


def test_the_bucket_is_repaired_from_the_disk(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png", "c.png")
    done_prompt(ground.origin, "q", "a.png")
    assert mirrored(ground.archive, "p", "q").code == 0
    remove(ground, "p/a.png", "q/manifest.json")
    other = media.blob(len(bodies["b.png"]), seed=5)
    ground.bucket.put("p/b.png", other)
    ground.forget()
    done = ground.archive.run("verify", "--s3", "--repair")
    assert (done.code, [what for _, _, what in flaws(done.out)]) == (0, ["repaired"] * 3)
    assert ground.origin.media_requests == []
    objects = ground.bucket.read()
    assert objects["p/a.png"] == bodies["a.png"]
    assert objects["p/b.png"] == other  # somebody's: ours stands beside it
    manifest = ground.archive.manifest("p")
    [s3] = [file["s3"] for file in manifest["files"] if file["path"] == "b.png"]
    assert objects[s3["key"]] == bodies["b.png"]
    later = ground.archive.run("verify", "--s3")
    assert (later.code, [what for _, _, what in flaws(later.out)]) == (0, ["unexpected"])
    assert ground.archive.run("verify").code == 0


def test_a_bucket_alone_is_repaired_from_the_origin(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png")
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    environ = {"MIRROR_S3_ONLY": "true"}
    remove(ground, "p/a.png")
    ground.forget()
    done = ground.archive.run("verify", "--s3", "--repair", environ=environ)
    assert done.code == 0, done.out
    assert ground.media() == {f"p/{name}": body for name, body in bodies.items()}
    assert [request.path for request in ground.origin.media_requests] == ["/p/a.png"]
    assert ground.archive.run("verify", "--s3", "--deep", environ=environ).code == 0


def test_a_bucket_alone_takes_no_other_bytes(ground: Ground) -> None:
    done_prompt(ground.origin, "p", "a.png", "b.png")
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    environ = {"MIRROR_S3_ONLY": "true"}
    remove(ground, "p/a.png")
    ground.origin.add("/p/a.png", media.png(seed=77))
    for _ in range(2):
        done = ground.archive.run("verify", "--s3", "--repair", environ=environ)
        assert (done.code, [row[0] for row in flaws(done.out)]) == (3, ["p"])
        assert sorted(ground.media()) == ["p/b.png"]
    assert ground.archive.run("verify", "--s3", environ=environ).code == 3


@pytest.mark.parametrize("what", ["an outage", "an archive class"])
def test_an_object_that_cannot_be_read_is_not_lost(ground: Ground, what: str) -> None:
    """Neither the manifest nor the catalog forgets it: a repair that fails makes nothing worse."""
    done_prompt(ground.origin, "p", "a.png", "b.png")
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    picture(ground.origin, "/p/a.png", fault=origin_faults.status(404, times=origin_faults.FOREVER))
    before = ground.bucket.read()
    environ = {"MIRROR_S3_ONLY": "true", "MIRROR_TRANSFER_ATTEMPTS": "1"}
    broken = True
    fault = faults.answer(500) if what == "an outage" else faults.answer(403, "InvalidObjectState")
    operation = "HeadObject" if what == "an outage" else "GetObject"
    ground.proxy.fault(lambda seen: broken and named(operation, "a.png")(seen), fault, FOREVER)
    ground.forget()

    done = ground.archive.run("verify", "--s3", "--deep", "--repair", environ=environ)

    where = f"s3://{ground.bucket.name}/p/a.png"
    assert (done.code, flaws(done.out)) == (3, [("p", where, "unreadable")])
    assert done.out.rstrip().endswith("; not repaired")
    assert (ground.bucket.read(), ground.origin.requests) == (before, [])
    broken = False
    later = ground.archive.run("verify", "--s3", "--deep", environ=environ)
    assert (later.code, later.out) == (0, "")


@pytest.mark.parametrize("command", [["verify", "--s3", "--repair"], ["fetch", "p"]])
def test_an_object_that_was_put_back_is_named_again(ground: Ground, command: list[str]) -> None:
    """By its bytes, whether the store tells their checksum or not; another object under that name is nobody's."""
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png", "c.png")
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    environ = {"MIRROR_S3_ONLY": "true"}
    remove(ground, "p/a.png", "p/b.png", "p/c.png")
    for name in bodies:
        picture(ground.origin, f"/p/{name}", fault=origin_faults.status(404, times=origin_faults.FOREVER))
    assert ground.archive.run("verify", "--s3", "--repair", environ=environ).code == 3
    assert ground.manifest("p")["files"] == []
    other = bytes(reversed(bodies["c.png"]))
    ground.bucket.put("p/a.png", bodies["a.png"])
    ground.bucket.put("p/b.png", bodies["b.png"], ChecksumAlgorithm="SHA256")
    ground.bucket.put("p/c.png", other)
    ground.forget()

    assert ground.archive.run(*command, environ=environ).code == 3

    assert sorted(file["path"] for file in ground.manifest("p")["files"]) == ["a.png", "b.png"]
    assert ground.media() == {"p/a.png": bodies["a.png"], "p/b.png": bodies["b.png"], "p/c.png": other}
    assert {request.path for request in ground.origin.media_requests} == {"/p/c.png"}
    later = ground.archive.run("verify", "--s3", environ=environ)
    assert [row[1] for row in flaws(later.out)] == [f"s3://{ground.bucket.name}/p/c.png"] * 2  # missing, and a stranger


def test_what_both_places_lost_comes_back_from_an_object_that_was_put_back(ground: Ground) -> None:
    bodies = done_prompt(ground.origin, "p", "a.png", "b.png")
    assert mirrored(ground.archive, "p").code == 0
    before = ground.archive.files()
    (ground.archive.root / "p" / "a.png").unlink()
    remove(ground, "p/a.png")
    picture(ground.origin, "/p/a.png", fault=origin_faults.status(404, times=origin_faults.FOREVER))
    assert ground.archive.run("verify", "--repair").code == 3
    assert ground.archive.run("verify", "--s3", "--repair").code == 3
    ground.bucket.put("p/a.png", bodies["a.png"])
    ground.forget()

    assert mirrored(ground.archive, "p").code == 0

    assert ground.origin.media_requests == []
    assert {path: body for path, body in ground.archive.files().items() if path != "p/manifest.json"} == {
        path: body for path, body in before.items() if path != "p/manifest.json"
    }
    assert [ground.archive.run(*command).code for command in (["verify"], ["verify", "--s3"])] == [0, 0]


def test_what_nobody_names_in_the_bucket(ground: Ground, tmp_path: Path) -> None:
    done_prompt(ground.origin, "p", "a.png")
    assert mirrored(ground.archive, "p", s3_prefix="pre").code == 0
    ground.bucket.put("pre/p/notes.txt", b"mine")
    ground.bucket.put("pre/stranger/x.png", b"x")
    ground.bucket.put("elsewhere/x.png", b"x")
    before = ground.bucket.read()
    done = ground.archive.run("verify", "--s3", "--bucket", ground.url)
    where = f"s3://{ground.bucket.name}/pre"
    assert (done.code, ground.bucket.read()) == (0, before)
    assert flaws(done.out) == [
        ("-", f"{where}/stranger/x.png", "unexpected"),
        ("p", f"{where}/p/notes.txt", "unexpected"),
    ]
    assert "2 unexpected" in done.err
    assert ground.archive.run("verify", "p", "--s3", "--bucket", ground.url).out == ""


def test_a_rebuild_says_what_only_the_bucket_has_and_how_it_comes_back(ground: Ground) -> None:
    done_prompt(ground.origin, "p", "a.png")
    done_prompt(ground.origin, "q", "a.png")
    assert mirrored(ground.archive, "p", "q").code == 0
    before = ground.archive.files()
    assert "that the disk has not" not in ground.archive.run("rebuild").err
    shutil.rmtree(ground.archive.root / "q")
    told = ground.archive.run("rebuild")
    assert (told.code, told.out.splitlines()[0]) == (0, "1 prompts came back from their manifests")
    assert f"s3://{ground.bucket.name} has 1 folder that the disk has not" in told.err
    ground.forget()
    assert ground.archive.run("rebuild", "--s3-only").code == 0
    repaired = ground.archive.run("verify", "--repair")
    assert (repaired.code, ground.archive.files() == before, ground.origin.requests) == (0, True, []), repaired.out
