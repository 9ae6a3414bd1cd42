"""A nightly run in Airflow (2.9 and later, 3): put this file into the DAGs' folder of workers that have ``mirror``.

The task logs what mirror logs, and hands the run's summary on as its XCom. What becomes of the task is decided by
:func:`decide`, from the exit code and the summary alone. Without Airflow this module is that function and its helpers.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

SYNC = ("mirror", "sync", "--wait", "30m", "--max-time", "4h", "--no-progress")
FAILED = ("mirror", "status", "--failed")
SHOWN = 20
"""So many failed prompts are named in the task's error; ``mirror status --failed`` names all."""


class Ended(NamedTuple):
    """A run that has ended: its exit code (negative: the signal that killed it), and its summary if it wrote one."""

    code: int
    summary: dict[str, Any]


class Decision(NamedTuple):
    """``verdict`` is ``"ok"``, ``"retry"`` (after a pause) or ``"fail"`` (at once: another try would not help)."""

    verdict: str
    reason: str


def decide(ended: Ended) -> Decision:
    """What a run's end means for the task.

    5 is ok: all that exists is mirrored, and the next run takes what is still running upstream. 3 fails at once: every
    file had all its attempts already. Of the rest, only a wrong configuration (2) cannot heal by itself.
    """
    code, summary = ended
    prompts = ", ".join(f"{count} {state}" for state, count in summary.get("prompts", {}).items()) or "no prompts"
    if code == 0:
        return Decision("ok", prompts)
    if code == 5:
        return Decision("ok", f"{prompts}; some tasks are still queued or running upstream")
    if code == 3:
        return Decision("fail", f"some prompts are incomplete: {prompts}, {summary.get('unfinished', 0)} not begun")
    if code == 2:
        return Decision("fail", "wrong usage or configuration: see the log")
    if code in (130, 143):
        return Decision("retry", "stopped by a signal; what is done is kept")
    reason = summary.get("fatal") if summary.get("exit_code") == code else None
    return Decision("retry", f"exit code {code}: {reason or 'see the log'}")


class Run:
    """One run of mirror. It can be stopped meanwhile, also from a signal's handler: that takes two seconds."""

    def __init__(self, command: Sequence[str] = SYNC) -> None:
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def __call__(self) -> Ended:
        """Run it to its end. An exception meanwhile (Airflow's, when the time is up) stops it first."""
        with tempfile.TemporaryDirectory(prefix="mirror-") as folder:
            summary = Path(folder) / "summary.json"
            told = [*self.command, "--summary", str(summary)]
            with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
                self.process = process
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        print(line, end="", flush=True)  # the task's log
                    code = process.wait()
                except BaseException:
                    self.stop()
                    raise
            return Ended(code, json.loads(summary.read_bytes()) if summary.exists() else {})

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)


def failed(command: Sequence[str] = FAILED) -> str:
    """The prompts that are incomplete, one a line with its reason; the first :data:`SHOWN`."""
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return "\n".join(lines[:SHOWN] + ([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []))


# Asked, not tried: an ImportError within Airflow itself must be seen as one.
if importlib.util.find_spec("airflow") is not None:
    if importlib.util.find_spec("airflow.sdk") is not None:  # Airflow 3
        from airflow.sdk import DAG, BaseOperator
        from airflow.sdk.exceptions import AirflowException, AirflowFailException
    else:
        from airflow import DAG
        from airflow.exceptions import AirflowException, AirflowFailException
        from airflow.models import BaseOperator

    class MirrorSync(BaseOperator):
        """An operator of its own, because only that is told when the task is killed: a run must not outlive it."""

        _run: Run | None = None

        def execute(self, context: Any) -> dict[str, Any]:  # noqa: ARG002
            self._run = Run()
            ended = self._run()
            verdict, reason = decide(ended)
            if verdict == "retry":
                raise AirflowException(reason)
            if verdict == "fail":
                raise AirflowFailException(f"{reason}\n{failed()}" if ended.code == 3 else reason)
            print(reason)
            return {"exit_code": ended.code, **ended.summary}

        def on_kill(self) -> None:
            if self._run is not None:
                self._run.stop()

    with DAG(
        "mirror_sync",
        schedule="17 2 * * *",
        start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        catchup=False,  # a run looks at all of the history that it does not know: there is nothing to fill in
        max_active_runs=1,
        tags=["mirror"],
        doc_md=__doc__,
    ):
        MirrorSync(
            task_id="sync",
            retries=4,
            retry_delay=datetime.timedelta(minutes=5),
            retry_exponential_backoff=True,
            max_retry_delay=datetime.timedelta(hours=1),
            execution_timeout=datetime.timedelta(hours=5),
        )
