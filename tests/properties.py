"""How many examples a property is tried on, how one that failed is had again, and inputs that are nearly valid."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from hypothesis import settings
from hypothesis import strategies as st

MORE = int(os.environ.get("MIRROR_FUZZ_EXAMPLES", "0"))
"""Examples of each property at least: a long campaign sets it."""

# Each run tries other examples, in CI too. What fails is printed as an example, and as a line that has it again.
settings.register_profile("mirror", max_examples=max(100, MORE), deadline=None, print_blob=True, derandomize=False)

T = TypeVar("T")


def examples(count: int) -> settings:
    """So many examples, or as many as a long campaign asks for."""
    return settings(max_examples=max(count, MORE))


class Luck(Protocol):
    """Where decisions come from: a seeded generator, or hypothesis."""

    def below(self, stop: int) -> int: ...


_ODD = (b"\0", b"\n", b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"-1", b"1e999", b"9" * 20, b"../", b"%00", b"\\u0000")


def mutated(valid: bytes, tokens: Sequence[bytes], luck: Luck) -> bytes:
    """A few edits of what is valid: bits flipped, pieces left out, doubled, or replaced by what is odd."""
    data = bytearray(valid)
    for _ in range(luck.below(5)):
        start = luck.below(len(data) + 1)
        stop = min(len(data), start + luck.below(2 if luck.below(2) else 40))
        match luck.below(5):
            case 0:
                data[start:stop] = bytes(byte ^ (1 << luck.below(8)) for byte in data[start:stop])
            case 1:
                del data[start:stop]
            case 2:
                data[start:start] = data[start:stop] * (1 + luck.below(8))
            case 3:
                among = (*tokens, *_ODD)
                data[start:stop] = among[luck.below(len(among))]
            case _:
                del data[start:]
    return bytes(data)


class _Drawn:
    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self._draw = draw

    def below(self, stop: int) -> int:
        return self._draw(st.integers(0, stop - 1))


def near(valid: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """What is valid, or nearly so."""

    @st.composite
    def drawn(draw: st.DrawFn) -> bytes:
        return mutated(draw(st.sampled_from(valid)), tokens, _Drawn(draw))

    return drawn()
