"""Settings: which source wins, what a wrong one is told, and that the documented file is the truth."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.config import load, load_settings, parse_duration, parse_size, require_api
from mirror.errors import ConfigError
from mirror.models import Failure, Manifest, ManifestApi, ManifestFile, NamedBy, PromptState, Role, Summary
from mirror.schemas import NAMES, schema_of
from mirror.settings import ApiSettings, Settings
from tests.conftest import Archive
from tests.properties import examples

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
SECRET = "s3cr3t-t0ken"
modest = examples(100)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "etc" / "a.toml", '[log]\nlevel = "error"\n[transfer]\nmemory = "1M"\nattempts = 2\n')


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(file: Path) -> None:
    environ = {"MIRROR_LOG_LEVEL": "warning", "MIRROR_TRANSFER_MEMORY": "2M"}
    found = load(file, {"log_level": "debug", "log_format": None}, environ)
    assert found.path == file
    assert found.warnings == ()
    assert found.settings.log.level == "debug"
    assert found.settings.transfer.memory == 2 << 20
    assert found.settings.transfer.attempts == 2
    assert found.settings.log.format == "text"
    assert load(file, {}, {}).settings.log.level == "error"


def test_without_anything_all_is_default() -> None:
    assert load(None, {}, {"HOME": "/nonexistent"}) == (Settings(), None, ())


def test_a_user_without_a_home_has_no_file_there() -> None:
    assert load(None, {}, {"HOME": "~nobody-of-that-name"}).path is None


def test_flags_have_the_names_of_the_command_line_or_section_and_key(tmp_path: Path) -> None:
    found = load_settings(root=tmp_path, concurrency=3, limit_rate="1K", log_format="json", api_base_url="https://h")
    assert found.archive.root == str(tmp_path)
    assert (found.transfer.concurrency, found.transfer.limit_rate) == (3, 1024)
    assert (found.log.format, found.api.base_url) == ("json", "https://h")


def test_the_environment_is_text_and_is_read_as_its_keys_type() -> None:
    environ = {
        "MIRROR_TRANSFER_CONCURRENCY": "8",
        "MIRROR_SECURITY_ALLOW_HOSTS": "a.example, b.example,",
        "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
        "MIRROR_API_TIMEOUT": "1m30s",
        "MIRROR_API_REQUESTS_PER_SECOND": "2.5",
        "MIRROR_TRANSFER_SEGMENT_SIZE": "1048576",
        "MIRROR_API_AUTH_SCHEME": "",
    }
    found = load(None, {}, environ).settings
    assert found.transfer.concurrency == 8
    assert found.security.allow_hosts == ("a.example", "b.example")
    assert found.security.allow_private_addresses is True
    assert (found.api.timeout, found.api.requests_per_second) == (90.0, 2.5)
    assert found.transfer.segment_size == 1 << 20


def test_what_the_environment_has_beside_settings_is_only_warned_about() -> None:
    environ = {"MIRROR_API_TOKN": SECRET, "MIRROR_NOPE": "1", "MIRRORS": "1", "MIRROR_LOG_LEVEL": "error"}
    found = load(None, {}, environ)
    assert found.settings.log.level == "error"
    assert [re.findall(r"MIRROR\w+", warning) for warning in found.warnings] == [["MIRROR_API_TOKN"], ["MIRROR_NOPE"]]
    assert SECRET not in "".join(found.warnings)


@pytest.mark.parametrize("where", ["named", "MIRROR_CONFIG", "here", "XDG_CONFIG_HOME", "HOME"])
def test_where_the_file_is_looked_for(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place with all the later ones filled, too."""
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    monkeypatch.chdir(here)
    environ = {"HOME": str(home)}
    places = {
        "HOME": home / ".config" / "mirror" / "mirror.toml",
        "XDG_CONFIG_HOME": tmp_path / "xdg" / "mirror" / "mirror.toml",
        "here": here / "mirror.toml",
        "MIRROR_CONFIG": tmp_path / "environment.toml",
        "named": tmp_path / "named.toml",
    }
    named = None
    for place, path in places.items():
        write(path, f'[api]\ntask_path = "/{place}"\n')
        match place:
            case "XDG_CONFIG_HOME":
                environ[place] = str(tmp_path / "xdg")
            case "MIRROR_CONFIG":
                environ[place] = str(path)
            case "named":
                named = path
        if place == where:
            break
    assert load(named, {}, environ).settings.api.task_path == f"/{where}"


