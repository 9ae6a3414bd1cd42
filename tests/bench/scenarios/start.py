"""`start`: how long it takes until there is help, or one small file."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.measure import Command, Ran, measured
from tests.bench.options import Options
from tests.bench.results import Section, Verdict
from tests.bench.stage import stage
from tests.bench.tools import CHECKOUT, Job, mirror_command, on_path

_TURNS = 11
_HEADER = ["command", "wall s", "min-max", "CPU s", "peak MB"]
_MODULE = [sys.executable, "-m", "mirror"]
_SCRIPT = Path(sys.executable).parent / "mirror"
_HERE = {"PYTHONPATH": str(CHECKOUT)}
"""So that the script runs what stands here, wherever its environment was made for."""


def run(options: Options) -> list[Section]:
    """Help, version, one file; beside an interpreter that does nothing, and curl."""
    with stage() as at:
        job = at.job("start", at.media("one", 1, 20 << 10), each=1)
        commands = _commands(job)
        taken: dict[str, list[Ran]] = {name: [] for name in commands}
        for _ in range(1 if options.quick else _TURNS):
            for name, command in commands.items():
                with tempfile.TemporaryDirectory(dir=at.folder) as target:
                    taken[name].append(measured(command(Path(target))))
    rows = [_row(name, ran) for name, ran in taken.items()]
    wall = {name: statistics.median(each.wall for each in ran) for name, ran in taken.items()}
    verdicts = [
        Verdict("python -m mirror --help", wall["python -m mirror --help"], 0.15, "s"),
        Verdict("python -m mirror fetch, one small file", wall["python -m mirror fetch ID"], 0.5, "s"),
    ]
    return [Section("start", "start: until there is help, or one file of 20 KiB", _HEADER, rows, [], verdicts)]


def _commands(job: Job) -> dict[str, Callable[[Path], Command]]:
    made: dict[str, Callable[[Path], Command]] = {
        "python -c pass": lambda _: Command([sys.executable, "-c", "pass"], CHECKOUT),
        "python -m mirror --help": lambda _: Command([*_MODULE, "--help"], CHECKOUT),
        "python -m mirror --version": lambda _: Command([*_MODULE, "--version"], CHECKOUT),
        "python -m mirror fetch ID": lambda target: mirror_command(job, target),
    }
    if _SCRIPT.exists():
        made["mirror --help"] = lambda _: Command([str(_SCRIPT), "--help"], CHECKOUT, _HERE)
        made["mirror fetch ID"] = lambda target: _by_script(mirror_command(job, target))
    if on_path("curl")():
        made["curl URL"] = lambda target: Command(["curl", "-q", "-sS", "-O", job.urls[0]], target)
    return made


def _by_script(usual: Command) -> Command:
    return Command([str(_SCRIPT), *usual.argv[3:]], usual.cwd, {**usual.environ, **_HERE})


def _row(name: str, ran: list[Ran]) -> list[str]:
    walls = [each.wall for each in ran]
    return [
        name,
        f"{statistics.median(walls):.3f}",
        f"{min(walls):.3f}-{max(walls):.3f}",
        f"{statistics.median(each.cpu for each in ran):.3f}",
        f"{max(each.peak for each in ran):.0f}",
    ]
