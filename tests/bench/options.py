"""What every scenario is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line's flags.

    Attributes:
        quick: Far less of everything, one run: shows that it runs and that results are right. No figure counts.
        runs: How often each tool does each job.
        disk: A folder on a real disk, for what is to be measured there.
        rows: Files in the catalog that `catalog` makes.
    """

    quick: bool = False
    runs: int = 5
    disk: Path = Path()
    rows: int = 10_000_000

    @property
    def times(self) -> int:
        return 1 if self.quick else self.runs
