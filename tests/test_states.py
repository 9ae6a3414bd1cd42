"""How a prompt changes over several runs: pending and waited for, refreshed, partly wanted, failed, lost on disk."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from mirror import FetchOptions
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, mirrored, picture, running, sha256, tree
from tests.origin import Answer, Origin, Reply, answer, task


def family(origin: Origin, *states: int) -> dict[str, Any]:
    """The answer about a prompt "p" whose children have these states; child n names /<n>.png once it is done."""
    urls = [picture(origin, f"/{n}.png")[0] for n in range(1, len(states) + 1)]
    children = [
        task(f"child{n}", state, [(None, url)] if state == 30 else [])
        for n, (state, url) in enumerate(zip(states, urls, strict=True), 1)
    ]
    return answer(task("p", 30, children=children))


def arrivals(origin: Origin) -> list[str]:
    """The requests in their order: "?" for a question, else the file's path."""
    return ["?" if request.is_api else request.path for request in origin.requests]


# Tasks that have not ended


def test_without_wait_a_pending_prompt_is_left_with_what_is_done(origin: Origin, archive: Archive) -> None:
    origin.prompt("p", [family(origin, 30, 20), family(origin, 30, 30)])

    first = archive.run("fetch", "p", "--json")

    assert (first.code, first.summary["prompts"], len(origin.api_requests)) == (5, {"pending": 1}, 1)
    assert archive.files().keys() == {"p/1.png", "p/manifest.json"}
    manifest = archive.manifest("p")
    assert ([file["path"] for file in manifest["files"]], manifest["state"]) == (["1.png"], "pending")
    assert first.lines == [manifest]

    origin.clear()
    later = archive.run("fetch", "p")

    assert (later.code, arrivals(origin)) == (0, ["?", "/2.png"])
    assert archive.manifest("p")["state"] == "complete"
    assert archive.files().keys() == {"p/1.png", "p/2.png", "p/manifest.json"}


def test_each_child_is_fetched_when_it_is_done(origin: Origin, archive: Archive) -> None:
    """The second is done once the first was asked for. How often is asked until then is a matter of time."""
    one, both = family(origin, 30, 20), family(origin, 30, 30)
    origin.prompt("p", lambda _: both if origin.count("/1.png") else one)

    ran = mirrored(archive, "p", options=FetchOptions(wait=60))

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    assert [what for what, _ in groupby(arrivals(origin))] == ["?", "/1.png", "?", "/2.png"]


def test_polling_goes_on_while_a_file_is_under_way(origin: Origin, archive: Archive) -> None:
    origin.prompt("p", [family(origin, 30, 20), family(origin, 30, 30)])
    picture(origin, "/1.png", fault=faults.hold_after(10))

    with running(archive, "fetch", "p", "--wait", "60s", "-q") as process:
        origin.wait_for(lambda: origin.count("/2.png") == 1 and origin.body_bytes("/1.png") == 10)
        assert [request.path for request in origin.media_requests if request.bytes_sent == 10] == ["/1.png"]
        origin.release("/1.png")
        assert process.communicate(timeout=60) == ("", "")

    assert process.returncode == 0
    assert archive.manifest("p")["state"] == "complete"


def test_a_poll_that_fails_does_not_end_the_wait(origin: Origin, archive: Archive) -> None:
    origin.prompt("p", [family(origin, 20), Reply(503), family(origin, 30)])

    ran = mirrored(archive, "p", options=FetchOptions(wait=60), transfer_attempts=1)

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    assert arrivals(origin) == ["?", "?", "?", "/1.png"]


def test_a_wait_that_runs_out_leaves_the_prompt_pending(origin: Origin, archive: Archive) -> None:
    origin.prompt("p", family(origin, 30, 10))

    done = archive.run("fetch", "p", "--wait", "300ms", "--json")

    assert (done.code, done.summary["prompts"]) == (5, {"pending": 1})
    assert len(origin.api_requests) >= 2
    assert done.lines == [archive.manifest("p")]
    assert archive.manifest("p")["state"] == "pending"
    assert origin.count("/1.png") == 1


def test_what_failed_upstream_is_asked_for_again(origin: Origin, archive: Archive) -> None:
    url, _ = picture(origin, "/a.png")
    origin.prompt("p", [answer(task("p", 2, reason="no face")), answer(task("p", images=[(None, url)]))])

    first = mirrored(archive, "p")
    assert (first.states, first.code, archive.manifest("p")["task"]["reason"]) == ({"p": "failed"}, 3, "no face")

    second = mirrored(archive, "p")
    assert (second.states, second.code) == ({"p": "complete"}, 0)


def test_a_child_that_goes_back_takes_nothing_with_it(origin: Origin, archive: Archive) -> None:
    origin.prompt("p", [family(origin, 30, 20), family(origin, 10, 30), answer(None, 900), family(origin, 30, 30)])

    ran = [mirrored(archive, "p") for _ in range(3)]

    assert [(r.states["p"], r.code) for r in ran] == [("pending", 5), ("pending", 5), ("pending", 3)]
    assert sorted(file["path"] for file in archive.manifest("p")["files"]) == ["1.png", "2.png"]
    origin.clear()
    assert (mirrored(archive, "p").states, arrivals(origin)) == ({"p": "complete"}, ["?"])


