"""What a power cut tears of partial files and their journals: cut, zeroed and garbled, it costs bytes only.

Every row starts from what a run left that was killed by SIGKILL. Nothing wrong ever stands under a final name.
`MIRROR_TORN_EXAMPLES` sets how many positions are tried where Hypothesis chooses them.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.manifests.document import decode
from tests import faults
from tests.conftest import Archive
from tests.helpers import journaled, mirrored
from tests.torn import ANY, MIB, WHERE, Damage, Torn, chosen, cut, garbled, journal, longer, part, zeroed

pytestmark = pytest.mark.usefixtures("unmeasured")

SEGMENTS = {"MIRROR_TRANSFER_SEGMENT_SIZE": str(MIB)}


def hole(where: float) -> Damage:
    def act(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(int(where * path.stat().st_size))
            file.write(bytes(4096))

    return act


def tail_again(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[-1])


def all_again(path: Path) -> None:
    path.write_bytes(2 * path.read_bytes())


def new_left(content: Callable[[bytes], bytes]) -> Damage:
    """A kill in the middle of the journal's rewriting, of which the name is not there yet."""
    return lambda path: path.with_name(f"{path.name}.new").write_bytes(content(path.read_bytes()))


OF_A_PARTIAL = ANY | {
    "garbled": garbled(0.4, 5000),
    "a hole": hole(0.2),
    "longer than claimed": longer(5000),
    "longer than the file": longer(8 * MIB),
}
OF_A_JOURNAL = ANY | {
    "a garbled line": garbled(0.6),
    "the last line twice": tail_again,
    "all twice": all_again,
    "a tail of zeroes behind it": lambda path: path.write_bytes(path.read_bytes() + bytes(4096)),
    "a new one left": new_left(bytes),
    "half a new one left": new_left(lambda content: content[: len(content) // 2]),
}


@pytest.fixture
def torn(archive: Archive) -> Torn:
    return Torn(archive)


@pytest.fixture(params=["one stream", "segments"])
def partial(request: pytest.FixtureRequest, torn: Torn) -> Torn:
    """A run that was killed when it had most of a large file, which came in order or in several places at once."""
    if request.param == "segments":
        # Slow from the front, and held in its third part; two others are whole, and of each later one a half is held.
        slow = faults.Fault("slow", lambda f, r: replace(f.reply(r), rate=4 * MIB, hold=5 * MIB // 2))
        torn.serve(slow, faults.behave(times=2), faults.hold_after(MIB // 2, times=faults.FOREVER))
        torn.killed_when(lambda: journaled(torn.archive) > 2 * MIB, **SEGMENTS)
    else:
        torn.serve(faults.hold_after(5 * MIB))
        torn.killed_when(lambda: journaled(torn.archive) > 3 * MIB)
    return torn


def test_a_torn_partial_or_journal_costs_bytes_only(partial: Torn) -> None:
    for of, damages in ((part, OF_A_PARTIAL), (journal, OF_A_JOURNAL)):
        for name, damage in damages.items():
            partial.heals((damage, of))
            sent = partial.origin.body_bytes("/q")
            assert 0 < sent <= 6 * MIB, f"{of.__name__}: {name}"
            if name == "as it was":
                assert sent < 4 * MIB


def test_wherever_they_are_torn(partial: Torn) -> None:
    damages = st.sampled_from([cut, zeroed, garbled])

    @chosen
    @given(damages, WHERE, damages, WHERE)
    def torn_at(one: Callable[[float], Damage], at: float, other: Callable[[float], Damage], there: float) -> None:
        partial.heals((one(at), journal), (other(there), part))

    torn_at()


# A file that has its name, and no row


@pytest.fixture
def committed(torn: Torn) -> Torn:
    """A run that was killed when a large file had got its name and its row was not written: the catalog was locked."""
    torn.serve(faults.hold_after(5 * MIB))
    catalog = torn.archive.root / ".mirror" / "catalog.sqlite"
    with contextlib.ExitStack() as stack:

        def published() -> bool:
            if journaled(torn.archive) > 3 * MIB and not locked:
                connection = sqlite3.connect(catalog, timeout=60, isolation_level=None)
                locked.append(stack.enter_context(contextlib.closing(connection)))
                locked[0].execute("BEGIN IMMEDIATE")
                torn.origin.release("/q/large.mp4")
            return (torn.archive.root / "q" / "large.mp4").exists()

        locked: list[sqlite3.Connection] = []
        torn.killed_when(published)
    return torn


def test_a_published_file_is_believed_if_its_bytes_are_there(committed: Torn) -> None:
    for damage in (OF_A_JOURNAL["as it was"], OF_A_JOURNAL["the last line twice"], OF_A_JOURNAL["a new one left"]):
        committed.heals((damage, journal))
        assert committed.origin.body_bytes("/q") == 0
    for damage in (*OF_A_JOURNAL.values(), *(garbled(at / 20) for at in range(20))):
        committed.heals((damage, journal))


def test_a_published_file_of_other_bytes_is_vouched_for_by_nobody(committed: Torn) -> None:
    """As `durability = "fast"` may leave it. It is not ours to remove: the right one stands beside it."""
    for damage in (cut(0.5), cut(0), zeroed(0.5), zeroed(0), garbled(0.3), longer(10)):
        archive = committed.copy()
        damage(archive.root / "q" / "large.mp4")
        assert mirrored(archive, "p", "q").code == 0
        [file] = decode((archive.root / "q" / "manifest.json").read_bytes()).files
        assert file.path != "large.mp4"
        assert (archive.root / "q" / file.path).read_bytes() == committed.bodies["q/large.mp4"]
        shutil.rmtree(archive.root)
