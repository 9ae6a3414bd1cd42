"""The store that bucket scenarios fill: a sink in a process of its own, and whether it got what the origin has."""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bucket import TOLD
from tests.bench.check import Wrong
from tests.bench.servers import serving

ENVIRON = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
"""Credentials that the sink does not check."""

BUCKET = "bench"


@dataclass(frozen=True)
class Told:
    """What a sink says of itself: bytes of bodies that came and went, and the files that have each object's bytes."""

    received: int
    sent: int
    objects: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Sink:
    """A sink under way."""

    endpoint: str

    def told(self) -> Told:
        with urllib.request.urlopen(self.endpoint + TOLD, timeout=120) as answer:
            told = json.load(answer)
        return Told(told["received"], told["sent"], {key: it["files"] for key, it in told["objects"].items()})


@contextlib.contextmanager
def sink(folder: Path, sources: Path) -> Iterator[Sink]:
    """A fresh one until the block is left. It compares what it gets with the files of ``sources``, by their names, and
    keeps the rest below ``folder``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sink", dir=folder) as kept,
        serving("sink", kept, sources) as port,
    ):
        yield Sink(f"http://127.0.0.1:{port}")


def check_objects(told: Told, sources: Iterable[Path], prefix: str) -> None:
    """Below the prefix each source stands once, under its own name, byte for byte.

    Raises:
        Wrong: one is missing, there twice, or other bytes.
    """
    below = {key: files for key, files in told.objects.items() if key.startswith(prefix) and not key.endswith(".json")}
    by_name = {key.rpartition("/")[2]: files for key, files in below.items()}
    wanted = {source.name: source for source in sources}
    if len(below) != len(by_name) or by_name.keys() != wanted.keys():
        raise Wrong(f"the bucket has {len(below)} objects, the origin {len(wanted)} files, or their names differ")
    for name, source in wanted.items():
        if not _same(by_name[name], source):
            raise Wrong(f"{name} in the bucket is not what the origin has")


def check_named(folder: Path, sources: Iterable[Path]) -> None:
    """Below the folder each source stands once, under its own name, byte for byte.

    Raises:
        Wrong: one is missing, there twice, or other bytes.
    """
    found = [path for path in folder.rglob("*.png") if ".mirror" not in path.parts]
    by_name, wanted = {path.name: path for path in found}, {source.name: source for source in sources}
    if len(found) != len(by_name) or by_name.keys() != wanted.keys():
        raise Wrong(f"{folder} has {len(found)} files, the origin {len(wanted)}, or their names differ")
    for name, source in wanted.items():
        if not _same([str(by_name[name])], source):
            raise Wrong(f"{by_name[name]} is not what the origin has")


def _same(files: Sequence[str], source: Path) -> bool:
    with source.open("rb") as expected:
        for each in files:
            content = Path(each).read_bytes()
            if expected.read(len(content)) != content:
                return False
        return not expected.read(1)
