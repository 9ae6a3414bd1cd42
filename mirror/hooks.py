"""The user's own command, run for each prompt that a run has finished."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from mirror.errors import ConfigError
from mirror.events import HookFinished, HookOutcome, Observer
from mirror.manifests.document import encode_line
from mirror.models import Manifest
from mirror.settings import Settings

_MOST_OUTPUT = 10_000
_GRACE = 0.5
"""How long, in seconds, what a command wrote may take to get here after its end."""

_SECRETS = frozenset(
    {
        "MIRROR_API_TOKEN",
        "MIRROR_METRICS_PING_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    }
)


class Hooks:
    """Runs ``[hooks] on_prompt``, ``concurrency`` at once. An async context manager around a run.

    Leaving it waits for the commands that are under way or queued; where the run was cancelled they are killed, each
    with its process group. How each one ended is told as a :class:`mirror.events.HookFinished`; none changes the run.
    ``run_id`` is asked for when a command starts.

    Raises:
        ConfigError: the command cannot be split into words, or does not exist.
    """

    def __init__(self, settings: Settings, observer: Observer, run_id: Callable[[], str]) -> None:
        self._settings = settings.hooks
        self._token = settings.api.token
        self._observer = observer
        self._run_id = run_id
        self._words = _words(settings.hooks.on_prompt)
        self._queue: asyncio.Queue[Manifest | None] = asyncio.Queue(self._settings.concurrency)
        self._workers: list[asyncio.Task[None]] = []
        self._bug: Exception | None = None

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._settings.concurrency)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                for _ in self._workers:
                    await self._queue.put(None)
                await asyncio.wait(self._workers)
        finally:
            await self._stop()
        if self._bug is not None and error is None:
            raise self._bug

    async def submit(self, manifest: Manifest) -> None:
        """Have the command run for a prompt. Waits while as many are queued as may run at once."""
        await self._queue.put(manifest)

    async def _stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.wait(self._workers)
        while not self._queue.empty():
            manifest = self._queue.get_nowait()
            if manifest is not None:
                self._tell(manifest.prompt_id, HookOutcome.STOPPED, "not run, since the run was stopped")

    async def _work(self) -> None:
        while (manifest := await self._queue.get()) is not None:
            try:
                await self._run(manifest)
            except Exception as error:  # noqa: BLE001  it is raised at the end: a queue nobody empties would hang us
                self._bug = self._bug or error

    async def _run(self, manifest: Manifest) -> None:
        talk = _Talk(asyncio.get_running_loop())
        try:
            outcome, message = await self._result(talk, encode_line(manifest), self._environ(os.environ, manifest))
        except asyncio.CancelledError:
            self._tell(manifest.prompt_id, HookOutcome.STOPPED, "killed, since the run was stopped", talk.output)
            raise
        self._tell(manifest.prompt_id, outcome, message, talk.output)

    async def _result(self, talk: _Talk, document: bytes, environ: dict[str, str]) -> tuple[HookOutcome, str]:
        try:
            # A session of its own: no signal of a terminal, and a kill of all that the command started.
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: talk, *self._words, stderr=asyncio.subprocess.STDOUT, env=environ, start_new_session=True
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            return HookOutcome.NOT_STARTED, f"cannot be started: {why}"
        try:
            _feed(transport, document)
            await asyncio.wait({talk.exited}, timeout=self._settings.timeout or None)
            if not talk.exited.done():
                return HookOutcome.TIMEOUT, f"killed after {self._settings.timeout:g} s (hooks.timeout)"
            await asyncio.wait({talk.closed}, timeout=_GRACE)  # what it left behind may hold its output open
        finally:
            if not talk.exited.done():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
                await asyncio.wait({talk.exited}, timeout=_GRACE)
            transport.close()
        return _judged(transport.get_returncode() or 0)

    def _environ(self, environ: Mapping[str, str], manifest: Manifest) -> dict[str, str]:
        """Ours, without credentials: the command may be anything, and write down anything."""
        kept = {
            name: value
            for name, value in environ.items()
            if name not in _SECRETS and not (self._token and self._token in value)
        }
        told = {"PROMPT_ID": manifest.prompt_id, "STATE": str(manifest.state), "RUN_ID": self._run_id()}
        return kept | {f"MIRROR_{name}": value for name, value in told.items()}

    def _tell(self, prompt_id: str, outcome: HookOutcome, message: str, output: bytes = b"") -> None:
        text = output.decode("utf-8", "backslashreplace")
        self._observer(HookFinished(prompt_id=prompt_id, outcome=outcome, message=message, output=text))


class _Talk(asyncio.SubprocessProtocol):
    """What a command says: the beginning of its output is kept, the rest is read and dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = b""
        self.exited = loop.create_future()
        self.closed = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        self.output += data[: _MOST_OUTPUT - len(self.output)]

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed.set_result(None)


def _feed(transport: asyncio.SubprocessTransport, document: bytes) -> None:
    """Hand a command its input; what it does not read is held by the loop, and goes with it."""
    stdin = transport.get_pipe_transport(0)
    assert isinstance(stdin, asyncio.WriteTransport)
    stdin.write(document)
    stdin.write_eof()


def _judged(code: int) -> tuple[HookOutcome, str]:
    if code == 0:
        return HookOutcome.OK, "ended well"
    return HookOutcome.FAILED, f"failed, killed by signal {-code}" if code < 0 else f"failed, exit code {code}"


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"[hooks] on_prompt: cannot be split into words as a shell does: {error}") from None
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else ""
        raise ConfigError(f"[hooks] on_prompt: there is no command {name!r} that can be run")
    return words
