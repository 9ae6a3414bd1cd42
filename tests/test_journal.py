"""The journal of a partial file, cut or damaged anywhere: a prefix of what was written, and never anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.models import Receipt
from mirror.stores import Head
from mirror.stores.journal import VERSION, Claim, Committed, Record, Started, journal_of
from tests.properties import examples

RECORDS: list[Record] = [
    Started(version=VERSION, identity="https://h/ü.png", head=Head(length=100, etag='"x"', checks={"sha1": "0" * 40})),
    Claim(start=0, stop=50, sha256="0" * 64),
    Claim(start=70, stop=100, crc32=7),
    Committed(folder="p", receipt=Receipt(path="a.png", bytes=100, sha256="0" * 64)),
]


def content_of(records: list[Record]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.journal"
        journal = journal_of(path)
        journal.rewrite(records)
        journal.close()
        return path.read_bytes()


WHOLE = content_of(RECORDS)


def read(content: bytes) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.journal"
        path.write_bytes(content)
        return journal_of(path).read()


def test_a_whole_one() -> None:
    assert read(WHOLE) == RECORDS


def test_cut_anywhere() -> None:
    for at in range(len(WHOLE)):
        assert read(WHOLE[:at]) == RECORDS[: WHOLE[:at].count(b"\n")]


@pytest.mark.parametrize("garbage", [b"\0" * 512, b"00000000 {}\n", b"\xff" * 9 + b"\n", WHOLE[:30]])
def test_and_garbled_from_there_on(garbage: bytes) -> None:
    for at in range(0, len(WHOLE), 7):
        assert read(WHOLE[:at] + garbage) == RECORDS[: WHOLE[:at].count(b"\n")]


def test_a_bit_flipped_anywhere() -> None:
    """One bit, or up to 32 in a row: the checksum finds each of them, and what stands after is not believed either."""
    for at in range(len(WHOLE)):
        for bit in (0, 5, 7):
            content = bytearray(WHOLE)
            content[at] ^= 1 << bit
            assert read(bytes(content)) == RECORDS[: WHOLE[:at].count(b"\n")], f"bit {bit} of byte {at}"


@examples(100)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 60), st.binary(max_size=12)), max_size=4))
def test_any_damage(edits: list[tuple[int, int, bytes]]) -> None:
    content = bytearray(WHOLE)
    for start, size, other in edits:
        content[start : start + size] = other
    found = read(bytes(content))
    lines = bytes(content).split(b"\n")
    assert found == [] or found[0] == RECORDS[0]
    assert all(record in RECORDS for record in found), "never a record that was not written"
    assert len(found) < len(lines)


@pytest.mark.parametrize("wrong", [{"start": -1}, {"stop": -5}, {"stop": 2**64}, {"start": 1.5}, {"start": None}])
def test_a_claim_of_what_no_file_has_is_none(wrong: dict[str, object]) -> None:
    """The checksum is right: somebody else's journal, or a later version's."""
    claim = Claim(**{"start": 0, "stop": 50, **wrong})  # type: ignore[arg-type]
    assert read(content_of([RECORDS[0], claim, RECORDS[2]])) == RECORDS[:1]
