"""Finds the settings: flags beat the environment, which beats the file, which beats the defaults.

Each value remembers where it came from, so that an error names the file (or variable, or flag), the key and
what was expected there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.settings import FOREVER, ApiSettings, S3Settings, Settings

ENV_PREFIX = "MIRROR_"
_RESERVED = {"MIRROR_CONFIG", "MIRROR_PROMPT_ID", "MIRROR_RUN_ID", "MIRROR_STATE"}  # hooks are told the latter three

FLAG_KEYS: Mapping[str, tuple[str, str]] = {
    "root": ("archive", "root"),
    "s3_endpoint": ("s3", "endpoint_url"),
    "concurrency": ("transfer", "concurrency"),
    "limit_rate": ("transfer", "limit_rate"),
    "log_format": ("log", "format"),
    "log_level": ("log", "level"),
}
"""The flags of the command line that are settings under another name."""


class Loaded(NamedTuple):
    """Settings, the file they came from (None without one), and what to warn about."""

    settings: Settings
    path: Path | None
    warnings: tuple[str, ...]


class _Value(NamedTuple):
    raw: Any
    origin: str
    text: bool  # from the environment or a flag: a number may come as text
    base: Path  # what a relative path in it is relative to


def load_settings(config: str | os.PathLike[str] | None = None, /, **flags: Any) -> Settings:
    """Resolve the settings as the command line does.

    ``config`` is a TOML file; without it ``MIRROR_CONFIG``, ``./mirror.toml`` and the user's config folder are looked
    at. ``flags`` are named as on the command line (``root``, ``s3``, ``s3_endpoint``, ``s3_only``, ``concurrency``,
    ``limit_rate``, ``log_format``) or ``section_key`` (``api_token``); None means not given. They beat the environment
    (``MIRROR_API_TOKEN``), which beats the file. A size is in bytes or a text such as ``"10M"``, a duration in seconds
    or a text such as ``"1h30m"``.

    Raises:
        ConfigError: a file, key or value is wrong; the message names it, and what was expected.

    Example::

        settings = mirror.load_settings("mirror.toml", root="archive", s3="s3://bucket/prefix")
        print(settings.archive.root, settings.s3.bucket, settings.s3.prefix)  # → archive bucket prefix
    """
    return load(config, flags).settings


def load(
    config: str | os.PathLike[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """As :func:`load_settings`, and tell where the settings came from."""
    environ = os.environ if environ is None else environ
    path = _find(config, environ)
    values = _from_file(path) if path is not None else {}
    exposed = [path] if path is not None and _holds_secret(values) else []
    from_env, warnings = _from_environment(environ)
    values.update(from_env)
    values.update(_from_flags(flags or {}))
    sections: dict[str, dict[str, Any]] = {}
    for (section, key), value in values.items():
        sections.setdefault(section, {})[key] = _convert(section, key, value)
    built = {name: _SECTIONS[name](**given) for name, given in sections.items()}
    settings = _with_token(Settings(**built), values)
    _check_s3(settings.s3, values)
    exposed += [Path(settings.api.token_file)] if settings.api.token_file else []
    warnings += [f"{file} holds a secret, and others can read it: chmod 600 it" for file in exposed if _is_open(file)]
    return Loaded(settings, path, tuple(warnings))


_SECTIONS: dict[str, Any] = {name: kind for name, kind in get_type_hints(Settings).items() if not name.startswith("_")}
_KEYS: dict[str, dict[str, Any]] = {name: get_type_hints(kind, include_extras=True) for name, kind in _SECTIONS.items()}


def _find(config: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    named = config or environ.get("MIRROR_CONFIG")
    if named:
        return Path(named).expanduser()
    here = Path("mirror.toml")
    if _is_there(here):
        # A folder that somebody else can write must not decide where our token is sent.
        owner = here.stat().st_uid
        if owner not in (os.getuid(), 0):
            raise ConfigError(
                f"./mirror.toml belongs to another user (uid {owner}), so it is not read by itself; "
                "if you trust it, name it: --config ./mirror.toml"
            )
        return here
    try:
        folder = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    except RuntimeError:  # no HOME, and a user whom the machine does not know: a container's, for one
        return None
    user = Path(folder) / "mirror" / "mirror.toml"
    return user if _is_there(user) else None


def _is_there(path: Path) -> bool:
    """False, too, where we may not look: in somebody else's home there is no file of ours."""
    try:
        return path.is_file()
    except OSError:
        return False


