"""Files and prompts whose names somebody else chose, through a whole run: each gets a place of its own, in the root."""

from __future__ import annotations

import hashlib
import unicodedata
from urllib.parse import quote

import pytest

from tests import media
from tests.conftest import Archive
from tests.helpers import mirrored
from tests.origin import Origin, answer, task

SCRIPTS = (
    *("žluťoučký kůň", "αβγ Ωμέγα", "кошка", "հայերեն", "ქართული", "עברית", "العربية", "فارسی", "اردو", "ދިވެހި", "አማርኛ"),
    *(
        "हिन्दी",
        "বাংলা",
        "ਪੰਜਾਬੀ",
        "ગુજરાતી",
        "தமிழ்",
        "తెలుగు",
        "ಕನ್ನಡ",
        "മലയാളം",
        "සිංහල",
        "ไทย",
        "ລາວ",
        "བོད་ཡིག",
        "မြန်မာ",
        "ខ្មែរ",
    ),
    *(
        "中文",
        "日本語ひらがな",
        "カタカナ",
        "한국어",
        "ᏣᎳᎩ",
        "ᐃᓄᒃᑎᑐᑦ",
        "ᚠᚢᚦ",
        "ᠮᠣᠩᠭᠣᠯ",
        "ⵜⴰⵎⴰⵣⵉⵖⵜ",
        "𐍈𐌹𐌻",
        "𓀀𓁐",
        "😀👨‍👩‍👧",
    ),
)
PAIRS = (
    *("Straße", "STRASSE", "strasse", "straẞe", "K", "k", "\u212a", "İ", "i\u0307", "ı", "I", "ﬁ", "fi", "ſ", "s"),
    *("é", "e\u0301", "É", "Å", "\u212b", "A\u030a", "Ω", "\u2126", "한", "한", "Σ", "σ", "ς", "Ǆ", "ǆ", "ǅ"),
)
CLIMBING = (
    *(
        "..",
        "../../outside",
        "..\\..\\outside",
        "/etc/passwd",
        "C:\\x",
        ".mirror",
        ".MIRROR",
        "manifest.json",
        "MANIFEST.JSON",
    ),
    *(
        "a\0b",
        "CON",
        "nul.png",
        "a.",
        "a ",
        "a. .",
        ".hidden",
        "-rf",
        "a\u202egnp.exe",
        "a\u200bb",
        "\ufeffa",
        "~",
        "$HOME",
        "*",
    ),
    *(
        "%2e%2e%2fx",
        "a:b",
        "a|b",
        "a\nb",
        "\u2028",
        "x" * 10_000,
        "é" * 2_000,
        "x" * 10_000 + ".png",
        "." * 300,
        " " * 300,
    ),
)


def check_root(archive: Archive, before: set[str]) -> None:
    """All stands in the root, under names of which no two are one where case is folded."""
    assert {path.name for path in archive.root.parent.iterdir()} == before | {archive.root.name}
    for folder in [archive.root, *(path for path in archive.root.iterdir() if path.is_dir())]:
        keys = [unicodedata.normalize("NFC", path.name.casefold()) for path in folder.iterdir()]
        assert len(keys) == len(set(keys))
        assert all(unicodedata.is_normalized("NFC", path.name) for path in folder.iterdir())


@pytest.mark.parametrize("texts", [SCRIPTS, PAIRS, CLIMBING], ids=["scripts", "pairs", "climbing"])
def test_files(archive: Archive, origin: Origin, texts: tuple[str, ...]) -> None:
    before = {path.name for path in archive.root.parent.iterdir()}
    bodies = {
        origin.add(f"/{n}/{quote(text, safe='')}", media.png(seed=n)): media.png(seed=n) for n, text in enumerate(texts)
    }
    origin.prompt("p", answer(task("p", images=[(None, url) for url in bodies])))
    ran = mirrored(archive, "p", archive_durability="fast")
    assert (ran.states, ran.errors) == ({"p": "complete"}, [])
    files = archive.manifest("p")["files"]
    assert {file["url"]: file["sha256"] for file in files} == {
        url: hashlib.sha256(body).hexdigest() for url, body in bodies.items()
    }
    on_disk = archive.files()
    assert {f"p/{file['path']}": bodies[file["url"]] for file in files} == {
        path: body for path, body in on_disk.items() if path != "p/manifest.json"
    }
    check_root(archive, before)


def test_prompts(archive: Archive, origin: Origin) -> None:
    before = {path.name for path in archive.root.parent.iterdir()}
    url = origin.add("/a.png", media.png())
    ids = [text for text in dict.fromkeys([*SCRIPTS[::4], *PAIRS, *CLIMBING]) if 0 < len(text) <= 256]
    for prompt_id in ids:
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    ran = mirrored(archive, *ids, archive_durability="fast")
    done = {prompt_id for prompt_id, state in ran.states.items() if state == "complete"}
    assert len(done) == len([path for path in archive.root.iterdir() if path.name != ".mirror"])
    assert {text for text in (*SCRIPTS[::4], *PAIRS) if text.isprintable()} <= done
    check_root(archive, before)
