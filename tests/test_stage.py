"""`MirrorStage` and `mirror_partition`: the pipeline inside of somebody else's, without a catalog and without a lock."""

from __future__ import annotations

import json
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

from mirror import FetchOptions, MirrorError, MirrorStage, Settings, mirror_partition
from mirror.catalog import FileSaved, PromptRecord
from mirror.engines.stage import Stage
from mirror.errors import ConfigError, Unauthorized
from mirror.events import FileStored, PromptFinished
from mirror.models import PromptId
from tests.conftest import Archive
from tests.faults import hold_after
from tests.helpers import done_prompt, large_prompt, picture, tree
from tests.origin import Origin, answer, task


@pytest.fixture
def settings(archive: Archive) -> Settings:
    return archive.settings()


def served(origin: Origin, *ids: str) -> dict[str, bytes]:
    """Serve these prompts with two pictures each; path → bytes."""
    return {
        f"{prompt_id}/{name}": body
        for prompt_id in ids
        for name, body in done_prompt(origin, prompt_id, "a.png", "b.png").items()
    }


def media(archive: Archive) -> dict[str, bytes]:
    return {path: body for path, body in archive.files().items() if not path.endswith("/manifest.json")}


@pytest.fixture(params=["dict", "arrow", "pandas"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def as_batch(kind: str, columns: dict[str, list[Any]]) -> Any:
    return {"dict": dict, "arrow": pyarrow.table, "pandas": pandas.DataFrame}[kind](columns)


def as_columns(batch: Any) -> dict[str, list[Any]]:
    if isinstance(batch, dict):
        return batch
    return batch.to_pydict() if isinstance(batch, pyarrow.Table) else batch.to_dict("list")


def test_a_batch_comes_back_with_what_became_of_its_prompts(
    archive: Archive, settings: Settings, kind: str
) -> None:
    bodies = served(archive.origin, "p", "q")
    stage = MirrorStage(settings)
    batch = as_batch(kind, {"n": [1, 2, 3, 4, 5], "promptId": ["q", "nobody", "p", "q", ""], "files": [9, 9, 9, 9, 9]})
    columns = as_columns(stage(batch))
    stage.close()
    assert columns["n"] == [1, 2, 3, 4, 5]
    assert columns["promptId"] == ["q", "nobody", "p", "q", ""]
    assert columns["state"] == ["complete", "unknown", "complete", "complete", "unknown"]
    assert columns["ok"] == [True, False, True, True, False]
    assert columns["files"] == [2, 0, 2, 2, 0]
    assert columns["bytes"][0] == sum(len(body) for path, body in bodies.items() if path.startswith("q/"))
    assert json.loads(columns["manifest"][2])["prompt_id"] == "p"
    assert media(archive) == bodies
    assert archive.partials() == []
    assert archive.run("verify").code == 2, "no catalog is written"
    assert archive.run("rebuild").code == 0
    assert archive.run("verify").code == 0