def test_relative_paths_are_relative_to_the_file_they_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[archive]\nroot = "a"\ncatalog = "/abs/c.sqlite"\n[transfer]\nca_file = "ca.pem"\n[api]\ntoken_file = "t"\n'
    file = write(tmp_path / "etc" / "a.toml", text)
    write(tmp_path / "etc" / "t", SECRET)
    found = load(file, {}, {}).settings
    assert found.archive.root == str(tmp_path / "etc" / "a")
    assert found.archive.catalog == "/abs/c.sqlite"
    assert found.transfer.ca_file == str(tmp_path / "etc" / "ca.pem")
    assert found.api.token == SECRET
    assert load(file, {"root": "b"}, {}).settings.archive.root == "b", "of a flag: to where we are"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, {"root": "~/b"}, {}).settings.archive.root == str(tmp_path / "b")


WRONG = {
    "no-file": (None, [], "No such file"),
    "no-toml": ("[api\n", [], "is not TOML"),
    "no-utf-8": (b"\xff", [], "is not TOML"),
    "key-twice": ("[api]\ntoken = 'a'\ntoken = 'b'", [], "is not TOML"),
    "unknown-section": ("[s4]\na = 1", ["[s4]"], "one of api, archive"),
    "section-is-no-table": ("api = 3", ["api"], "expected a table"),
    "key-outside-of-sections": ("token = 'x'", ["token"], "one of api, archive"),
    "unknown-key": ("[api]\nbase_ulr = 'x'", ["[api]", "base_ulr"], "one of base_url, token"),
    "text-for-integer": ("[transfer]\nconcurrency = '4'", ["[transfer] concurrency"], "expected `int`"),
    "float-for-integer": ("[transfer]\nattempts = 1.5", ["[transfer] attempts"], "expected `int`"),
    "too-small": ("[transfer]\nattempts = 0", ["[transfer] attempts"], ">= 1"),
    "too-large": ("[transfer]\nconcurrency = 5000", ["[transfer] concurrency"], "<= 4096"),
    "negative-size": ("[transfer]\nmemory = -1", ["[transfer] memory"], ">= 0"),
    "boolean-for-size": ("[transfer]\nmemory = true", ["[transfer] memory"], "expected `int`"),
    "no-size": ("[transfer]\nmemory = '10 apples'", ["[transfer] memory"], "expected a size such as"),
    "no-duration": ("[api]\ntimeout = 'soon'", ["[api] timeout"], "expected a duration such as"),
    "nan": ("[api]\ntimeout = nan", ["[api] timeout"], ">= 0"),
    "no-choice": ("[log]\nlevel = 'loud'", ["[log] level", "loud"], "debug"),
    "no-choice-either": ("[archive]\ndurability = 'best'", ["[archive] durability"], "fast"),
    "text-for-boolean": ("[security]\nallow_private_addresses = 'no'", ["allow_private_addresses"], "expected `bool`"),
    "text-for-list": ("[security]\nallow_hosts = 'a'", ["[security] allow_hosts"], "expected `array`"),
    "integer-for-text": ("[archive]\nroot = 5", ["[archive] root"], "expected `str`"),
    "nobodys-home": ("[archive]\nroot = '~no-such-user-here/x'", ["[archive] root"], "home"),
    "token-is-no-text": ("[api]\ntoken = 5", ["[api] token"], "expected `str`"),
    "token-is-a-list": (f"[api]\ntoken = ['{SECRET}']", ["[api] token"], "expected `str`"),
    "token-of-two-lines": (f"[api]\ntoken = '''{SECRET}\nx'''", ["[api] token"], "printable ASCII"),
    "token-not-ascii": (f"[api]\ntoken = '{SECRET}é'", ["[api] token"], "printable ASCII"),
    "no-token-file": ("[api]\ntoken_file = 'gone'", ["[api] token_file", "gone"], "No such file"),
    "token-file-nul": ('[api]\ntoken_file = "a\\u0000b"', ["[api] token_file"], "cannot read"),
}


