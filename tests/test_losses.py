"""What was mirrored and is lost is told, and its digest is not forgotten: not by the manifest, not by a rebuild."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from mirror import FetchOptions
from tests import faults
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, mirrored, picture, sha256
from tests.origin import Origin, answer, task
from tests.test_verify import flaws


def lose_catalog(archive: Archive) -> None:
    for path in (archive.root / ".mirror").glob("catalog.sqlite*"):
        path.unlink()
    archive.run("rebuild")


def test_a_lost_file_that_the_service_names_no_more_is_told(archive: Archive, origin: Origin) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").unlink()
    origin.prompt("p", answer(task("p", images=[(None, f"{origin.url}/p/b.png")])))
    for _ in range(2):
        assert archive.run("fetch", "p").code == 3
        manifest = archive.manifest("p")
        assert (manifest["state"], [file["path"] for file in manifest["files"]]) == ("partial", ["b.png"])
        [error] = manifest["errors"]
        assert "names it no longer" in error["message"]
        assert error["was"]["sha256"] == sha256(bodies["a.png"])
        lose_catalog(archive)
    found = archive.run("verify")
    assert (found.code, found.out.split("\t")[:2]) == (3, ["p", "p/a.png"])


def test_a_failed_repair_leaves_the_digest_in_the_manifest(archive: Archive, origin: Origin) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").write_bytes(bodies["a.png"][::-1])
    picture(origin, "/p/a.png", fault=faults.status(404, times=faults.FOREVER))
    assert archive.run("verify", "--repair").code == 3
    lose_catalog(archive)
    assert archive.run("verify").code == 3
    # Other bytes at that URL are not taken for it, whatever is asked.
    origin.add("/p/a.png", b"another picture")
    assert archive.run("fetch", "p", "--refresh").code == 3
    origin.add("/p/a.png", bodies["a.png"])
    assert archive.run("verify", "--repair").code == 0
    assert archive.files()["p/a.png"] == bodies["a.png"]
    assert archive.manifest("p")["errors"] == []


def test_a_manifest_that_tells_of_a_loss_is_not_damaged(archive: Archive, origin: Origin) -> None:
    """The thumbnail is lost, and a run for originals alone does not bring it back: one flaw, and not two."""
    thumbnail, body = picture(origin, "/p/small.png")
    original, _ = picture(origin, "/p/large.png")
    origin.prompt("p", answer(task("p", images=[(thumbnail, original)])))
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "small.png").unlink()
    assert mirrored(archive, "p", options=FetchOptions(only="origin")).code == 3
    assert [error["was"]["path"] for error in archive.manifest("p")["errors"]] == ["small.png"]
    assert flaws(archive.run("verify").out) == [("p", "p/small.png", "missing")]
    (archive.root / "p" / "small.png").write_bytes(body)
    found = archive.run("verify")
    assert (found.code, "it is there again, but the manifest does not name it" in found.out) == (3, True)
    origin.clear()
    assert (archive.run("verify", "--repair").code, origin.media_requests) == (0, [])
    assert archive.manifest("p")["errors"] == []


@pytest.mark.parametrize("way", ["a symlink", "a file", "a symlink, and the catalog is new"])
def test_a_folder_that_was_out_of_reach_for_one_run_is_looked_at_again(
    archive: Archive, origin: Origin, way: str
) -> None:
    """The origin has lost the files meanwhile: nothing but what stands there can be named."""
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    folder, aside = archive.root / "p", archive.root.with_name("aside")
    before, manifest = archive.files(), (folder / "manifest.json").read_bytes()
    if "new" in way:
        shutil.rmtree(archive.root / ".mirror")
    folder.rename(aside)
    if "symlink" in way:
        folder.symlink_to(aside)
    else:
        folder.write_text("in the way")
    assert mirrored(archive, "p").code == 3
    folder.unlink()
    aside.rename(folder)
    assert archive.files() == before
    for name in ("a.png", "b.png"):
        picture(origin, f"/p/{name}", fault=faults.status(404, times=faults.FOREVER))
    origin.clear()

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code, origin.media_requests) == ({"p": "complete"}, 0, [])
    assert (folder / "manifest.json").read_bytes() == manifest
    assert archive.run("verify").code == 0


def test_what_was_put_back_is_named_though_the_service_names_it_no_more(archive: Archive, origin: Origin) -> None:
    """Its very bytes, that is: others of that length are nobody's."""
    bodies = done_prompt(origin, "p", "a.png", "b.png", "c.png")
    assert mirrored(archive, "p").code == 0
    for name in ("a.png", "b.png"):
        (archive.root / "p" / name).unlink()
    origin.prompt("p", answer(task("p", images=[(None, f"{origin.url}/p/c.png")])))
    assert mirrored(archive, "p").code == 3
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["c.png"]
    (archive.root / "p" / "a.png").write_bytes(bodies["a.png"])
    other = bytes(reversed(bodies["b.png"]))
    (archive.root / "p" / "b.png").write_bytes(other)

    assert mirrored(archive, "p").code == 3

    manifest = archive.manifest("p")
    assert sorted(file["path"] for file in manifest["files"]) == ["a.png", "c.png"]
    assert [error["was"]["path"] for error in manifest["errors"]] == ["b.png"]
    assert archive.files()["p/b.png"] == other


