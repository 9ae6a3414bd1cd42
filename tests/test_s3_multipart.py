"""Multipart uploads: how large their parts are, and what a damaged journal leads to: never to a wrong object."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import settings as at_most
from hypothesis import strategies as st

from mirror import Settings
from mirror.places import open_places
from mirror.stores import Head
from mirror.stores.s3.multipart import MIB, MOST_PARTS, Begun, Part, Uploads, _fits, part_size
from mirror.stores.s3.objects import Described
from mirror.stores.s3.store import S3Store
from tests.helpers import sha256
from tests.s3.bucket import Bucket
from tests.s3.servers import Server
from tests.s3_runs_small import BODY, HEAD, TARGET, as_user, finished, in_bucket, interrupted, settings_for

TIB = 1 << 40
modest = at_most(max_examples=300, deadline=None)


@modest
@given(st.integers(0, 5 * TIB) | st.integers(0, 100 * MIB))
@example(0)
@example(256 * MIB)
@example(256 * MIB + 1)
@example(MOST_PARTS * 8 * MIB)
@example(MOST_PARTS * 8 * MIB + 1)
@example(5 * TIB)
def test_parts_are_whole_mebibytes_large_enough_and_few_enough(length: int) -> None:
    size = part_size(length)
    assert size >= 5 * MIB
    assert size % MIB == 0
    assert -(-length // size) <= 10_000
    assert size <= max(8 * MIB, length // 10_000 + MIB), "and no larger than they must be"


@pytest.mark.parametrize(
    ("length", "size"),
    [(None, 8), (9 * MIB, 5), (256 * MIB, 5), (256 * MIB + 1, 8), (80_000 * MIB, 8), (80_000 * MIB + 1, 9)],
)
def test_how_large_parts_are(length: int | None, size: int) -> None:
    assert part_size(length) == size * MIB


@pytest.mark.parametrize(
    ("number", "size", "length", "fits"),
    [
        (1, 5 * MIB, 12 * MIB, True),
        (2, 5 * MIB, 12 * MIB, True),
        (3, 2 * MIB, 12 * MIB, True),
        (3, 2 * MIB - 1, 12 * MIB, False),
        (3, 2 * MIB + 1, 12 * MIB, False),
        (1, 5 * MIB - 1, 12 * MIB, False),
        (2, 2 * MIB, 12 * MIB, False),
        (1, 0, 12 * MIB, False),
        (1, 5 * MIB, None, True),
        (4, 1 * MIB, None, False),
    ],
)
def test_a_part_fits_that_has_the_size_of_all_or_ends_the_whole(
    number: int, size: int, length: int | None, fits: bool
) -> None:
    begun = Begun(upload_id="u", part_size=5 * MIB, checksum="sha256", head=Head(length=length))
    assert _fits(Part(number=number, size=size, etag="e"), begun) is fits


# The journal


@pytest.fixture
def place(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    as_user(ministack, monkeypatch)
    return Bucket.new(ministack)


@pytest.fixture
def settings(place: Bucket, root: Path) -> Settings:
    return settings_for(place, root, s3_prefix="films")


def journal_in(root: Path) -> Path:
    [found] = (root / ".mirror" / "parts").glob("*.upload")
    return found


def line(record: dict[str, Any]) -> bytes:
    text = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def records(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(each.partition(b" ")[2]) for each in content.splitlines()]


def with_changed(number: int, **values: Any) -> Callable[[bytes], bytes]:
    """The journal with other values in one of its records, its checksum right."""

    def damage(content: bytes) -> bytes:
        found = records(content)
        found[number] |= values
        return b"".join(map(line, found))

    return damage


def first(content: bytes) -> int:
    """Where the first record ends."""
    return content.index(b"\n") + 1


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    # what happened to the journal → whether its upload may be gone on with
    "nothing": (lambda content: content, True),
    "more after it": (lambda content: content + b"\0" * 100, True),
    "empty": (lambda _: b"", False),
    "torn after the first record": (lambda content: content[: first(content)], False),
    "torn in the second record": (lambda content: content[: first(content) + 40], False),
    "another version": (with_changed(0, version=2), False),
    "another bucket": (with_changed(0, bucket="somebody-elses"), False),
    "another key": (with_changed(0, key="films/p/other.mp4"), False),
    "another file": (with_changed(0, identity="http://o/other.mp4"), False),
    "another checksum": (with_changed(1, checksum="when_required"), False),
    "an upload that is no more": (with_changed(1, upload_id="gone"), False),
    "parts of another size": (with_changed(1, part_size=6 * MIB), False),
    "parts of no size": (with_changed(1, part_size=0), False),
    "a time that is none": (with_changed(0, at="yesterday"), False),
}


async def damaged(store: S3Store, damage: Callable[[bytes], bytes]) -> None:
    """Do that to the journal, then look for journals as the next run does when it opens the store."""
    journal = journal_in(store.objects.disk.parts.parent.parent)
    journal.write_bytes(damage(journal.read_bytes()))
    await store.uploads.scan()


@pytest.mark.parametrize("case", DAMAGE)
def test_whatever_happens_to_the_journal_the_object_becomes_right(
    case: str, settings: Settings, place: Bucket, root: Path
) -> None:
    damage, may_go_on = DAMAGE[case]
    before: list[dict[str, Any]] = []

    async def go_on(store: S3Store) -> None:
        await interrupted(store)
        before.extend(place.uploads())
        await damaged(store, damage)
        sink = await store.sink(TARGET)
        held = sink.written()
        await sink.close()
        assert held == sorted(held)
        assert bool(held) is may_go_on
        assert all(0 <= span.start < span.stop <= len(BODY) for span in held)
        receipt = await finished(store)
        assert receipt.s3 is not None
        assert (receipt.s3.key, receipt.sha256) == ("films/p/film.mp4", sha256(BODY))

    in_bucket(settings, go_on)
    assert place.keys() == ["films/p/film.mp4"]
    assert place.server.client().get_object(Bucket=place.name, Key="films/p/film.mp4")["Body"].read() == BODY
    assert list(root.rglob("*.upload*")) == []
    assert len(before) == 1
    assert place.uploads() in ([], before), "nothing new is left behind"


@pytest.mark.parametrize("at", ["yesterday", "2026-01-01T00:00:00"])
def test_an_intention_with_a_time_that_cannot_be_compared_does_not_stop_the_run(
    at: str, settings: Settings, place: Bucket, root: Path
) -> None:
    def damage(content: bytes) -> bytes:
        changed = with_changed(0, at=at)(content)
        return changed[: first(changed)]

    async def look(store: S3Store) -> None:
        await interrupted(store)
        await damaged(store, damage)
        sink = await store.sink(TARGET)
        assert sink.written() == []
        await sink.close()

    in_bucket(settings, look)


def test_a_journal_torn_at_any_byte_names_an_upload_whole_or_not_at_all(
    settings: Settings, place: Bucket, root: Path
) -> None:
    """The intention alone is enough to find the upload: only what cannot name that either is lost."""
    in_bucket(settings, interrupted)
    journal = journal_in(root)
    content = journal.read_bytes()
    store = open_places(settings).bucket
    assert store is not None
    uploads = Uploads(store.objects)
    whole = uploads.read(uploads.journal(journal.stem))
    assert None not in whole
    for length in range(len(content)):
        journal.write_bytes(content[:length])
        expected = (whole[0] if length >= first(content) else None, None)
        assert uploads.read(uploads.journal(journal.stem)) == expected, length
    for at in range(0, len(content), 3):
        journal.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        found = uploads.read(uploads.journal(journal.stem))
        assert found == (whole[0] if at >= first(content) else None, None), at
    one, two = content[: first(content)], content[first(content) :]
    for damaged, named in (
        (two + one, False),
        (one + one, True),
        (bytes(range(256)) * 8, False),
        (one + two + one, True),
    ):
        journal.write_bytes(damaged)
        meant, begun = uploads.read(uploads.journal(journal.stem))
        assert meant == (whole[0] if named else None)
        assert begun == (whole[1] if damaged.startswith(content) else None)


@pytest.mark.parametrize("keep", ["all of it", "the first record", "nothing"])
def test_cleanup_aborts_what_the_journal_still_names(keep: str, settings: Settings, place: Bucket, root: Path) -> None:
    """An upload with parts is somebody's who knows its id: without the second record nothing says that this is us."""

    def damage(content: bytes) -> bytes:
        return {"all of it": content, "the first record": content[: first(content)], "nothing": b""}[keep]

    async def act(store: S3Store) -> int:
        await interrupted(store)
        await damaged(store, damage)
        return await store.cleanup()

    aborted = in_bucket(settings, act)
    assert aborted == (1 if keep == "all of it" else 0)
    assert len(place.uploads()) == 1 - aborted
    assert list(root.rglob("*.upload*")) == []


