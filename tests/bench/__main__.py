"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable

from tests.bench import again, puts, stream

SCENARIOS: dict[str, Callable[..., None]] = {"again": again.run, "puts": puts.run, "stream": stream.run}


def main() -> None:
    """Run the scenarios that are named, or all."""
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
    for name in given.scenarios or SCENARIOS:
        SCENARIOS[name](quick=given.quick)


if __name__ == "__main__":
    main()
