"""Runs a table of faults through the Python API; a row is a fault and the end it must come to.

Each row has an origin, an archive and a prompt of its own: one file that the fault is about, and a neighbour that
nothing is wrong with. The rows of a table run at the same time, since what they do most is wait. When a row has come
to its end the fault is lifted and the prompt fetched again: whatever happened must not stand in the way of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mirror import Mirror
from mirror.events import BytesReceived, Event
from tests import media
from tests.conftest import Archive
from tests.faults import Fault, File, Request, close_after
from tests.origin import LAST_MODIFIED, Origin, answer, task

SIZE = 150_000
CUT = 60_000
PATH = "/media/film.mp4"
ELSEWHERE = "/elsewhere/film.mp4"  # the same file without a fault, for redirects to go to
BODY = media.mp4(SIZE, seed=1)
OTHER_BODY = media.mp4(SIZE, seed=2)
NEIGHBOUR = media.png(seed=3)

RESUMED = f"{CUT}- if etag"
BY_DATE = f"{CUT}- if date"

_AT_ONCE = 16
_LONGEST = 30  # seconds, where a second is much: what loops must not hang the tests
_SETTINGS = {"transfer_attempts": 3, "transfer_connect_timeout": 1.0, "transfer_stall_timeout": 1.0}


@dataclass(frozen=True)
class End:
    """Where a run left the prompt. ``wrong`` are files that are missing, too many, or not of the right bytes."""

    state: str
    error: str | None = None
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """A fault and what must come of it.

    ``asked`` are the requests for the file, in order, or the most there may be; ``error`` is the class of the Failure
    where the file cannot be had; ``later`` are the requests for what was missing once the fault is lifted.
    """

    name: str
    faults: Fault | Sequence[Fault] = ()
    asked: Sequence[str] | int = ("whole",)
    error: str | None = None
    later: Sequence[str] | int = 1
    serve: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = field(default=BODY, repr=False)
    wanted: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def end(self) -> End:
        return End("partial", self.error) if self.error else End("complete")

    def matches(self, asked: Sequence[str], expected: Sequence[str] | int) -> bool:
        return len(asked) <= expected if isinstance(expected, int) else list(asked) == list(expected)


@dataclass(frozen=True)
class Seen:
    """What came of a row: the end of the first run and of the one after it, and the requests for the file in each."""

    end: End
    asked: list[str]
    verified: tuple[str, ...]
    end_later: End
    asked_later: list[str]
    parts_later: list[str]


class Table:
    """Rows, all run when the first of them is looked at."""

    def __init__(self, rows: Sequence[Row], folder: Path) -> None:
        self._rows = rows
        self._folder = folder
        self._seen: dict[Row, Seen | BaseException] = {}

    def __getitem__(self, row: Row) -> Seen:
        if not self._seen:
            asyncio.run(self._run())
        seen = self._seen[row]
        if isinstance(seen, BaseException):
            raise seen
        return seen

    def check(self, row: Row) -> None:
        """What the row's fault must come to; and, with the fault gone, what the next run makes of it."""
        seen = self[row]
        assert seen.end == row.end
        assert row.matches(seen.asked, row.asked), seen.asked
        assert seen.end_later.wrong == ()
        assert seen.end_later.state == "complete"
        assert row.matches(seen.asked_later, row.later if row.error else 0), seen.asked_later
        assert seen.parts_later == []

    async def _run(self) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def run(number: int, row: Row) -> Seen:
            async with room:
                with Origin() as origin:
                    async with asyncio.timeout(_LONGEST):
                        return await _run_row(row, Archive(self._folder / str(number), origin))

        seen = await asyncio.gather(*(run(*row) for row in enumerate(self._rows)), return_exceptions=True)
        self._seen = dict(zip(self._rows, seen, strict=True))


async def _run_row(row: Row, archive: Archive) -> Seen:
    origin = archive.origin
    film = origin.add(PATH, row.body, fault=row.faults, **row.serve)
    origin.add(ELSEWHERE, row.body)
    thumbnail = origin.add("/media/neighbour.png", NEIGHBOUR)
    origin.prompt("p", answer(task("p", images=[(thumbnail, film)])))
    wanted = row.body if row.wanted is None else row.wanted

    end, verified = await _fetch(archive, {**_SETTINGS, **row.settings}, wanted)
    asked = _asked(origin)
    origin.add(PATH, row.body, **row.serve)
    origin.clear()
    end_later, _ = await _fetch(archive, _SETTINGS, wanted if end.error is None else row.body)
    return Seen(end, asked, verified, end_later, _asked(origin), archive.partials())


async def _fetch(archive: Archive, settings: Mapping[str, Any], wanted: bytes) -> tuple[End, tuple[str, ...]]:
    release = Release(archive.origin, PATH, CUT + len(NEIGHBOUR))
    async with Mirror(archive.settings(**settings), observers=[release]) as mirror:
        manifests = [manifest async for manifest in mirror.fetch(["p"])]
    [manifest] = manifests
    errors = {error.error for error in manifest.errors}
    right = {"p/neighbour.png": NEIGHBOUR} | ({} if errors else {"p/film.mp4": wanted})
    found = archive.files()
    found.pop("p/manifest.json")
    wrong = tuple(sorted(name for name in {*right, *found} if right.get(name) != found.get(name)))
    verified = {file.path: file.verified for file in manifest.files}
    return End(manifest.state, ", ".join(sorted(errors)) or None, wrong), verified.get("film.mp4", ())


class Release:
    """Lets an answer that is on hold go on once the mirror has received so many bytes: none is lost in a buffer."""

    def __init__(self, origin: Origin, path: str, size: int) -> None:
        self._go_on: Callable[[], None] = lambda: origin.release(path)
        self._missing = size

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, BytesReceived):
            self._missing -= event.bytes
            if self._missing <= 0:
                self._go_on()


def _asked(origin: Origin) -> list[str]:
    return [described(request) for request in origin.media_requests if request.path == PATH]


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
