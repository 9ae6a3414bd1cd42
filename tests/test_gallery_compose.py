"""From a manifest to what is shown of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mirror.gallery.compose import kind_of, shown, thumbnails
from mirror.gallery.previews import Preview, key_of
from mirror.gallery.records import Card, Detail
from mirror.manifests.document import decode
from mirror.models import Manifest
from tests.shelf import child


def entry(path: str, role: str, *named: tuple[str, int, str], **more: Any) -> dict[str, Any]:
    return {
        "path": path,
        "role": role,
        "url": f"https://media.example.com/{path}",
        "bytes": 7,
        "sha256": f"{sum(path.encode()):064x}",
        "named_by": [
            {"prompt_id": prompt_id, "task_id": 1, "image_id": image, "field": field}
            for prompt_id, image, field in named
        ],
        **more,
    }


def manifest(*files: dict[str, Any], task: dict[str, Any] | None = None, **more: Any) -> Manifest:
    told = {
        "version": 1,
        "prompt_id": "root",
        "state": "complete",
        "mirrored_at": "2026-01-29T13:54:20Z",
        "api": {"url": "https://api.example.com/getTaskInfo"},
        "task": {"promptId": "root", "taskType": 3, "state": 30} | (task or {}),
        "files": files,
        **more,
    }
    return decode(json.dumps(told).encode())


def both(of: Manifest, *previews: str) -> tuple[Card, Detail]:
    """What is shown; of the named thumbnails there are previews."""
    small = {
        key_of(file): Preview(name=f"small/{file.path}", width=4, height=3)
        for file in of.files
        if file.path in previews
    }
    return shown(of, lambda file: f"../root/{file.path}", "../root/manifest.json", small)


def test_an_original_goes_with_the_thumbnail_of_its_place() -> None:
    of = manifest(
        entry("1s.png", "thumbnail", ("root", 1, "path")),
        entry("2s.png", "thumbnail", ("root", 2, "path")),
        entry("2.png", "origin", ("root", 2, "origin")),
        entry(
            "1.mp4", "origin", ("root", 1, "origin"), media={"kind": "video", "seconds": 2.5, "width": 9, "height": 16}
        ),
    )
    card, detail = both(of, "1s.png", "2s.png")
    pairs = [
        (detail.files[item.file].path, detail.files[item.thumb].path if item.thumb is not None else None)
        for group in detail.groups
        for item in group.items
    ]
    assert pairs == [("2.png", "2s.png"), ("1.mp4", "1s.png")]
    assert (card.pictures, card.videos, card.items) == (1, 1, 2)
    assert [(tile.src, tile.video, tile.seconds) for tile in card.tiles] == [
        ("small/2s.png", "", 0.0),
        ("small/1s.png", "../root/1.mp4", 2.5),
    ]
    assert [(tile.width, tile.height) for tile in card.tiles] == [(4, 3), (9, 16)], "its own size, else the preview's"


def test_a_file_is_shown_once_with_the_child_that_names_it() -> None:
    of = manifest(
        entry(
            "s.png", "thumbnail", ("root", 1, "thumbFileUrl"), ("root", 1, "path"), ("a", 1, "path"), ("b", 2, "path")
        ),
        entry("a.mp4", "origin", ("root", 1, "origin"), ("a", 1, "origin")),
        entry("b.mp4", "origin", ("root", 2, "origin"), ("b", 2, "origin")),
        entry("old.png", "origin"),
        task={"taskList": [child("a"), child("b"), child("c", 2, "no face"), child("d", 10)]},
    )
    card, detail = both(of)
    told = [(group.id, group.state, [detail.files[item.file].path for item in group.items]) for group in detail.groups]
    assert told == [
        ("root", "done", ["old.png"]),
        ("a", "done", ["a.mp4"]),
        ("b", "done", ["b.mp4"]),
        ("c", "failed", []),
        ("d", "queued", []),
    ]
    assert [tile.state for tile in card.tiles] == ["", "", "", "failed"]
    assert (card.items, card.failures, card.reason) == (5, 1, "no face")
    assert card.children == ("a", "b", "c", "d")


def test_thumbnails_alone_are_shown_and_a_cover_is_not_shown_twice() -> None:
    alone = manifest(entry("s.png", "thumbnail", ("root", 1, "path")))
    card, _ = both(alone, "s.png")
    assert (card.items, card.tiles[0].src) == (1, "small/s.png")
    covered = manifest(
        entry("cover.png", "thumbnail", ("root", 0, "thumbFileUrl")),
        entry("s.png", "thumbnail", ("root", 1, "path")),
        entry("1.png", "origin", ("root", 1, "origin")),
    )
    card, detail = both(covered)
    assert (card.items, len(detail.files)) == (1, 3)


def test_a_thumbnail_that_is_a_video_has_no_preview_and_its_original_is_not_read() -> None:
    of = manifest(
        entry("s.mp4", "thumbnail", ("root", 1, "path"), content_type="video/mp4"),
        entry("1.mp4", "origin", ("root", 1, "origin"), content_type="video/mp4"),
    )
    assert list(thumbnails(of)) == []
    card, _ = both(of)
    assert (card.tiles[0].src, card.tiles[0].video) == ("", "../root/1.mp4")


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"media": {"kind": "video"}, "content_type": "image/png"}, "video"),
        ({"content_type": "IMAGE/png; x"}, "image"),
        ({"content_type": "binary/octet-stream"}, "video"),
        ({}, "video"),
    ],
)
def test_what_kind_a_file_is(told: dict[str, Any], kind: str) -> None:
    assert kind_of(manifest(entry("a.mp4", "origin", **told)).files[0]) == kind


@pytest.mark.parametrize(
    ("task", "modified", "at"),
    [
        ({"createdAt": 1769594620}, None, "2026-01-28T10:03:40Z"),
        ({"createdAt": "1769594620000"}, None, "2026-01-28T10:03:40Z"),
        ({"createdAt": "2026-01-28T12:03:40+02:00"}, None, "2026-01-28T10:03:40Z"),
        ({"createdAt": 1e300}, "2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
        ({"createdAt": 10**400}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": -(10**400)}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": "1" + "0" * 400}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": -1}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": True}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": 999_999_999_999_999}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": "9999-12-31T23:59:59-14:00"}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": "0001-01-01T00:00:00+14:00"}, None, "2026-01-29T13:54:20Z"),
        ({"createdAt": "soon"}, None, "2026-01-29T13:54:20Z"),
        ({}, "not a date", "2026-01-29T13:54:20Z"),
    ],
)
def test_when_a_prompt_was_made(task: dict[str, Any], modified: str | None, at: str) -> None:
    of = manifest(entry("1.png", "origin", ("root", 1, "origin"), last_modified=modified), task=task)
    assert both(of)[0].at == at


def test_a_manifest_without_a_task_or_with_odd_values_is_shown_all_the_same() -> None:
    card, detail = both(manifest(entry("1.png", "origin"), task=None, state="partial", mirrored_at="\u2028"))
    assert (card.state, card.at, detail.mirrored_at) == ("partial", "", "")
    odd = {"taskList": "none", "imageList": 7, "reason": 5, "state": "30", "taskType": "4", "extra": {"deep": 1}}
    card, detail = both(manifest(task=odd | {"prompt": "a cat", "count": 3, "nothing": None}))
    assert (card.type, card.text, card.reason) == (4, "a cat", "5")
    assert detail.facts == (("prompt", "a cat"), ("count", "3"))


def test_a_number_that_a_script_would_round_is_text() -> None:
    largest = 2**63 - 1
    card, detail = both(manifest(task={"taskType": largest, "taskId": -largest}))
    assert (card.type, detail.groups[0].type, detail.groups[0].task_id) == (str(largest), str(largest), str(-largest))
    assert both(manifest(task={"taskType": 2**53 - 1}))[0].type == 2**53 - 1


def test_all_reasons_are_searched_and_that_of_a_failure_is_shown() -> None:
    children = [child("a", 30, "all went well"), child("b", 20, "wait a while"), child("c", 2, "no face")]
    error = {"error": "Gone", "message": "HTTP 404"}
    files = [entry(f"{number}.png", "origin") for number in range(400)]
    of = manifest(*files, task={"taskList": children, "prompt": "a cat " * 200}, errors=[error])
    card, _ = both(of)
    assert card.reason == "no face"
    assert card.text == f"{'a cat ' * 200} HTTP 404 all went well wait a while"
    assert card.names[-1] == "399.png"
    long, _ = both(manifest(task={"reason": "x" * 500 + " end"}))
    assert (long.reason, long.text) == ("x" * 400, "x" * 500 + " end")


def test_numbers_beyond_all_measure_are_shown_as_they_are() -> None:
    huge = 10**400
    task = {"count": huge, "taskType": huge, "state": huge, "reason": huge, "yes": True}
    card, detail = both(manifest(entry("1.png", "origin", media={"kind": "image", "width": huge}), task=task))
    assert (card.type, card.reason, detail.files[0].width) == (None, str(huge)[:400], 0)
    assert dict(detail.facts) == {"count": str(huge), "yes": "True"}


def test_what_is_lost_is_told_with_its_checksum() -> None:
    was = entry("lost.png", "origin")
    error = {"url": was["url"], "role": "origin", "error": "Gone", "message": "gone", "attempts": 2, "was": was}
    card, detail = both(manifest(state="partial", errors=[error]))
    assert (card.failures, card.reason) == (1, "gone")
    assert detail.errors[0].was == f"lost.png, SHA-256 {was['sha256']}"
