"""obstore, a library: what is run is the shortest script that fetches a list of files with it, N at once."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Command
from tests.bench.tools import Job, Tool, in_environment

_python = in_environment("obstore", "python")
_SCRIPT = Path(__file__).parent / "obstore_get.py"


def _command(job: Job, target: Path, at_once: int) -> Command:
    argv = [_python() or "python", "-P", str(_SCRIPT), job.base, str(job.media.count), str(target), str(at_once)]
    return Command(argv, target, {"SSL_CERT_FILE": str(job.ca_file)} if job.tls else {})


def _default(job: Job, target: Path) -> Command:
    return _command(job, target, 16)


def _best(job: Job, target: Path) -> Command:
    return _command(job, target, 300 if job.far and job.small else 20 if job.far else 8 if not job.small else 32)


_VERSION = ("-c", "import obstore; print('obstore', obstore.__version__)")
TOOLS = tuple(
    Tool("obstore", variant, _python, _VERSION, "python -m tests.bench --install", command)
    for variant, command in (("default", _default), ("best", _best))
)