@pytest.mark.parametrize(("text", "keys", "expected"), WRONG.values(), ids=WRONG)
def test_an_error_names_the_file_the_key_and_what_was_expected(
    text: str | bytes | None, keys: list[str], expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "etc" / "a.toml"
    if text is not None:
        write(file, text)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    for key in [*keys, expected]:
        assert key in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({"MIRROR_CONFIG": "/no/such.toml"}, {}, "/no/such.toml: cannot be read: No such file"),
        (
            {"MIRROR_API_TIMEOUT": "soon"},
            {},
            "environment variable MIRROR_API_TIMEOUT: [api] timeout: expected a duration",
        ),
        (
            {"MIRROR_TRANSFER_CONCURRENCY": ""},
            {},
            "MIRROR_TRANSFER_CONCURRENCY: [transfer] concurrency: expected `int`",
        ),
        ({"MIRROR_LOG_FORMAT": "xml"}, {}, "environment variable MIRROR_LOG_FORMAT: [log] format: "),
        (
            {"MIRROR_API_TOKEN": f"{SECRET}\n{SECRET}"},
            {},
            "environment variable MIRROR_API_TOKEN: [api] token: expected",
        ),
        (
            {"MIRROR_API_TOKEN_FILE": "/no/such"},
            {},
            "variable MIRROR_API_TOKEN_FILE: [api] token_file: cannot read",
        ),
        ({}, {"concurrency": "x"}, "--concurrency: [transfer] concurrency: expected `int`"),
        ({}, {"limit_rate": "fast"}, "--limit-rate: [transfer] limit_rate: expected a size"),
        ({}, {"api_token": 5}, "--api-token: [api] token: expected `str`"),
        ({}, {"speed": 5}, "unknown setting speed; expected a flag of fetch, or section_key"),
        ({}, {"api_tokn": SECRET}, "unknown setting api_tokn; expected"),
    ],
)
def test_an_error_names_the_variable_or_flag(environ: dict[str, str], flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, flags, environ)
    assert expected in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 2


def test_somebody_elses_file_here_is_not_read_by_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "mirror.toml", '[api]\nbase_url = "https://evil.example"\n')
    try:
        os.chown(file, 12_345, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")
    with pytest.raises(ConfigError, match=r"mirror\.toml belongs to another user \(uid 12345\).*--config"):
        load(None, {}, {})
    assert load("mirror.toml", {}, {}).settings.api.base_url == "https://evil.example", "who names it, trusts it"


OPEN = "holds a secret, and others can read it: chmod 600 it"


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [
        (f'[api]\ntoken = "{SECRET}"\n', 0o644, True),
        (f'[api]\ntoken = "{SECRET}"\n', 0o604, True),
        (f'[api]\ntoken = "{SECRET}"\n', 0o640, False),
        (f'[api]\ntoken = "{SECRET}"\n', 0o600, False),
        ('[api]\ntoken = ""\nbase_url = "https://api.example"\n', 0o644, False),
        (f'[metrics]\nping_url = "https://hc.example/{SECRET}"\n', 0o644, True),
        (f'[transfer]\nproxy = "http://me:{SECRET}@proxy:3128"\n', 0o644, True),
        ('[transfer]\nproxy = "http://proxy:3128"\n', 0o644, False),
    ],
)
def test_a_file_with_a_secret_that_others_can_read_is_warned_about(
    text: str, mode: int, warned: bool, tmp_path: Path
) -> None:
    file = write(tmp_path / "m.toml", text)
    file.chmod(mode)
    environ = {"MIRROR_API_TOKEN": "another"}  # that it is not used makes it no less of a secret
    assert load(file, {}, environ).warnings == ((f"{file} {OPEN}",) if warned else ())


def test_a_tokens_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    file = write(tmp_path / "t", SECRET)
    file.chmod(0o444)
    assert load(None, {"api_token_file": file}, {}).warnings == (f"{file} {OPEN}",)
    file.chmod(0o440)
    assert load(None, {"api_token_file": file}, {}).warnings == ()


def test_a_token_file_is_read_trimmed_and_a_token_beats_it(tmp_path: Path) -> None:
    file = write(tmp_path / "t", f"\n {SECRET} \r\n")
    assert load(None, {"api_token_file": file}, {}).settings.api.token == SECRET
    assert load(None, {"api_token_file": file, "api_token": "other"}, {}).settings.api.token == "other"
    write(file, " \n")
    with pytest.raises(ConfigError, match=r"\[api\] token_file: .* is empty, expected the token in it"):
        load(None, {"api_token_file": file}, {})
    write(file, b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"\[api\] token_file: .*not UTF-8"):
        load(None, {"api_token_file": file}, {})