def _from_file(path: Path) -> dict[tuple[str, str], _Value]:
    try:
        document = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    values = {}
    for section, table in document.items():
        if section not in _SECTIONS:
            raise ConfigError(f"{path}: unknown section [{section}]; expected one of {_listed(_SECTIONS)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}: expected a table, that is a line [{section}], got {_kind(table)}")
        for key, raw in table.items():
            if key not in _KEYS[section]:
                raise ConfigError(f"{path}: [{section}] unknown key {key}; expected one of {_listed(_KEYS[section])}")
            values[section, key] = _Value(raw, str(path), text=False, base=path.parent)
    return values


def _holds_secret(values: Mapping[tuple[str, str], _Value]) -> bool:
    """Whether a value of a file is to be shown to nobody; a proxy's is, where a password is in it."""
    return any(
        value.raw and (key in _SECRETS or (key == "proxy" and _shown(str(value.raw)) != value.raw))
        for (_, key), value in values.items()
    )


def _is_open(file: Path) -> bool:
    """Whether any user of the machine may read a file. A group may well be one service's own."""
    try:
        return bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[tuple[str, str], _Value], list[str]]:
    values, warnings = {}, []
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name in _RESERVED:
            continue
        section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
        if key in _KEYS.get(section, {}):
            values[section, key] = _Value(environ[name], f"environment variable {name}", text=True, base=Path())
        else:
            warnings.append(f"environment variable {name} names no setting and is ignored")
    return values, warnings


def _from_flags(flags: Mapping[str, Any]) -> dict[tuple[str, str], _Value]:
    values = {}
    for flag, raw in _spelled_out(flags).items():
        if raw is None:
            continue
        section, key = FLAG_KEYS.get(flag) or _split(flag)
        if key not in _KEYS.get(section, {}):
            raise ConfigError(f"unknown setting {flag}; expected a flag of fetch, or section_key such as api_token")
        given = os.fspath(raw) if isinstance(raw, os.PathLike) else raw
        shown = "s3" if flag in ("s3_bucket", "s3_prefix") and flags.get("s3") else flag.replace("_", "-")
        values[section, key] = _Value(given, f"--{shown}", text=True, base=Path())
    return values


