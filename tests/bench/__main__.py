"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable

from tests.bench import again, puts, soak, stream

SCENARIOS: dict[str, Callable[..., None]] = {
    "again": again.run,
    "puts": puts.run,
    "stream": stream.run,
    "soak": soak.run,
}
_LONG = {"soak"}
"""Not run unless it is named, or quick."""


def main() -> None:
    """Run the scenarios that are named, or all but the long ones."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure the mirror. Nothing is asserted."
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it runs")
    given = parser.parse_args()
    unknown = set(given.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    print(f"Python {platform.python_version()}, {platform.machine()}")
    usual = [name for name in SCENARIOS if given.quick or name not in _LONG]
    for name in given.scenarios or usual:
        SCENARIOS[name](quick=given.quick)


if __name__ == "__main__":
    main()
