"""Runs a table of the service's faults: a row is what it answers about a prompt, and what must come of that.

Each row has a prompt of its own, and those of one exit code share a run, through the Python API and the command line.
The answers of a row's script come one after the other, the last again and again; then the service is well again, and
answers with a done task that names one picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests import media
from tests.conftest import Archive
from tests.drivers import DRIVERS, Driver, Job
from tests.fault_table import Section
from tests.origin import Answer, Origin, answer, task

PICTURE = media.png(seed=1)
LARGEST = 4 << 20
_PATIENT = {"transfer_connect_timeout": 60, "transfer_stall_timeout": 60, "api_timeout": 60}
_SETTINGS = {"transfer_attempts": 3, "api_max_answer": LARGEST, **_PATIENT}

Made: TypeAlias = Callable[["Names"], Answer]


@dataclass(frozen=True)
class Names:
    """What a row's answers speak of: its promptId, and URLs of the picture."""

    prompt: str
    origin: Origin

    def url(self, name: str) -> str:
        return self.origin.add(f"/{self.prompt}/{name}", PICTURE)

    def refused(self, code: int) -> str:
        """Another promptId, about which the service answers with this code."""
        return self.origin.prompt(f"{self.prompt}-{code}", answer(None, code, "no"))

    def task(self, *names: str, **extra: Any) -> dict[str, Any]:
        """A done task that names these files."""
        return task(self.prompt, images=[(None, self.url(name)) for name in names], **extra)


@dataclass(frozen=True, eq=False)
class Row:
    """A fault of the service and what must come of it.

    ``code`` is the exit code of a run of such rows; ``asked`` is how often the service is asked; ``files`` are mirrored
    in spite of the fault. Without a ``state`` there is no result: the run stops.
    ``reconnects``: a request on a connection that was used before may be sent once more by the HTTP library.
    """

    name: str
    answers: Made | Sequence[Made]
    state: str | None
    error: str | None = None
    code: int = 3
    asked: int = 1
    files: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    reconnects: bool = False
    note: str = ""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class End:
    """Where a run left a prompt, and how often the service was asked about it."""

    state: str | None
    error: str | None
    files: tuple[str, ...]
    asked: int

    @property
    def code(self) -> int:
        """The exit code of a run in which every prompt ended so."""
        if self.state is None:
            return 4
        return {"complete": 0, "pending": 5}.get(self.state, 3) if self.error is None else 3


def good(names: Names) -> Answer:
    return answer(names.task("a.png"))


@dataclass(frozen=True)
class Seen:
    """What came of a row in the first run, and in the run after it."""

    end: End
    later: End


class Table:
    """Rows, all run in both ways when the first of them is looked at. Those of one exit code share a run."""

    def __init__(self, sections: Sequence[Section[Row]], folder: Path) -> None:
        self._groups = _groups([row for section in sections for row in section.rows])
        self._folder = folder
        self._runs: dict[tuple[str, Row], tuple[Future[list[Seen]], int]] = {}

    def check(self, row: Row, driver: str) -> None:
        """What the fault must come to; and, with the service well again, what the next run makes of it."""
        seen = self.seen(row, driver)
        asked = row.asked
        if row.reconnects:
            assert asked <= seen.end.asked <= 2 * asked
            asked = seen.end.asked
        assert seen.end == End(row.state, row.error, tuple(row.files), asked)
        assert seen.end.code == row.code
        done = row.state == "complete"
        assert seen.later == End("complete", None, tuple(row.files) if done else ("a.png",), 0 if done else 1)

    def seen(self, row: Row, driver: str) -> Seen:
        if not self._runs:
            with ThreadPoolExecutor(8) as pool:
                for name, drive in DRIVERS.items():
                    for number, group in enumerate(self._groups):
                        run = pool.submit(_run, group, drive, self._folder / f"{name} {number}")
                        self._runs |= {(name, each): (run, place) for place, each in enumerate(group)}
        run, number = self._runs[driver, row]
        return run.result()[number]


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that one run can do together; what ends a run has one of its own."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        alone = row.name if row.state is None else ""
        groups.setdefault(repr((alone, row.code, sorted(row.settings.items()))), []).append(row)
    return list(groups.values())


def _run(rows: Sequence[Row], drive: Driver, folder: Path) -> list[Seen]:
    with Origin() as origin:
        archive = Archive(folder, origin)
        names = [Names(f"p{number}", origin) for number in range(len(rows))]
        for row, name in zip(rows, names, strict=True):
            script = [row.answers] if callable(row.answers) else row.answers
            origin.prompt(name.prompt, [made(name) for made in script])
        first = _fetch(archive, names, drive, {**_SETTINGS, **rows[0].settings})
        for name in names:
            origin.prompt(name.prompt, good(name))
        later = _fetch(archive, names, drive, _SETTINGS)
        return [Seen(first[n], later[n]) for n in range(len(rows))]


def _fetch(archive: Archive, names: Sequence[Names], drive: Driver, settings: Mapping[str, Any]) -> list[End]:
    archive.origin.clear()
    ran = drive(Job(archive, [name.prompt for name in names], settings, {}))
    ends = [_end(archive, name.prompt, ran.manifests.get(name.prompt)) for name in names]
    codes = {end.code for end in ends}
    assert ran.code == next(code for code in (4, 3, 5, 0) if code in codes), "the exit code is not what the ends say"
    return ends


def _end(archive: Archive, prompt: str, told: Mapping[str, Any] | None) -> End:
    """What was told of a prompt; and on disk are its files, right ones, if the manifest there says so."""
    asked = sum(request.query == f"promptId={prompt}" for request in archive.origin.api_requests)
    found = {
        path.removeprefix(f"{prompt}/"): body for path, body in archive.files().items() if path.startswith(f"{prompt}/")
    }
    manifest = json.loads(found.pop("manifest.json", b"null"))
    assert all(body == PICTURE for body in found.values())
    assert sorted(found) == sorted(file["path"] for file in (manifest or {"files": []})["files"])
    if told is None:
        return End(None, None, tuple(found), asked)
    assert manifest == (told if told["state"] in ("complete", "partial", "pending", "failed") else None)
    return End(
        told["state"], ", ".join(sorted({error["error"] for error in told["errors"]})) or None, tuple(found), asked
    )
