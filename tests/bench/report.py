"""What is printed: a table a section, and a line a target."""

from __future__ import annotations

from tests.bench.results import Section


def show(section: Section) -> None:
    """Print a section."""
    print(f"\n{section.title}")
    for line in table(section.header, section.rows):
        print(f"  {line}")
    for note in section.notes:
        print(f"  {note}")
    for verdict in () if section.quick else section.verdicts:
        print(f"  → {verdict}")


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]
