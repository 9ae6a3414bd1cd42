"""What happens in a run, as values. Observers (a progress bar, logs, counters) are told; none can interfere."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from mirror.models import Failure, PromptState, Role


class Event(Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened. URLs in events are identities: they carry no signature."""


class RunStarted(Event, frozen=True, kw_only=True):
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
    request was made.
    """

    prompt_id: str
    state: PromptState
    ok: bool
    files: int
    bytes_reused: int
    skipped: bool = False
    errors: tuple[Failure, ...] = ()


class FilePlanned(Event, frozen=True, kw_only=True):
    """A file is missing and is going to be fetched."""

    prompt_id: str
    url: str
    role: Role


class FileSized(Event, frozen=True, kw_only=True):
    """The origin told a file's length; ``held`` bytes of it are here from before."""

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
    """A file is in the bucket; ``via`` as in the manifest."""

    prompt_id: str
    url: str
    key: str
    bytes: int
    via: str


class FileStored(Event, frozen=True, kw_only=True):
    """A file is durable under its final name. ``reused`` if it was linked from another prompt of this run."""

    prompt_id: str
    url: str
    path: str
    bytes: int
    reused: bool


class FileFailed(Event, frozen=True, kw_only=True):
    prompt_id: str
    failure: Failure


class RequestSent(Event, frozen=True, kw_only=True):
    """An HTTP request went out; ``kind`` is ``api``, ``media`` or ``s3``."""

    kind: str


class Answered(Event, frozen=True, kw_only=True):
    """The headers of an answer came, ``seconds`` after its request went out (a body that is sent included).

    Requests of the bucket's control plane are sent by another library: they are counted, and not timed.
    """

    kind: str
    seconds: float
    status: int


class Retrying(Event, frozen=True, kw_only=True):
    """A transient error: the same is tried again after ``seconds``. ``what`` is a promptId or a URL.

    ``prompt_id`` is the prompt for which a URL was asked for, where that is known.
    """

    what: str
    cause: str
    message: str
    attempt: int
    seconds: float
    prompt_id: str = ""


class Noted(Event, frozen=True, kw_only=True):
    """Something a reader of the log should know, ``level`` being ``debug``, ``info`` or ``warning``."""

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
    """The user's command for one prompt has ended. ``output`` is the beginning of what it wrote."""

    prompt_id: str
    outcome: HookOutcome
    message: str
    output: str = ""


class RunFinished(Event, frozen=True, kw_only=True):
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
    """Told of each event, in order, on the event loop's thread: it must return at once and not raise."""

    def __call__(self, event: Event, /) -> None: ...


class Fanout:
    """One observer that tells several."""

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self._observers = observers

    def __call__(self, event: Event, /) -> None:
        for observer in self._observers:
            observer(event)
