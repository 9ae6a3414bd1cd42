"""docs/reliability-peers.md names tests: they exist, and every test of test_peers.py is named there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs" / "reliability-peers.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.search(r"#\d", line)]
NAMED = re.compile(r"`tests/(test_\w+\.py)::(test_\w+)`")


def names_in(file: str) -> set[str]:
    """The names of a file's tests, read and not collected; empty where there is no such file."""
    path = HERE / file
    tree = ast.parse(path.read_text("utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_complaint_names_tests_that_exist(row: str) -> None:
    named = NAMED.findall(row)
    assert named, "no test shows it"
    assert row.count("tests/") == len(named), "a name that cannot be read"
    assert [f"{file}::{name}" for file, name in named if name not in names_in(file)] == []


@pytest.mark.parametrize(("module", "row"), re.findall(r"`tests/(\w+)\.py::test_fault` \(([^)]*)\)", PAGE))
def test_a_row_of_a_fault_table_exists(module: str, row: str) -> None:
    sections = importlib.import_module(f"tests.{module}").SECTIONS
    assert row in {each.name for section in sections for each in section.rows}


def test_every_test_about_a_complaint_is_in_the_table() -> None:
    assert names_in("test_peers.py") == {name for file, name in NAMED.findall(PAGE) if file == "test_peers.py"}
