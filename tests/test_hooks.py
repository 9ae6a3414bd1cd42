"""The user's own command for each finished prompt: real processes, and nothing they do touches the run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import faults, media
from tests.conftest import Archive, Done
from tests.helpers import done_prompt, large_prompt, running
from tests.origin import Origin, answer, task


class Hook:
    """A command in Python that runs in a folder of its own, ``$OUT``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.script = folder / "a hook.py"

    def does(self, code: str) -> dict[str, str]:
        """The environment that has mirror run this code."""
        head = "import json, os, signal, subprocess, sys, time\nfrom pathlib import Path\n"
        self.script.write_text(f"{head}OUT = Path({str(self.folder)!r})\nID = os.environ['MIRROR_PROMPT_ID']\n{code}\n")
        return {"MIRROR_HOOKS_ON_PROMPT": shlex.join([sys.executable, str(self.script)])}

    def wrote(self, pattern: str = "*.json") -> dict[str, str]:
        return {path.stem: path.read_text() for path in sorted(self.folder.glob(pattern))}


WRITES_ALL = """
told = {"env": dict(os.environ), "manifest": json.load(sys.stdin)}
(OUT / f"{ID}.json").write_text(json.dumps(told))
"""
APPEARS = "(OUT / f'{ID}.pid').write_text(str(os.getpid())); os.rename(OUT / f'{ID}.pid', OUT / f'{ID}.started')\n"


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    return Hook(tmp_path / "hook")


def fetched(archive: Archive, environ: Mapping[str, str], *arguments: str) -> Done:
    return archive.run("fetch", *arguments, environ=environ)