def test_settings_can_be_printed_without_the_token() -> None:
    found = load(None, {"api_token": SECRET, "transfer_proxy": f"http://me:{SECRET}@proxy:3128"}, {})
    transfer = found.settings.transfer
    for text in (repr(found), str(found.settings), f"{found.settings.api!r}", f"{found.settings.api}", repr(transfer)):
        assert SECRET not in text
        assert "***" in text


@pytest.mark.parametrize("base_url", ["https://h", "http://127.0.0.1:8080", "https://h/v1/", "https://[::1]:8080/a"])
def test_a_service_that_can_be_asked(base_url: str) -> None:
    require_api(ApiSettings(base_url=base_url, token="t"))


@pytest.mark.parametrize(
    ("base_url", "token", "said"),
    [
        ("", "t", "base_url is not set"),
        ("https://h", "", "token is not set"),
        ("h", "t", "expected http:// or https://"),
        ("ftp://h", "t", "expected http:// or https://"),
        ("https://", "t", "a host"),
        ("https:// h", "t", "a host"),
        ("https://h\n", "t", "a host"),
        (f"https://h?token={SECRET}", "t", "at most a path"),
        ("https://h#a", "t", "at most a path"),
        (f"https://user:{SECRET}@h", "t", "at most a path"),
        (f"https://user:a@{SECRET}@h", "t", "at most a path"),
    ],
)
def test_a_service_that_cannot_be_asked(base_url: str, token: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_api(ApiSettings(base_url=base_url, token=token))
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


SIZES = {"0": 0, "10": 10, "1K": 1024, "10M": 10 << 20, "1.5G": 3 << 29, "2T": 2 << 40, "1 KiB": 1024, " 3kb ": 3072}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "+1", "1e3", "1.M", ".5M", "1,5M", "1 2", "10X", "10KM", "nan", "0x10"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_size(text)


DURATIONS = {"0": 0, "90": 90, "90s": 90, "1.5": 1.5, "30m": 1800, "1h30m": 5400, "1h 30 M": 5400, "2D": 172_800}


@pytest.mark.parametrize(("text", "seconds"), [*DURATIONS.items(), ("1w", 604_800), ("250ms", 0.25), ("1m1ms", 60.001)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "m", "-1s", "1 30", "1h30", "30 1h", "1y", "1h,2m", "1m s", "1.s", "inf", "nan", "1:30"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


@modest
@given(st.integers(0, 10**12), st.sampled_from("KMGT"), st.sampled_from(["", "B", "iB"]), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, end: str, blank: str) -> None:
    assert parse_size(f"{number}{blank}{unit}{end}") == number * 1024 ** ("KMGT".index(unit) + 1)
    assert parse_size(str(number)) == number


@modest
@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["ms", "s", "m", "h", "d", "w"])), min_size=1, max_size=4)
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    total = sum(number * seconds[unit] for number, unit in parts)
    assert parse_duration("".join(f"{number}{unit}" for number, unit in parts)) == pytest.approx(total)
    assert parse_duration(" ".join(f"{number} {unit}" for number, unit in parts)) == pytest.approx(total)


@modest
@given(st.text() | st.text("0123456789.KMGiBsmhdw ", max_size=12), st.sampled_from(["transfer_memory", "api_timeout"]))
def test_any_text_is_a_number_from_zero_on_or_a_clear_error(text: str, key: str) -> None:
    try:
        found = load(None, {key: text}, {}).settings
    except ConfigError as error:
        said = str(error)
        assert "expected a" in said
    else:
        assert found.transfer.memory >= 0
        assert found.api.timeout >= 0


