"""`mirror_partition` under Dask: partitions of a table, worked on by the processes of a local cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.dataframe
import distributed
import pandas
import pytest

from mirror import Settings, mirror_partition
from tests.conftest import Archive
from tests.helpers import done_prompt

pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask's own

COLUMNS = {"prompt_id": str, "state": str, "ok": bool, "files": int, "bytes": int, "manifest": str}


@pytest.fixture
def two() -> Iterator[None]:
    """A cluster of two processes, which Dask's calls go to."""
    options: dict[str, Any] = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": None}
    client: Any = distributed.Client
    cluster: Any = distributed.LocalCluster
    with cluster(**options) as running, client(running):
        yield


def mirrored(part: pandas.DataFrame, settings: Settings) -> pandas.DataFrame:
    """What the documentation shows."""
    rows = mirror_partition(part["prompt_id"], settings, workers=2)
    return pandas.DataFrame(rows, columns=[*COLUMNS]).astype(COLUMNS)


def test_partitions_are_mirrored_by_two_processes(two: None, archive: Archive) -> None:
    ids = [f"p{number}" for number in range(12)]
    bodies = {f"{p}/{name}": body for p in ids for name, body in done_prompt(archive.origin, p, "a.png").items()}
    frames: Any = dask.dataframe
    table = frames.from_pandas(pandas.DataFrame({"prompt_id": [*ids, "nobody"]}), npartitions=4)
    made = table.map_partitions(mirrored, archive.settings(), meta=COLUMNS).compute()
    assert dict(zip(made["prompt_id"], made["state"], strict=True)) == dict.fromkeys(ids, "complete") | {
        "nobody": "unknown"
    }
    assert {path: body for path, body in archive.files().items() if path.endswith(".png")} == bodies
    archive.origin.wait_for(lambda: archive.partials() == [])  # each worker has its desk until it has ended
    assert archive.run("rebuild").code == 0
    assert archive.run("verify").code == 0

    archive.origin.clear()
    again = table.map_partitions(mirrored, archive.settings(), meta=COLUMNS).compute()
    assert sorted(again["ok"]) == sorted(made["ok"])
    assert [request.query for request in archive.origin.requests] == ["promptId=nobody"]
