"""A manifest that is read back: by us, by a later version, or after somebody else has written it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror import load_settings, names
from mirror.adoption import record_from
from mirror.audit import forget, rebuild
from mirror.catalog import Catalog
from mirror.errors import MirrorError, StoreUnavailable
from mirror.manifests.document import decode, decode_if_sound, encode, encode_line, same_content, says_more
from mirror.models import Manifest, ManifestApi, ManifestFile, PromptId, PromptState, Role
from mirror.places import open_places
from mirror.stores import Document
from mirror.stores.local import LocalStore
from mirror.verification import Verify
from tests.fuzz.seeds import TOKENS, seeds
from tests.properties import examples, near

SOUND: dict[str, Any] = json.loads(seeds()["manifest"][0])


def written(**changed: Any) -> bytes:
    """A sound manifest but for these keys; ``file_…`` are those of its file, ``was_…`` those of the one it lost."""
    manifest = json.loads(json.dumps(SOUND))
    for key, value in changed.items():
        where, _, name = key.partition("_")
        target = {"file": manifest["files"][0], "was": manifest["errors"][0]["was"]}.get(where)
        if target is None:
            manifest[key] = value
        else:
            target[name] = value
    return json.dumps(manifest).encode()


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = {"taskList": [value]}
    return value


def test_a_sound_one_is_taken() -> None:
    found = decode(written())
    assert (found.files[0].path, found.errors[0].error) == ("a.png", "Gone")


@pytest.mark.parametrize("which", ["file_path", "was_path"])
@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "../x", "../../x", "a/b", "/etc/passwd", "a\\b", "C:a", "a\0b", "a\nb", ".hidden", "-rf"),
        *("manifest.json", "MANIFEST.json", "x" * 201, "nul", "a\u202eb", "e\u0301", "a."),
    ],
)
def test_a_path_that_is_no_name_of_ours_is_refused(which: str, path: str) -> None:
    with pytest.raises(StoreUnavailable, match="outside its folder"):
        decode(written(**{which: path}))


WRONG: dict[str, list[Any]] = {
    "file_bytes": [-1, 2**53, 2**63, 2**64, 10**30, 1e30, 1.5, "1", None, True],
    "was_bytes": [-1, 2**63],
    "version": [0, -1, 2, 2**70, "1", None, 1.5],
    "task": [nested(33), nested(400), [], "x"],
    "state": ["done", "unknown", "unresolved", None, 1],
    "prompt_id": [None, 1, ["p"], "", "a\0b", "a\nb", "x" * 257],
    "files": [None, {}, [None], [[]], "x"],
}


@pytest.mark.parametrize(
    "changed", [{key: each} for key, found in WRONG.items() for each in found], ids=lambda changed: str(changed)[:40]
)
def test_what_no_manifest_says_is_refused(changed: dict[str, Any]) -> None:
    content = written(**changed)
    with pytest.raises(StoreUnavailable):
        decode(content)
    assert record_from(Document(content=content), "folder") is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff", b"null", b"[]", b"{", b"[" * 100_000, b'{"x":' * 100_000, b'{"x":' * 900 + b"1" + b"}" * 900),
        written().replace(b'"a.png"', b'"\\ud800"'),
        written().replace(b'"a.png"', b'"\xed\xa0\x80"'),
        written().replace(b"9", b"9" * 5000),
        b"\0" * 100 + written(),
        written() + b"{}",
    ],
    ids=lambda content: str(content[:20]),
)
def test_bytes_that_are_no_manifest(content: bytes) -> None:
    with pytest.raises(StoreUnavailable):
        decode(content)
    assert decode_if_sound(content) is None


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert decode(written(version=1, new={"a": [1]}, file_new="x")) == decode(written())


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
printable = st.text(st.just(" ") | st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
paths = text.map(names.safe).filter(lambda name: bool(name) and not names.is_reserved(name))
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
files = st.builds(
    ManifestFile,
    path=paths,
    role=st.sampled_from(Role),
    url=text,
    bytes=st.integers(0, 2**53 - 1),
    sha256=st.none() | text,
    content_type=st.none() | text,
)
manifests = st.builds(
    Manifest,
    prompt_id=printable,
    state=st.sampled_from(["complete", "partial", "pending", "failed"]).map(PromptState),
    mirrored_at=text,
    api=st.builds(ManifestApi, url=text, code=st.none() | st.integers(-(2**63), 2**63 - 1), msg=st.none() | text),
    task=st.none() | st.dictionaries(text, values, max_size=4),
    files=st.lists(files, max_size=4).map(tuple),
)


@examples(150)
@given(manifests)
def test_what_is_written_is_read_back_as_it_was(manifest: Manifest) -> None:
    content, line = encode(manifest), encode_line(manifest)
    assert decode(content) == decode(line) == manifest
    assert (line.count(b"\n"), content[-1:]) == (1, b"\n")
    assert same_content(manifest, msgspec.structs.replace(manifest, mirrored_at="later"))


@examples(100)
@given(manifests, st.integers(0, 3))
def test_one_that_lacks_a_file_says_less(manifest: Manifest, which: int) -> None:
    unique = tuple({file.url: file for file in manifest.files}.values())
    whole = msgspec.structs.replace(manifest, files=unique)
    less = msgspec.structs.replace(whole, files=unique[:which] + unique[which + 1 :])
    assert says_more(whole, less)
    assert says_more(less, whole) is (less.files == whole.files)


@pytest.mark.parametrize(
    ("key", "is_own"), [("a/p/x.png", True), ("p/x.png", True), ("a/q/x.png", False), ("p", False)]
)
def test_an_object_in_another_prompts_folder_is_not_its_own(key: str, is_own: bool) -> None:
    """Else `forget --delete` would take it away."""
    content = written(prompt_id="p", file_s3={"bucket": "b", "key": key, "etag": "e", "via": "upload"})
    record = record_from(Document(content=content), "p")
    assert record is not None
    [stored] = [file.entry for file in record.files if file.entry is not None and file.failure is None]
    assert (stored.s3 is not None) == is_own


@examples(25)
@given(st.lists(near([written(file_s3=None)], TOKENS["manifest"]) | manifests.map(encode), min_size=1, max_size=4))
def test_nothing_in_a_manifest_leads_out_of_its_folder(contents: list[bytes]) -> None:
    """The catalog is made from them, all is verified, and each prompt forgotten with its files."""
    asyncio.run(_made_again_and_forgotten(contents))


async def _made_again_and_forgotten(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        above, root = Path(scratch), Path(scratch) / "archive"
        for name in ("a.png", "manifest.json", "x"):
            (above / name).write_bytes(b"not ours")
        for number, content in enumerate(contents):
            (root / f"p{number}").mkdir(parents=True)
            (root / f"p{number}" / "manifest.json").write_bytes(content)
            (root / f"p{number}" / "a.png").write_bytes(b"ours")
            (root / f"p{number}" / "stranger").write_bytes(b"not ours")
        settings = load_settings(root=root, transfer_min_free_space=0, archive_durability="fast")
        places = open_places(settings)
        assert isinstance(places.disk, LocalStore)
        places.disk.open()
        path = root / ".mirror" / "catalog.sqlite"
        try:
            made = await rebuild(path, places, durable=False)
            assert made.prompts + len(made.unreadable) == len(contents)
            catalog = Catalog.open(path, durable=False)
            try:
                await catalog.counts()
                told = {checked.where.partition("/")[0] async for checked in Verify(places, catalog).on_disk()}
                assert told >= {f"p{number}" for number in range(len(contents))}, "no folder goes unseen"
                ids = [prompt_id async for page in catalog.prompt_ids() for prompt_id in page]
                for prompt_id in ids:
                    with contextlib.suppress(MirrorError):
                        await forget(catalog, places, PromptId(prompt_id), delete=True)
            finally:
                await catalog.close()
        finally:
            await places.close()
        assert {found.name: found.read_bytes() for found in above.iterdir() if found.is_file()} == dict.fromkeys(
            ("a.png", "manifest.json", "x"), b"not ours"
        )
        assert all((root / f"p{number}" / "stranger").exists() for number in range(len(contents)))
