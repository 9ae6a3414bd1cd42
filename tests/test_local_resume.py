"""What the local store keeps of a file that is not finished: after any end of a process, only bytes it can prove."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.models import Receipt
from mirror.stores import Head, Target
from mirror.stores.journal import Committed, Started, journal_of
from mirror.stores.local import LocalStore
from tests.properties import examples
from tests.store_runs import (
    BODY,
    HEAD,
    SHA256,
    TARGET,
    complete,
    finished,
    held_after,
    in_store,
    is_right,
    journal,
    part,
    parts,
    put,
    recovered,
    settings,
)


class TestTakenUpAgain:
    def test_by_the_next_run(self, root: Path) -> None:
        held_after(root, (0, 50_000), (50_000, 90_000), (120_000, 130_000))
        assert recovered(root) == [(0, 90_000), (120_000, 130_000)]
        assert recovered(root) == [(0, 90_000), (120_000, 130_000)]
        assert is_right(root, finished(root))

    def test_with_the_version_it_belongs_to(self, root: Path) -> None:
        head = Head(length=len(BODY), etag='"1"', last_modified="then", content_type="a/b", checks={"sha256": SHA256})
        held_after(root, (0, 50_000), head=head)

        async def act(store: LocalStore) -> Head | None:
            sink = await store.sink(TARGET)
            await sink.close()
            return sink.head

        assert in_store(root, act) == head

    def test_by_another_try_of_the_same_run(self, root: Path) -> None:
        async def act(store: LocalStore) -> list[tuple[int, int]]:
            first = await store.sink(TARGET)
            await first.begin(HEAD)
            await put(first, (0, 90_000))
            await first.close()
            second = await store.sink(TARGET)
            held = [(span.start, span.stop) for span in second.written()]
            await complete(second)
            await second.commit()
            await store.settle(TARGET.identity)
            return held

        assert in_store(root, act) == [(0, 90_000)]
        assert (root / "p" / "film.mp4").read_bytes() == BODY
        assert parts(root) == []

    def test_after_close_without_flush(self, root: Path) -> None:
        async def act(store: LocalStore) -> None:
            sink = await store.sink(TARGET)
            await sink.begin(HEAD)
            await sink.write(0, BODY[:1000])
            await sink.write(5000, BODY[5000:6000])
            await sink.write(1000, BODY[1000:2000])
            await sink.close()
            await sink.close()

        in_store(root, act)
        assert recovered(root) == [(0, 2000), (5000, 6000)]

    def test_but_not_for_another_file(self, root: Path) -> None:
        held_after(root, (0, 90_000))
        other = Target(identity="http://o/another.mp4", folder="p", names=("another.mp4",))
        part(root).rename(part(root).with_stem(self.key(other)))
        journal(root).rename(journal(root).with_stem(self.key(other)))
        assert recovered(root, other) == []

    def key(self, target: Target) -> str:
        return hashlib.sha256(target.identity.encode()).hexdigest()[:32]

    def test_abort_drops_it(self, root: Path) -> None:
        held_after(root, (0, 90_000))

        async def act(store: LocalStore) -> None:
            sink = await store.sink(TARGET)
            await sink.abort()
            assert (sink.head, sink.written()) == (None, [])
            await sink.close()

        in_store(root, act)
        assert parts(root) == []


class TestDamage:
    """After three claims in order, of 0-50, 50-90 and 90-150 kB."""

    @pytest.fixture(autouse=True)
    def _held(self, root: Path) -> None:
        held_after(root, (0, 50_000), (50_000, 90_000), (90_000, 150_000))

    def check(self, root: Path, *expected: tuple[int, int]) -> None:
        assert recovered(root) == list(expected)
        assert is_right(root, finished(root))

    def test_none(self, root: Path) -> None:
        self.check(root, (0, 150_000))

    def test_a_torn_journal(self, root: Path) -> None:
        content = journal(root).read_bytes()
        journal(root).write_bytes(content[:-5])
        self.check(root, (0, 90_000))

    def test_a_journal_without_its_last_newline(self, root: Path) -> None:
        content = journal(root).read_bytes()
        journal(root).write_bytes(content[:-1])
        self.check(root, (0, 90_000))

    def test_a_garbled_line(self, root: Path) -> None:
        lines = journal(root).read_bytes().splitlines(keepends=True)
        lines[2] = lines[2].replace(b"50000", b"40000")
        journal(root).write_bytes(b"".join(lines))
        self.check(root, (0, 50_000))

    def test_a_garbled_first_line(self, root: Path) -> None:
        """It still reads as a journal, of another version of the file: only its checksum tells."""
        content = journal(root).read_bytes()
        journal(root).write_bytes(content.replace(b'\\"1\\"', b'\\"2\\"'))
        assert journal(root).read_bytes() != content
        self.check(root)

    @pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\n" * 9, b"00000000 {}\n"])
    def test_a_journal_that_is_none(self, root: Path, content: bytes) -> None:
        journal(root).write_bytes(content)
        self.check(root)

    def test_a_journal_of_another_version(self, root: Path) -> None:
        written = journal_of(journal(root))
        first, *claims = written.read()
        assert isinstance(first, Started)
        written.rewrite([Started(version=2, identity=first.identity, head=first.head), *claims])
        written.close()
        self.check(root)

    def test_a_digest_that_nobody_knows(self, root: Path) -> None:
        """As a later version may take one."""
        written = journal_of(journal(root))
        first, *claims = written.read()
        assert isinstance(first, Started)
        head = msgspec.structs.replace(first.head, checks={"blake7": "00"})
        written.rewrite([msgspec.structs.replace(first, head=head), *claims])
        written.close()
        self.check(root)

    def test_no_journal(self, root: Path) -> None:
        journal(root).unlink()
        self.check(root)

    def test_no_data(self, root: Path) -> None:
        part(root).unlink()
        self.check(root)

    def test_data_cut_short(self, root: Path) -> None:
        os.truncate(part(root), 149_999)
        self.check(root, (0, 90_000))

    def test_data_full_of_zeros(self, root: Path) -> None:
        """As a power cut leaves it, when the length was written and the bytes were not."""
        os.truncate(part(root), 60_000)
        os.truncate(part(root), 150_000)
        self.check(root, (0, 50_000))

    def test_data_garbled_in_the_middle(self, root: Path) -> None:
        with part(root).open("r+b") as file:
            file.seek(70_000)
            file.write(b"garbled")
        self.check(root, (0, 50_000))


def test_a_garbled_segment_costs_itself_only(root: Path) -> None:
    held_after(root, (150_000, 200_000), (100_000, 150_000), (0, 50_000))
    with part(root).open("r+b") as file:
        file.seek(120_000)
        file.write(b"garbled")
    assert recovered(root) == [(0, 50_000), (150_000, 200_000)]
    assert is_right(root, finished(root))


class TestBetweenTheNameAndTheCatalog:
    """The journal says that a file was published; the process ended before anybody could note it."""

    def killed(self, root: Path) -> Receipt:
        """A run that commits and never settles."""
        held_after(root, (0, 90_000))

        async def act(store: LocalStore) -> Receipt:
            sink = await store.sink(TARGET)
            await complete(sink)
            receipt = await sink.commit()
            await sink.close()
            return receipt

        return in_store(root, act)

    def sink(self, root: Path, target: Target = TARGET) -> Receipt | None:
        async def act(store: LocalStore) -> Receipt | None:
            sink = await store.sink(target)
            await sink.close()
            return sink.committed

        return in_store(root, act)

    def test_the_receipt_is_found_again(self, root: Path) -> None:
        receipt = self.killed(root)
        assert parts(root) == [".journal"]
        assert self.sink(root) == receipt
        assert self.sink(root) == receipt

    def test_settling_ends_it(self, root: Path) -> None:
        receipt = self.killed(root)
        assert finished(root) == receipt
        assert is_right(root, receipt)
        assert self.sink(root) is None

    def test_settling_something_else_does_not(self, root: Path) -> None:
        receipt = self.killed(root)
        in_store(root, lambda store: store.settle("http://o/another.mp4"))
        assert self.sink(root) == receipt

    def test_the_kill_came_before_the_name(self, root: Path) -> None:
        receipt = self.killed(root)
        film = root / "p" / "film.mp4"
        film.rename(journal(root).with_suffix(".part"))
        assert self.sink(root) is None
        assert recovered(root) == [(0, 200_000)]
        assert finished(root) == receipt
        assert is_right(root, receipt)

    @pytest.mark.parametrize("damage", [b"", BODY[:-1], BODY + b"\0", BODY[:-1] + b"\0"])
    def test_the_file_is_not_what_it_was(self, root: Path, damage: bytes) -> None:
        self.killed(root)
        (root / "p" / "film.mp4").write_bytes(damage)
        assert self.sink(root) is None
        receipt = finished(root)
        assert is_right(root, receipt)
        assert receipt.path == "film-1.mp4"

    @pytest.mark.parametrize(
        "target",
        [
            Target(identity=TARGET.identity, folder="q", names=TARGET.names),
            Target(identity=TARGET.identity, folder="p", names=("renamed.mp4",)),
        ],
    )
    def test_it_was_published_elsewhere(self, root: Path, target: Target) -> None:
        self.killed(root)
        assert self.sink(root, target) is None

    def test_a_journal_that_names_another_place(self, root: Path, tmp_path: Path) -> None:
        """What the journal says is data, too: it cannot make a file outside of the folder count."""
        receipt = self.killed(root)
        (tmp_path / "film.mp4").write_bytes(BODY)
        (root / "p" / "film.mp4").unlink()
        written = journal_of(journal(root))
        records = [record for record in written.read() if not isinstance(record, Committed)]
        elsewhere = Receipt(path="../../film.mp4", bytes=receipt.bytes, sha256=SHA256)
        written.rewrite([*records, Committed(folder="p", receipt=elsewhere)])
        written.close()
        assert self.sink(root) is None


SPANS = st.tuples(st.integers(0, len(BODY) - 1), st.integers(1, 60_000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), SPANS),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("kill"), st.none()),
        st.tuples(st.just("tear"), st.floats(0, 1)),
        st.tuples(st.just("garble"), st.integers(0, len(BODY) - 1)),
    ),
    max_size=16,
)


@examples(100)
@given(steps=STEPS)
def test_any_sequence_ends_with_the_right_bytes(steps: list[tuple[str, Any]]) -> None:
    """Whatever is written, in whatever order, and wherever the journal is torn: what is held is right."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(Played(Path(folder)).play(steps))


