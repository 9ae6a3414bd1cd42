"""For other people's pipelines: a stage for batches (Ray Data), and a function for partitions (Dask, Spark)."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mirror import names
from mirror.catalog import PromptRecord
from mirror.config import require_api
from mirror.engines.shares import share_of
from mirror.engines.stage import Report, Stage
from mirror.errors import ConfigError, ExitCode
from mirror.manifests.document import encode_line
from mirror.models import PromptId
from mirror.settings import FetchOptions, Settings
from mirror.sources.records import find_column, id_of, no_column

B = TypeVar("B")

_TOGETHER = 64
"""Ids that a partition takes up at once."""


class MirrorStage:
    """Mirrors the prompts of a batch: a callable class for ``ray.data.Dataset.map_batches`` and its like.

    A batch is a mapping of columns (arrays or lists), a ``pyarrow.Table`` or a ``pandas.DataFrame``. What is returned
    is of the same kind, row by row the same, with these columns added (or replaced): ``state`` (as in the manifest, or
    ``unknown`` or ``unresolved``, of which no manifest is written), ``ok`` (bool: all that was asked for is mirrored),
    ``files`` (how many are there now), ``bytes`` (of these) and ``manifest`` (its JSON, as ``mirror fetch --json``
    prints it).

    ``settings`` says where files go: into a bucket, or to an absolute ``archive.root`` on a file system that all
    workers share. Of ``options``, those of a whole run (``max_time``, ``wait_lock``, ``engine``, ``processes``) say
    nothing here. ``column`` names the ids (None: ``promptId``, ``prompt_id`` or ``id``). ``workers`` is how many
    stages there are: requests a second, bandwidth and a fixed concurrency are shared out; ``transfer.memory`` is each
    one's own.

    Nobody needs to hold the root's lock, and no catalog is written: ``mirror rebuild`` makes one from the manifests.
    What is complete costs no request but for its manifest. A batch that is given to another worker since the first one
    was lost goes on where that one was. A stage pickles, opens when it is first called, and closes with :meth:`close`
    or when it is let go of. Several threads may call it, and a process
    that is forked has one of its own.

    Raises:
        ConfigError: base_url or the token is missing, the root is relative, ``workers`` is less than 1, or (when
            called) a batch has no such column, or two of that name.
        Unauthorized, StoreError: (when called) the token is rejected; the destination cannot be written to.

    Example::

        stage = mirror.MirrorStage(settings)
        batch = stage({"prompt_id": ["ef8ec19d6670c018814358a21a910090"], "label": ["a cat"]})
        print(batch["label"], batch["state"], batch["files"])  # → ['a cat'] ['complete'] [3]
        stage.close()
    """

    _given: tuple[Settings, FetchOptions, str | None]
    _stages: dict[int, Stage]

    def __init__(
        self, settings: Settings, options: FetchOptions | None = None, *, column: str | None = None, workers: int = 1
    ) -> None:
        require_api(settings.api)
        require_shared(settings)
        self.__setstate__((_share(settings, workers), options or FetchOptions(), column))

    def __call__(self, batch: B) -> B:
        """The batch with what became of its prompts."""
        settings, options, column = self._given
        ids = _ids_in(batch, column)
        stage = self._open(settings, options)
        reports = dict(stage.run([_record(prompt_id) for prompt_id in ids]))
        rows = [_row(PromptId(prompt_id), reports[PromptId(prompt_id)]) for prompt_id in ids]
        made: B = _with_columns(batch, {name: [row[name] for row in rows] for name in _COLUMNS})
        return made

    def _open(self, settings: Settings, options: FetchOptions) -> Stage:
        """This process's own: one that was opened before a fork belongs to the parent. No lock is held across one."""
        pid = os.getpid()
        stage = self._stages.get(pid)
        if stage is None:
            made = Stage(settings, options)
            stage = self._stages.setdefault(pid, made)
            if stage is made:
                weakref.finalize(self, made.close)
            else:  # another thread was faster
                made.close()
        return stage

    def close(self) -> None:
        """Let go of everything. A stage that is called after that opens anew.

        Example::

            stage = mirror.MirrorStage(settings)
            stage.close()
        """
        stage = self._stages.pop(os.getpid(), None)
        if stage is not None:
            stage.close()

    def __getstate__(self) -> Any:
        return self._given

    def __setstate__(self, given: Any) -> None:
        self._given = given
        self._stages = {}