def test_a_prompt_that_was_unknown_is_asked_for_again(origin: Origin, archive: Archive) -> None:
    assert mirrored(archive, "p").states == {"p": "unknown"}
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").states == {"p": "complete"}


# --refresh


REFRESH = FetchOptions(refresh=True)


@pytest.mark.parametrize(
    ("now", "code", "has_ended"),
    [
        (answer(task("p", 20)), 0, False),
        (answer(task("p", 10, imageList=None)), 0, False),
        (answer(task("p", 2, reason="lost")), 0, True),
        (answer(task("p", 30, children=[task("child", 20)])), 0, False),
        (answer(None, 900, "no data"), 0, True),
        (answer(None, 800, "no parameter"), 0, True),
        (b"<html>", 3, True),
    ],
    ids=["running", "queued", "failed", "child running", "denied 900", "denied 800", "no answer"],
)
def test_refresh_takes_nothing_back(origin: Origin, archive: Archive, now: Answer, code: int, has_ended: bool) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    mirrored(archive, "p")
    before = tree(archive.root / "p")
    origin.prompt("p", now)
    origin.clear()

    ran = mirrored(archive, "p", options=REFRESH, transfer_attempts=1)

    assert (tree(archive.root / "p"), ran.states, ran.code) == (before, {"p": "complete"}, code)
    assert arrivals(origin) == ["?"]
    origin.clear()
    again = mirrored(archive, "p")
    assert (again.states, again.code, arrivals(origin)) == ({"p": "complete"}, 0, [] if has_ended else ["?"])
    assert tree(archive.root / "p") == before


@pytest.mark.parametrize("command", ["sync", "fetch p"])
def test_what_runs_again_is_asked_about_until_it_has_ended(origin: Origin, archive: Archive, command: str) -> None:
    """It stays complete meanwhile: it is neither waited for nor given up, and no night ends red for it."""
    done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")
    before = tree(archive.root / "p")
    origin.history([])
    origin.prompt("p", answer(task("p", 20)))
    assert mirrored(archive, "p", options=REFRESH).code == 0
    give_up = ["--give-up", "1ms"] if command == "sync" else []
    for _ in range(2):
        origin.clear()
        done = archive.run(*command.split(), *give_up)
        assert (done.code, done.summary["prompts"]) == (0, {"complete": 1})
        assert origin.count("/getTaskInfo?promptId=p") == 1
    assert tree(archive.root / "p") == before
    assert archive.run("status", "--failed").out == ""

    done_prompt(origin, "p", "a.png", "b.png")
    for wanted in (1, 0):
        origin.clear()
        assert archive.run(*command.split()).code == 0
        assert origin.count("/getTaskInfo?promptId=p") == wanted
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png", "b.png"]


def test_refresh_keeps_files_that_are_named_no_more_and_bytes_that_changed(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    mirrored(archive, "p")
    other = origin.add("/p/a.png", media.png(seed=99))
    origin.prompt("p", answer(task("p", images=[(None, other)])))
    origin.clear()

    ran = mirrored(archive, "p", options=REFRESH)

    assert (ran.states, ran.code, arrivals(origin)) == ({"p": "complete"}, 0, ["?"])
    assert {name: archive.files()[f"p/{name}"] for name in bodies} == bodies
    assert {file["path"]: file["sha256"] for file in archive.manifest("p")["files"]} == {
        name: sha256(body) for name, body in bodies.items()
    }


def test_refresh_fetches_what_is_new(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")
    done_prompt(origin, "p", "a.png", "b.png")
    origin.clear()

    assert mirrored(archive, "p").code == 0
    assert origin.requests == []
    ran = mirrored(archive, "p", options=REFRESH)

    assert (ran.code, arrivals(origin)) == (0, ["?", "/p/b.png"])
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png", "b.png"]


def test_refresh_leaves_the_manifest_alone_if_nothing_changed(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")
    manifest = archive.root / "p" / "manifest.json"
    before = manifest.read_bytes(), manifest.stat().st_ino, manifest.stat().st_mtime_ns

    ran = mirrored(archive, "p", options=REFRESH)

    assert (ran.code, len(origin.api_requests)) == (0, 2)
    assert (manifest.read_bytes(), manifest.stat().st_ino, manifest.stat().st_mtime_ns) == before


# --only and --retry-failed


def test_only_fetches_one_kind_and_a_full_run_the_rest(origin: Origin, archive: Archive) -> None:
    thumbnail, full = picture(origin, "/small.png")[0], picture(origin, "/full.png")[0]
    origin.prompt("p", answer(task("p", images=[(thumbnail, full)])))

    first = archive.run("fetch", "p", "--only", "thumbnail")
    assert (first.code, arrivals(origin)) == (0, ["?", "/small.png"])
    assert archive.manifest("p")["state"] == "partial"

    origin.clear()
    again = mirrored(archive, "p", options=FetchOptions(only="thumbnail"))
    assert (again.code, origin.requests) == (0, [])

    whole = mirrored(archive, "p")
    assert (whole.code, arrivals(origin)) == (0, ["?", "/full.png"])
    assert archive.manifest("p")["state"] == "complete"
    assert archive.files().keys() == {"p/small.png", "p/full.png", "p/manifest.json"}


def test_a_file_that_failed_is_tried_again_by_the_next_fetch(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    url, _ = picture(origin, "/p/b.png", fault=faults.status(404))

    first = archive.run("fetch", "p", "--json")

    assert (first.code, first.summary["prompts"], first.summary["files_failed"]) == (3, {"partial": 1}, 1)
    manifest = archive.manifest("p")
    assert [file["path"] for file in manifest["files"]] == ["a.png"]
    assert [(error["error"], error["url"]) for error in manifest["errors"]] == [("Gone", url)]

    origin.clear()
    second = archive.run("fetch", "p", "--retry-failed")

    assert (second.code, arrivals(origin)) == (0, ["?", "/p/b.png"])
    assert (archive.manifest("p")["state"], archive.manifest("p")["errors"]) == ("complete", [])
    assert {name: archive.files()[f"p/{name}"] for name in bodies} == bodies


# What became of the files here


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])], ids=["deleted", "truncated"]
)
def test_a_deleted_or_truncated_file_is_fetched_again_and_only_it(origin: Origin, archive: Archive, harm: Any) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    done_prompt(origin, "q", "c.png")
    mirrored(archive, "p", "q")
    before = archive.files()
    harm(archive.root / "p" / "a.png")
    origin.clear()

    ran = mirrored(archive, "p", "q")

    assert (ran.code, asked(origin), arrivals(origin)) == (0, ["p"], ["?", "/p/a.png"])
    assert archive.files() == before


