"""Python's development mode, asyncio's debug mode and every warning as an error: a run leaves nothing behind.

What is not closed, not awaited or destroyed while pending is told on stderr by the interpreter, where only our own
lines may stand.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests import faults, media
from tests.bench.servers import serving
from tests.conftest import Archive
from tests.faults import FOREVER
from tests.helpers import done_prompt, large_prompt, picture, running
from tests.origin import Origin, answer, task

STRICT = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error", "MIRROR_TRANSFER_ATTEMPTS": "2"}
IMPATIENT = STRICT | {"MIRROR_TRANSFER_STALL_TIMEOUT": "1s", "MIRROR_TRANSFER_CONNECT_TIMEOUT": "5s"}
PATIENT = STRICT | {"MIRROR_TRANSFER_STALL_TIMEOUT": "5m", "MIRROR_TRANSFER_CONNECT_TIMEOUT": "5m"}
FILM = media.mp4(3 << 20)

_LOG = r"\d\d:\d\d:\d\d (debug|info|warning|error) "
_SUMMARY = r"(prompts|files|downloaded|reused|uploaded|copied|requests|retries|exit code|\d+ files,) "
_SLOW = r"Executing <.* took \d+\.\d+ seconds"
"""asyncio's remark on a step of its loop, on a machine that is busy."""


def clean(err: str) -> None:
    """Every line is one of ours."""
    strange = [line for line in err.splitlines() if line and not re.match(f"{_LOG}|{_SUMMARY}|{_SLOW}", line)]
    assert strange == []


def faulty(origin: Origin) -> list[str]:
    """Prompts with everything that ends a request, a body or a prompt otherwise than well; their ids."""
    bad = [
        faults.hang_up(times=FOREVER),
        faults.hang_up(reset=True, times=FOREVER),
        faults.never_answers(times=FOREVER),
        faults.stall_after(60_000, times=FOREVER),
        faults.reset_after(2 << 20),
        faults.close_after(2 << 20),
        faults.chunked_cut_after(100_000, times=FOREVER),
        faults.no_length(100_000),
        faults.huge_length(times=FOREVER),
        faults.huge_header(times=FOREVER),
        faults.status(503, retry_after=0, times=FOREVER),
        faults.status(404, times=FOREVER),
        faults.redirect("film.mp4", times=FOREVER),
        faults.html_page(times=FOREVER),
        faults.close_on_reuse(),
    ]
    for number, fault in enumerate(bad):
        large_prompt(origin, f"bad{number}", FILM, fault)
    done_prompt(origin, "good", "a.png", "b.png")
    origin.prompt("garbled", b'{"code": 200, "da')
    origin.prompt("failed", answer(task("failed", state=40)))
    url = picture(origin, "/shared.png", fault=faults.status(500, times=FOREVER))[0]
    for name in ("one", "other"):
        origin.prompt(name, answer(task(name, images=[(url, None)])))
    return [*(f"bad{number}" for number in range(len(bad))), "good", "garbled", "failed", "one", "other", "nobody"]


def test_a_run_with_every_fault(archive: Archive, origin: Origin) -> None:
    ids = faulty(origin)
    done = archive.run("fetch", "-i", "-", "-v", stdin="\n".join(ids), environ=IMPATIENT)
    assert done.code == 3, done.err
    clean(done.err)
    for command in (("verify",), ("verify", "--repair", "good"), ("status", "--failed")):
        done = archive.run(*command, environ=IMPATIENT)
        assert done.code in (0, 3), done.err
        clean(done.err)


@pytest.mark.parametrize(
    ("command", "sig"), [(["fetch", "good", "held", "--json"], signal.SIGINT), (["sync"], signal.SIGTERM)]
)
def test_a_run_that_is_stopped_in_the_middle(
    archive: Archive, origin: Origin, command: Sequence[str], sig: signal.Signals
) -> None:
    done_prompt(origin, "good", "a.png")
    url = large_prompt(origin, "held", FILM, faults.hold_after(2 << 20, times=FOREVER))
    origin.history([{"promptId": name, "state": 30, "createdAt": 1_769_608_000} for name in ("good", "held")])
    with running(archive, *command, environ=PATIENT) as process:
        origin.wait_bytes(url, 1 << 20)
        process.send_signal(sig)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + sig
    clean(err)


def test_a_reader_that_goes_away(archive: Archive, origin: Origin) -> None:
    for number in range(40):
        done_prompt(origin, f"p{number}", "a.png")
    ids = [f"p{number}" for number in range(40)]
    with running(archive, "fetch", *ids, "--json", environ=PATIENT) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        err = process.stderr.read()
        process.wait(120)
    assert process.returncode in (0, 141)
    clean(err)


def test_a_run_into_a_bucket(archive: Archive, origin: Origin) -> None:
    done_prompt(origin, "good", "a.png", "b.png")
    large_prompt(origin, "large", media.mp4(17 << 20))
    large_prompt(origin, "bad", FILM, faults.status(404, times=FOREVER))
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    with serving("sink") as port:
        bucket = ("--s3", "s3://bench/a", "--s3-endpoint", f"http://127.0.0.1:{port}")
        done = archive.run("fetch", "good", "large", "bad", *bucket, environ=PATIENT | keys)
    assert done.code == 3, done.err
    clean(done.err)


def test_what_is_told_is_told_in_these_tests(archive: Archive) -> None:
    """The interpreter does tell of a file that nobody closes."""
    code = "import tempfile; tempfile.TemporaryFile().fileno()"
    done = subprocess.run([sys.executable, "-c", code], env=STRICT, capture_output=True, text=True, check=False)
    with pytest.raises(AssertionError):
        clean(done.stderr)
