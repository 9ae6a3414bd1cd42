"""What can be set, section by section, with defaults and bounds. :mod:`mirror.config` finds the values.

``config.example.toml`` documents every key for people; a test holds the two together.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert

from mirror.errors import ConfigError

_SIZE = r"^\s*\d{1,15}(\.\d{1,9})?\s*[KkMmGgTt]?[Ii]?[Bb]?\s*$"
_NUMBER = r"\d{1,12}(\.\d{1,9})?"
_DURATION = rf"^\s*({_NUMBER}|({_NUMBER}\s*([Mm][Ss]|[smhdwSMHDW])\s*)+)\s*$"

Size = Annotated[
    int,
    Meta(
        ge=0,
        extra={"unit": "bytes"},
        extra_json_schema={"pattern": _SIZE},
    ),
]
"""Bytes: a number, or a string such as ``"10M"`` (binary: 1K is 1,024)."""

Duration = Annotated[
    float,
    Meta(
        ge=0,
        le=1e9,
        extra={"unit": "seconds"},
        extra_json_schema={"pattern": _DURATION},
    ),
]
"""Seconds: a number, or a string such as ``"90s"``, ``"30m"``, ``"1h30m"``."""


FOREVER = 1e9
"""The longest duration, some thirty years."""


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file, or options. Its values are checked whoever makes it.

    Raises:
        ConfigError: a value is of a wrong type, or out of bounds; the message names the field, and no value.
    """

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = getattr(self, name)
            try:
                convert(float(value) if isinstance(value, float) else value, kind)  # NumPy's is one, too
            except ValidationError as error:
                raise ConfigError(f"{type(self).__name__}: {name}: {_expected(kind, error)}") from None


@functools.cache
def _kinds(section: type[_Section]) -> Mapping[str, Any]:
    return get_type_hints(section, include_extras=True)


def _expected(kind: Any, error: ValidationError) -> str:
    said = str(error)
    if said.startswith("Invalid enum value"):
        choices = [repr(each) for part in (kind, *get_args(kind)) for each in get_args(part) if isinstance(each, str)]
        return f"expected {', '.join(choices)}"
    return said[:1].lower() + said[1:].replace("null", "None")


class ApiSettings(_Section, frozen=True, kw_only=True):
    """``[api]``: the service that is asked."""

    base_url: str = ""
    token: str = ""
    token_file: str = ""
    auth_scheme: str = ""
    task_path: str = "/getTaskInfo"
    history_path: str = "/newImageHistory"
    history_body: Literal["json", "form", "query"] = "json"
    history_page_size: Annotated[int, Meta(ge=1, le=10_000)] = 100
    history_first_page: Annotated[int, Meta(ge=0, le=1)] = 1
    history_overlap: Duration = 86400.0
    requests_per_second: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    timeout: Duration = 30.0
    max_answer: Size = 64 << 20

    def __repr__(self) -> str:
        shown = "***" if self.token else ""
        return f"ApiSettings(base_url={self.base_url!r}, token={shown!r}, task_path={self.task_path!r})"


class ArchiveSettings(_Section, frozen=True, kw_only=True):
    """``[archive]``: where results stand, and how durable they are before they are recorded."""

    root: str = "mirror-archive"
    catalog: str = ""
    durability: Literal["full", "fast"] = "full"


class TransferSettings(_Section, frozen=True, kw_only=True):
    """``[transfer]``: how files travel."""

    concurrency: Annotated[int, Meta(ge=0, le=4096)] = 0
    segment_size: Size = 16 << 20
    memory: Size = 256 << 20
    max_file_size: Size = 0
    min_free_space: Size = 256 << 20
    limit_rate: Size = 0
    attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    connect_timeout: Duration = 15.0
    stall_timeout: Duration = 30.0
    min_rate: Size = 1024
    user_agent: str = ""
    proxy: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        told = {name: getattr(self, name) for name in self.__struct_fields__}
        if "@" in self.proxy:
            told["proxy"] = "***"
        return f"TransferSettings({', '.join(f'{name}={value!r}' for name, value in told.items())})"


class SecuritySettings(_Section, frozen=True, kw_only=True):
    """``[security]``: which media hosts are gone to."""

    allow_hosts: tuple[str, ...] = ()
    allow_private_addresses: bool = False


class S3Settings(_Section, frozen=True, kw_only=True):
    """``[s3]``: the user's own bucket. Without ``bucket`` there is none."""

    bucket: str = ""
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    profile: str = ""
    role_arn: str = ""
    storage_class: str = ""
    sse: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = ""
    kms_key_id: str = ""
    tags: dict[str, str] = {}
    cache_control: str = ""
    request_payer: bool = False
    checksum: Literal["sha256", "crc64nvme", "when_required"] = "sha256"
    conditional_writes: bool = True
    only: bool = False
    copy: Literal["auto", "never"] = "auto"
    sources: dict[str, str] = {}
    catalog: bool = False


