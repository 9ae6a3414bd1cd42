"""What a driver and a worker process say to each other: values, many of them in a frame of JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from mirror import errors
from mirror.catalog import PromptRecord, Write
from mirror.errors import MirrorError, Severity
from mirror.events import InARun
from mirror.inflight import Fetched, Turn
from mirror.run import Result
from mirror.settings import FetchOptions, Settings


class _Message(Struct, frozen=True, kw_only=True, tag=True):
    """Something that is said."""


# The driver's --------------------------------------------------------------------------------------


class Start(_Message, frozen=True, kw_only=True):
    """The first word: what the run is, and the worker's share of what it may use. ``desk`` is the worker's name.

    ``settings`` are JSON in ASCII: a folder's name may be bytes that are no UTF-8.
    """

    settings: str
    options: FetchOptions
    run_id: str
    desk: str
    want_manifests: bool
    is_trusted: bool


class Shard(_Message, frozen=True, kw_only=True):
    """Prompts to deal with, and what is known of each."""

    records: list[PromptRecord]


class NoMore(_Message, frozen=True, kw_only=True):
    """That was all: end when they have their results."""


class Stop(_Message, frozen=True, kw_only=True):
    """End now, cleanly."""


class Paced(_Message, frozen=True, kw_only=True):
    """The worker's share of bytes and of requests to the service a second, from now on; 0 is no limit."""

    bytes: float
    requests: float


class Trusted(_Message, frozen=True, kw_only=True):
    """The service has answered another worker: the token is good."""


class Written(_Message, frozen=True, kw_only=True):
    """What was handed on last stands in the catalog."""


class Given(_Message, frozen=True, kw_only=True):
    """The answer to an :class:`Enter`."""

    identity: str
    turn: Turn


# The worker's --------------------------------------------------------------------------------------


class Ready(_Message, frozen=True, kw_only=True):
    """There is room for another shard."""


class Writes(_Message, frozen=True, kw_only=True):
    """For the catalog, to be committed together. The next ones come after :class:`Written`."""

    writes: list[Write]


class Enter(_Message, frozen=True, kw_only=True):
    """Whose turn is it at this file?"""

    identity: str


class Leave(_Message, frozen=True, kw_only=True):
    """The turn at this file is over."""

    identity: str
    ended: Fetched


class Told(_Message, frozen=True, kw_only=True):
    """What happened, in order."""

    events: list[InARun]


class Finished(_Message, frozen=True, kw_only=True):
    """A prompt has its result."""

    result: Result


class Broke(_Message, frozen=True, kw_only=True):
    """The run cannot go on: one of our errors, or with ``error`` empty a bug, of which ``message`` is the trace."""

    error: str
    message: str
    severity: Severity


class Ended(_Message, frozen=True, kw_only=True):
    """The last word. ``in_doubt``: something that was written may not be durable."""

    in_doubt: bool


ToWorker = Start | Shard | NoMore | Stop | Paced | Trusted | Written | Given
ToDriver = Ready | Writes | Enter | Leave | Told | Finished | Broke | Ended

to_worker: msgspec.json.Decoder[list[ToWorker]] = msgspec.json.Decoder(list[ToWorker])
to_driver: msgspec.json.Decoder[list[ToDriver]] = msgspec.json.Decoder(list[ToDriver])


def packed(settings: Settings) -> str:
    """Settings, for a :class:`Start`."""
    return json.dumps(msgspec.to_builtins(settings))


def unpacked(settings: str) -> Settings:
    """What was :func:`packed`."""
    return msgspec.convert(json.loads(settings), Settings)


class WorkerBugError(Exception):
    """Something that must not happen has happened in a worker; the message is its trace."""


def spelled(error: BaseException, trace: str) -> Broke:
    """An error, to be said."""
    if isinstance(error, MirrorError):
        return Broke(error=error.name, message=str(error), severity=error.severity)
    return Broke(error="", message=trace, severity=Severity.FATAL)


def heard(broke: Broke) -> Exception:
    """The error that was said."""
    kind: Any = getattr(errors, broke.error, None) if broke.error else None
    if kind is None:
        return WorkerBugError(broke.message)
    made = kind(broke.message, severity=broke.severity)
    assert isinstance(made, MirrorError)
    return made
