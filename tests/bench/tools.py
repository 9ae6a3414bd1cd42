"""What is measured: a job, and tools that do it, each at its defaults and at its best settings."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measure import Command
from tests.bench.media import Media
from tests.bench.nginx import Origin

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENTS = Path.home() / ".cache" / "prompt-mirror-bench"
"""Each peer from PyPI has an environment of its own here, so that none is a dependency of the project."""

_PACKAGE = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"

SMALL = 1 << 20
"""Smaller files than this are small ones."""


@dataclass(frozen=True)
class Job:
    """Files to fetch: for peers a URL a line, for the mirror a promptId a line."""

    media: Media
    origin: Origin
    urls: tuple[str, ...]
    base: str
    work: Path
    tls: bool = False
    far: bool = False
    durable: bool = False

    @property
    def small(self) -> bool:
        return self.media.size < SMALL

    @property
    def kind(self) -> str:
        """``near-large``, ``near-small``, ``far-large`` or ``far-small``: each is served best by other settings."""
        return f"{'far' if self.far else 'near'}-{'small' if self.small else 'large'}"

    @property
    def urls_file(self) -> Path:
        return self.work / "urls.txt"

    @property
    def ids_file(self) -> Path:
        return self.work / "ids.txt"

    @property
    def ca_file(self) -> Path:
        return self.origin.ca_file

    def write(self, name: str, lines: str) -> Path:
        """A file of a tool's own in the job's folder, such as a list in its format."""
        path = self.work / name
        path.write_text(lines, "utf-8")
        return path


def job(
    origin: Origin, media: Media, work: Path, *, each: int, tls: bool = False, prefix: str = "", durable: bool = False
) -> Job:
    """Lay a job out: prompts of ``each`` originals, their answers in the origin, the lists in ``work``.

    Args:
        prefix: Below which the origin serves the files, as ``far/``; see `tests.bench.nginx`.
    """
    work.mkdir(parents=True)
    base = f"{origin.https if tls else origin.http}/{prefix}{media.folder.relative_to(origin.www)}/"
    urls = tuple(base + path.name for path in media.files)
    made = Job(media, origin, urls, base, work, tls, prefix == "far/", durable)
    ids = [f"{work.name}{number}" for number in range(-(-len(urls) // each))]
    for number, prompt_id in enumerate(ids):
        answer(origin, prompt_id, urls[number * each : (number + 1) * each])
    made.urls_file.write_text("".join(f"{url}\n" for url in urls), "ascii")
    made.ids_file.write_text("".join(f"{prompt_id}\n" for prompt_id in ids), "ascii")
    return made


def answer(origin: Origin, prompt_id: str, urls: tuple[str, ...]) -> None:
    """Have the origin answer that this prompt is done, with these originals."""
    images = [{"id": number, "origin": url} for number, url in enumerate(urls)]
    data = {"promptId": prompt_id, "state": 30, "imageList": images}
    told = json.dumps({"code": 200, "msg": "SUCCESS", "data": data})
    (origin.www / "tasks" / f"{prompt_id}.json").write_text(told, "utf-8")


@dataclass(frozen=True)
class Tool:
    """One tool in one variant.

    Attributes:
        variant: ``default`` or ``best``.
        program: Its path, or None where it is not installed.
        version: Arguments that have it tell its version; none: its environment knows that of the package.
        install: How it is installed.
        command: What is run for a job, into an empty folder. Files it needs are written before the clock starts.
        can: Whether it can do a job at all.
        heavy: It takes seconds to begin.
    """

    name: str
    variant: str
    program: Callable[[], str | None]
    version: tuple[str, ...]
    install: str
    command: Callable[[Job, Path], Command]
    can: Callable[[Job], bool] = field(default=lambda _: True)
    heavy: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.variant}"

    def told_version(self) -> str:
        """Its name and version, as it tells them."""
        program = self.program() or self.name
        asked = (
            (program, *self.version)
            if self.version
            else (str(Path(program).parent / "python"), "-c", _PACKAGE, self.name)
        )
        told = version_of(asked).partition(" (")[0]
        return told if self.name.partition(" ")[0].lower() in told.lower() else f"{self.name} {told}"


@functools.cache
def version_of(argv: tuple[str, ...]) -> str:
    """The first line that a command prints."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ, cwd=CHECKOUT)
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "?")


def on_path(name: str) -> Callable[[], str | None]:
    """A program of the system."""
    return lambda: shutil.which(name)


def in_environment(package: str, program: str) -> Callable[[], str | None]:
    """A program of a package that has an environment of its own."""
    path = ENVIRONMENTS / package / "bin" / program
    return lambda: str(path) if path.exists() else None


def mirror_environ(job: Job) -> Mapping[str, str]:
    """The mirror's settings for a job: where the service is, and that it is on loopback."""
    return {
        "MIRROR_API_BASE_URL": job.origin.https if job.tls else job.origin.http,
        "MIRROR_API_TOKEN": "bench",
        "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "1",
        "MIRROR_ARCHIVE_DURABILITY": "full" if job.durable else "fast",
        **({"MIRROR_TRANSFER_CA_FILE": str(job.ca_file)} if job.tls else {}),
    }


def mirror_command(job: Job, root: Path, *flags: str) -> Command:
    """``mirror fetch`` as users run it."""
    fetch = ("fetch", "-q", "--root", str(root), "-i", str(job.ids_file), *flags)
    return Command([sys.executable, "-m", "mirror", *fetch], CHECKOUT, mirror_environ(job))


MIRROR = Tool("mirror", "default", lambda: sys.executable, ("-m", "mirror", "--version"), "", mirror_command)

MIRROR_SPREAD = Tool(
    "mirror",
    "--processes 2",
    MIRROR.program,
    MIRROR.version,
    "",
    lambda job, root: mirror_command(job, root, "--processes", "2"),
)
"""Worker processes pay where a job's time is Python's: for very many small files."""