class LogSettings(_Section, frozen=True, kw_only=True):
    """``[log]``: what stderr shows."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsSettings(_Section, frozen=True, kw_only=True):
    """``[metrics]``: who is told how a run went, beside the log."""

    textfile: str = ""
    interval: Duration = 30.0
    ping_url: str = ""

    def __repr__(self) -> str:
        shown = "***" if self.ping_url else ""
        return f"MetricsSettings(textfile={self.textfile!r}, interval={self.interval!r}, ping_url={shown!r})"


class HooksSettings(_Section, frozen=True, kw_only=True):
    """``[hooks]``: commands of the user's own."""

    on_prompt: str = ""
    timeout: Duration = 60.0
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4


class Settings(_Section, frozen=True, kw_only=True):
    """All sections, resolved and checked; immutable. Safe to print: neither the token nor the ping URL
    nor a proxy with a password is shown.

    ``api``, ``archive``, ``transfer``, ``security``, ``s3``, ``log``, ``metrics`` and ``hooks`` are the sections of the
    configuration file; ``config.example.toml`` documents every key. Sizes are in bytes, durations in seconds. The last
    three are for the command line. :func:`load_settings` makes one and checks it; of one made by hand types and bounds
    are checked, and nothing that looks at several keys or at files.

    Example::

        settings = mirror.load_settings(root="archive", transfer_limit_rate="10M", transfer_stall_timeout="1m")
        print(settings.transfer.limit_rate, settings.transfer.stall_timeout)  # → 10485760 60.0
    """

    api: ApiSettings = ApiSettings()
    archive: ArchiveSettings = ArchiveSettings()
    transfer: TransferSettings = TransferSettings()
    security: SecuritySettings = SecuritySettings()
    s3: S3Settings = S3Settings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    hooks: HooksSettings = HooksSettings()


class SyncOptions(_Section, frozen=True, kw_only=True):
    """What ``sync`` is asked to do beyond that.

    ``since`` is the creation time (Unix seconds) below which the history is not read; ``give_up`` is after how many
    seconds a prompt that stays unfinished is left alone (0: never); ``max_prompts`` is how many are taken up at most
    (0: all).

    Raises:
        ConfigError: a value is of a wrong type, or out of bounds; the message names it, and what was expected.

    Example::

        import time

        night = mirror.SyncOptions(since=time.time() - 30 * 86400, max_prompts=1000)
        print(sum(1 for _ in mirror.sync(settings, night=night)), "prompts")
    """

    since: float | None = None
    give_up: Duration = 7 * 86400.0
    max_prompts: Annotated[int, Meta(ge=0)] = 0


class FetchOptions(_Section, frozen=True, kw_only=True):
    """What one run is asked to do, beyond where things are.

    ``only`` limits the run to files of one role (``"origin"`` or ``"thumbnail"``); ``wait`` is how many seconds a task
    that is queued or running is polled; ``max_time`` stops the run cleanly after so many seconds (0: never; what
    ``wait_lock`` takes does not count); ``refresh`` asks the API again for what is complete; ``retry_failed`` tries
    again what failed for good; ``dry_run`` asks the API and changes nothing; ``wait_lock`` is for how many seconds to
    wait where another run holds the root (None: not at all; ``mirror.settings.FOREVER``: as long as it takes);
    ``engine`` says who does the work: ``"local"`` is this machine, ``"ray"`` a Ray cluster; ``processes`` is how many
    worker processes share it (0: locally this process does it alone, with Ray there is one for each CPU of the
    cluster).

    A manifest tells of the whole prompt. With ``only`` it is of state ``partial`` while files of the other role are
    missing, though all that was asked for is there: the exit code says so (0), and ``errors`` is empty. With
    ``dry_run`` it is what stands on no disk: ``files`` are those that are there already, and ``partial`` without an
    error means that the others would be fetched.

    Raises:
        ConfigError: a value is of a wrong type, or out of bounds; the message names it, and what was expected.

    Example::

        options = mirror.FetchOptions(only="origin", wait=1800, max_time=4 * 3600)
        manifest = mirror.fetch_one("ef8ec19d6670c018814358a21a910090", settings, options)
        print([str(file.role) for file in manifest.files])  # → ['origin', 'origin']
    """

    only: Literal["origin", "thumbnail"] | None = None
    wait: Duration = 0.0
    max_time: Duration = 0.0
    refresh: bool = False
    retry_failed: bool = False
    dry_run: bool = False
    wait_lock: Duration | None = None
    engine: Literal["local", "ray"] = "local"
    processes: Annotated[int, Meta(ge=0, le=4096)] = 0