class Played:
    """A sequence of runs of which each ends well, is killed, or is damaged after its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "0"

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        await self.open()
        for step, value in steps:
            await getattr(self, step)(value)
        await complete(self.sink)
        receipt = await self.sink.commit()
        await self.store.settle(TARGET.identity)
        await self.close()
        assert is_right(self.root, receipt)

    async def open(self) -> None:
        self.store = LocalStore(settings(self.root, archive_durability="fast"))
        self.store.open()
        self.sink = await self.store.sink(TARGET)
        if self.sink.written():
            on_disk = part(self.root).read_bytes()
            assert all(on_disk[span.start : span.stop] == BODY[span.start : span.stop] for span in self.sink.written())

    async def close(self) -> None:
        await self.sink.close()
        self.store.close()

    async def write(self, span: tuple[int, int]) -> None:
        start, size = span
        if self.sink.head is None:
            await self.sink.begin(HEAD)
        await self.sink.write(start, BODY[start : start + size])

    async def flush(self, _: None) -> None:
        await self.sink.flush()

    async def reopen(self, _: None) -> None:
        held = self.sink.written()
        await self.close()
        await self.open()
        assert self.sink.written() == held

    async def kill(self, _: None) -> None:
        """What stands on disk now is all that the next run finds."""
        left = self.folder / str(int(self.root.name) + 1)
        shutil.copytree(self.root, left)
        await self.close()
        self.root = left
        await self.open()

    async def tear(self, where: float) -> None:
        await self.close()
        for path in (self.root / ".mirror" / "parts").glob("*.journal"):
            os.truncate(path, int(where * path.stat().st_size))
        await self.open()

    async def garble(self, at: int) -> None:
        await self.close()
        for path in (self.root / ".mirror" / "parts").glob("*.part"):
            content = bytearray(path.read_bytes())
            if at < len(content):
                content[at] ^= 0xFF
                path.write_bytes(content)
        await self.open()
