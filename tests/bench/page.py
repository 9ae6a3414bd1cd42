"""The page of the figures: what was found, written between two marks of `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bench.results import Section, Used

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PLOT = PAGE.with_suffix(".svg")
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def write(sections: Mapping[str, Section], page: Path = PAGE) -> None:
    """Write what was measured between the page's marks; the rest of the page stays as it is.

    Raises:
        SystemExit: it has no marks.
    """
    before, began, rest = page.read_text("utf-8").partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not began or not ended:
        raise SystemExit(f"{page} lacks its marks: {_BEGIN.strip()} and {_END.strip()}")
    page.write_text(before + began + "\n" + "\n".join(_lines(sections.values())) + "\n" + ended + after, "utf-8")


def _lines(sections: Iterable[Section]) -> Iterable[str]:
    made = list(sections)
    yield from (f"Machine: {machine}.  " for machine in dict.fromkeys(section.machine for section in made))
    yield ""
    yield from _targets(made)
    for section in made:
        yield from _section(section)
    yield from _commands(made)


def _targets(sections: list[Section]) -> Iterable[str]:
    yield from ("### What was asked for, and what came of it", "")
    yield from _table(
        ["scenario", "", "measured", "asked", ""],
        (
            [section.name, each.what, each.measured, each.asked, "reached" if each.reached else "**not reached**"]
            for section in sections
            for each in section.verdicts
        ),
    )


def _section(section: Section) -> Iterable[str]:
    yield from (f"### {section.title}", "")
    yield from _table(section.header, section.rows)
    for note in section.notes:
        yield f"{note}  "
    shrunk = ", `--quick`: no figure counts" if section.quick else ""
    yield f"Measured on {section.date}, load average {section.load:.1f} when it began{shrunk}."
    yield ""


def _commands(sections: list[Section]) -> Iterable[str]:
    yield from ("### Versions", "")
    versions = {each.version: None for section in sections for each in section.used}
    yield from (f"- {version}" for version in versions)
    yield from ("", "### Commands", "")
    for section in sections:
        if section.used:
            yield from (f"{section.name}:", "", "```sh")
            yield from (_command(each) for each in section.used)
            yield from ("```", "")


def _command(used: Used) -> str:
    return f"{used.command}  # {used.tool}"


def _table(header: list[str], rows: Iterable[list[str]]) -> Iterable[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|---{'|--:' * (len(header) - 1)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
