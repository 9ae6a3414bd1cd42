"""Ids of files and objects as a dataset: read on the cluster, by our own readers, so that every rule of them holds.

Ray's readers guess types (``0017`` would become 17), cut lines elsewhere, and end with the first bad one.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mirror.engines.ray.cluster import Cluster, first_line, joined
from mirror.errors import ConfigError, MirrorError, StoreUnavailable
from mirror.events import Event, Observer
from mirror.settings import ApiSettings
from mirror.sources import Batch
from mirror.sources.blocking import in_thread
from mirror.sources.inputs import Reading, is_local, open_input
from mirror.sources.lines import Report

_BLOCK = 256 << 10
"""Bytes of ids that are handed on together."""

_CPU = 0.25

_PER_PROCESS = ("/dev", "/proc")
"""What stands here is another thing for each process: its own descriptors, its own terminal."""

_MOST_LINKS = 40

_Identity = tuple[int, int]
"""A file's device and number: every process of a machine sees the same."""

_Row = tuple[str | None, str, str]
"""An id; or a bad line (or the end of all, with the name of an error) and what is said of it."""


async def open_on_cluster(
    name: str, reading: Reading, *, on_bad_line: Report, observer: Observer
) -> AsyncGenerator[Batch, None]:
    """As :func:`mirror.sources.inputs.open_input`: a plain file is read on this node, an object on any, all else here.

    A pipe, a device and whatever stands for an open descriptor are this process's alone.

    Raises:
        ConfigError, StoreError: (while iterating) as there, or there is no Ray.
    """
    identity = await asyncio.to_thread(identity_of, name) if is_local(name) else None
    is_object = name.startswith("s3://")
    if identity is None and not is_object:
        source = open_input(name, reading, on_bad_line=on_bad_line, observer=observer)
    else:  # no token goes where none is used
        bare = replace(reading, settings=replace(reading.settings, api=ApiSettings()))
        source = _ids(name, bare, identity, on_bad_line)
    async with aclosing(source):
        async for ids in source:
            yield ids


def identity_of(name: str) -> _Identity | None:
    """Which file it is, if it is a plain one for every process of this machine; else None. Blocks."""
    place = Path(name)
    try:
        for _ in range(_MOST_LINKS):
            place = place.parent.resolve() / place.name
            if any(place.is_relative_to(each) for each in _PER_PROCESS):
                return None
            if not place.is_symlink():
                break
            place = place.parent / place.readlink()
        status = place.stat()
    except (OSError, RuntimeError, ValueError):  # links in a ring, a NUL: whoever opens it says so
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


async def _ids(
    name: str, reading: Reading, identity: _Identity | None, on_bad_line: Report
) -> AsyncGenerator[Batch, None]:
    cluster = await joined()
    async with aclosing(in_thread(_blocks(cluster, name, reading, identity))) as blocks:
        async for rows in blocks:
            if ids := [found for found, _, _ in rows if found is not None]:
                yield ids
            for found, kind, problem in rows:
                if found is None:
                    _tell(kind, problem, on_bad_line)


def _tell(kind: str, problem: str, on_bad_line: Report) -> None:
    if not kind:
        on_bad_line(problem)
    elif kind == ConfigError.__name__:
        raise ConfigError(problem)
    else:
        raise StoreUnavailable(problem)


def _blocks(cluster: Cluster, name: str, reading: Reading, identity: _Identity | None) -> Iterator[list[_Row]]:
    """Blocks."""
    ray = cluster.ray
    placed: dict[str, Any] = {"num_cpus": _CPU}
    if identity is not None:
        placed = {"num_cpus": 0, "resources": {f"node:{ray.util.get_node_ip_address()}": 0.001}}
    dataset = ray.data.from_items([{"name": name, "folder": str(Path.cwd())}]).map_batches(
        read, fn_kwargs={"reading": reading, "identity": identity}, batch_size=1, **placed
    )
    dataset.context.target_max_block_size = _BLOCK
    try:
        for block in cluster.hush(dataset).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            if block.num_rows:
                columns = [block.column(column).to_pylist() for column in ("id", "kind", "problem")]
                yield list(zip(*columns, strict=True))
    except Exception as error:
        raise StoreUnavailable(f"{name}: Ray cannot read it: {first_line(error)}") from error


def read(batch: dict[str, Any], reading: Reading, identity: _Identity | None) -> Iterator[dict[str, list[Any]]]:
    """The ids and the problems of an input, as they are read: a task of Ray's. ``identity`` says which file it is."""
    [name], [folder] = batch["name"], batch["folder"]
    path = str(name)
    if identity is not None:
        path = str(Path(folder, name))
        if identity_of(path) != identity:
            problem = f"{name}: cannot be read: Ray's processes on this machine see another file there, or none"
            yield {"id": [None], "kind": [ConfigError.__name__], "problem": [f"{problem}: give it as -i - <{name}"]}
            return
    problems: list[_Row] = []
    loop = asyncio.new_event_loop()
    source = open_input(path, reading, on_bad_line=lambda said: problems.append((None, "", said)), observer=_unobserved)
    try:
        while True:
            ids: Batch = []
            ended = False
            try:
                ids = loop.run_until_complete(anext(source))
            except StopAsyncIteration:
                ended = True
            except MirrorError as error:
                kind = ConfigError if isinstance(error, ConfigError) else StoreUnavailable
                problems.append((None, kind.__name__, str(error)))
                ended = True
            rows = [*problems, *((found, "", "") for found in ids)]
            problems.clear()
            if rows:
                told = list(zip(*rows, strict=True))
                yield dict(zip(("id", "kind", "problem"), map(list, told), strict=True))
            if ended:
                return
    finally:
        loop.run_until_complete(source.aclose())
        loop.close()


def _unobserved(_: Event, /) -> None:
    """Nobody watches."""
