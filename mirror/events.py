"""What happens in a run, as values. Observers (a progress bar, logs, counters) are told; none can interfere."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from mirror.models import Failure, PromptState, Role


class Event(Struct, frozen=True, kw_only=True):
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


class Retrying(Event, frozen=True, kw_only=True):
    """A transient error: the same is tried again after ``seconds``. ``what`` is a promptId or a URL."""

    what: str
    cause: str
    message: str
    attempt: int
    seconds: float


class Noted(Event, frozen=True, kw_only=True):
    """Something a reader of the log should know, ``level`` being ``info`` or ``warning``."""

    level: str
    message: str
    prompt_id: str = ""


class RunFinished(Event, frozen=True, kw_only=True):
    seconds: float
    exit_code: int
    fatal: str | None = None
    unfinished: int = 0


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
