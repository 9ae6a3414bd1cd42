"""`MirrorStage` and `mirror_partition`: the pipeline inside of somebody else's, without catalog or lock."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas
import pyarrow
import pytest

from mirror import FetchOptions, MirrorStage, Settings, load_settings, mirror_partition
from mirror.catalog import FileSaved, PromptRecord
from mirror.engines.messages import heard
from mirror.engines.ray.stage import GIVEN, MADE, Job, RayStage, said
from mirror.engines.stage import Stage
from mirror.errors import ConfigError, Unauthorized
from mirror.events import FileStored, PromptFinished
from mirror.models import PromptId, Receipt
from mirror.stores import Head, Target
from mirror.stores.desks import Desk
from mirror.stores.local import LocalStore
from tests import media as films
from tests.conftest import Archive
from tests.faults import Fault, File, hold_after
from tests.helpers import done_prompt, picture
from tests.origin import Origin, answer, task

pytestmark = pytest.mark.usefixtures("patient_stages")


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
    tables: dict[str, list[Any]] = batch
    if isinstance(batch, pyarrow.Table):
        tables = batch.to_pydict()
    elif not isinstance(batch, dict):
        tables = batch.to_dict("list")
    return tables


def test_a_batch_comes_back_with_what_became_of_its_prompts(archive: Archive, settings: Settings, kind: str) -> None:
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


def test_what_is_complete_is_not_asked_for_again(archive: Archive, settings: Settings) -> None:
    served(archive.origin, "p")
    stage = MirrorStage(settings, column="id")
    first = stage({"id": ["p"]})
    archive.origin.clear()
    assert stage({"id": ["p"]}) == first
    stage.close()
    other = pickle.loads(pickle.dumps(stage))
    assert other({"id": ["p"]}) == first
    assert archive.origin.requests == []
    del other  # as Ray lets go of a stage
    assert archive.partials() == []


def test_a_partition_is_read_on_as_it_is_worked_on(archive: Archive, settings: Settings) -> None:
    ids = [f"p{number}" for number in range(70)]
    served(archive.origin, *ids)
    taken: list[str] = []

    def given() -> Iterator[str]:
        for each in ids:
            taken.append(each)
            yield each

    rows = mirror_partition(given(), settings)
    first = next(rows)
    assert len(taken) < len(ids)
    assert (first["state"], first["ok"], first["files"]) == ("complete", True, 2)
    assert sorted(row["prompt_id"] for row in (first, *rows)) == sorted(ids)


def test_a_partition_has_a_row_for_each_id_that_it_is_given(archive: Archive, settings: Settings) -> None:
    served(archive.origin, "p")
    rows = mirror_partition(["p", "", "p", "../x", ""], settings)
    assert sorted(row["prompt_id"] for row in rows) == ["", "", "../x", "p", "p"]


def test_a_partition_that_is_left_ends_cleanly(archive: Archive, settings: Settings) -> None:
    served(archive.origin, "p")
    url, _ = picture(archive.origin, "/held.png", fault=hold_after(100))
    archive.origin.prompt("q", answer(task("q", images=[(None, url)])))
    rows = mirror_partition(["p", "q"], settings)
    assert next(rows)["prompt_id"] == "p"
    rows.close()  # type: ignore[attr-defined]  # it is a generator
    assert [thread for thread in threading.enumerate() if thread.name == "mirror-stage"] == []
    assert [name for name in archive.partials() if name.startswith("stage-")] == []


def test_a_root_that_is_relative_is_none_that_workers_share(archive: Archive) -> None:
    with pytest.raises(ConfigError, match="absolute path that all of them see"):
        MirrorStage(archive.settings(root="here"))
    with pytest.raises(ConfigError, match="absolute"):
        next(mirror_partition(["p"], archive.settings(root="here")))
    with pytest.raises(ConfigError, match="no dry runs"):
        next(mirror_partition(["p"], archive.settings(), FetchOptions(dry_run=True)))


@pytest.mark.parametrize("workers", [0, -1])
def test_there_is_at_least_one_worker(archive: Archive, workers: int) -> None:
    with pytest.raises(ConfigError, match="workers: "):
        MirrorStage(archive.settings(), workers=workers)
    with pytest.raises(ConfigError, match="workers: "):
        next(mirror_partition(["p"], archive.settings(), workers=workers))


def test_a_column_may_have_any_name_but_only_one_the_name_of_the_ids(archive: Archive, settings: Settings) -> None:
    served(archive.origin, "p")
    stage = MirrorStage(settings)
    made = stage(pandas.DataFrame({"id": ["p"], "column_names": ["x"]}))
    assert (list(made["state"]), list(made["column_names"])) == (["complete"], ["x"])
    for twice in (pandas.DataFrame([["p", "q"]], columns=["id", "id"]), pyarrow.table([["p"], ["q"]], ["id", "id"])):
        with pytest.raises(ConfigError, match="2 columns named 'id'"):
            stage(twice)
    stage.close()


FORK = """
import os, sys
from mirror import MirrorStage, load_settings
from mirror.engines import stage as patience
patience._LAST = 60
stage = MirrorStage(load_settings(root=sys.argv[1]))
assert stage({"id": ["p"]})["state"] == ["complete"]
pid = os.fork()
if not pid:
    assert stage({"id": ["q"]})["state"] == ["complete"]
    stage.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert stage({"id": ["q"]})["state"] == ["complete"]
