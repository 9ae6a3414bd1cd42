"""Every error of this package, in one tree.

    MirrorError
    ├── ConfigError                          the run never started
    ├── ApiError                             the service's answer about one prompt
    │   ├── Unauthorized                     the token is rejected: nothing can go on
    │   ├── BadParameter · NoData            codes 800 and 900: the service does not know the prompt
    │   ├── BadAnswer                        an answer that cannot be read
    │   ├── ApiUnavailable                   code 510, HTTP 429 and 5xx, the network
    │   └── TaskFailed · PollTimeout         failed upstream · still running when patience ended
    ├── SourceError                          the origin of one file
    │   ├── Gone · UrlExpired · Refused · TooLarge · NotMedia
    │   └── Changed · Unavailable · Truncated · ChecksumMismatch
    ├── StoreError                           where files are written to
    │   └── Denied · Full · StoreUnavailable · Locked · Obstructed (one prompt's place only)
    └── CatalogError                         the record of what was done

An error's *severity* decides what happens, not its place in the tree: a transient one is tried again and,
with its attempts used up, counts against its item; an item error fails one file or prompt; a fatal one
ends the run. Messages never carry the token or a URL's signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import ClassVar


class Severity(StrEnum):
    """What an error puts an end to: this attempt, this item, or the run."""

    TRANSIENT = "transient"
    ITEM = "item"
    FATAL = "fatal"


class ExitCode(IntEnum):
    """What the process tells its caller (design, part 2)."""

    OK = 0
    BUG = 1
    USAGE = 2
    INCOMPLETE = 3
    STOPPED = 4
    PENDING = 5
    SIGINT = 130
    SIGPIPE = 141
    SIGTERM = 143


_PRECEDENCE = (
    ExitCode.BUG,
    ExitCode.USAGE,
    ExitCode.STOPPED,
    ExitCode.SIGINT,
    ExitCode.SIGTERM,
    ExitCode.SIGPIPE,
    ExitCode.INCOMPLETE,
    ExitCode.PENDING,
    ExitCode.OK,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The one exit code for a run in which several hold: 1 before 4 before 130/143 before 3 before 5 before 0."""
    return min(codes, key=_PRECEDENCE.index, default=ExitCode.OK)


def first_error(error: BaseException) -> BaseException:
    """The error itself; of a group of tasks that ended together, the one that came first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class MirrorError(Exception):
    """The root of the tree. What is raised to a caller ends the run; what fails one file or prompt is a value.

    ``message`` is for people, and carries no secret; ``name`` is the class's name. ``retry_after`` is the pause in
    seconds that the other side asked for; ``severity`` overrules the class's; ``exit_code`` is the command line's.

    Example::

        from mirror.errors import Locked

        try:
            manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        except Locked:
            print("another run is at work: try later, or give wait_lock")
        except mirror.MirrorError as error:
            print(error.name, error.message)
    """

    severity: Severity = Severity.ITEM
    exit_code: ClassVar[ExitCode] = ExitCode.INCOMPLETE

    def __init__(self, message: str, *, retry_after: float | None = None, severity: Severity | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        if severity is not None:
            self.severity = severity

    @property
    def name(self) -> str:
        """The class's name, as manifests and summaries show it."""
        return type(self).__name__


class ConfigError(MirrorError):
    """A setting is wrong: the message names the file, the key and what was expected."""

    severity = Severity.FATAL
    exit_code = ExitCode.USAGE


class ApiError(MirrorError):
    """The service answered that it cannot or will not tell about one prompt."""


class Unauthorized(ApiError):
    """The token was rejected (code or HTTP status 401 or 403)."""

    severity = Severity.FATAL
    exit_code = ExitCode.STOPPED


class BadParameter(ApiError):
    """The promptId cannot be one (code 800, or refused before asking)."""


class NoData(ApiError):
    """The service knows no such prompt (code 900)."""


class BadAnswer(ApiError):
    """The answer is too large, too deep, of wrong types, or of a code that the API's page does not list."""


class ApiUnavailable(ApiError):
    """The service cannot answer now (code 510, HTTP 429 or 5xx, no connection, an answer cut short)."""

    severity = Severity.TRANSIENT


class TaskFailed(ApiError):
    """The task failed upstream; the message carries the service's reason."""


class PollTimeout(ApiError):
    """The task had not ended when the time given by ``wait`` was over."""


class SourceError(MirrorError):
    """One file cannot be had from its origin."""


class Gone(SourceError):
    """The origin has no such file (404, 410)."""


class UrlExpired(SourceError):
    """The origin refuses this URL (403); a freshly signed one may work."""


class Refused(SourceError):
    """We refuse to go there (scheme, host, address, redirect), or the origin refuses us for good."""


class TooLarge(SourceError):
    """The file is larger than ``transfer.max_file_size``."""


class NotMedia(SourceError):
    """What came is an empty body, an error page, or a picture or film that is cut off."""


class Changed(SourceError):
    """The file changed under a partial download: that starts over."""

    severity = Severity.TRANSIENT


class Unavailable(SourceError):
    """The origin cannot answer now (408, 425, 429, 5xx, no connection, a stall, a bad certificate, no HTTP)."""

    severity = Severity.TRANSIENT


class Truncated(SourceError):
    """The body ended too early: before its length was reached (what came is kept), or within a picture or film."""

    severity = Severity.TRANSIENT


class ChecksumMismatch(SourceError):
    """The bytes are not those that the origin, or an earlier manifest, states."""

    severity = Severity.TRANSIENT


class StoreError(MirrorError):
    """The place where files are written to cannot take them."""

    severity = Severity.FATAL
    exit_code = ExitCode.STOPPED


class Denied(StoreError):
    """Not permitted, read-only, or a path that leads out of the root."""


class Full(StoreError):
    """No room is left, or less than ``transfer.min_free_space`` would be; an item error where one file does not fit."""


class StoreUnavailable(StoreError):
    """The store failed in another way (an input/output error, too many open files)."""


class Obstructed(StoreError):
    """Something else stands where one prompt's files belong (a symlink, a file, a folder): that prompt fails."""

    severity = Severity.ITEM
    exit_code = ExitCode.INCOMPLETE


class Locked(StoreError):
    """Another run holds the root."""


class CatalogError(MirrorError):
    """The catalog cannot be read or written; ``mirror rebuild`` makes it again from the manifests."""

    severity = Severity.FATAL
    exit_code = ExitCode.STOPPED