def test_a_deleted_folder_or_manifest_comes_back(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")
    mirrored(archive, "p", "q")
    before = archive.files()
    (archive.root / "q" / "manifest.json").unlink()
    for path in (archive.root / "p").iterdir():
        path.unlink()
    (archive.root / "p").rmdir()
    origin.clear()

    ran = mirrored(archive, "p", "q")

    assert (ran.code, asked(origin)) == (0, ["p", "q"])
    assert [request.path for request in origin.media_requests] == ["/p/a.png"]
    assert archive.files().keys() == before.keys()
    assert [archive.files()[f"{prompt_id}/a.png"] for prompt_id in ("p", "q")] == [before["p/a.png"], before["q/a.png"]]


def test_other_bytes_than_the_manifests_are_refused_and_nothing_is_lost(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    mirrored(archive, "p")
    (archive.root / "p" / "a.png").unlink()
    origin.add("/p/a.png", media.png(seed=99))

    ran = mirrored(archive, "p", transfer_attempts=1)

    assert (ran.states, ran.code, ran.errors) == ({"p": "partial"}, 3, ["ChecksumMismatch"])
    assert archive.files().keys() == {"p/b.png", "p/manifest.json"}
    assert archive.files()["p/b.png"] == bodies["b.png"]
    assert archive.partials() == []

    origin.add("/p/a.png", bodies["a.png"])
    healed = mirrored(archive, "p", transfer_attempts=1)
    assert (healed.states, healed.code, archive.files()["p/a.png"]) == ({"p": "complete"}, 0, bodies["a.png"])


def test_a_lost_file_of_a_prompt_that_is_denied_now_is_not_forgotten(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    mirrored(archive, "p")
    before = archive.files()
    (archive.root / "p" / "a.png").unlink()
    origin.prompt("p", answer(None, 900))

    denied = mirrored(archive, "p")

    assert denied.code == 3
    assert archive.files() == {path: content for path, content in before.items() if path != "p/a.png"}
    assert done_prompt(origin, "p", "a.png", "b.png") == bodies
    healed = mirrored(archive, "p")
    assert (healed.code, archive.files()["p/a.png"]) == (0, bodies["a.png"])


def test_what_stands_at_a_planned_name_is_never_overwritten(origin: Origin, archive: Archive) -> None:
    outside = archive.root.parent / "outside.png"
    outside.write_bytes(b"not ours either")
    bodies = done_prompt(origin, "p", "file.png", "link.png", "folder.png", "same.png")
    folder = archive.root / "p"
    (folder / "folder.png").mkdir(parents=True)
    (folder / "file.png").write_bytes(b"a file of the user")
    (folder / "link.png").symlink_to(outside)
    (folder / "same.png").write_bytes(bodies["same.png"])

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    assert (folder / "file.png").read_bytes() == b"a file of the user"
    assert (folder / "link.png").is_symlink()
    assert outside.read_bytes() == b"not ours either"
    assert list((folder / "folder.png").iterdir()) == []
    stored = {file.url.rpartition("/")[2]: file.path for file in ran.manifests["p"].files}
    assert stored["same.png"] == "same.png"
    assert {name: (folder / path).read_bytes() for name, path in stored.items()} == bodies
    assert len(set(stored.values()) - bodies.keys()) == 3
