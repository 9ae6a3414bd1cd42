"""Manifests as earlier commits wrote them: ``first`` before there were buckets, ``bucket`` with a copy in one.

They are never written anew: what reads them must go on doing so.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from mirror.errors import StoreUnavailable
from mirror.manifests.document import decode, encode
from mirror.schemas import schema_of
from tests.conftest import Archive

WRITTEN = sorted((Path(__file__).parent / "manifests").glob("*/*.json"))
FIRST = [path for path in WRITTEN if path.parent.name == "first"]


def test_there_are_some() -> None:
    assert len(FIRST) == 3
    assert len(WRITTEN) == 4


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem[:6]}")
def test_it_is_read_and_nothing_of_it_is_lost(path: Path) -> None:
    manifest = decode(path.read_bytes())
    assert json.loads(encode(manifest)) == json.loads(path.read_bytes())


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem[:6]}")
def test_it_is_valid_by_the_schema_of_today(path: Path) -> None:
    jsonschema.Draft202012Validator(json.loads(schema_of("manifest"))).validate(json.loads(path.read_bytes()))


def test_an_archive_of_them_is_worked_with(archive: Archive) -> None:
    for path in FIRST:
        folder = archive.root / path.stem
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(path.read_bytes())

    done = archive.run("rebuild")
    assert (done.code, done.out.splitlines()[0]) == (0, "3 prompts came back from their manifests")
    counts = json.loads(archive.run("status", "--json").out)
    assert {state: counts[state]["prompts"] for state in ("complete", "failed")} == {"complete": 2, "failed": 1}
    verified = archive.run("verify")
    assert verified.code == 3
    assert "missing" in verified.out
    assert "damaged" not in verified.out


def test_one_of_a_later_version_is_refused() -> None:
    told = json.loads(FIRST[0].read_bytes())
    with pytest.raises(StoreUnavailable, match="version 2: written by a newer mirror"):
        decode(json.dumps({**told, "version": 2}).encode())
    with pytest.raises(StoreUnavailable, match="not a manifest: there is none of version 0"):
        decode(json.dumps({**told, "version": 0}).encode())
    for version in (0, 2):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**told, "version": version}, json.loads(schema_of("manifest")))
