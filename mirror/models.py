"""The values that pass through the house: frozen, typed, without behaviour beyond their own invariants.

The line they travel is ``PromptId → Task → Asset → Receipt | Failure → Manifest``; nothing flows back.
Everything that reaches a file on disk (manifest, catalog, summary) is one of these types, so the
JSON Schemas are generated from here too.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Any, NewType

from msgspec import UNSET, Meta, Struct, UnsetType

PromptId = NewType("PromptId", str)
"""The service's name for one request; a root prompt may have children with ids of their own."""

MAX_PROMPT_ID = 256
"""Longest promptId, in characters, that is asked for: longer ones are refused unasked."""

Json = dict[str, Any]
"""A JSON object as the service sent it."""

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""As many as every reader of JSON, and the catalog, can hold."""


class TaskState(IntEnum):
    """A task's ``state`` on the wire (getTaskInfo's table); ``OTHER`` stands for a number it does not list."""

    OTHER = 0
    FAILED = 2
    QUEUED = 10
    RUNNING = 20
    DONE = 30

    @property
    def ended(self) -> bool:
        """True where the service will not change the state any more. An unlisted state has not ended."""
        return self in (TaskState.DONE, TaskState.FAILED)


class ApiCode(IntEnum):
    """The answer's ``code`` (getTaskInfo's last paragraph)."""

    SUCCESS = 200
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    FAULT = 510
    BAD_PARAMETER = 800
    NO_DATA = 900


class Role(StrEnum):
    """What a file is to its task: the small picture, or the full result.

    Example::

        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        originals = [file for file in manifest.files if file.role is mirror.Role.ORIGIN]
        print(len(originals), "of", len(manifest.files))  # → 2 of 3
    """

    THUMBNAIL = "thumbnail"
    ORIGIN = "origin"


class PromptState(StrEnum):
    """How far a prompt has come.

    The first four stand in manifests. ``unknown`` (the API denies the prompt) and ``unresolved`` (the API
    could not be asked, or its answer not be read; tried again in the next run) stand in the catalog, the
    summary and ``--json`` only: of such a prompt no manifest is written.

    Example::

        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        if manifest.state is mirror.PromptState.COMPLETE:
            print("all of it is there")  # → all of it
    """

    PENDING = "pending"
    PARTIAL = "partial"
    FAILED = "failed"
    COMPLETE = "complete"
    UNKNOWN = "unknown"
    UNRESOLVED = "unresolved"


class Image(Struct, frozen=True, kw_only=True):
    """One entry of an ``imageList``. ``path`` is the thumbnail, ``origin`` the full result."""

    id: int | None = None
    task_id: int | None = None
    path: str | None = None
    origin: str | None = None


class Task(Struct, frozen=True, kw_only=True):
    """A task as the API describes it, read leniently; ``flaws`` says what could not be read."""

    prompt_id: PromptId
    task_id: int | None = None
    task_type: int | None = None
    state: TaskState = TaskState.OTHER
    reason: str = ""
    thumbnail: str | None = None
    images: tuple[Image, ...] = ()
    children: tuple[Task, ...] = ()
    flaws: tuple[str, ...] = ()

    def family(self) -> list[Task]:
        """This task and all below it, parents before children."""
        found: list[Task] = []
        waiting = [self]
        while waiting:
            task = waiting.pop()
            found.append(task)
            waiting.extend(reversed(task.children))
        return found


class Answer(Struct, frozen=True, kw_only=True):
    """One successful answer of the API: the parsed task beside the ``data`` it was parsed from."""

    url: str
    code: int
    msg: str
    task: Task
    data: Json


class Listed(Struct, frozen=True, kw_only=True):
    """A row of the service's history. ``created_at`` is Unix seconds; None where the service does not tell."""

    prompt_id: PromptId
    created_at: float | None = None
    state: TaskState = TaskState.OTHER


class HistoryPage(Struct, frozen=True, kw_only=True):
    """``rows`` in the service's order; ``flaws`` says what could not be read. Neither: the history has ended."""

    rows: tuple[Listed, ...] = ()
    flaws: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.flaws


class Covered(Struct, frozen=True, kw_only=True):
    """The stretch of the history of which every id stands in the catalog, in Unix seconds.

    ``top`` is the watermark; ``floor`` is None where the stretch reaches down to the history's end.
    """

    floor: float | None
    top: float


class NamedBy(Struct, frozen=True, kw_only=True):
    """A place in the answer that names a file."""

    prompt_id: str
    task_id: int | None
    image_id: int | None
    field: str


class Asset(Struct, frozen=True, kw_only=True):
    """A distinct file to be mirrored. ``url`` may be signed, so it is never shown; ``identity`` always may."""

    identity: str
    url: str
    role: Role
    name: str
    named_by: tuple[NamedBy, ...] = ()