def mirror_partition(
    ids: Iterable[str], settings: Settings, options: FetchOptions | None = None, *, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Mirror the prompts of one partition: for Dask's ``map_partitions``, Spark's ``mapPartitions`` and their like.

    ``ids`` may be any iterable. It is read 64 at a time: the next are taken up when all of these are finished, so a
    slow prompt holds up those behind it. Yields a dict for each id, as often as it is given, as prompts are finished:
    ``prompt_id``, ``state``, ``ok``, ``files``, ``bytes`` and ``manifest``, as :class:`MirrorStage` has them, of which
    ``settings``, ``options``, ``workers`` (as many partitions as are worked on at once) and all guarantees are, too. A
    generator: one that is closed before its end stops cleanly.

    Raises:
        ConfigError, Unauthorized, StoreError: as :class:`MirrorStage`.

    Example::

        for row in mirror.mirror_partition(["ef8ec19d6670c018814358a21a910090"], settings):
            print(row["prompt_id"], row["state"], row["files"])  # → ef8ec19d6670c018814358a21a910090 complete 3
    """
    require_shared(settings)
    stage = Stage(_share(settings, workers), options or FetchOptions())
    given = iter(ids)
    try:
        while records := [_record(_text(each)) for each in islice(given, _TOGETHER)]:
            times = Counter(record.prompt_id for record in records)
            for prompt_id, report in stage.run(records):
                for _ in range(times.pop(prompt_id, 0)):  # a refused id has a report each time
                    yield {"prompt_id": prompt_id, **_row(prompt_id, report)}
    finally:
        stage.close()


def require_shared(settings: Settings) -> None:
    """Check that the root does not depend on where a worker was started.

    Raises:
        ConfigError: it does.
    """
    root = settings.archive.root
    if not Path(root).is_absolute():
        told = f"archive.root {root} is relative: each worker would have an archive of its own"
        raise ConfigError(f"{told}: give an absolute path that all of them see")


def _share(settings: Settings, workers: int) -> Settings:
    if workers < 1:
        raise ConfigError(f"workers: {workers}: there must be at least 1")
    return share_of(settings, workers, on_machine=1)


_COLUMNS = ("state", "ok", "files", "bytes", "manifest")


def _row(prompt_id: PromptId, report: Report) -> dict[str, Any]:
    result, manifest = report.result, report.result.manifest
    assert manifest is not None, f"a stage asks for the manifests of all prompts: {prompt_id}"
    return {
        "state": str(result.state),
        "ok": result.code is ExitCode.OK,
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
        "manifest": encode_line(manifest).decode().rstrip("\n"),
    }


def _record(prompt_id: str) -> PromptRecord:
    """All that is known of a prompt: nothing."""
    return PromptRecord(prompt_id=PromptId(prompt_id), folder=names.for_prompt(prompt_id)[0])


def _text(value: object) -> str:
    """An id as text; what cannot be one is an id that is refused, and tells of itself."""
    try:
        return id_of(value)
    except ValueError:
        return "" if value is None else str(value)


def _ids_in(batch: Any, column: str | None) -> list[str]:
    """The ids of a batch, whatever it is, without importing what made it."""
    found = _names_of(batch)
    names = [str(name) for name in found]
    at = find_column(names, column)
    if at is None:
        raise no_column("the batch", names, column, "Give MirrorStage(column=NAME)")
    for name in (names[at], *_COLUMNS):
        if names.count(name) > 1:
            raise ConfigError(f"the batch has {names.count(name)} columns named {name!r}: rename all but one")
    values = batch[found[at]]
    values = next((getattr(values, name)() for name in ("to_pylist", "tolist") if hasattr(values, name)), values)
    return [_text(value) for value in values]


def _names_of(batch: Any) -> list[Any]:
    if hasattr(batch, "assign"):  # a DataFrame, of which any other attribute may be a column
        return list(batch.columns)
    return list(getattr(batch, "column_names", batch))


def _with_columns(batch: Any, columns: Mapping[str, list[Any]]) -> Any:
    if hasattr(batch, "assign"):  # a DataFrame
        return batch.assign(**columns)
    if hasattr(batch, "append_column"):  # a Table
        batch = batch.drop_columns([name for name in columns if name in batch.column_names])
        for name, values in columns.items():
            batch = batch.append_column(name, [values])
        return batch
    return {**batch, **columns}
