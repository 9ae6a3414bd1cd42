"""A worker of the engine: what an actor of Ray runs on the batches that it is given."""

from __future__ import annotations

import threading
import traceback
import weakref
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from mirror.catalog import PromptRecord
from mirror.engines.messages import Broke, spelled
from mirror.engines.stage import Report, Stage
from mirror.errors import ConfigError
from mirror.models import PromptId
from mirror.settings import FetchOptions, Settings
from mirror.stores.disk import INTERNAL

GIVEN = "record"
"""The column of what goes to the workers."""

MADE = "said"
"""The column of what comes from them."""


class Reported(Struct, frozen=True, kw_only=True, tag=True):
    """What became of a prompt."""

    report: Report


said: msgspec.json.Decoder[Reported | Broke] = msgspec.json.Decoder(Reported | Broke)
_record: msgspec.json.Decoder[PromptRecord] = msgspec.json.Decoder(PromptRecord)


class Job(Struct, frozen=True, kw_only=True):
    """What a run is, and a worker's share of what it may use. Safe to print, as the settings are.

    ``holder`` is what the driver has written into the root's lock; empty where the workers need not see the root.
    """

    settings: Settings
    options: FetchOptions
    run_id: str
    holder: str = ""


class RayStage:
    """As ``MirrorStage``, of records, with all that the driver needs to know.

    One report for each record, in order: where a batch is given out again after a part of what the first worker said
    was heard, Ray leaves out as many.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._opening = threading.Lock()
        self._stage: Stage | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Reports; where the run cannot go on, those that there are, and as the last row what broke it."""
        records = [_record.decode(row) for row in batch[GIVEN]]
        reports: dict[PromptId, Report] = {}
        broke: list[bytes] = []
        try:
            for prompt_id, report in self._open().run(records):
                reports[prompt_id] = report  # noqa: PERF403 - what was reported before an error is kept
        except Exception as error:  # noqa: BLE001  the driver must hear of it, whatever it is
            broke = [msgspec.json.encode(spelled(error, traceback.format_exc()))]
        known = [reports[record.prompt_id] for record in records if record.prompt_id in reports]
        return {MADE: [*(msgspec.json.encode(Reported(report=report)) for report in known), *broke]}

    def _open(self) -> Stage:
        with self._opening:
            if self._stage is None:
                if self._job.holder:
                    check_shared(Path(self._job.settings.archive.root), self._job.holder)
                self._stage = Stage(self._job.settings, self._job.options, run_id=self._job.run_id, is_locked=True)
                weakref.finalize(self, self._stage.close)
            return self._stage


def lock_of(root: Path) -> str:
    """What stands in a root's lock; nothing where there is none, or it cannot be read. Blocks."""
    try:
        return (root / INTERNAL / "lock").read_text("utf-8", "replace")
    except OSError:
        return ""


def check_shared(root: Path, holder: str) -> None:
    """Check that the root that we see is the one that the driver holds.

    Raises:
        ConfigError: it is another, or none.
    """
    if lock_of(root) != holder:
        told = f"a worker does not see the archive's root {root}: it must be on a file system that all nodes share"
        raise ConfigError(f"{told}; or put everything into a bucket: --s3 s3://BUCKET/PREFIX --s3-only")