stage.close()
"""


def test_a_forked_process_has_a_stage_of_its_own(archive: Archive) -> None:
    served(archive.origin, "p", "q")
    command = [sys.executable, "-c", FORK, str(archive.root)]
    subprocess.run(command, env=archive.environment(), check=True, timeout=300)
    assert archive.partials() == []


def test_a_batch_without_ids_is_refused(settings: Settings, kind: str) -> None:
    with pytest.raises(ConfigError, match="no column named 'x'; its columns are: 'a', 'b'"):
        MirrorStage(settings, column="x")(as_batch(kind, {"a": [1], "b": [2]}))
    assert MirrorStage(settings)({"id": []})["state"] == []


def test_what_is_fatal_is_raised_and_raised_again(archive: Archive) -> None:
    served(archive.origin, "p", "q")
    stage = MirrorStage(archive.settings(api_token="wrong"))
    for _ in range(2):
        with pytest.raises(Unauthorized) as raised:
            stage({"id": ["p", "q"]})
        assert isinstance(pickle.loads(pickle.dumps(raised.value)), Unauthorized), "Ray and Dask send it home"
    stage.close()


def record(prompt_id: str) -> PromptRecord:
    return PromptRecord(prompt_id=PromptId(prompt_id), folder=prompt_id)


def test_a_report_is_all_that_a_catalog_needs(archive: Archive, settings: Settings) -> None:
    served(archive.origin, "p")
    stage = Stage(settings, FetchOptions())
    [(prompt_id, report)] = stage.run([record("p"), record("p")])
    stage.close()
    assert (prompt_id, report.result.state) == ("p", "complete")
    kinds = [type(write).__name__ for write in report.writes]
    assert kinds == ["Claimed", "FileSaved", "FileSaved", "PromptSaved"]
    assert len([event for event in report.events if isinstance(event, FileStored)]) == 2
    assert isinstance(report.events[-2], PromptFinished)


LOSE = """
import sys
from mirror import load_settings, mirror_partition
print(list(mirror_partition(sys.argv[2:], load_settings(root=sys.argv[1]))))
"""


def lost_worker(archive: Archive, *ids: str, until: str) -> None:
    """A process that works on these prompts, and is killed when it has noted that a file is stored."""
    command = [sys.executable, "-c", LOSE, str(archive.root), *ids]
    process = subprocess.Popen(command, env=archive.environment(), stdout=subprocess.DEVNULL)
    try:
        archive.origin.wait_for(lambda: archive.origin.count(until) > 0)
        notes = archive.root / ".mirror" / "parts"
        wait_until(lambda: any(b'"stored"' in path.read_bytes() for path in notes.glob("*/*.stored")))
    finally:
        process.kill()
        process.wait()


def wait_until(happened: Any) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_lost_worker_stored_is_not_fetched_again(archive: Archive, settings: Settings) -> None:
    """Neither small files, nor what had come of a large one; and the catalog is told of it all."""
    origin = archive.origin
    quick, small = picture(origin, "/quick.png")
    body = films.mp4(6 << 20, seed=3)
    large = origin.add("/large.mp4", body, fault=hold_after(3 << 20))
    origin.prompt("p", answer(task("p", images=[(None, quick), (None, large)])))
    lost_worker(archive, "p", until="/large.mp4")
    origin.clear()
    origin.release("/large.mp4")

    stage = Stage(settings, FetchOptions())
    [(_, report)] = stage.run([record("p")])
    stage.close()
    assert media(archive) == {"p/quick.png": small, "p/large.mp4": body}
    assert [request.target for request in origin.media_requests] == ["/large.mp4"]
    saved = [write.record.identity for write in report.writes if isinstance(write, FileSaved)]
    assert sorted(saved) == sorted([quick, large])
    assert archive.partials() == []


def at_first(body: bytes) -> Fault:
    """Other bytes, once."""
    return Fault("other bytes", lambda _, request: File(body).reply(request), 1)


def test_two_workers_on_one_prompt_leave_nothing_wrong(archive: Archive, settings: Settings) -> None:
    """One of them was thought to be lost; what the origin serves has changed meanwhile."""
    origin = archive.origin
    pairs = [(films.png(seed=number), films.png(seed=number + 100)) for number in range(20)]
    urls = [origin.add(f"/{n}.png", body, fault=at_first(other)) for n, (body, other) in enumerate(pairs)]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))
    rows: list[dict[str, Any]] = []

    def work() -> None:
        rows.extend(mirror_partition(["p"], settings))

    both = [threading.Thread(target=work) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert archive.run("rebuild").code == 0
    assert archive.run("verify").code == 0
    assert archive.partials() == []


def test_a_name_is_given_away_once(tmp_path: Path) -> None:
    """Between a worker's look and its file's name another may have given that to other bytes."""
    settings = load_settings(root=tmp_path / "a", transfer_min_free_space=0)
    stores = [LocalStore(settings, Desk(name=f"desk-{number}")) for number in range(2)]

    async def put(store: LocalStore, body: bytes) -> Receipt:
        target = Target(identity="http://x/a.png", folder="p", names=("a.png", "b.png"))
        sink = await store.sink(target)
        await sink.begin(Head(length=len(body)))
        await sink.write(0, body)
        return await sink.commit()

    async def both() -> list[Receipt]:
        return list(await asyncio.gather(*(put(store, films.png(seed=n)) for n, store in enumerate(stores))))

    for store in stores:
        store.open()
    receipts = asyncio.run(both())
    for store in stores:
        store.close()
    assert sorted(receipt.path for receipt in receipts) == ["a.png", "b.png"]
    for n, receipt in enumerate(receipts):
        assert (tmp_path / "a" / "p" / receipt.path).read_bytes() == films.png(seed=n)


def test_an_actor_says_what_broke_it(archive: Archive) -> None:
    served(archive.origin, "p")
    given = {GIVEN: [msgspec.json.encode(record("p"))]}

    def said_by(settings: Settings, holder: str = "") -> Any:
        [row] = RayStage(Job(settings=settings, options=FetchOptions(), run_id="r", holder=holder))(given)[MADE]
        return said.decode(row)

    assert "origin-token" not in repr(Job(settings=archive.settings(), options=FetchOptions(), run_id="r"))
    broke = said_by(archive.settings(api_token="wrong"))
    assert isinstance(heard(broke), Unauthorized)
    broke = said_by(archive.settings(), "pid 1 since then\n")
    assert isinstance(heard(broke), ConfigError)
    assert "a file system that all nodes share" in str(heard(broke))
    assert said_by(archive.settings()).report.result.state == "complete"
