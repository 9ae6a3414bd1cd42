"""obstore, a library: what is run is the shortest script that fetches a list of files with it, N at once."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, in_environment

_python = in_environment("obstore", "python")
_SCRIPT = Path(__file__).parent / "obstore_get.py"


_AT_ONCE = {"near-large": 8, "near-small": 32, "far-large": 20, "far-small": 200}
"""What was best of what was tried."""

_DEFAULT = 16
"""A library has no default of its own: as many as a first script would take."""


def _command(job: Job, target: Path, at_once: int) -> Command:
    argv = [_python() or "python", "-P", str(_SCRIPT), job.base, str(job.media.count), str(target), str(at_once)]
    return Command(argv, target, {"SSL_CERT_FILE": str(job.ca_file)} if job.tls else {})


def _default(job: Job, target: Path) -> Command:
    return _command(job, target, _DEFAULT)


def _best(job: Job, target: Path) -> Command:
    return _command(job, target, _AT_ONCE[job.kind])


_VERSION = ("-c", "import obstore; print('obstore', obstore.__version__)")
TOOLS = tuple(
    Tool("obstore", variant, _python, _VERSION, "python -m tests.bench --install", command)
    for variant, command in (("default", _default), ("best", _best))
)
