"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import compileall
import signal
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.bench import again, catalog, machine, media, nginx, page, peers, puts, report, results, soak, stream
from tests.bench.options import Options
from tests.bench.results import Section
from tests.bench.scenarios import buckets, disk, far, hashing, memory, near, resume, scale, start
from tests.bench.tools import CHECKOUT

SIDE_BY_SIDE: dict[str, Callable[[Options], Iterable[Section]]] = {
    "large": near.large,
    "small": near.small,
    "disk": disk.run,
    "far": far.run,
    "resume": resume.run,
    "hashing": hashing.run,
    "start": start.run,
    "memory": memory.run,
    "scale": scale.run,
    "puts": puts.run,
    "s3only": buckets.s3only,
    "copy": buckets.copy,
    "job": buckets.job,
}
"""These need nginx."""

ALONE: dict[str, Callable[[Options], None]] = {
    "again": again.run,
    "catalog": catalog.run,
    "stream": stream.run,
    "soak": soak.run,
}
_LONG = {"catalog", "soak"}
"""Not run unless it is named, or quick."""


def main() -> None:
    """Run the scenarios that are named, or all but the long ones."""
    scenarios = [*SIDE_BY_SIDE, *ALONE]
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the mirror, alone and beside other tools. No time is asserted.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(scenarios))
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it runs")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each tool (5)")
    parser.add_argument("--disk", type=Path, default=Path(), metavar="DIR", help="a folder on a real disk (here)")
    parser.add_argument(
        "--rows",
        type=int,
        default=10_000_000,
        metavar="N",
        help="files in the catalog that `catalog` makes (10,000,000)",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep what was found in this file, as JSON")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks.md from that file; with no SCENARIO, only that"
    )
    parser.add_argument("--install", action="store_true", help="install the peers that come from PyPI, and end")
    given = parser.parse_args()
    if given.install:
        peers.install()
        return
    unknown = set(given.scenarios) - set(scenarios)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(scenarios)}")
    if given.write and not given.results:
        parser.error("--write needs --results")
    if given.scenarios or not given.write:
        _measure(given, scenarios)
    if given.write:
        _write(given.results)


def _measure(given: argparse.Namespace, scenarios: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers and folders go, too
    options = Options(given.quick, given.runs, given.disk.resolve(), given.rows)
    compileall.compile_dir(CHECKOUT / "mirror", quiet=2)
    wanted = given.scenarios or [name for name in scenarios if given.quick or name not in _LONG]
    _say_what_is_missing(wanted)
    for name in wanted:
        _run(name, options, given.results)


def _run(name: str, options: Options, kept: Path | None) -> None:
    if name in ALONE:
        ALONE[name](options)
        return
    if not nginx.found():
        return
    told = {"date": datetime.now(UTC).date().isoformat(), "machine": machine.described(), "load": machine.load()}
    for section in SIDE_BY_SIDE[name](options):
        made = msgspec.structs.replace(section, quick=options.quick, **told)
        report.show(made)
        if kept:
            results.save(kept, [made])


def _write(kept: Path) -> None:
    from tests.bench import plot  # noqa: PLC0415 - needs matplotlib, which measuring does not

    sections = results.load(kept)
    page.write(sections)
    plot.write(sections.values(), page.PLOT)
    print(f"{page.PAGE}\n{page.PLOT}")


def _say_what_is_missing(wanted: list[str]) -> None:
    if not any(name in SIDE_BY_SIDE for name in wanted):
        return
    print(f"{machine.described()}; what is fetched stands below {media.memory_folder()}, except for `disk`")
    if not nginx.found():
        print(f"nginx is not installed, nothing is compared: {nginx.INSTALL}")
    for name, how in peers.missing().items():
        print(f"{name} is left out, it is not installed: {how}")


if __name__ == "__main__":
    main()