def _spelled_out(flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """``s3="s3://bucket/prefix"`` as the two settings that it stands for."""
    if flags.get("s3") is None:
        return {flag: raw for flag, raw in flags.items() if flag != "s3"}
    match = re.fullmatch(r"s3://([^/?#]+)(?:/([^?#]*))?", str(flags["s3"]))
    if not match:
        raise ConfigError(f"--s3: expected s3://bucket or s3://bucket/prefix, got {flags['s3']!r}")
    rest = {flag: raw for flag, raw in flags.items() if flag != "s3"}
    return {**rest, "s3_bucket": match[1], "s3_prefix": match[2] or ""}


def _split(flag: str) -> tuple[str, str]:
    section, _, key = flag.partition("_")
    return section, key


def _convert(section: str, key: str, value: _Value) -> Any:
    """One raw value as its key's type; a relative path becomes relative to where it was written."""
    kind, raw = _KEYS[section][key], value.raw
    unit = _unit(kind)
    where = f"{value.origin}: [{section}] {key}"
    if unit and isinstance(raw, str):
        parse = parse_size if unit == "bytes" else parse_duration
        try:
            raw = parse(raw)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
    if value.text and isinstance(raw, str) and get_args(kind)[:1] == (str,) and Ellipsis in get_args(kind):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if value.text and isinstance(raw, str) and get_origin(kind) is dict:
        raw = _pairs(raw, where)
    try:
        converted = msgspec.convert(raw, kind, strict=not value.text)
    except msgspec.ValidationError as error:
        said = str(error).split(" - at ")[0]
        if get_origin(kind) is Literal:
            said = f"expected one of {', '.join(get_args(kind))}"
        shown = "" if key in _SECRETS else f" ({raw!r})"
        raise ConfigError(f"{where}: {said[:1].lower()}{said[1:]}{shown}") from None
    pattern, expected = _FORMS.get((section, key), (r"(?s).*", ""))
    if isinstance(converted, str) and not re.fullmatch(pattern, converted):
        got = "another thing" if key in _SECRETS else repr(_shown(converted))
        raise ConfigError(f"{where}: expected {expected}, got {got}")
    if (section, key) in _PATHS and converted:
        try:
            path = Path(converted).expanduser()
        except RuntimeError:
            raise ConfigError(f"{where}: expected a path, but {converted!r} names no home folder") from None
        return str(path if path.is_absolute() else value.base / path)
    return converted


def _pairs(text: str, where: str) -> dict[str, str]:
    """``"a=b, c=d"`` as a table, as it stands in an environment variable."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"{where}: expected name=value, name=value, got {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


_LINE = r"[\x20-\x7e]*"
_SECRETS = {"token", "ping_url"}
"""Keys whose values stand in no message."""

_FORMS = {
    ("archive", "root"): (r"(?s).+", "a folder"),
    ("api", "task_path"): (r"/?[\x21-\x7e]*", "a path without spaces, such as /getTaskInfo"),
    ("api", "history_path"): (r"/?[\x21-\x7e]*", "a path without spaces, such as /newImageHistory"),
    ("api", "auth_scheme"): (r"[A-Za-z0-9-]*", "one word such as Bearer, or nothing"),
    ("transfer", "user_agent"): (_LINE, "printable ASCII on one line"),
    ("transfer", "proxy"): (r"(https?://[^\s/?#]+/?)?", "http://host:port"),
    ("s3", "bucket"): (r"([A-Za-z0-9][A-Za-z0-9._-]{1,254})?", "a bucket's name, without s3:// and without a path"),
    ("s3", "prefix"): (r"(?s)[^\x00-\x1f\x7f]{0,700}", "a path in the bucket, at most 700 characters"),
    ("s3", "endpoint_url"): (r"(https?://[^\s/?#@]+/?)?", "http:// or https:// and a host, without a path"),
    ("s3", "region"): (r"[A-Za-z0-9-]*", "a region such as eu-central-1"),
    ("s3", "role_arn"): (r"(arn:[\x21-\x7e]+)?", "arn:aws:iam::<account>:role/<name>"),
    ("s3", "storage_class"): (r"[A-Z0-9_]*", "a storage class such as STANDARD_IA"),
    ("s3", "kms_key_id"): (r"[\x21-\x7e]*", "the id, ARN or alias of a key"),
    ("s3", "cache_control"): (_LINE, "printable ASCII on one line"),
    ("metrics", "ping_url"): (r"(https?://[\x21-\x7e]+)?", "http:// or https:// and a host"),
}

_PATHS = {
    ("api", "token_file"),
    ("archive", "root"),
    ("archive", "catalog"),
    ("metrics", "textfile"),
    ("transfer", "ca_file"),
}


def _with_token(settings: Settings, values: Mapping[tuple[str, str], _Value]) -> Settings:
    """Read the token's file where one is given and checked, so that nobody else needs to."""
    api = settings.api
    token, origin = api.token.strip(), values["api", "token"].origin if api.token else ""
    if not token and api.token_file:
        origin = values["api", "token_file"].origin
        try:
            token = Path(api.token_file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text, or no file's name"
            raise ConfigError(f"{origin}: [api] token_file: cannot read {api.token_file!r}: {why}") from None
        if not token:
            raise ConfigError(f"{origin}: [api] token_file: {api.token_file} is empty, expected the token in it")
    if token and not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)*", token):
        raise ConfigError(f"{origin}: [api] token: expected printable ASCII on one line, as an HTTP header can carry")
    return msgspec.structs.replace(settings, api=msgspec.structs.replace(api, token=token)) if token else settings


def _check_s3(s3: S3Settings, values: Mapping[tuple[str, str], _Value]) -> None:
    """What the keys of ``[s3]`` demand of each other."""

    def origin(key: str) -> str:
        return f"{values['s3', key].origin}: [s3] {key}"

    if s3.endpoint_url and not _has_sound_port(s3.endpoint_url):
        raise ConfigError(f"{origin('endpoint_url')}: expected a port from 1 to 65535, got {_shown(s3.endpoint_url)}")
    if {".", ".."} & set(s3.prefix.split("/")):
        raise ConfigError(f"{origin('prefix')}: expected a path without . and .. in it, got {s3.prefix!r}")
    if s3.only and not s3.bucket:
        raise ConfigError(f"{origin('only')}: needs a bucket: give --s3 s3://bucket/prefix, or [s3] bucket")
    if s3.catalog and not s3.only:
        raise ConfigError(f"{origin('catalog')}: needs only = true: a catalog stands beside the files it tells of")
    if s3.kms_key_id and not s3.sse.startswith("aws:kms"):
        raise ConfigError(f'{origin("kms_key_id")}: needs sse = "aws:kms" beside it')
    if len(s3.tags) > 10:
        raise ConfigError(f"{origin('tags')}: an object can carry 10 tags at most, got {len(s3.tags)}")
    for host, source in s3.sources.items():
        if not re.fullmatch(r"[a-z0-9.-]+(:\d+)?", host) or not re.fullmatch(r"[A-Za-z0-9._-]+(/.*)?", source):
            raise ConfigError(
                f'{origin("sources")}: expected "host" = "bucket" or "bucket/prefix", the host in lower case, '
                f"got {host!r} = {source!r}"
            )


def require_api(api: ApiSettings) -> None:
    """Check what is needed before the service can be asked.

    Raises:
        ConfigError: base_url or the token is missing or cannot be used.
    """
    if not api.base_url:
        raise ConfigError("[api] base_url is not set: give the service's address, e.g. MIRROR_API_BASE_URL=https://…")
    if not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", api.base_url):
        raise ConfigError(
            f"[api] base_url: expected http:// or https://, a host and at most a path, got {_shown(api.base_url)}"
        )
    if not _has_sound_port(api.base_url):
        raise ConfigError(f"[api] base_url: expected a port from 1 to 65535, got {_shown(api.base_url)}")
    if not api.token:
        raise ConfigError("[api] token is not set: give MIRROR_API_TOKEN, or token_file in the configuration")


def _has_sound_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """``"10M"`` → 10,485,760 (bytes).

    Raises:
        ValueError: the text is no size.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)I?B?", text.strip().upper())
    if not match:
        raise ValueError(f"expected a size such as 500K, 10M or 2G, got {text!r}")
    return ceil(float(match[1]) * _UNITS[match[2]])


def parse_duration(text: str) -> float:
    """``"1h30m"`` → 5400.0 (seconds); a bare number is seconds.

    Raises:
        ValueError: the text is no duration.
    """
    parts = re.findall(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|[smhdw]?)\s*", text.strip().lower())
    whole = "".join(re.split(r"\s+", text.strip().lower()))
    bare = [unit for _, unit in parts].count("")
    if not parts or "".join(number + unit for number, unit in parts) != whole or (bare and len(parts) > 1):
        raise ValueError(f"expected a duration such as 90s, 30m or 1h30m, got {text!r}")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > FOREVER:
        raise ValueError(f"expected a duration of at most {FOREVER:,.0f} seconds, got {text!r}")
    return seconds


def _unit(kind: Any) -> str | None:
    for meta in getattr(kind, "__metadata__", ()):
        if meta.extra:
            return str(meta.extra["unit"])
    return None


def _kind(value: Any) -> str:
    return {str: "a string", int: "an integer", float: "a number", bool: "a boolean", list: "an array"}.get(
        type(value), type(value).__name__
    )


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)


def _shown(url: str) -> str:
    """A URL fit for a message: anything before an ``@`` could be a password."""
    return re.sub(r"//[^/]*@", "//***@", url.partition("?")[0])
