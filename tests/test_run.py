"""What a run's visits share: which files were stored last, and whether that answers a question about the catalog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror import run
from mirror.run import Recent


def test_a_file_is_looked_for_only_by_who_began_before_it_was_stored() -> None:
    recent = Recent()
    recent.add("a")
    assert recent.count == 1
    assert recent.may_have("a", 0)
    assert not recent.may_have("a", 1), "whoever began now has seen it in the catalog"
    assert not recent.may_have("b", 0)


def test_a_file_that_is_stored_once_more_is_new_again() -> None:
    recent = Recent()
    for identity in ("a", "b", "a"):
        recent.add(identity)
    assert recent.count == 3
    assert recent.may_have("a", 2)
    assert not recent.may_have("b", 2)


def test_what_was_forgotten_may_have_been_anything() -> None:
    recent = Recent()
    most = run._RECENT
    for number in range(most + 10):
        recent.add(str(number))
    assert recent.count == most + 10
    assert recent.may_have("never", 0), "it may be one of the ten that were forgotten"
    assert recent.may_have("0", 9)
    assert not recent.may_have("0", 10), "all that came since are known"
    assert recent.may_have(str(most + 9), 10)
    assert len(vars(recent)["_numbers"]) == most


def test_the_one_that_was_stored_longest_ago_is_forgotten_first() -> None:
    recent = Recent()
    recent.add("a")
    for number in range(run._RECENT - 1):
        recent.add(str(number))
    recent.add("a")
    recent.add("one more")
    assert recent.may_have("a", recent.count - 2)
    assert "0" not in vars(recent)["_numbers"]


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("abcdef")))
def test_false_is_said_for_certain(before: list[str], after: list[str]) -> None:
    recent = Recent()
    for identity in before:
        recent.add(identity)
    seen = recent.count
    for identity in after:
        recent.add(identity)
    for identity in "abcdef":
        assert recent.may_have(identity, seen) == (identity in after)


@pytest.mark.parametrize("times", [1, 100_000])
def test_one_file_again_and_again_takes_one_place(times: int) -> None:
    recent = Recent()
    for _ in range(times):
        recent.add("a")
    assert len(vars(recent)["_numbers"]) == 1
    assert recent.may_have("a", times - 1)
