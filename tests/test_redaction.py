"""No value of a signature is left in any text, wherever and however its URL stands there, and however long that is."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mirror
from mirror.errors import Refused
from mirror.observers.redact import Redactor
from mirror.urls import check_url, identity, redact, shown
from tests.properties import examples

NAMES = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "Signature",
    "Policy",
    "token",
    "access_token",
    "sig",
    "q-signature",
    "hmac",
    "txSecret",
]
VALUE = "Zq7%2Bx%26y%2Fz%3D7qZ"
"""Both ends are marked, so that a half that leaks is seen; what is escaped inside could be taken for its end."""

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper": str.upper,
    "dashes": lambda name: name.replace("-", "%2D").replace("_", "%5f"),
    "some": lambda name: name.replace("i", "%69").replace("o", "%6F"),
    "all": lambda name: "".join(f"%{ord(sign):02X}" for sign in name),
}
LAYERS: dict[str, Callable[[str], str]] = {
    "quoted": lambda text: quote(text, safe=""),
    "lower": lambda text: quote(text, safe="").replace("%3D", "%3d").replace("%3F", "%3f"),
    "json": lambda text: json.dumps({"url": text}),
    "slashes": lambda text: json.dumps({"url": text}).replace("/", r"\/"),
    "go": lambda text: json.dumps({"url": text}).replace("&", r"\u0026").replace("<", r"\u003c"),
    "all of json": lambda text: (
        json.dumps([text]).replace("&", r"\u0026").replace("=", r"\u003d").replace("?", r"\u003F")
    ),
    "html": html.escape,
    "repr": repr,
    "in a query": lambda text: f"https://p.example/?u={quote(text, safe='')}&c=3",
    "raw in a query": lambda text: f"https://p.example/?u={text}",
    "in prose": lambda text: f"GET {text} failed",
}


def leaks(text: str) -> bool:
    return "Zq7" in text or "7qZ" in text


@examples(150)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(sorted(SPELLINGS)),
    st.sampled_from(["?", "?v=1&", "?v=1;", "?a=b%3Dc&", "?v=1&amp;"]),
    st.sampled_from(["", "&w=2", "#end"]),
    st.lists(st.sampled_from(sorted(LAYERS)), max_size=4),
)
@example("token", "as it is", "?v=1&", "&w=2", ["go"])
@example("X-Amz-Signature", "as it is", "?", "", ["all of json"])
@example("X-Amz-Signature", "all", "?v=1;", "", [])
@example("X-Amz-Signature", "some", "?", "", ["in a query"])
@example("sig", "as it is", "?", "", ["quoted", "quoted"])
@example("Policy", "dashes", "?v=1&", "", ["go", "quoted"])
def test_in_any_position_and_spelling(name: str, spelling: str, before: str, after: str, layers: list[str]) -> None:
    text = f"https://h.example/a.png{before}{SPELLINGS[spelling](name)}={VALUE}{after}"
    assert not leaks(identity(text))
    for layer in layers:
        text = LAYERS[layer](text)
    assert leaks(text)
    assert not leaks(redact(text) + shown(text) + Redactor(["another"]).redact(text))
    assert "***" in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://p/?u=https%3A%2F%2Fh%3Ftoken%3Da%2526b%26v%3D1&w=2", "https://p/?u=https%3A%2F%2Fh%3Ftoken%3D***%26v%3D1&w=2"),
        (r'"https://h/?token=abc\u0026v=1"', r'"https://h/?token=***\u0026v=1"'),
        (r'"h\u003ftoken\u003dabc\u0026v\u003d1"', r'"h\u003ftoken\u003d***\u0026v\u003d1"'),
        ("u=https%3A%2F%2Fh%3Fsv%3D1%26sig%3D2%26v%3D3", "u=https%3A%2F%2Fh%3Fsv%3D***%26sig%3D***%26v%3D3"),
        ("via git+ssh://me:pw@h and 7z://x@y/", "via git+ssh://***@h and 7z://***@y/"),
        (r"a\u003db, C:\u0041, 100%25=1, design%3D2, a@b", r"a\u003db, C:\u0041, 100%25=1, design%3D2, a@b"),
        ("a?accessToken=1&my_access_token=2&jwt=3", "a?accessToken=***&my_access_token=***&jwt=***"),
        ("a?__token__=4&oauth_signature=5&aToken=6", "a?__token__=***&oauth_signature=***&aToken=***"),
        ("a?tokens=1&tokenize=2&detoken=3&x-oss-process=4", "a?tokens=1&tokenize=2&detoken=3&x-oss-process=4"),
    ],
)  # fmt: skip
def test_the_rest_is_still_there(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "url", ["https://me:Zq7@h\u2100/", "https://h:Zq7/", "https://me:Zq7@[h/", "https://me@h:7qZ/"]
)
def test_what_is_no_url_is_told_without_what_it_holds(url: str) -> None:
    with pytest.raises(Refused) as caught:
        check_url(url)
    said = str(caught.value).replace(shown(url), "")
    assert not leaks(said)
    assert len(str(caught.value)) < 400


def test_long_texts_take_no_longer_than_they_are_long() -> None:
    """A hundred kilobytes of these once took minutes, and an answer may have 64 MiB: here it would take days."""
    program = """
from mirror.urls import identity, redact
pieces = ["=", "a=", "token=a&", "%3d", "%41=", "%5c", "\\\\u003d", "a%253d", "a.", "%2525", "?%41", "x-amz-"]
pieces += ["token%3Da%26", "\\\\"]
for piece in pieces:
    text = piece * (400_000 // len(piece)) + "@=%sig="
    redact(text), identity("https://h/" + text[:50_000])
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(mirror.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=150)
