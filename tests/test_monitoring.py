"""A run that is watched in every way at once: each record names its run, and no secret is told to anybody."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from tests import faults, media
from tests.conftest import Archive
from tests.origin import FOREVER, Origin, answer, task

CHECK = "/0f6c8a1e-5b1d-4b0c-9d3f-2a7e6c5b4d3a"
WRITES_ALL = "import os, sys; print(dict(os.environ)); print(sys.stdin.read()); sys.exit(1)"


def test_nothing_leaks_and_each_record_names_its_run(archive: Archive, origin: Origin, tmp_path: Path) -> None:
    signature = "X-Amz-Credential=credential-1234&X-Amz-Signature=signature-5678"
    flaky = origin.add(f"/flaky.png?{signature}", media.png(), fault=faults.status(503, times=3))
    gone = origin.add(f"/gone.png?{signature}", media.png(), fault=faults.status(404, times=FOREVER))
    echo = f"token {origin.token} and {flaky}"
    origin.prompt("p", [answer(None, 510, echo), answer(task("p", images=[(flaky, gone)], reason=echo), msg=echo)])
    origin.prompt("q", answer(task("q", state=2, reason=echo)))
    origin.prompt("r", answer(None, 900, echo))
    metrics = tmp_path / "mirror.prom"

    with Origin() as monitor:
        for path in (f"{CHECK}/start", f"{CHECK}/fail"):
            monitor.add(path, b"OK")
        environ = {
            "MIRROR_METRICS_TEXTFILE": str(metrics),
            "MIRROR_METRICS_PING_URL": monitor.url + CHECK,
            "MIRROR_HOOKS_ON_PROMPT": shlex.join([sys.executable, "-c", WRITES_ALL]),
        }
        done = archive.run("fetch", "p", "q", "r", "-v", "--log-format", "json", "--json", environ=environ)
        pings = [repr(request) for request in monitor.requests]

    assert (done.code, len(pings), done.summary["hooks_failed"]) == (3, 2, 2)
    told = {"stdout": done.out, "stderr": done.err, "metrics": metrics.read_text(), "pings": "".join(pings)}
    for secret in (origin.token, "credential-1234", "signature-5678"):
        assert [name for name, text in told.items() if secret in text] == []
    assert [name for name, text in told.items() if CHECK in text] == ["pings"]

    records = [json.loads(line) for line in done.err.splitlines()]
    assert {record["run_id"] for record in records} == {done.summary["run_id"]}
    retries = [record for record in records if record.get("cause")]
    assert {(record["prompt_id"], record["cause"]) for record in retries} == {
        ("p", "ApiUnavailable"),
        ("p", "Unavailable"),
    }
    assert {record["attempt"] for record in retries if "url" in record} == {1, 2, 3}
    about = [record for record in records if any(f"prompt {name}" in record["message"] for name in "pqr")]
    assert [record for record in about if "prompt_id" not in record] == []
