"""An archive as somebody sees it who knows its format and nothing of the code: what stands on disk, what the manifests
say, what the catalog's rows say."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mirror import Manifest, ManifestFile
from mirror.manifests.document import decode_if_sound
from mirror.stores.journal import Started, journal_of
from tests.helpers import sha256

MANIFEST = "manifest.json"
CATALOG = "catalog.sqlite"


@dataclass(frozen=True)
class Thing:
    """What stands under a name: a file's content, a symlink's target, or a folder (neither)."""

    content: bytes | None = None
    target: str | None = None

    def is_file(self, file: ManifestFile) -> bool:
        """Whether it could be this file, for all that its size tells."""
        return self.content is not None and len(self.content) == file.bytes

    def holds(self, file: ManifestFile) -> bool:
        """Whether it is this file, byte for byte."""
        return self.content is not None and sha256(self.content) == file.sha256


@dataclass(frozen=True)
class Row:
    """A prompt in the catalog. ``entries`` are the files that were stored, ``failed`` those that are lost or never
    came, ``listed`` all that it knows of, with their roles."""

    state: str
    unfinished: bool
    entries: dict[str, ManifestFile]
    failed: frozenset[str]
    listed: dict[str, str]
    is_only_listed: bool = False


@dataclass
class Seen:
    """``things`` by path below the root, ``rows`` None where there is no catalog, ``journaled`` the identities of files
    that are half here."""

    things: dict[str, Thing]
    rows: dict[str, Row] | None
    journaled: frozenset[str] = frozenset()
    liars: frozenset[str] = frozenset()
    """Prompts whose manifest was changed so that it can be read and says something wrong."""

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """Those that can be read, each its own prompt's."""
        found = {}
        for path, thing in self.things.items():
            folder, _, name = path.partition("/")
            manifest = decode_if_sound(thing.content) if name == MANIFEST else None
            if manifest is not None and manifest.prompt_id == folder:
                found[folder] = manifest
        return found

    def row(self, prompt_id: str) -> Row | None:
        """What a fetch knows beforehand: the catalog's row, else what the manifest says."""
        row = (self.rows or {}).get(prompt_id)
        if row is not None and not row.is_only_listed:
            return row
        manifest = self.manifests.get(prompt_id)
        return row if manifest is None else _adopted(manifest)

    def promised(self, prompt_id: str) -> dict[str, ManifestFile]:
        """Every file of which the archive says that it was mirrored, by identity."""
        row = (self.rows or {}).get(prompt_id)
        manifest = self.manifests.get(prompt_id)
        found = _of_manifest(manifest) if manifest is not None and prompt_id not in self.liars else {}
        return found | (row.entries if row is not None else {})

    def at(self, prompt_id: str, file: ManifestFile) -> Thing | None:
        return self.things.get(f"{prompt_id}/{file.path}")

    def has_whole(self, prompt_id: str, file: ManifestFile) -> bool:
        thing = self.at(prompt_id, file)
        return thing is not None and thing.holds(file)

    def has(self, prompt_id: str, file: ManifestFile) -> bool:
        thing = self.at(prompt_id, file)
        return thing is not None and thing.is_file(file)

    def stands(self, path: str) -> bool:
        """Whether a regular file has this name."""
        thing = self.things.get(path)
        return thing is not None and thing.content is not None


def _of_manifest(manifest: Manifest) -> dict[str, ManifestFile]:
    lost = {error.was.url: error.was for error in manifest.errors if isinstance(error.was, ManifestFile)}
    return lost | {file.url: file for file in manifest.files}


def _adopted(manifest: Manifest) -> Row:
    named = {file.url for file in manifest.files}
    errors = {error.url: str(error.role) for error in manifest.errors if error.url and error.role}
    return Row(
        state=str(manifest.state),
        unfinished=manifest.state == "pending" or not named | errors.keys() >= _named_by(manifest.task),
        entries=_of_manifest(manifest),
        failed=frozenset(errors.keys() - named),
        listed=errors | {file.url: str(file.role) for file in manifest.files},
    )


def _named_by(task: Any) -> set[str]:
    """The identities of the files that the done tasks of an answer name."""
    done = [member for member in (task, *task["taskList"]) if member["state"] == 30]
    images = [image for member in done for image in member["imageList"]]
    urls = [image[field] for image in images for field in ("path", "origin")]
    return {url.partition("?")[0] for url in urls if url}


def look(root: Path, liars: frozenset[str], *, garbled: bool = False) -> Seen:
    """See all of it. The catalog is read from a copy: whoever opens it next finds it as it was left."""
    journals = (journal_of(path).read() for path in (root / ".mirror" / "parts").glob("*.journal"))
    return Seen(
        things=dict(_things(root)),
        rows=None if garbled else _rows(root / ".mirror"),
        journaled=frozenset(found[0].identity for found in journals if found and isinstance(found[0], Started)),
        liars=liars,
    )


def _things(root: Path) -> list[tuple[str, Thing]]:
    found = []
    for folder, folders, files in os.walk(root):
        if Path(folder) == root and ".mirror" in folders:
            folders.remove(".mirror")
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink():
                thing = Thing(target=str(path.readlink()))
            else:
                thing = Thing(content=None if path.is_dir() else path.read_bytes())
            found.append((str(path.relative_to(root)), thing))
    return found


def _rows(folder: Path) -> dict[str, Row] | None:
    """The catalog's rows; SQLite must find nothing wrong with it."""
    if not (folder / CATALOG).exists():
        return None
    with tempfile.TemporaryDirectory() as copies:
        for suffix in ("", "-wal"):
            if (folder / (CATALOG + suffix)).exists():
                shutil.copy(folder / (CATALOG + suffix), copies)
        with contextlib.closing(sqlite3.connect(Path(copies) / CATALOG)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                return {}  # a kill came before it was made
            return {row[0]: _row(connection, *row) for row in connection.execute(_PROMPTS).fetchall()}


_PROMPTS = "SELECT prompt_id, state, unfinished, tries FROM prompts WHERE folder = prompt_id"


def _row(connection: sqlite3.Connection, prompt_id: str, state: str, unfinished: int, tries: int) -> Row:
    files = connection.execute(
        "SELECT identity, role, entry, failure IS NOT NULL FROM files WHERE prompt_id = ?", (prompt_id,)
    ).fetchall()
    return Row(
        state=state,
        unfinished=bool(unfinished),
        entries={
            which: msgspec.json.decode(entry, type=ManifestFile) for which, _, entry, _ in files if entry is not None
        },
        failed=frozenset(which for which, _, _, failed in files if failed),
        listed={which: role for which, role, _, _ in files},
        is_only_listed=state == "unresolved" and not tries and not files,
    )
