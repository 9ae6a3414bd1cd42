"""Where a scenario plays: a temporary folder in memory, and an origin that serves what stands in it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import media, nginx
from tests.bench.media import Media
from tests.bench.tools import Job, job


@dataclass(frozen=True)
class Stage:
    """A folder for everything, and the origin. Both are gone when the scenario is over."""

    folder: Path
    origin: nginx.Origin

    def media(self, name: str, count: int, size: int) -> Media:
        """Files of a size, which the origin serves."""
        return media.make(self.origin.www / name, count, size)

    def job(
        self, name: str, files: Media, *, each: int, tls: bool = False, prefix: str = "", durable: bool = False
    ) -> Job:
        """A job named so; see `tests.bench.tools.job`."""
        work = self.folder / name
        return job(self.origin, files, work, each=each, tls=tls, prefix=prefix, durable=durable)


@contextlib.contextmanager
def stage(tags: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """A stage of its own for a scenario."""
    with (
        tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=media.memory_folder()) as folder,
        nginx.origin(Path(folder) / "origin", tags) as served,
    ):
        yield Stage(Path(folder), served)