def test_cleanup_leaves_another_buckets_upload_and_its_journal_alone(
    settings: Settings, place: Bucket, ministack: Server, root: Path
) -> None:
    other = Bucket.new(ministack)
    in_bucket(settings_for(other, root, s3_prefix="films"), interrupted)
    assert in_bucket(settings, lambda store: store.cleanup()) == 0
    assert len(other.uploads()) == 1
    assert journal_in(root).exists()
    assert in_bucket(settings_for(other, root, s3_prefix="films"), lambda store: store.cleanup()) == 1
    assert other.uploads() == []


LOST: dict[str, tuple[Callable[[str], dict[str, Any]], int]] = {
    # what the intention says, from the id of the upload that is there, and how many are aborted
    "it was not there before": (lambda _: {}, 1),
    "our clock was behind the store's": (lambda _: {"at": shifted(-7)}, 1),
    "it was there before": (lambda name: {"before": [name]}, 0),
    "what was there before is not known": (lambda _: {"before": None}, 0),
    "it was begun much later": (lambda _: {"at": shifted(-60)}, 0),
}


def shifted(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


@pytest.mark.parametrize("case", LOST)
def test_an_upload_whose_id_was_lost_is_aborted_and_no_other(case: str, settings: Settings, place: Bucket) -> None:
    changes, expected = LOST[case]

    async def act(store: S3Store) -> int:
        journal = store.uploads.journal(store._name(TARGET.identity))
        described = Described(prompt_id="p", source=TARGET.identity)
        await store.uploads.begin(journal, TARGET.identity, "films/p/film.mp4", HEAD, described)
        [name] = [upload["UploadId"] for upload in place.uploads()]

        def lost(content: bytes) -> bytes:
            changed = with_changed(0, **changes(name))(content)
            return changed[: first(changed)]

        await damaged(store, lost)
        return await store.cleanup()

    assert in_bucket(settings, act) == expected
    assert len(place.uploads()) == 1 - expected
