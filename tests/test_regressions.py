"""What a hostile reader once broke. Each of these was a wrong archive, a run that ended, or one that never did."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from mirror import Manifest, Mirror
from mirror.answers import MOST_FLAWS
from mirror.stores import Head, Target
from mirror.stores.local import LocalStore
from tests import media
from tests.conftest import Archive
from tests.faults import FOREVER, Fault, close_after, html_page, ignore_range, range_refused, status
from tests.helpers import asked, done_prompt, large_prompt, mirrored, picture
from tests.origin import Origin, answer, task

SEGMENT = 256 << 10
FILM = media.blob(3 << 20, seed=5)


def test_the_end_of_a_part_is_not_taken_for_the_end_of_a_file_of_unknown_length(
    archive: Archive, origin: Origin
) -> None:
    """First a body without a length that breaks off, then a 206 that holds less than what is missing."""
    cut = Fault("cut", lambda file, request: replace(file.whole(), framing="chunked", cut=1 << 20, ending="close"))
    short = Fault(
        "a short part",
        lambda file, request: (
            file.part(int(request.headers["range"][6:-1]), int(request.headers["range"][6:-1]) + 9_999)
            if "range" in request.headers
            else file.whole()
        ),
        times=FOREVER,
    )
    large_prompt(origin, "p", FILM, fault=[cut, short])
    ran = mirrored(archive, "p")
    assert ran.states == {"p": "complete"}
    assert archive.files()["p/large.mp4"] == FILM


def test_a_lone_large_file_comes_in_segments(archive: Archive, origin: Origin) -> None:
    large_prompt(origin, "p", FILM)
    assert mirrored(archive, "p", transfer_segment_size=SEGMENT).states == {"p": "complete"}
    assert archive.files()["p/large.mp4"] == FILM
    assert any("range" in request.headers for request in origin.media_requests)


def test_a_server_that_claims_ranges_and_ignores_them_costs_one_more_body_at_most(
    archive: Archive, origin: Origin
) -> None:
    url = large_prompt(origin, "p", FILM, fault=ignore_range(times=FOREVER))
    assert mirrored(archive, "p", transfer_segment_size=SEGMENT).states == {"p": "complete"}
    assert archive.files()["p/large.mp4"] == FILM
    assert origin.body_bytes(url) <= 3 * len(FILM)
    assert origin.count(url) <= 3, "the first stream, one helper that finds out, and at most one start anew"


def test_a_child_under_the_roots_id_keeps_its_files(archive: Archive, origin: Origin) -> None:
    url, body = picture(origin, "/child.png")
    origin.prompt("p", answer(task("p", children=[task("p", images=[(None, url)])])))
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/child.png"] == body


def test_a_running_child_under_the_roots_id_keeps_its_state(archive: Archive, origin: Origin) -> None:
    origin.prompt("p", answer(task("p", children=[task("p", state=20)])))
    assert mirrored(archive, "p").states == {"p": "pending"}


def test_a_family_that_is_too_deep_to_be_asked_for_is_not_complete(archive: Archive, origin: Origin) -> None:
    url, _ = picture(origin, "/deep.png")
    for generation in range(12):
        child = task(f"g{generation + 1}", images=[(None, url)] if generation == 11 else [])
        origin.prompt(f"g{generation}", answer(task(f"g{generation}", children=[child])))
    ran = mirrored(archive, "g0")
    assert (ran.states, ran.code) == ({"g0": "partial"}, 3)
    assert "1 children were not asked about" in ran.manifests["g0"].errors[0].message


def test_a_million_flaws_are_told_once(archive: Archive, origin: Origin) -> None:
    images = [{"path": 1} for _ in range(5000)]
    children = [{"promptId": f"c{number}", "state": "?"} for number in range(5000)]
    origin.prompt("p", answer(task("p") | {"imageList": images, "taskList": children}))
    ran = mirrored(archive, "p")
    assert ran.states == {"p": "pending"}
    told = [error.message for error in ran.manifests["p"].errors]
    assert len(told) == MOST_FLAWS + 1
    assert told[-1] == "4001 more of this kind"
    assert len([message for message in told if "expected a URL" in message]) == 1


def test_families_without_ids_lose_nobody(archive: Archive, origin: Origin) -> None:
    url, body = picture(origin, "/grandchild.png")
    grandchild = task("x", images=[(None, url)], promptId=None)
    origin.prompt("p", answer(task("p", children=[task("x", children=[grandchild], promptId=None)])))
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/grandchild.png"] == body


def test_a_childs_own_answer_counts_however_its_id_is_spelled(archive: Archive, origin: Origin) -> None:
    url, body = picture(origin, "/kid.png")
    origin.prompt("p", answer(task("p", children=[task("Kid", images=[])])))
    origin.prompt("Kid", answer(task("kid", images=[(None, url)])))
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/kid.png"] == body


def test_a_child_whose_entries_name_no_file_is_asked_for(archive: Archive, origin: Origin) -> None:
    url, body = picture(origin, "/kid.png")
    origin.prompt("p", answer(task("p", children=[task("kid", images=[(None, None)])])))
    origin.prompt("kid", answer(task("kid", images=[(None, url)])))
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/kid.png"] == body


def test_answers_that_name_one_another_do_not_multiply(archive: Archive, origin: Origin) -> None:
    """Five small answers, each with forty children of the next id: a hundred million tasks, if one counted so."""
    for level in range(5):
        children = [task(f"level{level + 1}", images=[])] * 40
        origin.prompt(f"level{level}", answer(task(f"level{level}", children=children)))
    origin.prompt("level5", answer(task("level5")))
    mirrored(archive, "level0")
    assert asked(origin) == [f"level{level}" for level in range(6)]


def test_a_child_that_fails_is_asked_once_a_run(archive: Archive, origin: Origin) -> None:
    origin.prompt("p", answer(task("p", children=[task("kid", images=[])])))
    assert mirrored(archive, "p").errors == ["NoData"]
    assert asked(origin) == ["kid", "p"]


@pytest.mark.parametrize("size", [2_000, 2 << 20], ids=["small", "with a journal"])
@pytest.mark.parametrize("name", ["Content-Type", "Last-Modified", "ETag"])
def test_header_bytes_that_are_no_text_are_left_out(archive: Archive, origin: Origin, name: str, size: int) -> None:
    body = media.blob(size)
    odd = Fault("odd", lambda file, request: file.reply(request).with_headers({name: "a/b; n=\xff\xfe"}), FOREVER)
    large_prompt(origin, "p", body, fault=odd)
    done_prompt(origin, "good", "a.png")
    assert mirrored(archive, "p", "good").states == {"p": "complete", "good": "complete"}
    assert archive.files()["p/large.mp4"] == body


@pytest.mark.parametrize("what", ["a file", "a link", "no permission"])
def test_what_stands_in_one_prompts_place_fails_that_prompt_only(archive: Archive, origin: Origin, what: str) -> None:
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "good", "a.png")
    archive.root.mkdir()
    if what == "a file":
        (archive.root / "p").write_text("mine")
    elif what == "a link":
        (archive.root / "p").symlink_to(archive.root.parent)
    else:
        (archive.root / "p").mkdir()
        (archive.root / "p" / "manifest.json").mkdir()
    ran = mirrored(archive, "p", "good")
    assert ran.states["good"] == "complete"
    assert ran.states["p"] != "complete"
    assert ran.code == 3


def test_a_pipe_named_as_a_manifest_is_none(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    (archive.root / "p").mkdir(parents=True)
    os.mkfifo(archive.root / "p" / "manifest.json")
    assert mirrored(archive, "p").states == {"p": "complete"}


def test_folders_that_differ_by_case_come_back_from_their_manifests(archive: Archive, origin: Origin) -> None:
    for prompt_id in ("ABC", "abc"):
        done_prompt(origin, prompt_id, f"{prompt_id}.png")
    mirrored(archive, "ABC")
    (archive.root / ".mirror" / "catalog.sqlite").unlink()
    mirrored(archive, "abc")
    assert mirrored(archive, "ABC", "abc").states == {"ABC": "complete", "abc": "complete"}
    assert archive.run("rebuild").code == 0
    assert mirrored(archive, "ABC", "abc").states == {"ABC": "complete", "abc": "complete"}


def test_a_manifest_that_cannot_be_read_is_written_anew_for_those_who_want_it(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "p", "a.png")
    mirrored(archive, "p")
    (archive.root / "p" / "manifest.json").write_text("{")
    origin.clear()
    done = archive.run("fetch", "p", "--json")
    assert (done.code, [line["state"] for line in done.lines]) == (0, ["complete"])
    assert archive.manifest("p")["state"] == "complete"
    assert not origin.media_requests


def test_an_answer_of_millions_of_objects_is_refused_before_it_is_read(archive: Archive, origin: Origin) -> None:
    origin.prompt("p", b'{"code":200,"data":{"x":[' + b"{}," * 1_000_001 + b"{}]}}")
    done_prompt(origin, "good", "a.png")
    ran = mirrored(archive, "p", "good")
    assert ran.states == {"p": "unresolved", "good": "complete"}
    assert ran.errors == ["BadAnswer"]


def test_a_whole_body_never_completes_the_parts_of_another_version(archive: Archive, origin: Origin) -> None:
    """The back of a file is held, its front is asked for, and the server has another version by now."""
    url = large_prompt(origin, "p", FILM)
    former = media.blob(len(FILM), seed=6)

    async def hold_the_back() -> None:
        store = LocalStore(archive.settings())
        store.open()
        sink = await store.sink(Target(identity=url, folder="p", names=("large.mp4",)))
        await sink.begin(Head(length=len(former), etag='"former"'))
        await sink.write(2 << 20, former[2 << 20 :])
        await sink.close()
        store.close()

    asyncio.run(hold_the_back())
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/large.mp4"] == FILM
    assert origin.media_requests[0].headers["range"] == "bytes=0-2097151"


def test_an_error_page_does_not_cost_the_partial(archive: Archive, origin: Origin) -> None:
    """A captive portal answers 200 to everything; when it is gone, the file goes on where it was."""
    breaks = close_after(2 << 20, hold=True)
    url = large_prompt(origin, "p", FILM, fault=[breaks, html_page()])
    origin.release(url)
    assert mirrored(archive, "p").errors == ["NotMedia"]
    origin.clear()
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/large.mp4"] == FILM
    assert [request.headers["range"] for request in origin.media_requests] == ["bytes=2097152-"]


def test_a_file_that_several_prompts_share_fails_once(archive: Archive, origin: Origin) -> None:
    """It breaks off while the other prompts wait for the one that fetches it: each asks for its own file after that."""
    url = origin.add("/dead.mp4", media.blob(9_000), fault=close_after(5_000, times=FOREVER, hold=True))
    for prompt_id in ("a", "b", "c"):
        own, _ = picture(origin, f"/own/{prompt_id}.png")
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url), (None, own)])))

    def let_go_when_all_wait() -> None:
        origin.wait_for(lambda: origin.count("/own/") == 3)
        origin.release(url)

    async def run() -> list[Manifest]:
        async with Mirror(archive.settings(transfer_attempts=1)) as mirror, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(let_go_when_all_wait))
            return [manifest async for manifest in mirror.fetch(["a", "b", "c"])]

    manifests = asyncio.run(run())
    assert [error.error for manifest in manifests for error in manifest.errors] == ["Truncated"] * 3
    assert origin.count("/dead.mp4") == 1


@pytest.mark.parametrize("number", [520, 522, 599])
def test_every_passing_fault_of_a_server_is_tried_again(archive: Archive, origin: Origin, number: int) -> None:
    once = Fault("once", lambda file, request: replace(file.whole(), status=number, body=b"x"))
    picture_url, body = picture(origin, "/a.png", fault=once)
    origin.prompt("p", answer(task("p", images=[(None, picture_url)])))
    assert mirrored(archive, "p").states == {"p": "complete"}
    assert archive.files()["p/a.png"] == body


@pytest.mark.parametrize("code", [400, 403, 404, 501, 503])
def test_a_server_that_refuses_parts_is_asked_for_the_whole(archive: Archive, origin: Origin, code: int) -> None:
    """Parts were our idea: what it serves as a whole is not lost because of them, in this run nor in the next."""
    body = media.mp4(3 << 20)
    large_prompt(origin, "p", body, fault=[close_after(2 << 20), range_refused(code)])
    assert archive.run("fetch", "p").code == 0
    assert archive.files()["p/large.mp4"] == body
    ranged = [request for request in origin.media_requests if "range" in {name.lower() for name in request.headers}]
    assert 1 <= len(ranged) <= 2


def test_a_part_of_a_file_that_is_gone_is_asked_for_and_then_the_whole(archive: Archive, origin: Origin) -> None:
    large_prompt(origin, "p", media.mp4(3 << 20), fault=[close_after(2 << 20), status(404, times=9)])
    done = archive.run("fetch", "p")
    assert done.code == 3
    assert "Gone" in done.err
    assert len(origin.media_requests) == 3


@pytest.mark.parametrize("obstacle", ["a file", "a symlink"])
def test_many_prompts_share_a_file_and_one_has_no_folder(archive: Archive, origin: Origin, obstacle: str) -> None:
    """They do not wait for one another in turn, and what one of them cannot do is its own failure."""
    url, body = picture(origin, "/shared/a.png")
    ids = [f"p{number}" for number in range(150)]
    for prompt_id in ids:
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    archive.root.mkdir()
    if obstacle == "a file":
        (archive.root / "p70").write_bytes(b"")
    else:
        (archive.root / "p70").symlink_to(archive.root.parent)
    done = archive.run("fetch", *ids)
    assert done.code == 3, done.err
    files = archive.files()
    assert sum(1 for prompt_id in ids if files.get(f"{prompt_id}/a.png") == body) == 149
    assert origin.body_bytes("/shared/a.png") <= 4 * len(body), "it is fetched again where it could not be stored"
