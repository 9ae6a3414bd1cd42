"""However large an archive is, an export takes the same memory. Peaks are the kernel's (VmHWM)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.stream import watch
from tests.conftest import Archive
from tests.export_runs import generated, listed

pytestmark = pytest.mark.usefixtures("unmeasured")

MIB = 1 << 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 20,000 prompts, without its files."""
    made = tmp_path_factory.mktemp("large") / "archive"
    generated(made, 20_000, bodies=False)
    return made


def peak(archive: Archive, *arguments: str) -> float:
    """The peak of an export's resident memory, in MiB."""
    command = [sys.executable, "-m", "mirror", "export", *arguments]
    with subprocess.Popen(command, env=archive.environment(), stderr=subprocess.PIPE) as process:
        found = watch(process)
        assert process.stderr is not None
        told = process.stderr.read().decode()
    assert (process.returncode, told.count("\n")) == (0, 1)
    print(f"{' '.join(arguments[:1])}: {told.strip()}, peak {found:.0f} MiB")
    return found


@pytest.mark.parametrize(
    ("form", "few", "most"), [("sha256sums", 400, 8), ("jsonl", 400, 8), ("csv", 400, 8), ("parquet", 9_000, 32)]
)
def test_of_many_prompts_as_of_few(
    archive: Archive, tmp_path: Path, root: Path, form: str, few: int, most: float
) -> None:
    """20,000 folders' names are 2 MiB. Of Parquet the few are more than a row group, so that all is in use."""
    ids = tmp_path / "ids"
    ids.write_text("\n".join(listed(root)[:few]))
    output = ("--root", str(root), "--output", str(tmp_path / "out"))
    base = peak(archive, form, "-i", str(ids), *output)
    assert peak(archive, form, *output) - base < most
    assert (tmp_path / "out").stat().st_size > 5 * MIB


def test_a_bag(archive: Archive, tmp_path: Path) -> None:
    ids = generated(archive.root, 3_000)
    (tmp_path / "ids").write_text("\n".join(ids[:200]))
    archive.environ["MIRROR_ARCHIVE_DURABILITY"] = "fast"
    base = peak(archive, "bagit", "-i", str(tmp_path / "ids"), "--output", str(tmp_path / "few"))
    assert peak(archive, "bagit", "--output", str(tmp_path / "bag")) - base < 8
