"""What happens in a run, as values. Observers (a progress bar, logs, counters) are told; none can interfere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from typing import Protocol

from msgspec import Struct

from mirror.models import Failure, PromptState, Role


class Event(Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened. URLs in events are identities: they carry no signature.

    The fields that many have: ``prompt_id`` is the prompt that it is about; ``url`` a file, by its identity; ``bytes``
    a number of bytes; ``seconds`` a time in seconds.

    Example::

        from mirror.events import FileStored, Retrying


        def tell(event: mirror.Event) -> None:
            match event:
                case FileStored(prompt_id=prompt_id, path=path, bytes=size):
                    print(prompt_id, path, size)
                case Retrying(what=what, cause=cause, seconds=seconds):
                    print(what, cause, "again in", seconds, "s")


        mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings, on_event=tell)
    """


class RunStarted(Event, frozen=True, kw_only=True):
    """A run begins. ``run_id`` is its name in logs and summaries, ``root`` where it mirrors to, for people;
    ``started_at`` is UTC in RFC 3339.
    """

    run_id: str
    root: str
    started_at: str


class PromptStarted(Event, frozen=True, kw_only=True):
    """A prompt was taken up; the API is asked next."""

    prompt_id: str


class PromptWaiting(Event, frozen=True, kw_only=True):
    """A prompt has not ended upstream; it is asked again in ``seconds``."""

    prompt_id: str
    seconds: float


class PromptFinished(Event, frozen=True, kw_only=True):
    """Nothing more is done for this prompt in this run.

    ``ok`` says whether all that was asked for is mirrored; ``skipped`` that it had been already, so that no
    request was made. ``state`` and ``errors`` are as in the manifest, ``files`` is how many stand in it, and
    ``bytes_reused`` how many bytes of these were there before.
    """

    prompt_id: str
    state: PromptState
    ok: bool
    files: int
    bytes_reused: int
    skipped: bool = False
    errors: tuple[Failure, ...] = ()


class FilePlanned(Event, frozen=True, kw_only=True):
    """A file is missing and is going to be fetched; ``role`` as in the manifest."""

    prompt_id: str
    url: str
    role: Role


class FileSized(Event, frozen=True, kw_only=True):
    """The origin told a file's length, ``bytes``; ``held`` bytes of it are here from before."""

    prompt_id: str
    url: str
    bytes: int
    held: int


class BytesReceived(Event, frozen=True, kw_only=True):
    """Bytes of a media body came in."""

    bytes: int


class BytesSent(Event, frozen=True, kw_only=True):
    """Bytes of a body went to the bucket."""

    bytes: int


class FilePlaced(Event, frozen=True, kw_only=True):
    """A file is in the bucket under ``key``; ``via`` as in the manifest."""

    prompt_id: str
    url: str
    key: str
    bytes: int
    via: str


class FileStored(Event, frozen=True, kw_only=True):
    """A file is durable under its final name, ``path`` as in the manifest. ``reused`` if it was linked from another
    prompt of this run.
    """

    prompt_id: str
    url: str
    path: str
    bytes: int
    reused: bool


class FileFailed(Event, frozen=True, kw_only=True):
    """A file cannot be had in this run; ``failure`` says why."""

    prompt_id: str
    failure: Failure


class RequestSent(Event, frozen=True, kw_only=True):
    """An HTTP request went out; ``kind`` is ``api``, ``media`` or ``s3``."""

    kind: str


class Answered(Event, frozen=True, kw_only=True):
    """The headers of an answer came, ``seconds`` after its request went out (a body that is sent included). ``kind`` is
    as in RequestSent, ``status`` the answer's HTTP status.

    Requests of the bucket's control plane are sent by another library: they are counted, and not timed.
    """

    kind: str
    seconds: float
    status: int


class Retrying(Event, frozen=True, kw_only=True):
    """A transient error: the same is tried again after ``seconds``. ``what`` is a promptId or a URL.

    ``cause`` is the error's name, ``message`` what it says, ``attempt`` how many were made. ``prompt_id`` is the
    prompt for which a URL was asked for, where that is known.
    """

    what: str
    cause: str
    message: str
    attempt: int
    seconds: float
    prompt_id: str = ""


class Noted(Event, frozen=True, kw_only=True):
    """``message`` is something a reader of the log should know, ``level`` being ``debug``, ``info`` or ``warning``."""

    level: str
    message: str
    prompt_id: str = ""


class HookOutcome(StrEnum):
    """How the user's command ended: well, with another exit code, too late, not at all, or since the run stopped."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    NOT_STARTED = "not_started"
    STOPPED = "stopped"


class HookFinished(Event, frozen=True, kw_only=True):
    """The user's command for one prompt has ended (command line only). ``outcome`` says how, ``message`` so for people;
    ``output`` is the beginning of what it wrote.
    """

    prompt_id: str
    outcome: HookOutcome
    message: str
    output: str = ""


class RunFinished(Event, frozen=True, kw_only=True):
    """A command has ended, with ``exit_code`` (command line only: a Mirror has one at any time). ``fatal`` says what
    ended it early, ``unfinished`` is how many prompts were taken up and brought to no result.
    """

    seconds: float
    exit_code: int
    fatal: str | None = None
    unfinished: int = 0


InARun = (
    PromptStarted
    | PromptWaiting
    | PromptFinished
    | FilePlanned
    | FileSized
    | BytesReceived
    | BytesSent
    | FilePlaced
    | FileStored
    | FileFailed
    | RequestSent
    | Answered
    | Retrying
    | Noted
)
"""What a worker, which does a part of a run, has to tell."""


class Observer(Protocol):
    """Told of each event, in order, on the event loop's thread: it must return at once and not raise.

    Any callable that takes an event is one. Without asyncio it is called on the run's own thread. One that raises is
    told nothing more, and the run goes on; the log (``logging``, logger ``mirror``) says why.

    Example::

        from mirror.events import BytesReceived


        class Received:
            bytes = 0

            def __call__(self, event: mirror.Event) -> None:
                if isinstance(event, BytesReceived):
                    self.bytes += event.bytes


        received = Received()
        mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings, on_event=received)
        print(received.bytes > 0)  # → True
    """

    def __call__(self, event: Event, /) -> None: ...


class Fanout:
    """One observer that tells several. One that raises is told nothing more, and the log says so: nobody else, and
    no run, is the worse for it.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers: dict[object, Observer] = {object(): observer for observer in observers}

    def add(self, observer: Observer) -> Callable[[], None]:
        """From now on tell this one, too; the function that is returned takes it away again. Idempotent, that one."""
        seat = object()
        self._observers = {**self._observers, seat: observer}
        return partial(self._remove, seat)

    def _remove(self, seat: object) -> None:
        # A new table: somebody may be going through the old one.
        self._observers = {other: each for other, each in self._observers.items() if other is not seat}

    def __call__(self, event: Event, /) -> None:
        for seat, observer in self._observers.items():
            try:
                observer(event)
            except Exception:
                self._remove(seat)
                told = "an observer failed, and is told nothing more: %r"
                logging.getLogger("mirror").exception(told, observer)