def eventually(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestWhatItGets:
    def test_the_manifest_and_who_it_is_about(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        done_prompt(origin, "p", "one.png", "two.png")
        origin.prompt("waits", answer(task("waits", state=10)))
        origin.prompt("failed", answer(task("failed", state=2)))

        done = fetched(archive, hook.does(WRITES_ALL), "p", "waits", "failed", "unknown", "-v", "--log-format", "json")

        assert done.code == 3
        told = {name: json.loads(text) for name, text in hook.wrote().items()}
        states = {name: each["env"]["MIRROR_STATE"] for name, each in told.items()}
        assert states == {"p": "complete", "waits": "pending", "failed": "failed"}
        for prompt_id, each in told.items():
            assert each["manifest"] == archive.manifest(prompt_id)
            assert each["env"]["MIRROR_PROMPT_ID"] == prompt_id
            assert each["env"]["MIRROR_RUN_ID"] == done.summary["run_id"]
        assert done.summary["hooks_failed"] == 0
        ended = [json.loads(line) for line in done.err.splitlines() if "ended well" in line]
        assert {(each["level"], each["prompt_id"]) for each in ended} == {("debug", name) for name in told}

    def test_no_credentials(
        self, archive: Archive, origin: Origin, hook: Hook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done_prompt(origin, "p", "one.png")
        secret = {
            "AWS_ACCESS_KEY_ID": "hidden-1",
            "AWS_SECRET_ACCESS_KEY": "hidden-2",
            "AWS_SESSION_TOKEN": "hidden-3",
            "MIRROR_METRICS_PING_URL": f"{origin.url}/hidden-4",
            "SERVICE": f"Bearer {origin.token}",
        }
        fetched(archive, {**hook.does(WRITES_ALL), **secret, "KEPT": "as it is"}, "p")
        text = hook.wrote()["p"]
        assert ("hidden" in text, origin.token in text) == (False, False)
        assert json.loads(text)["env"]["KEPT"] == "as it is"

    def test_not_what_was_complete_before(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        done_prompt(origin, "old", "one.png")
        done_prompt(origin, "new", "two.png")
        assert archive.run("fetch", "old").code == 0
        done = fetched(archive, hook.does(WRITES_ALL), "old", "new", "--json")
        assert (sorted(line["prompt_id"] for line in done.lines), list(hook.wrote())) == (["new", "old"], ["new"])

    def test_a_dry_run_runs_none(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        done_prompt(origin, "p", "one.png")
        assert fetched(archive, hook.does(WRITES_ALL), "p", "--dry-run").code == 0
        assert hook.wrote() == {}

    def test_no_shell(self, archive: Archive, origin: Origin, tmp_path: Path) -> None:
        done_prompt(origin, "p", "one.png")
        marker = tmp_path / "marker"
        fetched(archive, {"MIRROR_HOOKS_ON_PROMPT": f"echo '$HOME' ; touch {marker}"}, "p")
        assert not marker.exists()

    def test_the_archive_is_free_and_quiet_for_it(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        """It may call us: its environment brings no warnings about settings."""
        done_prompt(origin, "p", "one.png")
        code = "done = subprocess.run([sys.executable, '-m', 'mirror', 'status', ID], capture_output=True, text=True)\n"
        code += "(OUT / f'{ID}.json').write_text(done.stdout + done.stderr)"
        fetched(archive, hook.does(code), "p")
        assert "complete" in hook.wrote()["p"]
        assert "warning" not in hook.wrote()["p"]


class TestWhatItWrites:
    def test_never_to_our_stdout_and_a_bounded_part_to_the_log(
        self, archive: Archive, origin: Origin, hook: Hook
    ) -> None:
        done_prompt(origin, "p", "one.png")
        code = f"print('from the hook', flush=True); print('token {origin.token}', file=sys.stderr, flush=True)\n"
        code += "print('yyyyyyyyy\\n' * 100_000)"
        done = fetched(archive, hook.does(code), "p", "--json", "-v")
        assert (done.code, len(done.lines), done.summary["hooks_failed"]) == (0, 1, 0)
        assert "hook of prompt p wrote: from the hook" in done.err
        assert "wrote: token ***" in done.err
        assert 1000 < done.err.count("y") < 11_000
        assert origin.token not in done.err

    def test_only_when_asked_for(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        done_prompt(origin, "p", "one.png")
        assert "from the hook" not in fetched(archive, hook.does("print('from the hook')"), "p").err

    def test_bytes_that_are_no_text(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        done_prompt(origin, "p", "one.png")
        done = fetched(archive, hook.does(r"os.write(1, b'\xff\x1b[2J\x00')"), "p", "-v")
        assert (done.code, "\x1b" in done.err, "\\xff" in done.err) == (0, False, True)


class TestOneThatFails:
    @pytest.mark.parametrize(
        ("code", "timeout", "why", "outcome"),
        [
            ("sys.exit(7)", "60s", "failed, exit code 7", "failed"),
            ("os.kill(os.getpid(), signal.SIGKILL)", "60s", "failed, killed by signal 9", "failed"),
            ("time.sleep(600)", "1s", "killed after 1 s (hooks.timeout)", "timeout"),
        ],
    )
    def test_is_a_warning_and_changes_nothing(
        self,
        archive: Archive,
        origin: Origin,
        hook: Hook,
        tmp_path: Path,
        *,
        code: str,
        timeout: str,
        why: str,
        outcome: str,
    ) -> None:
        files = done_prompt(origin, "p", "one.png")
        metrics = tmp_path / "mirror.prom"
        environ = {"MIRROR_HOOKS_TIMEOUT": timeout, "MIRROR_METRICS_TEXTFILE": str(metrics)}
        done = fetched(archive, {**hook.does(code), **environ}, "p")
        assert done.code == 0
        assert re.findall(r"warning  (.*)", done.err) == [f"hook of prompt p: {why}"]
        assert archive.files()["p/one.png"] == files["one.png"]
        assert done.summary["hooks_failed"] == 1
        assert re.search(r"hooks +1 did not end well", done.err)
        assert f'mirror_hooks_total{{outcome="{outcome}"}} 1.0' in metrics.read_text()

    def test_one_that_went_away(self, archive: Archive, origin: Origin, tmp_path: Path) -> None:
        done_prompt(origin, "p", "one.png")
        large_prompt(origin, "q", media.mp4(1 << 20), faults.hold_after(1000))
        command = tmp_path / "command"
        command.write_text("#!/bin/sh\ntrue\n")
        command.chmod(0o755)
        environ = {"MIRROR_HOOKS_ON_PROMPT": str(command)}
        with running(archive, "fetch", "q", environ=environ) as process:
            origin.wait_bytes("/q/", 1000)
            command.unlink()
            origin.release("/q/large.mp4")
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "hook of prompt q: cannot be started: No such file or directory" in err

    def test_all_that_it_started_is_killed_with_it(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        """A shell, since it is to start something before its time is over: a Python takes long on a busy machine."""
        done_prompt(origin, "p", "one.png")
        child = hook.folder / "child"
        command = shlex.join(["sh", "-c", f"sleep 600 & echo $! > {shlex.quote(str(child))}; wait"])
        done = fetched(archive, {"MIRROR_HOOKS_ON_PROMPT": command, "MIRROR_HOOKS_TIMEOUT": "5s"}, "p")
        assert (done.code, "killed after 5 s" in done.err) == (0, True)
        pid = int(child.read_text())
        eventually(lambda: not is_alive(pid))

    @pytest.mark.parametrize("code", ["time.sleep(0.2)", "os.close(0); time.sleep(0.2)", "sys.stdin.read(10)"])
    def test_one_that_does_not_read(self, archive: Archive, origin: Origin, hook: Hook, code: str) -> None:
        """A manifest that no pipe holds, and nobody who takes it."""
        made = answer(task("p", note="x" * 1_000_000))
        origin.prompt("p", made)
        done = fetched(archive, hook.does(code), "p")
        assert (done.code, done.summary["hooks_failed"], "Traceback" in done.err) == (0, 0, False)
        assert (archive.root / "p" / "manifest.json").stat().st_size > 1_000_000

    def test_one_that_leaves_something_behind(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        """A child that holds its output open is not waited for, nor killed: the command has ended well."""
        done_prompt(origin, "p", "one.png")
        code = "child = subprocess.Popen(['sleep', '600'])\n(OUT / 'child.json').write_text(str(child.pid))"
        done = fetched(archive, hook.does(code), "p")
        pid = int(hook.wrote()["child"])
        alive = is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        assert (done.code, done.summary["hooks_failed"], alive) == (0, 0, True)


class TestHowMany:
    def test_no_more_at_once_than_told_and_all_in_the_end(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        ids = [f"p{number}" for number in range(12)]
        for prompt_id in ids:
            done_prompt(origin, prompt_id, "one.png")
        code = APPEARS + "running = len(list(OUT.glob('*.started')) ) - len(list(OUT.glob('*.json')))\n"
        code += "time.sleep(0.1)\n(OUT / f'{ID}.tmp').write_text(str(running))\n"
        code += "os.rename(OUT / f'{ID}.tmp', OUT / f'{ID}.json')"
        done = fetched(archive, {**hook.does(code), "MIRROR_HOOKS_CONCURRENCY": "3"}, *ids)
        assert (done.code, sorted(hook.wrote())) == (0, sorted(ids))
        assert max(map(int, hook.wrote().values())) <= 3

    def test_the_run_waits_where_they_are_slow(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        """With hooks that do not end, so many prompts come to a result as fit into the queues, and no more."""
        ids = [f"p{number}" for number in range(1000)]
        for prompt_id in ids:
            origin.prompt(prompt_id, answer(task(prompt_id, state=2)))
        environ = {**hook.does(APPEARS + "time.sleep(600)"), "MIRROR_HOOKS_CONCURRENCY": "1"}
        with running(archive, "fetch", *ids, environ=environ) as process:
            eventually(lambda: bool(hook.wrote("*.started")))
            stands = -1
            while stands != (stands := len(origin.api_requests)):
                time.sleep(1)
            assert stands < 500
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 143
        assert len(hook.wrote("*.started")) == 1

    def test_a_signal_kills_them(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        ids = [f"p{number}" for number in range(6)]
        for prompt_id in ids:
            done_prompt(origin, prompt_id, "one.png")
        code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + APPEARS + "time.sleep(600)"
        environ = {**hook.does(code), "MIRROR_HOOKS_CONCURRENCY": "2"}
        with running(archive, "fetch", *ids, "--json", environ=environ) as process:
            assert process.stdout
            for _ in range(4):  # as many are done as two hooks at once and a queue behind them take
                assert process.stdout.readline()
            eventually(lambda: len(hook.wrote("*.started")) == 2)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in err) == (143, False)
        started = hook.wrote("*.started")
        for pid in map(int, started.values()):
            eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        assert {f"hook of prompt {name}: killed, since the run was stopped" in err for name in started} == {True}
        assert "not run, since the run was stopped" in err
        assert len(hook.wrote("*.started")) == 2

    def test_a_fatal_error_lets_them_end(self, archive: Archive, origin: Origin, hook: Hook) -> None:
        """What is mirrored is mirrored: its hook runs, whatever happens to the rest."""
        done_prompt(origin, "p", "one.png")
        origin.prompt("denied", answer(None, 401, "no"))
        environ = hook.does(APPEARS + "time.sleep(0.5)\n" + WRITES_ALL)
        with running(archive, "fetch", "-i", "-", environ=environ, stdin=-1) as process:
            assert process.stdin
            process.stdin.write("p\n")
            process.stdin.flush()
            eventually(lambda: bool(hook.wrote("*.started")))
            process.stdin.write("denied\n")
            process.stdin.close()
            assert process.wait(60) == 4
        assert list(hook.wrote()) == ["p"]


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("command", "why"),
        [
            ("no-such-command --x", "there is no command 'no-such-command' that can be run"),
            ("'unfinished", "cannot be split into words as a shell does: No closing quotation"),
            ("  ", "there is no command '' that can be run"),
            ("/etc/passwd", "there is no command '/etc/passwd' that can be run"),
        ],
    )
    def test_is_told_before_the_start(self, archive: Archive, origin: Origin, command: str, why: str) -> None:
        done = fetched(archive, {"MIRROR_HOOKS_ON_PROMPT": command}, "p")
        assert (done.code, done.err) == (2, f"mirror: [hooks] on_prompt: {why}\n")
        assert origin.requests == []
