"""Runs a table of faults; a row is a fault and the end it must come to, through the Python API and the command line.

Each row has a prompt of its own: one file that the fault is about, and a neighbour that nothing is wrong with. Rows of
the same settings are mirrored by one run into one archive, and all runs go at the same time, since what they do most is
wait. When a run has ended its faults are lifted and the prompts fetched again: whatever happened must not stand in the
way of that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from tests import media
from tests.conftest import Archive
from tests.drivers import DRIVERS, Driver, Job
from tests.faults import Fault, File, Request, close_after
from tests.helpers import sha256
from tests.origin import LAST_MODIFIED, Origin, answer, task

SIZE = 150_000
CUT = 60_000
ELSEWHERE = "/elsewhere/film.mp4"  # the same file without a fault, for redirects to go to
BODY = media.mp4(SIZE, seed=1)
OTHER_BODY = media.mp4(SIZE, seed=2)
NEIGHBOUR = media.png(seed=3)

RESUMED = f"{CUT}- if etag"
BY_DATE = f"{CUT}- if date"

_AT_ONCE = 8
_PATIENT = {"transfer_connect_timeout": 60, "transfer_stall_timeout": 60, "api_timeout": 60}
_SETTINGS = {"transfer_attempts": 3, "transfer_concurrency": 128, **_PATIENT}

Places: TypeAlias = Callable[[Origin], contextlib.AbstractContextManager[Mapping[str, str]]]
"""Starts what stands around an origin; each place by its name, to be put into URLs and settings."""


@dataclass(frozen=True)
class End:
    """Where a run left a prompt. ``wrong`` are files that are missing, too many, or not of the right bytes."""

    state: str
    error: str | None = None
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """Where files are when nothing is wrong, and with which settings they are found there."""

    files: str = "http://{origin}"
    settings: Mapping[str, Any] = field(default_factory=dict)


DIRECT = Scene()


@dataclass(frozen=True, eq=False)
class Row:
    """A fault and what must come of it.

    ``asked`` are the requests for the file, in order, or the most there may be; ``error`` is the class of the Failure
    where the file cannot be had; ``later`` are the requests for what was missing once the fault is lifted. ``wanted``
    is what the file may be, if not ``body``. ``settings`` are part of the fault, and so is ``at``: where the service
    says that the file is. ``replaced`` tells readers of the page that the whole file came in answer to a Range, and
    ``note`` what the rest does not.
    """

    name: str
    faults: Fault | Sequence[Fault] = ()
    asked: Sequence[str] | int = ("whole",)
    error: str | None = None
    later: Sequence[str] | int = 1
    serve: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = field(default=BODY, repr=False)
    wanted: Sequence[bytes] = field(default=(), repr=False)
    at: str = ""
    scene: Scene = DIRECT
    replaced: bool = False
    note: str = ""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def end(self) -> End:
        return End("partial", self.error) if self.error else End("complete")

    @property
    def holds(self) -> bool:
        """Whether the first answer waits in its middle, until what was sent of it has arrived."""
        first = self.faults if isinstance(self.faults, Fault) else next(iter(self.faults), None)
        if first is None:
            return False
        asked = Request(0, "GET", "/film.mp4", "", {"host": "h"}, b"", is_api=False, number=1)
        return first.reply(File(self.body, '"etag"'), asked).hold is not None


R = TypeVar("R")


@dataclass(frozen=True)
class Section(Generic[R]):
    """Rows of a kind, with what a reader of the page should know first."""

    title: str
    rows: Sequence[R]
    lead: str = ""


@dataclass(frozen=True)
class Seen:
    """What came of a row: the end of the first run and of the one after it, and the requests for the file in each."""

    end: End
    asked: list[str]
    end_later: End
    asked_later: list[str]
    parts_later: list[str]


class Table:
    """Rows, all run in both ways when the first of them is looked at."""

    def __init__(self, sections: Sequence[Section[Row]], folder: Path, places: Places | None = None) -> None:
        self._groups = _by_settings([row for section in sections for row in section.rows])
        self._folder = folder
        self._places = places or (lambda _origin: contextlib.nullcontext({}))
        self._runs: dict[tuple[str, Row], tuple[Future[list[Seen]], int]] = {}

    def seen(self, row: Row, driver: str) -> Seen:
        if not self._runs:
            self._run()
        run, number = self._runs[driver, row]
        return run.result()[number]

    def check(self, row: Row, driver: str) -> None:
        """What the row's fault must come to; and, with the fault gone, what the next run makes of it."""
        seen = self.seen(row, driver)
        assert seen.end == row.end
        assert _matches(seen.asked, row.asked), seen.asked
        assert seen.end_later == End("complete")
        assert _matches(seen.asked_later, row.later if row.error else 0), seen.asked_later
        assert seen.parts_later == []

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name, driver in DRIVERS.items():
                for number, group in enumerate(self._groups):
                    run = pool.submit(_run_group, group, driver, self._folder / f"{name} {number}", self._places)
                    self._runs |= {(name, row): (run, place) for place, row in enumerate(group)}


def _matches(asked: Sequence[str], expected: Sequence[str] | int) -> bool:
    return len(asked) <= expected if isinstance(expected, int) else list(asked) == list(expected)


