"""What the tests of `mirror export` share: archives whose names need care, and the tools that check what comes out."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.manifests.document import encode
from mirror.models import Manifest, ManifestApi, ManifestFile, Media, NamedBy, PromptState, Role
from tests.conftest import Archive
from tests.helpers import mirrored, picture
from tests.origin import answer, task

CARE = ("a%20b%20.png", "%C3%BCml%C3%A4ut%E2%80%94%E6%BC%A2.png", "%27quoted.png", "plain.png", "~tilde%3B%24x.png")
"""Names as URLs have them: spaces, other scripts, a quote in front, what a shell would read."""


def hostile(archive: Archive) -> list[str]:
    """Mirror prompts with such names, two of them with ids that one folder would hold where case is folded."""
    ids = ["p", "Case", "cASE", "an id of words"]
    for number, prompt_id in enumerate(ids):
        images = [(None, picture(archive.origin, f"/{number}/{name}")[0]) for name in CARE]
        archive.origin.prompt(prompt_id, answer(task(prompt_id, images=images)))
    assert mirrored(archive, *ids).code == 0
    archive.origin.clear()
    return ids


def generated(root: Path, count: int, *, bodies: bool = True) -> list[str]:
    """Make an archive of so many prompts with two files each, by hand: what an export reads and no more. Their ids."""
    root.mkdir(exist_ok=True)
    for number in range(count):
        prompt_id = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
        folder = root / prompt_id
        folder.mkdir()
        files = []
        for role in Role:
            body = b"%d %s" % (number, role.encode())
            name = f"{role.value}.png"
            if bodies:
                (folder / name).write_bytes(body)
            file = ManifestFile(
                path=name,
                role=role,
                url=f"https://media.example.com/{prompt_id}/{name}",
                bytes=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                content_type="image/png",
                etag='"e"',
                last_modified="2026-01-28T10:03:40Z",
                named_by=(NamedBy(prompt_id=prompt_id, task_id=number, image_id=None, field=role.value),),
                verified=("length", "etag-md5"),
                media=Media(kind="image", width=16, height=9, codec="png"),
            )
            files.append(file)
        manifest = Manifest(
            prompt_id=prompt_id,
            state=PromptState.COMPLETE,
            mirrored_at="2026-01-29T13:54:20Z",
            api=ManifestApi(url="https://api.example.com/getTaskInfo", code=200, msg="SUCCESS"),
            task={"promptId": prompt_id, "state": 30, "reason": "x" * 1000},
            files=tuple(files),
        )
        (folder / "manifest.json").write_bytes(encode(manifest))
    return [name for name in listed(root) if name != ".mirror"]


def listed(folder: Path) -> list[str]:
    """The names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def check_sums(root: Path, sums: Path) -> subprocess.CompletedProcess[str]:
    """`sha256sum -c --strict` in the archive's folder."""
    command = ["sha256sum", "-c", "--strict", str(sums)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def validate(bag: Path) -> subprocess.CompletedProcess[str]:
    """`bagit.py --validate`, which hashes every file."""
    command = [sys.executable, "-m", "bagit", "--validate", str(bag)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def library(name: str) -> Any:
    """A reader of tables that is not ours."""
    return importlib.import_module(name)


def flip(path: Path, at: int) -> None:
    """Change one bit of a file in place."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def hidden(folder: Path) -> list[str]:
    """What stands there under a hidden name."""
    return [name for name in listed(folder) if name.startswith(".mirror-output-")]


@contextlib.contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    """A folder mounted a second time; the test is skipped where nobody may do that."""
    target.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    told = subprocess.run([mount, "--bind", str(source), str(target)], check=False, capture_output=True, text=True)
    if told.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {told.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)