@pytest.mark.parametrize("text", ["2000W", "1e12", "-1", "9999999999"])
def test_a_duration_out_of_bounds_is_told_as_such(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a duration"):
        load(None, {"api_timeout": text}, {})


def test_the_example_sets_every_key_to_its_default(tmp_path: Path) -> None:
    """What a relative path in it is relative to is the one difference."""
    document = tomllib.loads(EXAMPLE.read_text("utf-8"))
    sections = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert {name: set(table) for name, table in document.items()} == {
        name: {field.name for field in msgspec.structs.fields(section)} for name, section in sections.items()
    }
    copy = write(tmp_path / "mirror.toml", EXAMPLE.read_bytes())
    loaded = load(copy, {}, {}).settings
    for name, section in sections.items():
        for field in msgspec.structs.fields(section):
            found, expected = getattr(getattr(loaded, name), field.name), field.default
            if field.default is msgspec.NODEFAULT:
                expected = field.default_factory()
            if (name, field.name) == ("archive", "root"):
                expected = str(tmp_path / expected)
            assert found == expected, f"[{name}] {field.name}"


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(schema_of(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_prints_each_schema(name: str, archive: Archive) -> None:
    done = archive.run("schema", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.encode() == schema_of(name)
    assert json.loads(done.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    validator(name)


def test_the_example_is_valid_by_the_schema() -> None:
    validator("config").validate(tomllib.loads(EXAMPLE.read_text("utf-8")))


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({}, True),
        ({"transfer": {"memory": 5, "segment_size": "10M", "limit_rate": "1.5 GiB", "min_rate": "10"}}, True),
        ({"transfer": {"memory": "10m", "min_rate": "10kb"}}, True),
        ({"api": {"timeout": 5, "token": "t"}, "transfer": {"stall_timeout": "1h30m", "connect_timeout": "90"}}, True),
        ({"api": {"timeout": "1 h 30 M"}}, True),
        ({"transfer": {"memory": "10 apples"}}, False),
        ({"transfer": {"memory": "1.M"}}, False),
        ({"transfer": {"memory": -1}}, False),
        ({"transfer": {"concurrency": "4"}}, False),
        ({"transfer": {"stall_timeout": "1 30"}}, False),
        ({"transfer": {"stall_timeout": "soon"}}, False),
        ({"transfer": {"memroy": 5}}, False),
        ({"nope": {}}, False),
        ({"log": {"level": "loud"}}, False),
    ],
)
def test_the_schema_and_the_loader_agree(document: dict[str, Any], valid: bool, tmp_path: Path) -> None:
    assert validator("config").is_valid(document) is valid
    lines = [
        line
        for name, table in document.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    ]
    file = write(tmp_path / "a.toml", "\n".join(lines))
    if valid:
        load(file, {}, {})
    else:
        with pytest.raises(ConfigError):
            load(file, {}, {})


def accepts(parse: Callable[[str], float], text: str) -> bool:
    """Whether this is how such a value is written; how large it may be, no pattern says."""
    try:
        parse(text)
    except ValueError as error:
        return "at most" in str(error)
    return True


@modest
@example("", "2000W")
@given(st.text("0123456789.KMGTikmgtB ", max_size=8), st.text("0123456789.smhdwSMHDW ", max_size=8))
def test_the_schema_and_the_parsers_agree(size: str, duration: str) -> None:
    keys = json.loads(schema_of("config"))["$defs"]["TransferSettings"]["properties"]
    assert bool(re.search(keys["memory"]["pattern"], size)) is accepts(parse_size, size)
    assert bool(re.search(keys["stall_timeout"]["pattern"], duration)) is accepts(parse_duration, duration)


def test_a_manifest_and_a_summary_are_valid_by_their_schemas() -> None:
    place = NamedBy(prompt_id="p", task_id=1, image_id=None, field="origin")
    file = ManifestFile(path="a.mp4", role=Role.ORIGIN, url="https://h/a", bytes=1, sha256=None, named_by=(place,))
    manifest = Manifest(
        prompt_id="p",
        state=PromptState.PARTIAL,
        mirrored_at="2026-01-29T13:54:20Z",
        api=ManifestApi(url="https://h", code=200, msg="SUCCESS"),
        task={"any": ["thing"]},
        files=(file,),
        errors=(Failure(error="Gone", message="404"),),
    )
    validator("manifest").validate(json.loads(msgspec.json.encode(manifest)))
    summary = Summary(run_id="r", started_at="2026-01-29T13:54:20Z", seconds=1.5, exit_code=3, prompts={"partial": 1})
    validator("summary").validate(json.loads(msgspec.json.encode(summary)))
