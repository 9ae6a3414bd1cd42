"""Times are UTC and durations do not come from the wall clock: leap days, time zones, a clock that is set meanwhile.

The clock is set by Debian's faketime, in the real process; the monotonic clock goes on as it does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import Archive, Done
from tests.helpers import done_prompt
from tests.origin import Origin, answer, task
from tests.test_sync import Gate, row, states, tasks

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="Debian's faketime is not installed")


def at(moment: str) -> dict[str, str]:
    """The environment of a process that is started at a moment (UTC)."""
    ahead = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() - time.time()
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": f"{math.ceil(ahead):+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def finished(archive: Archive, *arguments: str, environ: Mapping[str, str]) -> Done:
    done = archive.run(*arguments, environ=environ)
    assert "Traceback" not in done.err
    return done


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Sao_Paulo", "UTC"])
@pytest.mark.parametrize("moment", ["2028-02-29T23:59:40", "2027-03-28T00:59:40", "2026-12-31T23:59:40"])
def test_times_are_utc_wherever_and_whenever(archive: Archive, origin: Origin, zone: str, moment: str) -> None:
    done_prompt(origin, "a", "a.png")
    origin.history([{"promptId": "a", "createdAt": int(datetime.fromisoformat(f"{moment}+00:00").timestamp()) - 5}])
    done = finished(archive, "sync", "--log-format", "json", environ={**at(moment), "TZ": zone})
    assert done.code == 0, done.err
    day = datetime.fromisoformat(moment)
    told = [
        archive.manifest("a")["mirrored_at"],
        done.summary["started_at"],
        json.loads(done.err.splitlines()[0])["time"],
    ]
    for text in told:
        assert text.endswith("Z")
        passed = datetime.fromisoformat(text).replace(tzinfo=None) - day
        assert 0 <= passed.total_seconds() < 600
    assert finished(archive, "status", environ={**at(moment), "TZ": zone}).out.count(moment[:10]) >= 1


@pytest.mark.parametrize("jump", ["-864000", "+34560000"], ids=["ten days back", "400 days on"])
def test_a_clock_that_is_set_during_the_run_changes_nothing(
    archive: Archive, origin: Origin, tmp_path: Path, jump: str
) -> None:
    rows = [row(f"p{n}", age=60 * n) for n in range(6)]
    for each in rows[1:]:
        done_prompt(origin, each["promptId"], "a.png")
    origin.prompt("p0", answer(task("p0", 20)))
    gate = Gate(origin, rows, 3)
    clock = tmp_path / "clock"
    clock.write_text("+0", "ascii")
    environ = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
    }
    summary = tmp_path / "summary.json"
    process = archive.start("sync", "--summary", str(summary), environ=environ)
    assert gate.reached.wait(120)
    clock.write_text(jump, "ascii")
    gate.opened.set()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 5, err
    assert 0 <= json.loads(summary.read_bytes())["seconds"] < 3600, "the wall clock says days"
    assert states(archive) == {"p0": "pending", **{f"p{n}": "complete" for n in range(1, 6)}}
    # The clock is right again: what is unfinished is due, what is new is found, and nothing is asked for twice.
    done_prompt(origin, "p0", "a.png")
    done_prompt(origin, "new", "a.png")
    origin.history([row("new"), *rows])
    origin.clear()
    assert archive.run("sync").code == 0
    assert tasks(origin) == ["new", "p0"]
