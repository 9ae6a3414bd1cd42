"""Writes the page of faults from the rows that the tests run.

``python -m tests.fault_page > docs/reliability-faults.md``
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from tests import (
    api_table,
    test_faults_api,
    test_faults_content,
    test_faults_http,
    test_faults_places,
    test_faults_wire,
)
from tests.fault_table import BODY, CUT, Row

Cells: TypeAlias = tuple[str, str, str]

PAGE = "docs/reliability-faults.md"

_HEAD = """\
# What goes wrong, and what mirror does

Each row of these tables is a fault that the tests make happen on a real socket. Each is met twice, through the real
command line (`mirror fetch --json`) and through the Python API, and both must come to the same end. Then the fault is
lifted and the same ids are fetched again: in every row that run completes the prompt with the requests that are still
needed, leaves no partial file behind, and ends with exit code 0.

In every row, whatever comes of the file itself:

- the file next to it in the same prompt, with which nothing is wrong, is mirrored;
- what stands under a final name has the right bytes, and the manifest names exactly what is there, with its SHA-256;
- the manifest on disk is the one that was told.

The tests give a file three attempts (`transfer.attempts`; the default is five). A file that fails leaves its prompt
`partial`, the error's name stands in the manifest's `errors` and in `mirror status`, and the run ends with exit code 3.

This page is made from the tests' own rows by `python -m tests.fault_page`, and a test holds the two together.
"""

_FILES = f"""\
## The file's origin

The service answers well; what is wrong is where the file comes from. The file has {len(BODY):,} bytes, and where an
answer breaks off in its middle, {CUT:,} of them have come. "Resumed" means that these are kept and only the rest is
asked for; "started over" that they are thrown away.
"""

_API = """\
## The service

What is wrong is the answer about a promptId. `unresolved` means that the service could not be asked: nothing is
written, and the next run asks again. `unknown` means that it knows no such prompt.
"""

_BESIDES = """\
## What takes more than one answer

| fault | what mirror does | test |
| --- | --- | --- |
"""

STORIES = (
    (
        "a signed URL has expired (403)",
        "the service is asked once for a fresh URL; what had come before is kept, and the rest asked for there",
        "TestExpiredUrl",
    ),
    (
        "a byte a second",
        "after a minute below `transfer.min_rate` the request is given up, and tried again",
        "test_a_byte_a_second",
    ),
    (
        "a connection is closed while it is idle, or just as it is used again",
        "another one is opened; nothing fails",
        "test_the_pool_forgets_what_was_closed",
    ),
    (
        "a body is longer than its Content-Length, and what is too much answers the next request",
        "that request is tried again on a new connection; no other file fails or gets these bytes",
        "test_what_a_body_has_too_much_harms_no_other_file",
    ),
    (
        "mirror reads slower than the server sends (`--limit-rate`)",
        "complete: a body whose reader pauses is not taken for one that was cut",
        "test_a_reader_that_is_throttled_gets_all_bytes",
    ),
    (
        "a child's state goes back from done to queued, or the service denies the prompt",
        "what was mirrored stays, and the prompt is asked about again until it is done",
        "test_a_state_that_goes_back_takes_nothing_with_it",
    ),
)
"""Each is told by the test of that name in ``tests/test_faults.py``."""

_WHAT_COMES = {
    "complete": "complete",
    "partial": "partial",
    "pending": "pending: asked again by the next run",
    "failed": "failed upstream",
    "unknown": "unknown",
    "unresolved": "unresolved",
    None: "the run stops, and says that the token is rejected",
}


def page() -> str:
    """The whole page as Markdown."""
    modules = (test_faults_wire, test_faults_http, test_faults_content, test_faults_places)
    parts = [_HEAD, _FILES]
    for section in (section for module in modules for section in module.SECTIONS):
        parts += [_table(section.title, section.lead, map(_of_file, section.rows))]
    parts += [_BESIDES + "".join(f"| {fault} | {does} | `{test}` |\n" for fault, does, test in STORIES), _API]
    parts += [_table(section.title, section.lead, map(_of_api, section.rows)) for section in test_faults_api.SECTIONS]
    return "\n".join(parts)


def _table(title: str, lead: str, rows: Iterator[Cells]) -> str:
    cells = [("fault", "what mirror does", "requests"), ("---", "---", "---"), *rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    text = textwrap.wrap(lead, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join([f"### {title}", "", *([*text, ""] if text else []), *lines, ""])


def _of_file(row: Row) -> Cells:
    ending = _failed(row) if row.error else _complete(row)
    return _cell(row.name), _noted(ending, row.note), _requests(row.asked)


def _complete(row: Row) -> str:
    if isinstance(row.asked, int):
        return "complete"
    if row.replaced:
        return "complete: the whole file comes instead of the rest, and is taken from its start"
    ranges = [each != "whole" for each in row.asked]
    if not any(ranges):
        return "complete" if len(row.asked) == 1 else "complete, tried again"
    return "complete, resumed" if ranges[-1] else "complete, started over"


def _failed(row: Row) -> str:
    once = isinstance(row.asked, Sequence) and len(row.asked) == 1
    later = row.later if isinstance(row.later, Sequence) else []
    return f"fails as `{row.error}`{' at once' if once else ''}{'; the next run resumes it' if later else ''}"


def _noted(text: str, note: str) -> str:
    return f"{text}; {note}" if note else text


def _requests(asked: Sequence[str] | int) -> str:
    if isinstance(asked, int):
        return f"at most {asked}"
    if not asked:
        return "none arrives"
    shown = ["whole" if each == "whole" else f"from {int(each.partition('-')[0]):,}" for each in asked]
    return "1" if shown == ["whole"] else f"{len(asked)}: {', '.join(shown)}"


def _of_api(row: api_table.Row) -> Cells:
    error = f" (`{row.error}`)" if row.error else ""
    ending = f"{_WHAT_COMES[row.state]}{error}, exit code {row.code}"
    if row.files and row.state != "complete":
        ending += "; the file that can be read is mirrored"
    asked = f"at most {2 * row.asked}" if row.reconnects else str(row.asked)
    return _cell(row.name), _noted(ending, row.note), asked


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
