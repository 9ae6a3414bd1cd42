"""`mirror fetch` end to end: what the API says comes to stand on disk, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import faults
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, mirrored, picture, running, sha256, tree
from tests.origin import Answer, Origin, Reply, answer, documented_example, task


def places(value: Any, url: str) -> int:
    """How often a URL stands in an answer."""
    if isinstance(value, dict):
        return sum(places(inner, url) for inner in value.values())
    if isinstance(value, list):
        return sum(places(inner, url) for inner in value)
    return int(value == url)


def test_the_documented_example_takes_one_question_and_three_downloads(origin: Origin, archive: Archive) -> None:
    prompt_id, bodies = documented_example(origin)

    first = archive.run("fetch", prompt_id, "--json")

    assert (first.code, len(origin.api_requests), len(origin.media_requests)) == (0, 1, 3), first.err
    manifest = archive.manifest(prompt_id)
    assert first.lines == [manifest]
    assert (manifest["state"], manifest["errors"]) == ("complete", [])
    files = {file["path"]: file for file in manifest["files"]}
    assert archive.files().keys() == {f"{prompt_id}/{name}" for name in (*bodies, "manifest.json")}
    assert {name: archive.files()[f"{prompt_id}/{name}"] for name in bodies} == bodies
    assert {name: (file["bytes"], file["sha256"]) for name, file in files.items()} == {
        name: (len(body), sha256(body)) for name, body in bodies.items()
    }

    # A file is named by every place in the answer that holds its URL: the thumbnail by seven, each original by two.
    assert [len(files[name]["named_by"]) for name in bodies] == [7, 2, 2]
    for file in files.values():
        assert len(file["named_by"]) == places(manifest["task"], file["url"])
        assert len({json.dumps(place) for place in file["named_by"]}) == len(file["named_by"])

    origin.clear()
    second = archive.run("fetch", prompt_id, "--json")
    assert (second.code, second.lines, origin.requests) == (0, [manifest], [])


@pytest.mark.parametrize(
    ("root", "children", "state", "code"),
    [
        (30, [30, 30], "complete", 0),
        (30, [30, 2], "complete", 0),
        (2, [30], "complete", 0),
        (30, [2, 2], "complete", 0),
        (2, [2, 2], "failed", 3),
        (2, [], "failed", 3),
        (10, [], "pending", 5),
        (20, [30, 10], "pending", 5),
        (30, [20], "pending", 5),
        (30, [2, 10], "pending", 5),
        (2, [20], "pending", 5),
        (40, [30], "pending", 5),  # a state that the documentation does not list has not ended
    ],
)
def test_each_task_counts_by_its_own_state(
    origin: Origin, archive: Archive, root: int, children: list[int], state: str, code: int
) -> None:
    tasks = [
        task(name, task_state, [(None, picture(origin, f"/{name}.png")[0])], reason="too dark" * (task_state == 2))
        for name, task_state in zip(["p", "child1", "child2"], [root, *children], strict=False)
    ]
    origin.prompt("p", answer(tasks[0] | {"taskList": tasks[1:]}))

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": state}, code)
    done = {f"p/{made['promptId']}.png" for made in tasks if made["state"] == 30}
    assert archive.files().keys() == done | {"p/manifest.json"}
    assert archive.manifest("p")["state"] == state
    assert archive.manifest("p")["task"]["taskList"] == tasks[1:]
    assert origin.count("/") - len(origin.api_requests) == len(done)


@pytest.mark.parametrize("code", [800, 900])
def test_a_prompt_that_the_service_denies_is_unknown_and_leaves_nothing(
    origin: Origin, archive: Archive, code: int
) -> None:
    origin.prompt("denied", answer(None, code, "no such thing"))

    done = archive.run("fetch", "denied", "--json")

    assert (done.code, done.summary["prompts"]) == (3, {"unknown": 1})
    [told] = done.lines
    assert (told["prompt_id"], told["state"], told["api"]["code"]) == ("denied", "unknown", code)
    assert (told["files"], "no such thing" in told["errors"][0]["message"]) == ([], True)
    assert list(archive.root.iterdir()) == [archive.root / ".mirror"]
    assert len(origin.requests) == 1


def test_a_system_fault_is_asked_again(origin: Origin, archive: Archive) -> None:
    url, _ = picture(origin, "/a.png")
    origin.prompt("p", [answer(None, 510, "busy"), answer(task("p", images=[(None, url)]))])

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code, len(origin.api_requests)) == ({"p": "complete"}, 0, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"taskType": 99},
        {"taskType": None, "reason": None, "thumbFileUrl": None, "taskList": None},
        {"taskId": "1043", "taskType": "7", "state": "30", "something": {"new": [1, 2.5, None]}},
        {"taskList": []},
    ],
)
def test_answers_are_read_leniently_and_kept_as_they_were(
    origin: Origin, archive: Archive, changes: dict[str, Any]
) -> None:
    url, body = picture(origin, "/a.png")
    data = {**task("p", images=[(None, url)]), **changes}
    origin.prompt("p", answer(data) | {"code": "200"})

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    assert archive.files()["p/a.png"] == body
    assert archive.manifest("p")["task"] == data


def test_null_lists_and_paths_are_no_files(origin: Origin, archive: Archive) -> None:
    thumbnail, _ = picture(origin, "/thumbnail.png")
    images = [{"id": 1, "path": thumbnail, "origin": None}, {"id": 2, "path": "", "origin": ""}, None]
    origin.prompt("without", answer(task("without", imageList=None, taskList=None)))
    origin.prompt("half", answer(task("half", imageList=images)))

    ran = mirrored(archive, "without", "half")

    assert (ran.states, ran.code) == ({"without": "complete", "half": "complete"}, 0)
    assert archive.files().keys() == {"without/manifest.json", "half/manifest.json", "half/thumbnail.png"}


def test_a_done_child_without_pictures_is_asked_by_its_own_id(origin: Origin, archive: Archive) -> None:
    url, body = picture(origin, "/a.png")
    bare = {key: value for key, value in task("child").items() if key != "imageList"}
    origin.prompt("p", answer(task("p", children=[bare, task("failed", 2), task("empty", imageList=None)])))
    origin.prompt("child", answer(task("child", images=[(None, url)])))
    origin.prompt("empty", answer(task("empty", images=[(url, None)])))

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    assert asked(origin) == ["child", "empty", "p"]
    [file] = ran.manifests["p"].files
    assert sorted(place.prompt_id for place in file.named_by) == ["child", "empty", "empty"]
    assert archive.files()["p/a.png"] == body


def test_no_id_is_asked_twice(origin: Origin, archive: Archive) -> None:
    """Not a child that names its parent or itself, nor one in two lists, nor an id that is given twice."""
    url, _ = picture(origin, "/a.png")
    origin.prompt("p", answer(task("p", children=[task("p"), task("child"), task("child"), task("other")])))
    origin.prompt("child", answer(task("child", children=[task("p"), task("child"), task("other")])))
    origin.prompt("other", answer(task("other", images=[(None, url)], children=[task("child")])))

    done = archive.run("fetch", "p", "p", "-i", "-", "--json", stdin="p\n# again\np\n")

    assert (done.code, [line["prompt_id"] for line in done.lines]) == (0, ["p"])
    assert asked(origin) == ["child", "other", "p"]
    assert origin.count("/a.png") == 1


@pytest.mark.parametrize(
    ("bad", "error", "word"),
    [
        (answer(None, 777, "come back tomorrow"), "BadAnswer", "come back tomorrow"),
        (answer(None), "BadAnswer", "data"),
        (answer([1]), "BadAnswer", "data"),
        (answer(task("another")), "BadAnswer", "another prompt"),
        (b"[]", "BadAnswer", "object"),
        (b"<html><body>Bad gateway</body></html>", "ApiUnavailable", "HTML"),
        (b'{"code": 200, "data": {"promptId"', "ApiUnavailable", "cut short"),
        (b'{"code": 200, "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "BadAnswer", "deeper"),
        (b'{"code": 200, "data": ' + b"[" * 200 + b"]" * 200 + b"}", "BadAnswer", "deeper"),
        (b'{"code": 200, "msg": "\xff\xfe", "data": {}}', "ApiUnavailable", "JSON"),
        (Reply(200, body=b"{}", cut=1, ending="close"), "ApiUnavailable", "broke"),
        (Reply(404), "BadAnswer", "404"),
        (Reply(503), "ApiUnavailable", "503"),
        (Reply(silent=True, ending="reset"), "ApiUnavailable", "broke"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_cannot_be_read_fails_its_prompt_only(
    origin: Origin, archive: Archive, bad: Answer, error: str, word: str
) -> None:
    origin.prompt("bad", bad)
    done_prompt(origin, "good", "a.png")

    ran = mirrored(archive, "bad", "good", transfer_attempts=1)

    assert (ran.states, ran.code) == ({"bad": "unresolved", "good": "complete"}, 3)
    [failure] = ran.manifests["bad"].errors
    assert failure.error == error
    assert word in failure.message
    assert archive.files().keys() == {"good/a.png", "good/manifest.json"}


def test_an_answer_over_the_limit_fails_its_prompt_only(origin: Origin, archive: Archive) -> None:
    origin.prompt("long", answer(task("long", reason="x" * 20_000)))
    done_prompt(origin, "good", "a.png")

    done = archive.run("fetch", "long", "good", environ={"MIRROR_API_MAX_ANSWER": "10000"})

    assert (done.code, done.summary["prompts"]) == (3, {"complete": 1, "unresolved": 1})
    assert "api.max_answer (10000 bytes)" in done.err
    assert len(origin.api_requests) == 2


@pytest.mark.parametrize(
    "changes",
    [{"imageList": {"path": "x"}}, {"imageList": ["x"]}, {"taskList": "x"}, {"thumbFileUrl": 7}, {"state": {}}],
)
def test_a_field_of_a_wrong_type_keeps_a_prompt_from_being_complete(
    origin: Origin, archive: Archive, changes: dict[str, Any]
) -> None:
    url, body = picture(origin, "/a.png")
    origin.prompt("p", answer(task("p", images=[(None, url)]) | changes))

    ran = mirrored(archive, "p")

    assert (ran.code, ran.errors, ran.states) == (
        3,
        ["BadAnswer"],
        {"p": "pending" if "state" in changes else "partial"},
    )
    if "imageList" not in changes and "state" not in changes:
        assert archive.files()["p/a.png"] == body


def test_ids_that_cannot_be_one_are_refused_unasked(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "good", "a.png")
    done_prompt(origin, "a/b", "b.png")
    before = {path for path in archive.root.parent.iterdir() if path != archive.root}

    done = archive.run("fetch", "", " ", "new\nline", "x" * 10_000, "a/b", "..", ".mirror", "good", "--json")

    assert done.code == 3
    states = {line["prompt_id"]: line["state"] for line in done.lines}
    assert {shown: states[shown] for shown in ("", "new\nline", "..", ".mirror", "a/b", "good")} == {
        "": "unknown",
        "new\nline": "unknown",
        "..": "unknown",
        ".mirror": "unknown",
        "a/b": "complete",
        "good": "complete",
    }
    assert max(map(len, states)) < 100
    assert asked(origin) == ["..", ".mirror", "a/b", "good"]
    # Of an id that had to be made safe the folder's name has a suffix; it is one folder, and inside the root.
    [folder] = {path.partition("/")[0] for path in archive.files()} - {"good"}
    assert folder.startswith("a_b-")
    assert archive.files().keys() == {f"{folder}/b.png", f"{folder}/manifest.json", "good/a.png", "good/manifest.json"}
    assert {path for path in archive.root.parent.iterdir() if path != archive.root} - before == {
        archive.root.with_name("archive-summary.json")
    }


def test_an_id_that_is_no_text_is_refused_like_any_other(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "good", "a.png")

    done = archive.run("fetch", "\udcff", "good", "--json")  # the byte FF, as an argument of the process

    assert done.code == 3, done.err
    assert sorted(line["state"] for line in done.lines) == ["complete", "unknown"]
    assert archive.run("status", "\udcff").code == 3


def test_what_is_no_media_url_is_refused_and_the_rest_fetched(origin: Origin, archive: Archive) -> None:
    secret = archive.root.parent / "secret.png"
    secret.write_bytes(b"mine")
    bad = [f"file://{secret}", "http:///a.png", "not a url", "//host/a.png", "ftp://host/a.png", "http://[::1/a.png"]
    url, body = picture(origin, "/a.png")
    origin.prompt("p", answer(task("p", images=[(None, wrong) for wrong in bad] + [(None, url)])))

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code, ran.errors) == ({"p": "partial"}, 3, ["Refused"] * len(bad))
    assert archive.files().keys() == {"p/a.png", "p/manifest.json"}
    assert archive.files()["p/a.png"] == body


def test_names_from_urls_stay_inside_the_prompts_folder(origin: Origin, archive: Archive) -> None:
    outside = tree(archive.root.parent)
    paths = [
        "/1/..%2f..%2fetc%2fpasswd",
        "/2/manifest.json",
        "/3/MANIFEST.JSON",
        "/4/twice.png",
        "/5/twice.png",
        "/6/TWICE.png",
        "/7/..",
        "/8/",
        "/9/%2e%2e%2f%00.png",
        "/10/" + "n" * 300 + ".png",
        "/11/-rf",
        "/12/.mirror",
    ]
    served = [picture(origin, path) for path in paths]
    origin.prompt("p", answer(task("p", images=[(None, url) for url, _ in served])))

    ran = mirrored(archive, "p")

    assert (ran.states, ran.code) == ({"p": "complete"}, 0)
    stored = {file.url: file.path for file in ran.manifests["p"].files}
    assert {stored[url]: body for url, body in served} == {
        path.removeprefix("p/"): content for path, content in archive.files().items() if path != "p/manifest.json"
    }
    assert len({name.casefold() for name in stored.values()} - {"manifest.json"}) == len(paths)
    assert all(len(name.encode()) <= 200 and name[0] not in ".-" for name in stored.values())
    assert (stored[served[3][0]], stored[served[4][0]][:6]) == ("twice.png", "twice-")
    assert stored[served[9][0]].endswith(".png")
    below = tree(archive.root.parent)
    assert {path for path in below if path.partition("/")[0] != "archive"} == outside.keys()
    assert {path.split("/")[1] for path in below if path.startswith("archive/")} == {"p", ".mirror"}


def test_nothing_is_written_through_a_symlink_out_of_the_root(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    outside = archive.root.parent / "outside"
    outside.mkdir()
    archive.root.mkdir()
    (archive.root / "p").symlink_to(outside)

    done = archive.run("fetch", "p")

    assert (done.code in (3, 4), "symlink" in done.err, list(outside.iterdir())) == (True, True, [])


def test_a_file_of_two_prompts_is_fetched_once_and_stands_in_both(origin: Origin, archive: Archive) -> None:
    url, body = picture(origin, "/shared.png", fault=faults.hold_after(100))
    for prompt_id in ("p", "q"):
        own, _ = picture(origin, f"/{prompt_id}.png")
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, own), (url + "?Expires=1", url)])))

    with running(archive, "fetch", "p", "q", "--json") as process:
        origin.wait_for(lambda: len(origin.media_requests) == 3)
        origin.release("/shared.png")
        _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert origin.count("/shared.png") == 1
    for prompt_id in ("p", "q"):
        assert archive.files()[f"{prompt_id}/shared.png"] == body
        files = {file["path"]: file for file in archive.manifest(prompt_id)["files"]}
        assert (files["shared.png"]["sha256"], files["shared.png"]["role"]) == (sha256(body), "origin")
