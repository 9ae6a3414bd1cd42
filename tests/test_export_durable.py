"""An export has its name only when all of it is durable: asserted on its system calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import traced
from tests.conftest import Archive
from tests.export_runs import generated
from tests.traced import Durability

_WHY_NOT = traced.why_not()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)


@pytest.mark.parametrize("what", ["jsonl", "parquet", "bagit", "bagit --link"])
def test_it_is_durable_before_it_has_its_name(archive: Archive, tmp_path: Path, what: str) -> None:
    ids = generated(archive.root, 20)
    place, trace = tmp_path / "place", tmp_path / "trace"
    place.mkdir()
    target = place / "out"
    arguments = ["export", *what.split(), "--output", str(target)]
    command = traced.command(trace, sys.executable, "-m", "mirror", *arguments)
    subprocess.run(command, env=archive.environment(), check=True, capture_output=True, timeout=120)

    files = [path.relative_to(target) for path in target.rglob("*") if path.is_file()] if target.is_dir() else []
    assert len(files) == (4 + 3 * len(ids) if what.startswith("bagit") else 0)
    renames = [call for call in traced.calls(trace) if call.name.startswith("rename") and str(target) in call.paths]
    hidden = Path(renames[0].paths[0])
    mirrored = [archive.root / prompt_id / f"{role}.png" for prompt_id in ids for role in ("origin", "thumbnail")]
    inside, outside = Durability(hidden, mirrored), Durability(place)
    named = False
    for call in traced.calls(trace):
        if call == renames[0]:
            named = True
            assert target.is_dir() or outside.has_content(hidden)
            assert [path for path in files if not inside.has(hidden / path)] == []
        inside.see(call)
        outside.see(call)
    assert named
    assert outside.has_name(target)
