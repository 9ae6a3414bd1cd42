"""``mirror verify --repair``: what is flawed comes back, nothing else is fetched, other bytes never stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror import Mirror
from tests import faults, media
from tests.catalog_runs import P, in_catalog, known
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, journaled, large_prompt, mirrored, picture, running, sha256
from tests.origin import Origin, Request, answer, task
from tests.test_verify import flaws

BODIES = {"a.png", "b.png", "c.png"}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def to_symlink(path: Path) -> None:
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.replace(elsewhere)
    path.symlink_to(elsewhere)


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def paths(requests: list[Request]) -> list[str]:
    return sorted(request.path for request in requests)


@pytest.mark.parametrize(
    ("harm", "flaw"),
    [
        (flip, "damaged"),
        (truncate, "damaged"),
        (grow, "damaged"),
        (Path.unlink, "missing"),
        (to_symlink, "unreadable"),
        (to_pipe, "damaged"),
    ],
)
def test_only_what_is_flawed_is_fetched(
    origin: Origin, archive: Archive, harm: Callable[[Path], object], flaw: str
) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png", "b.png", "c.png")
    assert mirrored(archive, "p", "q").code == 0
    before, manifest = archive.files(), archive.manifest("p")
    origin.clear()
    harm(archive.root / "p" / "b.png")

    looked = archive.run("verify")
    assert (looked.code, flaws(looked.out), origin.requests) == (3, [("p", "p/b.png", flaw)], [])
    done = archive.run("verify", "--repair")

    assert (done.code, flaws(done.out)) == (0, [("p", "p/b.png", "repaired")]), done.err
    assert "1 wrong, 1 repaired" in done.err
    assert (asked(origin), paths(origin.media_requests)) == (["p"], ["/p/b.png"])
    assert archive.files() == before
    assert archive.manifest("p")["files"] == manifest["files"]
    assert not (archive.root / "p" / "b.png").is_symlink()
    again = archive.run("verify")
    assert (again.code, again.out) == (0, "")
    assert archive.run("fetch", "p").summary["requests"] == 0


def test_what_is_whole_asks_nobody(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    origin.clear()
    done = archive.run("verify", "--repair")
    assert (done.code, done.out, origin.requests) == (0, "", [])


def test_other_bytes_never_take_the_place_of_damaged_ones(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    digest = sha256(bodies["b.png"])
    flip(archive.root / "p" / "b.png")
    harmed = archive.files()["p/b.png"]
    origin.add("/p/b.png", media.png(seed=99))

    for _ in range(2):
        done = archive.run("verify", "--repair")
        assert (done.code, flaws(done.out)) == (3, [("p", "p/b.png", "damaged")])
        assert "not repaired: ChecksumMismatch: the origin serves other bytes" in done.out
        assert archive.files()["p/b.png"] == harmed
        assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png"]
        [told] = archive.manifest("p")["errors"]
        assert told["error"] == "ChecksumMismatch"
        later = archive.run("verify")
        assert (later.code, flaws(later.out)) == (3, [("p", "p/b.png", "damaged")])

    record = in_catalog(archive.root / ".mirror" / "catalog.sqlite", lambda catalog: known(catalog, P))[P]
    [entry] = [file.entry for file in record.files if file.failure is not None]
    assert entry is not None
    assert entry.sha256 == digest
    origin.add("/p/b.png", bodies["b.png"])
    done = archive.run("verify", "--repair")
    assert (done.code, archive.files()["p/b.png"]) == (0, bodies["b.png"])
    assert (archive.manifest("p")["state"], archive.manifest("p")["errors"]) == ("complete", [])


@pytest.mark.parametrize("harm", [flip, Path.unlink], ids=["flipped", "deleted"])
def test_what_the_origin_has_no_more_stays_told(
    origin: Origin, archive: Archive, harm: Callable[[Path], object]
) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    harm(archive.root / "p" / "b.png")
    before = archive.files()
    origin.add("/p/b.png", b"", fault=faults.status(404, times=faults.FOREVER))
    flaw = "damaged" if "p/b.png" in before else "missing"

    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out), "not repaired: Gone" in done.out) == (3, [("p", "p/b.png", flaw)], True)
    assert archive.files().get("p/b.png") == before.get("p/b.png")
    # The manifest does not name it any more, and the catalog does.
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["a.png"]
    assert flaws(archive.run("verify").out) == [("p", "p/b.png", flaw)]


def test_a_prompt_that_the_service_denies_keeps_what_it_has(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    origin.prompt("p", answer(None, 900, "no data"))
    flip(archive.root / "p" / "b.png")
    before = archive.files()

    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out), "NoData" in done.out) == (3, [("p", "p/b.png", "damaged")], True)
    assert archive.files() == before
    assert flaws(archive.run("verify").out) == [("p", "p/b.png", "damaged")]


def test_a_file_that_the_service_names_no_more_is_not_forgotten(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    origin.prompt("p", answer(task("p", images=[(None, origin.url + "/p/a.png")])))
    (archive.root / "p" / "b.png").unlink()
    origin.clear()

    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (3, [("p", "p/b.png", "missing")])
    assert "the service names it no more" in done.out
    assert origin.media_requests == []
    [told] = archive.manifest("p")["errors"]
    assert told["url"] == origin.url + "/p/b.png"
    assert flaws(archive.run("verify").out) == [("p", "p/b.png", "missing")]


def test_a_signed_url_is_asked_for_anew(origin: Origin, archive: Archive) -> None:
    first = origin.add("/p/a.png?Signature=one&Expires=1", media.png())
    origin.prompt("p", answer(task("p", images=[(None, first)])))
    assert mirrored(archive, "p").code == 0
    origin.add("/p/a.png?Signature=one&Expires=1", b"", fault=faults.status(403, times=faults.FOREVER))
    second = origin.add("/p/a.png?Signature=two&Expires=2", media.png())
    origin.prompt("p", answer(task("p", images=[(None, second)])))
    (archive.root / "p" / "a.png").unlink()
    origin.clear()

    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/a.png", "repaired")])
    assert [request.query for request in origin.media_requests] == ["Signature=two&Expires=2"]


def test_what_failed_before_is_neither_tried_nor_forgotten(origin: Origin, archive: Archive) -> None:
    url, _ = picture(origin, "/p/a.png")
    origin.prompt("p", answer(task("p", images=[(None, url), (None, origin.url + "/gone.png")])))
    assert mirrored(archive, "p").code == 3
    errors = archive.manifest("p")["errors"]
    flip(archive.root / "p" / "a.png")
    origin.clear()

    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/a.png", "repaired")])
    assert paths(origin.media_requests) == ["/p/a.png"]
    assert archive.manifest("p")["errors"] == errors
    assert "Gone" in archive.run("status", "--failed").out


def test_a_folder_in_the_way_is_left_alone(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    at = archive.root / "p" / "a.png"
    at.unlink()
    at.mkdir()
    (at / "notes").write_text("somebody's")
    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (3, [("p", "p/a.png", "damaged")])
    assert "something else stands there: move it away" in done.out
    assert (at / "notes").read_text() == "somebody's"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_replaced(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").chmod(0)
    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/a.png", "repaired")])


@pytest.mark.parametrize("harm", [Path.unlink, truncate], ids=["deleted", "truncated"])
def test_a_manifest_is_written_anew(origin: Origin, archive: Archive, harm: Callable[[Path], object]) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    before = archive.manifest("p")
    at = archive.root / "p" / "manifest.json"
    harm(at)
    if at.exists():
        at.write_bytes(at.read_bytes()[:-40])
    (archive.root / "p" / "b.png").unlink()
    origin.clear()

    done = archive.run("verify", "--repair")
    assert done.code == 0, done.out
    assert flaws(done.out) == [("p", "p/b.png", "repaired"), ("p", "p/manifest.json", "repaired")]
    assert {**archive.manifest("p"), "mirrored_at": ""} == {**before, "mirrored_at": ""}
    assert paths(origin.media_requests) == ["/p/b.png"]


def test_a_flipped_digest_in_a_manifest_is_the_manifest_s_flaw(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    before, at = archive.manifest("p"), archive.root / "p" / "manifest.json"
    digest = sha256(bodies["a.png"])
    at.write_text(at.read_text().replace(digest, ("0" if digest[0] != "0" else "1") + digest[1:]))
    origin.clear()
    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/manifest.json", "repaired")])
    assert archive.manifest("p")["files"] == before["files"]
    assert origin.media_requests == []


def test_a_manifest_of_a_prompt_that_is_denied_cannot_come_back_and_nothing_is_forgotten(
    origin: Origin, archive: Archive
) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    origin.prompt("p", answer(None, 900, "no data"))
    (archive.root / "p" / "manifest.json").unlink()
    for _ in range(2):
        done = archive.run("verify", "--repair")
        assert (done.code, flaws(done.out)) == (3, [("p", "p/manifest.json", "missing")])
        assert "not repaired: NoData" in done.out
    assert "complete" in archive.run("status", "p").out


def test_a_file_of_two_prompts_is_fetched_once_and_is_good_in_both(origin: Origin, archive: Archive) -> None:
    url, body = picture(origin, "/shared.png")
    for prompt_id in ("p", "q"):
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    assert mirrored(archive, "p", "q").code == 0
    for prompt_id in ("p", "q"):  # one file or two
        at = archive.root / prompt_id / "shared.png"
        at.unlink()
        at.write_bytes(body[:-1] + b"!")
    origin.clear()
    done = archive.run("verify", "--repair")
    assert done.code == 0
    assert flaws(done.out) == [("p", "p/shared.png", "repaired"), ("q", "q/shared.png", "repaired")]
    assert len(origin.media_requests) == 1
    assert {archive.files()[f"{prompt_id}/shared.png"] for prompt_id in ("p", "q")} == {body}


def test_what_was_put_back_by_hand_is_named_again(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "b.png").unlink()
    origin.add("/p/b.png", b"", fault=faults.status(404, times=faults.FOREVER))
    assert archive.run("verify", "--repair").code == 3
    (archive.root / "p" / "b.png").write_bytes(bodies["b.png"])
    origin.clear()
    looked = archive.run("verify")
    assert (looked.code, "it is there again, but the manifest does not name it" in looked.out) == (3, True)
    done = archive.run("verify", "--repair")
    assert (done.code, origin.media_requests) == (0, [])
    assert (archive.manifest("p")["state"], len(archive.manifest("p")["files"])) == ("complete", 2)


def test_a_kill_in_the_middle_of_a_repair_loses_nothing(origin: Origin, archive: Archive) -> None:
    body = media.mp4(6 << 20)
    large_prompt(origin, "p", body)
    done_prompt(origin, "q", "a.png")
    assert mirrored(archive, "p", "q").code == 0
    at = archive.root / "p" / "large.mp4"
    flip(at)
    harmed = at.read_bytes()
    origin.add("/p/large.mp4", body, fault=faults.hold_after(4 << 20))

    with running(archive, "verify", "--repair") as process:
        archive.kill_when(process, lambda: origin.wait_for(lambda: journaled(archive) >= 2 << 20, 60))
    assert at.read_bytes() == harmed
    later = archive.run("verify")
    assert (later.code, flaws(later.out)) == (3, [("p", "p/large.mp4", "damaged")])

    origin.add("/p/large.mp4", body)
    origin.clear()
    done = archive.run("verify", "--repair")
    assert (done.code, flaws(done.out)) == (0, [("p", "p/large.mp4", "repaired")])
    assert at.read_bytes() == body
    assert origin.body_bytes("/p/large.mp4") <= len(body) - (2 << 20)
    assert archive.partials() == []
    assert archive.run("verify").code == 0


def test_more_flaws_than_are_repaired_together(origin: Origin, archive: Archive) -> None:
    ids = [f"p{number:03}" for number in range(60)]
    for prompt_id in ids:
        done_prompt(origin, prompt_id, "a.png", "b.png")
    assert mirrored(archive, *ids).code == 0
    before = archive.files()
    for prompt_id in ids:
        for name in ("a.png", "b.png"):
            (archive.root / prompt_id / name).unlink()
    origin.clear()
    done = archive.run("verify", "--repair")
    assert (done.code, len(flaws(done.out))) == (0, 120)
    assert {what for _, _, what in flaws(done.out)} == {"repaired"}
    assert len(origin.media_requests) == 120
    assert {path: body for path, body in archive.files().items() if "manifest" not in path} == {
        path: body for path, body in before.items() if "manifest" not in path
    }


def test_a_prompt_that_the_catalog_does_not_know_is_not_fetched(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "new", "a.png")
    assert mirrored(archive, "p").code == 0
    origin.clear()
    done = archive.run("verify", "new", "--repair")
    assert (done.code, flaws(done.out), origin.requests) == (3, [("new", "new/manifest.json", "missing")], [])


def test_a_rejected_token_stops_the_repair_and_forgets_nothing(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    assert mirrored(archive, "p").code == 0
    flip(archive.root / "p" / "a.png")
    environ = {"MIRROR_API_TOKEN": "another-token"}
    assert archive.run("verify", environ=environ).code == 3
    assert archive.run("verify", "--repair", environ=environ).code == 4
    assert archive.run("verify", "--repair", environ={"MIRROR_API_TOKEN": ""}).code == 2
    assert flaws(archive.run("verify").out) == [("p", "p/a.png", "damaged")]
    assert archive.run("verify", "--repair").code == 0


def test_repair_from_python(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").unlink()

    async def run() -> dict[str, bool | None]:
        async with Mirror(archive.settings()) as mirror, contextlib.aclosing(mirror.repair()) as found:
            return {checked.where: checked.repaired async for checked in found}

    assert asyncio.run(run()) == {"p/a.png": True, "p/b.png": None, "p/manifest.json": None}
