"""The page of faults says what the tests' rows say."""

from __future__ import annotations

import re
from pathlib import Path

from tests import test_faults
from tests.fault_page import PAGE, STORIES, page


def test_the_page_is_what_the_rows_say() -> None:
    written = (Path(__file__).parents[1] / PAGE).read_text()
    assert written == page(), f"make it anew: python -m tests.fault_page > {PAGE}"


def test_no_two_rows_of_a_table_have_one_name() -> None:
    for table in page().split("\n##")[1:]:
        names = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
        assert len(set(names)) == len(names), names


def test_what_takes_more_than_one_answer_is_tested() -> None:
    code = Path(test_faults.__file__).read_text()
    assert [name for *_, name in STORIES if not re.search(rf"(class|def) {name}\b", code)] == []
