"""What every Store and Sink promises of a body, held against each of them: the disk, and buckets on three servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mirror.errors import ChecksumMismatch, MirrorError, Severity
from mirror.models import Receipt, Span
from mirror.stores import Head, Sink, Store
from tests import media
from tests.helpers import sha256
from tests.store_contract import (
    LARGE,
    LARGER,
    SMALL,
    Case,
    bring,
    checks_of,
    head_of,
    new_case,
    small_and_large,
    without_checksum,
    write,
)
from tests.store_places import MIB, PART, Place, everywhere, on_each_kind, opened


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with opened(request, tmp_path_factory) as made:
        yield made


@pytest.fixture
def case(place: Place) -> Case:
    return new_case(place)


@everywhere
class TestCommit:
    @pytest.mark.parametrize("size", [0, 1, 8 * MIB, 2 * PART])
    def test_a_body_is_there_byte_for_byte_and_the_receipt_says_what_it_is(self, case: Case, size: int) -> None:
        body = LARGER[:size]
        head = head_of(body, checks=checks_of(body))

        receipt = case.store(body, head)

        assert case.read_back == {"film.mp4": body}
        where = case.place.placed(case.folder, "film.mp4")
        assert without_checksum(receipt) == without_checksum(
            Receipt(
                path="film.mp4",
                bytes=size,
                sha256=sha256(body),
                content_type="video/mp4",
                etag='"v1"',
                last_modified="2026-01-28T10:03:40Z",
                verified=("length", *checks_of(body)),
                s3=where,
            )
        )
        told = receipt.s3.checksum_sha256 if receipt.s3 else None
        assert told in {None, where.checksum_sha256 if where else None}
        assert case.unfinished == []

    @pytest.mark.parametrize("size", [0, 200_000, 16 * MIB + 1])
    def test_a_length_that_nobody_told_is_that_of_what_came(self, case: Case, size: int) -> None:
        body = media.blob(size, seed=3)
        receipt = case.store(body, Head(length=None))
        assert (receipt.bytes, receipt.sha256, receipt.verified) == (size, sha256(body), ())
        assert (receipt.content_type, receipt.etag, receipt.last_modified) == (None, None, None)
        assert case.files == {"film.mp4": body}
        assert case.unfinished == []

    @small_and_large
    def test_nothing_is_seen_under_the_name_before(self, case: Case, body: bytes) -> None:
        seen = []

        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            await bring(sink, body, head_of(body), meanwhile=lambda: seen.append(case.files))
            await sink.close()

        case.run(act)
        assert seen == [{}]
        assert case.files == {"film.mp4": body}

    @pytest.mark.parametrize(
        ("body", "check"),
        [(SMALL, "etag-md5"), (SMALL, "sha1"), (SMALL, "sha256"), (SMALL, "crc32"), (b"", "sha256"), (LARGE, "md5")],
        ids=["md5", "sha1", "sha256", "crc32", "empty", "large"],
    )
    def test_a_digest_that_is_not_met_drops_it_all(self, case: Case, body: bytes, check: str) -> None:
        async def act(store: Store) -> Receipt:
            sink = await store.sink(case.target())
            with pytest.raises(ChecksumMismatch, match=check) as caught:
                await bring(sink, body, head_of(body, checks={check: "00"}))
            assert caught.value.severity is Severity.TRANSIENT
            assert (sink.head, sink.written(), sink.committed) == (None, [], None)
            assert (case.files, case.unfinished) == ({}, [])
            receipt = await bring(sink, SMALL, head_of(SMALL))  # the same sink may try again
            await sink.close()
            return receipt

        assert case.run(act).sha256 == sha256(SMALL)
        assert case.files == {"film.mp4": SMALL}

    def test_other_bytes_than_those_mirrored_before_are_an_end(self, case: Case) -> None:
        target = case.target("film.mp4", sha256=sha256(b"what was mirrored before"))
        with pytest.raises(ChecksumMismatch, match="mirror forget") as caught:
            case.store(SMALL, target=target)
        assert caught.value.severity is Severity.ITEM
        assert (case.files, case.unfinished) == ({}, [])

    @pytest.mark.parametrize(("body", "wrong"), [(SMALL, 1), (SMALL, -1), (LARGE, 1)], ids=["less", "more", "large"])
    def test_a_length_that_is_not_met_is_not_published(self, case: Case, body: bytes, wrong: int) -> None:
        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            await sink.begin(head_of(body, length=len(body) + wrong))
            await write(sink, body)
            with pytest.raises(MirrorError):
                await sink.commit()
            await sink.abort()
            await sink.close()

        case.run(act)
        assert (case.files, case.unfinished) == ({}, [])


@on_each_kind
class TestAbort:
    @pytest.mark.parametrize("size", [0, PART + 1, 11 * MIB])
    def test_nothing_is_left(self, case: Case, size: int) -> None:
        async def act(store: Store) -> Receipt:
            sink = await store.sink(case.target())
            await sink.begin(head_of(LARGER))
            await write(sink, LARGER[:size])
            await sink.abort()
            assert (sink.head, sink.written(), sink.committed) == (None, [], None)
            assert (case.files, case.unfinished) == ({}, [])
            await sink.abort()
            receipt = await bring(sink, SMALL, head_of(SMALL))  # and it goes on anew
            await sink.close()
            return receipt

        assert case.run(act).sha256 == sha256(SMALL)
        assert case.files == {"film.mp4": SMALL}

    def test_of_what_an_earlier_process_left(self, case: Case) -> None:
        case.leave(LARGER, 2 * PART + 1)
        assert case.unfinished

        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            assert sink.head == head_of(LARGER)
            await sink.abort()
            await sink.close()

        case.run(act)
        assert case.unfinished == []


@everywhere
class TestTakenUp:
    @pytest.mark.parametrize(
        ("body", "size", "again"),
        [(SMALL, 100_000, False), (LARGER, 2 * PART + 1, False), (LARGER, 11 * MIB, True)],
        ids=["a little", "two parts", "all, then all again"],
    )
    def test_a_new_process_takes_up_what_was_kept(self, case: Case, body: bytes, size: int, again: bool) -> None:
        head = head_of(body, checks=checks_of(body))
        case.leave(body, size, head)
        assert case.files == {}

        async def act(store: Store) -> tuple[list[Span], Receipt]:
            sink = await store.sink(case.target())
            held = sink.written()
            assert sink.head == (head if held else None)
            receipt = await bring(sink, body, head, again=again)
            await sink.close()
            await store.settle(case.target().identity)
            return held, receipt

        held, receipt = case.run(act)
        kept = sum(span.size for span in held)
        assert held == ([Span(0, kept)] if kept else [])
        assert case.place.least_kept(size) <= kept <= size
        assert (receipt.bytes, receipt.sha256) == (len(body), sha256(body))
        assert receipt.verified == ("length", *checks_of(body))
        assert case.files == {"film.mp4": body}
        assert case.unfinished == []


@on_each_kind
class TestBegunAnew:
    def test_what_two_processes_brought_is_checked_as_a_whole(self, case: Case) -> None:
        """The first one got other bytes than the second: nobody may find them under the name."""
        head = head_of(LARGER, checks={"sha256": sha256(LARGER)})
        case.leave(bytes(2 * PART + 1), 2 * PART + 1, head)

        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            assert sink.written()
            with pytest.raises(ChecksumMismatch):
                await bring(sink, LARGER, head)
            assert (case.files, case.unfinished) == ({}, [])
            await bring(sink, SMALL, head_of(SMALL))
            await sink.close()

        case.run(act)
        assert case.files == {"film.mp4": SMALL}

    def test_another_file_begins_anew(self, case: Case) -> None:
        case.leave(LARGER, 2 * PART + 1)
        other = case.target(which="another")

        async def act(store: Store) -> None:
            sink = await store.sink(other)
            assert (sink.head, sink.written(), sink.committed) == (None, [], None)
            await sink.close()

        case.run(act)
        assert case.store(SMALL, target=other).path == "film.mp4"
        receipt = case.store(LARGER)  # the first of the two goes beside it
        assert (receipt.path, receipt.sha256) == ("film-1.mp4", sha256(LARGER))
        assert case.files == {"film.mp4": SMALL, "film-1.mp4": LARGER}
        assert case.unfinished == []

    def test_another_version_begins_anew(self, case: Case) -> None:
        case.leave(LARGER, 2 * PART + 1)
        receipt = case.store(LARGE, head_of(LARGE, etag='"v2"'))
        assert (receipt.sha256, receipt.etag) == (sha256(LARGE), '"v2"')
        assert case.files == {"film.mp4": LARGE}
        assert case.unfinished == []

    def test_a_body_that_comes_from_its_start_again(self, case: Case) -> None:
        """An origin that serves no ranges: the same sink is begun twice."""

        async def act(store: Store) -> Receipt:
            sink = await store.sink(case.target())
            for stop in (PART + 1, 0):
                await sink.begin(head_of(LARGE))
                assert sink.written() == []
                await write(sink, LARGE[:stop])
            receipt = await bring(sink, LARGE, head_of(LARGE))
            await sink.close()
            await store.settle(case.target().identity)
            return receipt

        assert case.run(act).sha256 == sha256(LARGE)
        assert case.files == {"film.mp4": LARGE}
        assert case.unfinished == []


@dataclass(frozen=True)
class Ended:
    """A file that was published by a process that ended before it was recorded."""

    body: bytes
    head: Head


ENDED = {
    "small": Ended(SMALL, head_of(SMALL)),
    "large": Ended(LARGE, head_of(LARGE)),
    "large, no ETag": Ended(LARGE, head_of(LARGE, etag=None)),
    "no length": Ended(SMALL, head_of(SMALL, length=None)),
    "large, no length": Ended(media.blob(16 * MIB + 1, seed=4), Head(length=None, etag='"v1"')),
}


@on_each_kind
class TestEndedBeforeItWasRecorded:
    @pytest.mark.parametrize("known", [False, True], ids=["by its ETag", "mirrored before"])
    def test_it_is_found_again_and_not_a_byte_is_asked_for(self, case: Case, known: bool) -> None:
        """Where there was a journal: a large file."""
        target = case.target(sha256=sha256(LARGE) if known else None)
        receipt = case.store(LARGE, head_of(LARGE, etag=None if known else '"v1"'), target, settled=False)
        case.place.restart()

        async def act(store: Store) -> Receipt:
            sink = await store.sink(target)
            found = sink.committed or await sink.commit()
            await sink.close()
            await store.settle(target.identity)
            return found

        assert case.run(act) == receipt
        assert case.files == {"film.mp4": LARGE}
        assert case.unfinished == []

    def test_not_once_it_is_recorded(self, case: Case) -> None:
        case.store(LARGE)
        case.place.restart()

        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            assert (sink.head, sink.written(), sink.committed) == (None, [], None)
            await sink.close()

        case.run(act)

    @pytest.mark.parametrize("name", ENDED)
    def test_it_is_not_stored_twice(self, case: Case, name: str) -> None:
        body, head = ENDED[name].body, ENDED[name].head
        first = case.store(body, head, settled=False)
        case.place.restart()
        second = case.store(body, head)
        assert (second.path, second.sha256) == (first.path, first.sha256) == ("film.mp4", sha256(body))
        assert case.files == {"film.mp4": body}
        assert case.unfinished == []

    def test_it_is_not_found_for_another_version(self, case: Case) -> None:
        case.store(LARGE, settled=False)
        case.place.put(case.folder, "film.mp4", LARGE[::-1])
        case.place.restart()

        async def act(store: Store) -> Sink:
            sink = await store.sink(case.target())
            await sink.close()
            return sink

        assert case.run(act).committed is None
        assert case.files == {"film.mp4": LARGE[::-1]}
