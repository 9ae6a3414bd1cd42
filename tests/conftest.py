"""What most tests need: an origin on a real socket, an archive in a folder, and the command line to point at both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import tests.properties  # noqa: F401 - registers the profile
from mirror import Manifest, Settings, load_settings
from mirror.facts import Facts
from mirror.stores.local import LocalStore
from tests.origin import Origin

hypothesis.settings.load_profile("mirror")
pytest_plugins = ["tests.s3.fixtures"]
pytest.register_assert_rewrite("tests.fault_table", "tests.drivers")


def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores: a test waits a quarter of its time, for processes, timers and disks."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, configuration file, proxy or AWS credentials of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("MIRROR_", "AWS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # else each run of the command line compiles it anew
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # the system's authorities are asked about nothing here, and
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "no-authorities"))  # take a sixth of each start to read
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _sampled(request: pytest.FixtureRequest) -> None:
    """Of the many cases of a test, coverage of the processes of a quarter is enough."""
    if hasattr(request.node, "callspec") and zlib.crc32(request.node.nodeid.encode()) % 4:
        request.getfixturevalue("unmeasured")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are killed, or many: coverage costs each a tenth of a second, and of some there is none."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Archive:
    """A folder to mirror into, and the ways to have that done: the command line in a process of its own, or Python."""

    def __init__(self, root: Path, origin: Origin) -> None:
        self.root = root
        self.origin = origin
        self.environ = {
            "MIRROR_API_BASE_URL": origin.api_url,
            "MIRROR_API_TOKEN": origin.token,
            "MIRROR_ARCHIVE_ROOT": str(root),
            "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
            "MIRROR_TRANSFER_MIN_FREE_SPACE": "0",
        }

    def settings(self, **values: Any) -> Settings:
        """Settings for the Python API; ``values`` are named section_key."""
        given: dict[str, Any] = {
            "root": self.root,
            "api_base_url": self.origin.api_url,
            "api_token": self.origin.token,
            "security_allow_private_addresses": True,
            "transfer_min_free_space": 0,
        }
        return load_settings(**(given | values))

    def environment(self) -> dict[str, str]:
        """All that the command line is told by its environment."""
        return {**os.environ, **self.environ}

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start the command line; the caller waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "mirror", *arguments],
            env={**self.environment(), **(environ or {})},
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *arguments: str, stdin: str | None = None, environ: Mapping[str, str] | None = None) -> Done:
        """Run the command line to its end. ``fetch`` and ``sync`` write their summary, too."""
        summary = self.root.with_name(f"{self.root.name}-summary.json")
        summary.unlink(missing_ok=True)
        told = ["--summary", str(summary)] if arguments[:1] in (("fetch",), ("sync",)) else []
        process = self.start(*arguments, *told, environ=environ, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL)
        out, err = process.communicate(stdin, timeout=300)
        found = json.loads(summary.read_bytes()) if summary.exists() else {}
        return Done(process.returncode, out, err, found)

    def kill_when(self, process: subprocess.Popen[str], happened: Callable[[], Any], sig: int = signal.SIGKILL) -> int:
        """Send a signal once something has happened; the exit code (negative for a signal that killed)."""
        happened()
        process.send_signal(sig)
        process.communicate(timeout=60)
        return process.returncode

    def manifest(self, prompt_id: str) -> dict[str, Any]:
        """The manifest on disk as plain JSON."""
        found = json.loads((self.root / prompt_id / "manifest.json").read_bytes())
        assert isinstance(found, dict)
        return found

    def files(self) -> dict[str, bytes]:
        """Every file under the root that is not the mirror's own, by its path relative to the root."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and ".mirror" not in path.relative_to(self.root).parts
        }

    def partials(self) -> list[str]:
        """The names of what is not finished."""
        return sorted(path.name for path in (self.root / ".mirror" / "parts").glob("*"))


@pytest.fixture
def archive(tmp_path: Path, origin: Origin) -> Archive:
    return Archive(tmp_path / "archive", origin)


@pytest.fixture
def patient_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is closed waits for its worker as long as it takes, where a program has two seconds for that."""
    monkeypatch.setattr("mirror.engines.stage._LAST", 60.0)


@pytest.fixture
def no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra ``media`` is not installed: to start a helper takes longer than the rest of a small run."""
    monkeypatch.setattr(Facts, "are_told", False)


def by_id(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Manifests by their promptId, each once."""
    found = {manifest.prompt_id: manifest for manifest in manifests}
    assert len(found) == len(manifests), "a prompt came twice"
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def store(root: Path) -> Iterator[LocalStore]:
    """A local store that is open."""
    opened = LocalStore(load_settings(root=root, transfer_min_free_space=0))
    opened.open()
    yield opened
    opened.close()