class Span(Struct, frozen=True, order=True):
    """Bytes ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Validator(Struct, frozen=True):
    """What tells one version of a resource from another (RFC 9110, section 8.8)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def if_range(self) -> str | None:
        """The value for ``If-Range``: a strong ETag, else Last-Modified, else none (a weak ETag is none)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class Media(Struct, frozen=True, kw_only=True):
    """What was found inside a file: ``kind`` is ``image`` or ``video``, lengths are in pixels and seconds.

    ``frame_rate`` is in frames a second, ``codec`` as its library names it (``h264``, ``png``).
    """

    kind: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    frame_rate: float | None = None
    codec: str | None = None


class S3Object(Struct, frozen=True, kw_only=True):
    """Where a file stands in the user's bucket; ``via`` is ``upload``, ``stream`` or ``copy``.

    The checksums are the store's own, in base64; with ``-N`` at their end they are those of a multipart object of N
    parts (the S3 reference, "Checking object integrity"). One that the store did not give is null; the one that is
    not asked for by default is left out then.
    """

    bucket: str
    key: str
    etag: str
    version_id: str | None = None
    checksum_sha256: str | None = None
    checksum_crc64nvme: str | UnsetType = UNSET
    via: str


class Placed(Struct, frozen=True, kw_only=True):
    """Where a prompt's manifest stands in the user's bucket, and which one that is.

    ``endpoint`` is the store, "" for AWS: two stores may have a bucket of one name. ``current`` is False where a later
    manifest stands on disk only.
    """

    endpoint: str
    bucket: str
    key: str
    etag: str
    version_id: str | None = None
    current: bool = True


class Receipt(Struct, frozen=True, kw_only=True):
    """Proof that one file is durably stored: what it is, and what it was checked against.

    ``last_modified`` is the origin's, in RFC 3339; ``verified`` names the checks that passed
    (``length``, ``etag-md5``, ``sha256``, ``sha1``, ``crc32``).
    """

    path: str
    bytes: Count
    sha256: str | None
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    verified: tuple[str, ...] = ()
    media: Media | None = None
    s3: S3Object | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """Why something is not there. ``error`` is the class's name in :mod:`mirror.errors`; ``url`` is redacted.

    ``role`` is that of the file, and ``url`` its identity; without them it is the prompt that could not be had.
    ``message`` is for people; ``attempts`` is how many requests were made for the file in this run.
    ``was`` is left out, but for a file that was mirrored and is lost: its digest is not forgotten.

    Example::

        [failure] = mirror.fetch_one("nobody", settings).errors
        print(failure.error, failure.url)  # → NoData None
    """

    url: str | None = None
    role: Role | None = None
    error: str
    message: str
    attempts: Count = 0
    was: ManifestFile | UnsetType = UNSET


Outcome = Receipt | Failure


class ManifestApi(Struct, frozen=True, kw_only=True):
    """Which endpoint answered, and with which code."""

    url: str
    code: int | None = None
    msg: str | None = None


class ManifestFile(Struct, frozen=True, kw_only=True):
    """A file that was durable before the manifest named it. ``path`` is relative to the manifest.

    ``role`` is what it is to its task; ``url`` where it came from, without its signature: its identity. ``bytes`` is
    its length, ``sha256`` its digest in hex (None where only a store's own checksum is known). ``content_type``,
    ``etag`` and ``last_modified`` (UTC in RFC 3339) are the origin's. ``named_by`` tells the places in the answer that
    name it, ``verified`` the checks that it passed, ``media`` what is in it (extra ``media``), ``s3`` where it stands
    in the bucket.

    Example::

        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        for file in manifest.files:
            print(file.role, file.path, file.bytes, file.sha256)  # → origin
    """

    path: str
    role: Role
    url: str
    bytes: Count
    sha256: str | None
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    named_by: tuple[NamedBy, ...] = ()
    verified: tuple[str, ...] = ()
    media: Media | None = None
    s3: S3Object | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """What is mirrored of one root prompt (``manifest.json``, version 1).

    ``version`` is 1. ``prompt_id`` is the prompt, and ``state`` says how far it has come. ``mirrored_at`` is UTC in
    RFC 3339; ``api`` says which endpoint answered, and how. ``task`` is the answer's ``data`` with the values of
    signature parameters redacted and nothing else changed (None without an answer). ``files`` are there, byte for
    byte; ``errors`` say what is missing, and why.

    Example::

        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings)
        print(manifest.state, len(manifest.files), manifest.errors)  # → complete 3 ()
    """

    version: Annotated[int, Meta(extra_json_schema={"const": 1})] = 1
    prompt_id: str
    state: PromptState
    mirrored_at: str
    api: ManifestApi
    task: Json | None = None
    files: tuple[ManifestFile, ...] = ()
    errors: tuple[Failure, ...] = ()


class Summary(Struct, frozen=True, kw_only=True):
    """What a run did, told at its end. Sizes in bytes; ``prompts`` counts by state."""

    run_id: str
    started_at: str
    seconds: float
    exit_code: int
    prompts: dict[str, int]
    unfinished: int = 0
    files: int = 0
    files_failed: int = 0
    bytes_downloaded: int = 0
    bytes_reused: int = 0
    bytes_uploaded: int = 0
    bytes_copied: int = 0
    requests: int = 0
    retries: dict[str, int] = {}
    hooks_failed: int = 0
    fatal: str | None = None