def _by_settings(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that one run can do together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr((row.holds, row.scene, sorted(row.settings.items()))), []).append(row)
    return list(groups.values())


def _run_group(rows: Sequence[Row], driver: Driver, folder: Path, places: Places) -> list[Seen]:
    with Origin() as origin, places(origin) as found:
        group = _Group(rows, Archive(folder, origin), driver, {"origin": origin.url.removeprefix("http://"), **found})
        return group.run()


def path_of(number: int) -> str:
    """Where the file of a row is served."""
    return f"/{number}/film.mp4"


class _Group:
    """Rows of the same settings: one archive, one origin, a prompt each."""

    def __init__(self, rows: Sequence[Row], archive: Archive, driver: Driver, places: Mapping[str, str]) -> None:
        self._rows = rows
        self._archive = archive
        self._origin = archive.origin
        self._driver = driver
        self._places = places
        self._wanted = [row.wanted or [row.body] for row in rows]

    def run(self) -> list[Seen]:
        self._origin.add(ELSEWHERE, BODY)
        for number, row in enumerate(self._rows):
            self._serve(number, row, faulty=True)
        usual = _SETTINGS | self._placed(self._rows[0].scene.settings)
        held = {path_of(number): CUT for number, row in enumerate(self._rows) if row.holds}
        ends, asked = self._fetch(usual | self._placed(self._rows[0].settings), held)
        for number, row in enumerate(self._rows):
            self._serve(number, row, faulty=False)
            if row.error:
                self._wanted[number] = [row.body]
        later, asked_later = self._fetch(usual, {})
        left = self._archive.partials()
        return [Seen(ends[n], asked[n], later[n], asked_later[n], left) for n in range(len(self._rows))]

    def _placed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with the names of places replaced by their addresses."""
        return {
            name: value.format_map(self._places) if isinstance(value, str) else value
            for name, value in settings.items()
        }

    def _serve(self, number: int, row: Row, *, faulty: bool) -> None:
        """Have a prompt name its two files, with or without what is wrong."""
        path, beside = path_of(number), f"/{number}/neighbour.png"
        self._origin.add(path, row.body, fault=row.faults if faulty else None, **row.serve)
        self._origin.add(beside, NEIGHBOUR)
        at = row.at if row.at and faulty else row.scene.files
        urls = [url.format_map(self._places) for url in (row.scene.files + beside, at + path)]
        self._origin.prompt(f"p{number}", answer(task(f"p{number}", images=[(urls[0], urls[1])])))

    def _fetch(self, settings: Mapping[str, Any], held: Mapping[str, int]) -> tuple[list[End], list[list[str]]]:
        """A run, whose exit code must be what the ends say: the end of each row, and the requests for its file."""
        self._origin.clear()
        ids = [f"p{number}" for number in range(len(self._rows))]
        ran = self._driver(Job(self._archive, ids, settings, held, besides=len(held) * len(NEIGHBOUR)))
        files = self._archive.files()
        ends = [self._end(number, ran.manifests[name], _below(files, name)) for number, name in enumerate(ids)]
        asked: list[list[str]] = [[] for _ in ids]
        for request in self._origin.media_requests:
            for number, requests in enumerate(asked):
                if request.path.endswith(path_of(number)):
                    requests.append(described(request))
        assert ran.code == (0 if all(end.state == "complete" for end in ends) else 3)
        return ends, asked

    def _end(self, number: int, manifest: Mapping[str, Any], found: dict[str, bytes]) -> End:
        errors = {error["error"] for error in manifest["errors"]}
        film = next((body for body in self._wanted[number] if body == found.get("film.mp4")), self._wanted[number][0])
        right = {"neighbour.png": NEIGHBOUR} | ({} if errors else {"film.mp4": film})
        stands = json.loads(found.pop("manifest.json"))
        wrong = {name for name in {*right, *found} if right.get(name) != found.get(name)}
        named = {file["path"]: file["sha256"] for file in stands["files"]}
        wrong |= {name for name in {*right, *named} if named.get(name) != sha256(found.get(name, b""))}
        wrong |= {"manifest.json"} if stands != manifest else set()
        return End(manifest["state"], ", ".join(sorted(errors)) or None, tuple(sorted(wrong)))


def _below(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): body for path, body in files.items() if path.startswith(f"{folder}/")}


def described(request: Request) -> str:
    """What a request asked for: ``whole``, or a range with the kind of validator it depends on."""
    wanted = request.headers.get("range")
    if wanted is None:
        return "whole"
    validator = request.headers.get("if-range", "nothing")
    kind = "etag" if validator.startswith('"') else "date" if validator == LAST_MODIFIED else validator
    return f"{wanted.removeprefix('bytes=')} if {kind}"


def cut_then(*faults: Fault) -> list[Fault]:
    """The first answer breaks off after ``CUT`` bytes, all of which arrive; the faults follow."""
    return [close_after(CUT, hold=True), *faults]


def cut_of(fault: Fault) -> Fault:
    """A fault whose answer, in addition, breaks off after ``CUT`` bytes."""

    def reply(file: File, request: Request) -> Any:
        return replace(fault.reply(file, request), cut=CUT, hold=CUT, ending="close")

    return Fault(f"cut {fault.name}", reply)
