"""``mirror rebuild`` killed before each name it makes, changes or removes: one catalog stands there, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.catalog import Catalog
from mirror.models import PromptId
from tests import media
from tests.catalog_runs import in_catalog, prompt, saved
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored
from tests.origin import Origin

KILLED = """
import asyncio, os, shutil, signal, sys
from pathlib import Path
from mirror import load_settings
from mirror.audit import rebuild
from mirror.places import open_places

async def run(root):
    os.environ["MIRROR_ARCHIVE_ROOT"] = str(root)
    places = open_places(load_settings())
    try:
        await rebuild(root / ".mirror" / "catalog.sqlite", places, durable=False)
    finally:
        await places.close()

def kill_before(number, below):
    def hook(event, arguments):
        nonlocal number
        if event in ("os.link", "os.remove", "os.rename") and str(arguments[0]).startswith(below):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def is_killed(root, number):
    pid = os.fork()
    if pid == 0:
        kill_before(number, f"{root}/")
        asyncio.run(run(root))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

for number in range(1, 50):
    root = Path(sys.argv[2]) / str(number)
    shutil.copytree(sys.argv[1], root)
    killed = is_killed(root, number)
    if killed and "again" in sys.argv:
        is_killed(root, 0)
    print(number, "killed" if killed else "ended", flush=True)
    if not killed:
        break
"""


@pytest.fixture
def template(origin: Origin, archive: Archive) -> Path:
    """An archive with one manifest. Its catalog knows two other prompts, one of them in its log only."""
    done_prompt(origin, "new", "a.png")
    assert mirrored(archive, "new").code == 0
    path = archive.root / ".mirror" / "catalog.sqlite"
    aside = path.with_name("aside.sqlite")

    async def copy_under_way(catalog: Catalog) -> None:
        await saved(catalog, prompt("in-log"))
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{aside}{suffix}", f"{path}{suffix}")

    in_catalog(aside, lambda catalog: saved(catalog, prompt("in-file")))
    in_catalog(aside, copy_under_way)
    aside.unlink()
    return archive.root


def killed_rebuilds(template: Path, archive: Archive, folder: Path, *then: str) -> Iterator[tuple[Path, bool]]:
    """Copies of the archive, each rebuilt up to its own moment, ``again`` once more; and whether that was the end."""
    command = [sys.executable, "-c", KILLED, str(template), str(folder), *then]
    done = subprocess.run(command, env={**os.environ, **archive.environ}, capture_output=True, text=True, check=False)
    assert done.stdout.count("ended") == 1, done.stderr
    assert done.stdout.count("killed") >= 5
    for line in done.stdout.splitlines():
        number, how = line.split()
        yield folder / number / ".mirror" / "catalog.sqlite", how == "ended"


def ids(path: Path) -> set[PromptId]:
    async def read(catalog: Catalog) -> set[PromptId]:
        return {each async for page in catalog.prompt_ids() for each in page}

    return in_catalog(path, read, mode="read")


def test_killed_at_any_moment_it_leaves_the_old_catalog_or_the_new_one(
    template: Path, archive: Archive, tmp_path: Path
) -> None:
    found = [(ids(path), ended) for path, ended in killed_rebuilds(template, archive, tmp_path / "killed")]
    assert all(known in ({"in-file", "in-log"}, {"new"}) for known, _ in found), found
    assert found[-1] == ({"new"}, True)


def test_killed_at_any_moment_it_keeps_a_damaged_catalog(template: Path, archive: Archive, tmp_path: Path) -> None:
    catalog = template / ".mirror" / "catalog.sqlite"
    log = catalog.with_name("catalog.sqlite-wal").read_bytes()
    catalog.write_bytes(b"")
    for path, _ in killed_rebuilds(template, archive, tmp_path / "killed", "again"):
        assert ids(path) == {"new"}
        assert path.with_name("catalog.sqlite.old").read_bytes() == b""
        assert path.with_name("catalog.sqlite.old-wal").read_bytes() == log


@pytest.mark.parametrize("content", [b"", media.blob(20_000)], ids=["emptied", "garbled"])
def test_a_damaged_catalog_stays_as_it_was(template: Path, archive: Archive, content: bytes) -> None:
    catalog = template / ".mirror" / "catalog.sqlite"
    catalog.write_bytes(content)
    catalog.with_name("catalog.sqlite-wal").unlink()
    assert archive.run("rebuild").code == 0
    assert (ids(catalog), catalog.with_name("catalog.sqlite.old").read_bytes()) == ({"new"}, content)


def test_the_old_catalog_stays_with_what_was_in_its_log(template: Path, archive: Archive) -> None:
    catalog = template / ".mirror" / "catalog.sqlite"
    assert archive.run("rebuild").code == 0
    assert (ids(catalog), ids(catalog.with_name("catalog.sqlite.old"))) == ({"new"}, {"in-file", "in-log"})
    with contextlib.suppress(FileNotFoundError):
        assert catalog.with_name("catalog.sqlite-wal").read_bytes() == b""