@pytest.mark.parametrize("lie", ["a file less", "another state"])
def test_a_manifest_that_lies_is_damaged(archive: Archive, origin: Origin, lie: str) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    path = archive.root / "p" / "manifest.json"
    before = path.read_bytes()
    manifest = json.loads(before)
    if lie == "a file less":
        del manifest["files"][0]
    else:
        manifest["state"] = "failed"
    path.write_text(json.dumps(manifest))
    found = archive.run("verify")
    assert (found.code, "p/manifest.json\tdamaged" in found.out) == (3, True)
    assert archive.run("verify", "--repair").code == 0
    assert {**json.loads(path.read_bytes()), "mirrored_at": ""} == {**json.loads(before), "mirrored_at": ""}


def test_what_comes_while_the_service_goes_back_on_its_word_is_named(archive: Archive, origin: Origin) -> None:
    """A complete prompt stays so, whatever the service says of it now; a file that it names beside that is mirrored."""
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    before = archive.manifest("p")
    url, _ = picture(origin, "/p/b.png")
    origin.prompt("p", answer(task("p", 20, children=[task("child", images=[(None, url)])])))
    for _ in range(2):
        ran = mirrored(archive, "p", options=FetchOptions(refresh=True))
        assert (ran.states, ran.code) == ({"p": "complete"}, 0)
        manifest = archive.manifest("p")
        assert (manifest["state"], manifest["task"]) == ("complete", before["task"])
        assert [file["path"] for file in manifest["files"]] == ["a.png", "b.png"]
        assert manifest["files"][:1] == before["files"]
        assert archive.run("verify").code == 0


def test_a_copy_of_a_manifest_takes_no_prompt_to_another_folder(archive: Archive, origin: Origin) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    assert mirrored(archive, "p", "q").code == 0
    for folder in ("q", "backup"):
        (archive.root / folder).mkdir(exist_ok=True)
        shutil.copy(archive.root / "p" / "manifest.json", archive.root / folder)
    done = archive.run("rebuild")
    assert done.code == 3
    assert ("q: no manifest of its own" in done.err, "backup: no manifest of its own" in done.err) == (True, True)
    assert flaws(archive.run("verify").out) == [("-", "backup/", "unexpected"), ("-", "q/", "unexpected")]
    origin.clear()
    fetched = archive.run("fetch", "p", "q", "--json")
    assert (fetched.code, asked(origin), sorted(line["prompt_id"] for line in fetched.lines)) == (0, ["q"], ["p", "q"])
    assert archive.manifest("q")["prompt_id"] == "q"


def test_another_prompts_manifest_is_no_result(archive: Archive, origin: Origin) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    assert mirrored(archive, "p", "q").code == 0
    shutil.copy(archive.root / "p" / "manifest.json", archive.root / "q")
    done = archive.run("fetch", "q", "--json")
    assert (done.code, [line["prompt_id"] for line in done.lines]) == (0, ["q"])
    assert archive.run("verify").code == 0


@pytest.mark.parametrize("command", [["verify"], ["verify", "--json"], ["status", "--json"]])
def test_a_reader_that_goes_away_is_no_bug(archive: Archive, origin: Origin, command: list[str]) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").unlink()
    reader, stdout = os.pipe()
    os.close(reader)
    process = archive.start(*command, stdout=stdout)
    os.close(stdout)
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_an_input_that_fails_after_others_were_begun_is_no_usage_error(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    (archive.root.parent / "bad.csv").write_text("name\np\n")
    done = archive.run("fetch", "p", "-i", str(archive.root.parent / "bad.csv"))
    assert done.code == 3, done.err
    assert done.summary["prompts"] == {"complete": 1}
    assert "bad.csv" in done.err


def test_a_textfile_never_takes_the_place_of_what_is_no_file(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    target = archive.root.parent / "metrics"
    target.mkdir()
    link = archive.root.parent / "mirror.prom"
    link.symlink_to(target / "real.prom")
    assert archive.run("fetch", "p", environ={"MIRROR_METRICS_TEXTFILE": str(link)}).code == 0
    assert link.is_symlink()
    assert "mirror_" in (target / "real.prom").read_text()
    done = archive.run("fetch", "p", environ={"MIRROR_METRICS_TEXTFILE": "/dev/null"})
    assert (done.code, "is no file" in done.err) == (2, True)
