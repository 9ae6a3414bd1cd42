"""What a format is: found where it lies, by its name; the page's example is run as it stands there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import mirror
from mirror.manifests.formats import FileFormat, FolderFormat, formats
from tests.conftest import Archive
from tests.export_runs import hostile

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
METALINK = "{urn:ietf:params:xml:ns:metalink}"


def test_they_are_found_by_their_names() -> None:
    found = formats()
    assert list(found) == ["bagit", "csv", "jsonl", "parquet", "sha256sums"]
    assert [name for name, each in found.items() if isinstance(each, FolderFormat)] == ["bagit"]
    files = [each for each in found.values() if isinstance(each, FileFormat)]
    assert [each.name for each in files if not each.is_text] == ["parquet"]
    assert all(each.about.endswith(".") and len(each.about) < 90 for each in found.values())


def test_the_page_s_example_is_a_format(archive: Archive, tmp_path: Path) -> None:
    """In a copy of the package, with nothing else changed."""
    hostile(archive)
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    package = tmp_path / "copy" / "mirror"
    shutil.copytree(Path(mirror.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "manifests" / "metalink.py").write_text(example)

    environ = {name: value for name, value in archive.environment().items() if not name.startswith("COV")}
    environ["PYTHONPATH"] = f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        """Not looked at by coverage: to that the copy would be more code, most of it not run."""
        command = [sys.executable, "-m", "mirror", "export", *arguments]
        return subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    assert "Metalink (RFC 5854): where each file came from" in run("--help").stdout
    done = run("metalink")
    assert (done.returncode, done.stderr.startswith("20 files of 4 prompts")) == (0, True)
    told = {
        file.get("name"): (file.findtext(f"{METALINK}size"), file.findtext(f"{METALINK}hash"))
        for file in ElementTree.fromstring(done.stdout.encode())
    }
    media = {path: body for path, body in archive.files().items() if not path.endswith("/manifest.json")}
    assert told == {path: (str(len(body)), hashlib.sha256(body).hexdigest()) for path, body in media.items()}


def test_the_page_tells_of_all_formats_and_columns(archive: Archive) -> None:
    page = PAGE.read_text("utf-8")
    archive.root.mkdir()
    assert [name for name in formats() if f"mirror export {name} " not in page] == []
    assert [name for name in archive.run("export", "csv").out.strip().split(",") if f"`{name}`" not in page] == []
