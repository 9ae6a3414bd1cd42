"""Names made from what the network says: whatever it says, they are names, and never paths."""

from __future__ import annotations

import unicodedata
from itertools import islice
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror import names
from tests.properties import examples

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    port + digit for port in ("com", "lpt") for digit in "0123456789¹²³"
}

PIECES = [
    *'./\\-_ :*?"<>|%~',
    *"aAßıCONconuxpr19¹éÅﬁ中한",
    *"\0\t\n\r\x1b\x7f\x85\xa0\u2028\u200b\u202a\u202e\u2066\ufeff\ue000",
    *("\u0301", "\u0327", "\u0345", "\ud800", "\udfff", FAMILY),
    *("..", ".mp4", "..%2f", "%00", "%cc%81", "manifest.json"),
]
tricky = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
"""Text of what has gone wrong elsewhere: separators, devices, marks that compose, signs that nobody sees."""

long = st.builds(lambda char, count, end: char * count + end, st.characters(), st.integers(60, 250), tricky)
any_text = st.one_of(st.text(st.characters()), tricky, long)  # with lone surrogates, as argv can bring them
modest = examples(150)


def assert_is_a_name(name: str) -> None:
    """What every name that leaves the module keeps to."""
    assert name
    assert not set(name) & set('/\\:*?"<>|'), "a separator or what Windows forbids"
    assert not [char for char in name if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")], "a control character"
    assert not [char for char in name if unicodedata.bidirectional(char) in BIDI_CONTROLS], "a hidden direction"
    assert name[0] not in ".- ", "hidden, an option, or a blank"
    assert name[-1] not in ". ", "Windows would drop the end"
    assert name.partition(".")[0].rstrip(" ").lower() not in DEVICES, "a device of Windows"
    assert len(name.encode("utf-8")) <= 200
    assert unicodedata.is_normalized("NFC", name)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param("1769594446809030000_TFVMoqDf.png", "1769594446809030000_TFVMoqDf.png", id="documented"),
        pytest.param("..%2f..%2fetc%2fpasswd", "_.._etc_passwd", id="climbs-out"),
        pytest.param("..%5c..%5cboot.ini", "_.._boot.ini", id="climbs-out-backslash"),
        pytest.param("..", "file", id="dot-dot"),
        pytest.param("%2e%2e", "file", id="dot-dot-encoded"),
        pytest.param("", "file", id="empty"),
        pytest.param("%20", "file", id="blank"),
        pytest.param(".bashrc", "bashrc", id="hidden"),
        pytest.param("-rf", "rf", id="an-option"),
        pytest.param("clip", "clip", id="no-extension"),
        pytest.param("a.b.c.mp4", "a.b.c.mp4", id="many-dots"),
        pytest.param("clip.mp4.%20.", "clip.mp4", id="ends-in-dots"),
        pytest.param("a%00b%0d%0a%1b%5b2J.png", "a_b___[2J.png", id="control-characters"),
        pytest.param("a%E2%80%AEgnp.exe", "agnp.exe", id="bidi-override"),
        pytest.param("%EF%BB%BFa.png", "a.png", id="byte-order-mark"),
        pytest.param("CON", "_CON", id="device"),
        pytest.param("aux.mp4", "_aux.mp4", id="device-with-extension"),
        pytest.param("nul.tar.gz", "_nul.tar.gz", id="device-with-two-extensions"),
        pytest.param("LPT9.png", "_LPT9.png", id="printer"),
        pytest.param("com%C2%B9.png", "_com¹.png", id="device-superscript"),
        pytest.param("-.aux.png", "_aux.png", id="device-behind-what-is-cut"),
        pytest.param("console.png", "console.png", id="no-device"),
        pytest.param("com10.png", "com10.png", id="no-device-either"),
        pytest.param("C:evil.png", "C_evil.png", id="drive"),
        pytest.param("a.png:stream", "a.png_stream", id="alternate-stream"),
        pytest.param("%C3%A9.png", "é.png", id="NFC"),
        pytest.param("e%CC%81.png", "é.png", id="NFD"),
        pytest.param("C%E2%80%AA%CC%A7.png", "Ç.png", id="composes-once-the-hidden-sign-is-gone"),
        pytest.param(quote("😀.png"), "😀.png", id="emoji"),
        pytest.param(quote(f"{FAMILY}.png"), f"{FAMILY}.png", id="emoji-joined"),
        pytest.param("%FF%FE.png", "\ufffd\ufffd.png", id="no-UTF-8"),
        pytest.param("%25%32%46.png", "%2F.png", id="decoded-once"),
        pytest.param("50%.png", "50%.png", id="lone-percent"),
        pytest.param("a%zz.png", "a%zz.png", id="bad-percent"),
        pytest.param("a+b.png", "a+b.png", id="plus-stays"),
    ],
)
def test_the_last_part_of_a_url_becomes_a_name(last: str, expected: str) -> None:
    name = names.from_url(f"https://media.example/deep/er/{last}?versionId=/x.exe#/y.exe")
    assert name == expected
    assert_is_a_name(name)


@pytest.mark.parametrize(
    "url", ["", "https://h", "https://h/", "https://[bad/x.png", "///", "?", "data:,", "https://h/%"]
)
def test_what_names_no_file_gets_a_name_too(url: str) -> None:
    assert_is_a_name(names.from_url(url))


def test_a_lone_surrogate_in_a_url_is_no_error() -> None:
    assert_is_a_name(names.from_url("https://h/\ud800.png"))


@pytest.mark.parametrize("device", ["con .txt", "AUX  .png", "nul ", "com1 .tar.gz"])
def test_windows_ignores_blanks_behind_a_device(device: str) -> None:
    assert_is_a_name(names.safe(device))


