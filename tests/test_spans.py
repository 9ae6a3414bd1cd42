"""The arithmetic of spans, segments and digests, against a map of bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mirror import spans
from mirror.digests import KNOWN, Digests
from mirror.models import Span
from mirror.segments import Segments
from tests.properties import examples

modest = examples(100)


LENGTH = 40
some_spans = st.lists(
    st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(lambda ends: Span(min(ends), max(ends))), max_size=6
)


def painted(held: Sequence[Span]) -> bytearray:
    """The model: a byte for each byte, 1 where it is held."""
    model = bytearray(LENGTH)
    for span in held:
        model[span.start : span.stop] = b"\1" * span.size
    return model


@modest
@given(some_spans, st.integers(0, LENGTH), st.integers(1, 9))
def test_spans_are_what_a_map_of_bytes_says(held: list[Span], length: int, size: int) -> None:
    model = painted(held)
    merged = spans.merge(held)
    assert painted(merged) == model
    assert all(one.stop < other.start for one, other in pairwise(merged)), "neither touch nor overlap"
    assert all(span.size > 0 for span in merged)
    assert spans.size(held) == sum(model)
    assert spans.prefix(held) == len(model) - len(model.lstrip(b"\1"))
    gaps = spans.missing(held, length)
    assert painted(gaps) == bytes(at < length and not model[at] for at in range(LENGTH))
    assert gaps == spans.merge(gaps)
    pieces = spans.cut(gaps, size)
    assert all(0 < piece.size <= size for piece in pieces)
    assert [at for piece in pieces for at in range(piece.start, piece.stop)] == [
        at for gap in gaps for at in range(gap.start, gap.stop)
    ]


@modest
@given(some_spans, st.integers(1, 9), st.lists(st.integers(-1, 3), max_size=20))
def test_segments_hand_out_every_missing_byte_once(held: list[Span], size: int, steps: list[int]) -> None:
    """A stream goes on from the front, helpers take from the back: -1 is the stream, else what a helper fails at."""
    gaps = spans.missing(held, LENGTH)
    segments, fetched, at = Segments(gaps, size), bytearray(painted(held)), gaps[0].start if gaps else 0
    for step in steps:
        if step < 0:
            stop = segments.front(at)
            if stop is not None:
                assert 0 < stop - at <= size
                fetched[at:stop] = bytes(byte + 1 for byte in fetched[at:stop])
                at = stop
        elif (piece := segments.back()) is not None:
            assert 0 < piece.size <= size
            failed = min(step, piece.size)
            got = Span(piece.start, piece.stop - failed)
            fetched[got.start : got.stop] = bytes(byte + 1 for byte in fetched[got.start : got.stop])
            segments.give_back(Span(got.stop, piece.stop))
    segments.stop_sharing()
    assert segments.back() is None
    for start in range(LENGTH):
        stop = segments.front(start)
        if stop is not None:
            fetched[start:stop] = bytes(byte + 1 for byte in fetched[start:stop])
    assert segments.left == 0
    assert set(fetched) <= {1}


@modest
@given(st.lists(st.binary(max_size=50)), st.integers(0, 5), st.sets(st.sampled_from(sorted(KNOWN))))
def test_digests_are_those_of_all_bytes_so_far(chunks: list[bytes], split: int, known: set[str]) -> None:
    digests = Digests(f"etag-{name}" for name in known)
    for chunk in chunks[:split]:
        digests.update(chunk)
    before = digests.copy()
    for chunk in chunks[split:]:
        digests.update(chunk)
    for found, data in [(before, b"".join(chunks[:split])), (digests, b"".join(chunks))]:
        assert found.at == len(data)
        assert found.sha256 == hashlib.sha256(data).hexdigest()
        for name in known:
            expected = f"{zlib.crc32(data):08x}" if name == "crc32" else hashlib.new(name, data).hexdigest()
            assert found.hex(name) == found.hex(f"x-amz-{name}") == expected