@pytest.mark.parametrize("char", ["a", "é", "中", "😀"])
@pytest.mark.parametrize("extension", [".mp4", ".jpeg", ".m3u8", ""])
def test_three_hundred_characters_are_cut_between_characters(char: str, extension: str) -> None:
    name = names.from_url(f"https://h/{quote(char * 300)}{extension}")
    assert_is_a_name(name)
    stem = name.removesuffix(extension) if extension else name
    assert name.endswith(extension)
    assert set(stem) == {char}
    assert len(name.encode()) > 200 - len(char.encode()), "not shorter than it must be"


def test_an_extension_of_absurd_length_is_none() -> None:
    name = names.safe("clip." + "x" * 300)
    assert name == "clip." + "x" * 195


@modest
@given(any_text)
@example("C\u202a\u0327")
@example("a" * 199 + ". b")
@example("con" + "\u202e" + ".txt")
def test_any_text_becomes_a_name_or_nothing(text: str) -> None:
    name = names.safe(text)
    if name:
        assert_is_a_name(name)
    assert names.safe(name) == name, "a safe name comes back as it is"


@modest
@given(tricky | st.text(), st.booleans())
def test_any_url_becomes_a_name(text: str, encoded: bool) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert_is_a_name(names.from_url("https://h/" + (quote(text, safe="") if encoded else text)))
    assert_is_a_name(names.from_url(text))


@modest
@given(st.from_regex(r"[A-Za-z0-9_]{1,300}", fullmatch=True), st.from_regex(r"\.[a-z0-9]{1,15}", fullmatch=True))
def test_the_extension_is_kept(stem: str, extension: str) -> None:
    assert names.safe(stem + extension).endswith(extension)
    assert names.with_suffix(names.safe(stem + extension), "any").endswith(extension)


@modest
@given(any_text, any_text)
@example("C", "")
def test_the_candidates_for_a_file_are_names_and_differ(text: str, identity: str) -> None:
    found = list(islice(names.candidates(names.safe(text) or "file", identity), 5))
    for name in found:
        assert_is_a_name(name)
        assert names.safe(name) == name
        assert not names.is_reserved(name)
    assert len({names.key(name) for name in found}) == 5


@pytest.mark.parametrize("name", ["manifest.json", "MANIFEST.JSON", "Manifest.Json", "man\u0131fest.json"])
def test_the_manifests_name_is_never_a_files(name: str) -> None:
    reserved = name != "man\u0131fest.json"  # a dotless i is another letter, also when case is folded
    assert names.is_reserved(name) is reserved
    assert (next(names.candidates(name, "https://h/x")) == name) is not reserved


def test_a_suffix_comes_before_the_extension_and_tells_files_apart() -> None:
    assert names.with_suffix("a.mp4", "https://h/a.mp4") == "a-4e3cc790.mp4"
    assert names.with_suffix("a", "https://h/a.mp4") == "a-4e3cc790"
    assert names.with_suffix("a.mp4", "https://h/b.mp4") != names.with_suffix("a.mp4", "https://h/a.mp4")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.png", "A.PNG", True),
        ("\u00e9.png", "e\u0301.png", True),
        ("\u00c9.png", "e\u0301.png", True),
        ("straße", "STRASSE", True),
        ("\u212b", "\u00e5", True),
        ("a.png", "b.png", False),
        ("a.png", "a.jpg", False),
    ],
)
def test_names_are_compared_as_file_systems_that_fold_case_would(one: str, other: str, same: bool) -> None:
    assert (names.key(one) == names.key(other)) is same


@modest
@given(any_text)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert names.key(names.key(text)) == names.key(text)


@pytest.mark.parametrize("prompt_id", ["ef8ec19d6670c018814358a21a910090", "a", "A.b-c_d", "日本"])
def test_a_plain_prompt_keeps_its_id_as_its_folder(prompt_id: str) -> None:
    plain, suffixed = names.for_prompt(prompt_id)
    assert plain == prompt_id
    assert suffixed != prompt_id


@pytest.mark.parametrize(
    "prompt_id",
    ["../x", "a/b", ".", "", ".mirror", "-x", "a\0b", "CON", "manifest.json", "x" * 201, "e\u0301", "a.", "\ud800"],
)
def test_a_prompt_that_had_to_be_made_safe_gets_the_suffix_at_once(prompt_id: str) -> None:
    plain, suffixed = names.for_prompt(prompt_id)
    assert plain == suffixed != prompt_id
    assert_is_a_name(plain)


def folders(prompt_ids: list[str]) -> dict[str, str]:
    """Folders as the catalog gives them: the plain one, or the other where that is taken."""
    given_out: dict[str, str] = {}
    for prompt_id in prompt_ids:
        plain, suffixed = names.for_prompt(prompt_id)
        taken = {names.key(folder) for folder in given_out.values()}
        given_out[prompt_id] = suffixed if names.key(plain) in taken else plain
    return given_out


@modest
@given(
    st.lists(tricky | st.sampled_from(["a", "A", "a.", "a ", "á", "a\u0301", "Á", "x" * 201, "x" * 202]), unique=True)
)
@example(["a", "A"])
@example(["\u00e9", "e\u0301", "\u00c9"])
@example(["a/b", "a_b", "a:b", "A_B"])
def test_prompts_never_share_a_folder(prompt_ids: list[str]) -> None:
    found = folders(prompt_ids)
    assert len({names.key(folder) for folder in found.values()}) == len(prompt_ids)
    for folder in found.values():
        assert_is_a_name(folder)
        assert not names.is_reserved(folder)
