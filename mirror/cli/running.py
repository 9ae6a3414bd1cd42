"""What ``fetch`` and ``sync`` share: the flags of a run, and the run itself from its first event to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import stat
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from msgspec import Struct

from mirror.cli import system_needed
from mirror.cli.common import DURATION, SIZE, settings_for, wait_lock_flag
from mirror.cli.streams import ReaderGoneError, ours_alone, stdout_code, write_lines
from mirror.client import Mirror
from mirror.config import require_api
from mirror.custody import catalog_path
from mirror.errors import ConfigError, ExitCode, MirrorError, worst
from mirror.events import Event, Noted, Observer, RunFinished
from mirror.manifests.document import encode_line
from mirror.models import PromptState
from mirror.observers.log import LogObserver, configure
from mirror.observers.progress import Progress
from mirror.observers.tally import Tally, render
from mirror.ping import Ping, secrets_of
from mirror.run import Result
from mirror.settings import FetchOptions, Settings
from mirror.times import now

if TYPE_CHECKING:
    from mirror.hooks import Hooks

C = TypeVar("C", bound=Callable[..., Any])

_OBJECTS = 20_000
"""New objects, over those that died, after which Python looks for rings among them."""

Results = Callable[[Mirror], AsyncGenerator[list[Result], None]]
"""What a command does with an open archive: results, one a prompt, as they come, those together that came together."""

_OPTIONS = (
    click.option("--root", metavar="DIR", help="Where the archive stands."),
    click.option("--s3", metavar="s3://BUCKET/PREFIX", help="Put everything into this bucket, too."),
    click.option("--s3-endpoint", metavar="URL", help="The store, if it is not AWS."),
    click.option("--s3-only", is_flag=True, default=None, help="Straight into the bucket: no local copy."),
    click.option("--only", type=click.Choice(["origin", "thumbnail"]), help="Fetch files of one kind only."),
    click.option("--wait", type=DURATION, default=0.0, help="Keep polling tasks that are queued or running (30m, 2h)."),
    click.option("--max-time", type=DURATION, default=0.0, help="Stop cleanly after this time."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one manifest a line, in the order in which prompts end."
    ),
    click.option("--dry-run", is_flag=True, help="Ask the API and say what would be fetched; change nothing."),
    click.option("--refresh", is_flag=True, help="Ask the API again for what is complete, and fetch what is new."),
    click.option(
        "--retry-failed", is_flag=True, help="Try again what failed for good (ids that are named always are)."
    ),
    click.option("--concurrency", type=click.IntRange(0, 4096), help="Requests at once to one host; 0 adapts."),
    click.option("--limit-rate", type=SIZE, help="Bytes a second in all (10M)."),
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", help="This machine, or a Ray cluster."
    ),
    click.option(
        "--processes",
        type=click.IntRange(0, 4096),
        default=0,
        metavar="N",
        help="Worker processes that share the work [1; with --engine ray: one for each CPU].",
    ),
    click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write the summary as JSON."),
    click.option("--no-progress", is_flag=True, help="No progress bar, even on a terminal."),
    click.option("-q", "--quiet", is_flag=True, help="Log errors only, and no summary."),
    click.option("-v", "--verbose", is_flag=True, help="Log every file and every retry."),
    click.option("--log-format", type=click.Choice(["text", "json"]), help="How log lines look."),
    wait_lock_flag,
)


def run_flags(command: C) -> C:
    """The flags of every command that mirrors; :func:`prepared` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class RunFlags(Struct, frozen=True, kw_only=True):
    """What the flags say beyond the settings: what is asked for, and what is told of it."""

    options: FetchOptions
    as_json: bool = False
    summary: Path | None = None
    progress: bool = True
    quiet: bool = False


def prepared(ctx: click.Context, flags: Mapping[str, Any]) -> tuple[Settings, RunFlags]:
    """The settings of a run, and what else its flags say. Logging is set up.

    Raises:
        ConfigError: something is wrong that can be seen before anything starts.
    """
    level = "error" if flags["quiet"] else "debug" if flags["verbose"] else None
    keys = ("root", "s3", "s3_endpoint", "s3_only", "concurrency", "limit_rate", "log_format")
    settings = settings_for(ctx, {**{key: flags[key] for key in keys}, "log_level": level})
    require_api(settings.api)
    summary: Path | None = flags["summary"]
    if summary is not None:
        _check_summary(summary, settings)
    if flags["engine"] == "ray" and not flags["dry_run"]:
        from mirror.engines.ray.cluster import require_ray  # noqa: PLC0415 - few runs have a cluster

        require_ray()
    return settings, RunFlags(
        options=FetchOptions(**{key: flags[key] for key in FetchOptions.__struct_fields__}),
        as_json=flags["as_json"],
        summary=summary,
        progress=not flags["no_progress"],
        quiet=flags["quiet"],
    )


def _check_summary(path: Path, settings: Settings) -> None:
    """Check what can be seen before the run: that the summary has a place, and that nothing else has it.

    Raises:
        ConfigError: it cannot be written there, or must not.
    """
    told = f"--summary {path}"
    try:
        place, root, catalog = path.resolve(), Path(settings.archive.root).resolve(), catalog_path(settings).resolve()
        found = path.stat().st_mode if path.exists() else None
    except OSError as error:
        raise ConfigError(f"{told}: {error.strerror}") from None
    if place == catalog or (place.is_relative_to(root) and place.parent != root):
        raise ConfigError(f"{told}: that is a place of the archive's own: choose one outside")
    if found is not None and not (stat.S_ISREG(found) or stat.S_ISCHR(found) or stat.S_ISFIFO(found)):
        raise ConfigError(f"{told}: that is no file")
    if not os.access(place.parent if found is None else path, os.W_OK):
        raise ConfigError(f"{told}: it cannot be written to, or its folder does not exist")


class Command:
    """One call of a command that mirrors: observers wired, results printed, the exit code found.

    ``results`` is called once, with the archive open; its generator is closed in any case. ``observers`` are told of
    each event before the command's own. A dry run tells no monitor and runs no hooks. Run it with
    ``run_until_signal(command.run, command.stopped)``.

    Raises:
        ConfigError: metrics, ping or hooks cannot work as they are set.
    """

    def __init__(
        self, settings: Settings, flags: RunFlags, results: Results, observers: tuple[Observer, ...] = ()
    ) -> None:
        self._settings = settings
        self._flags = flags
        self._results = results
        self._tally = Tally()
        bar = flags.progress and not flags.quiet and sys.stderr.isatty()
        self._progress = Progress(tally=self._tally) if bar else None
        self._log = LogObserver(heartbeat=None if self._progress or flags.quiet else 30.0, tally=self._tally)
        self._codes: list[ExitCode] = []
        self._fatal: str | None = None
        log = settings.log
        secrets = (settings.api.token, *secrets_of(settings.metrics.ping_url))
        configure(log.format, log.level, self._progress, secrets)
        self._observers: list[Observer] = [*observers, self._tally, self._log]
        if self._progress is not None:
            self._observers.append(self._progress)
        acts = not flags.options.dry_run
        told = settings.metrics
        if told.textfile and acts:
            from mirror.observers.metrics import Metrics  # noqa: PLC0415 - few runs tell anybody

            self._observers.append(Metrics(told.textfile, told.interval, tally=self._tally))
        self._ping = Ping(settings) if told.ping_url and acts else None
        self._hooks: Hooks | None = None
        if settings.hooks.on_prompt:
            from mirror.hooks import Hooks  # noqa: PLC0415

            hooks = Hooks(settings, self.observe, lambda: self._tally.run_id)
            self._hooks = hooks if acts else None

    def observe(self, event: Event, /) -> None:
        """Tell whoever watches this command."""
        for observer in self._observers:
            observer(event)

    @property
    def wants_manifests(self) -> bool:
        """Whether the results of prompts that were complete before need their manifests, too."""
        return self._flags.as_json

    def stopped(self, code: ExitCode) -> None:
        """A signal came."""
        self._codes.append(code)

    def incomplete(self, message: str) -> None:
        """Something that was asked for cannot be done, and it is no prompt's: a warning, and exit code 3."""
        self._log(Noted(level="warning", message=message))
        self._codes.append(ExitCode.INCOMPLETE)

    async def run(self) -> ExitCode:
        """Until everything is done or something stops it; the summary is told in either case."""
        started = time.monotonic()
        _collect_less()
        if self._ping is not None:
            self._ping.start()
        mirror = Mirror(self._settings, observers=self._observers)
        try:
            # Hooks are waited for when the archive is closed: they may work on it.
            alone = ours_alone() if self._flags.options.engine == "ray" else contextlib.nullcontext()
            with system_needed(), alone:
                async with self._hooks or contextlib.nullcontext(), mirror:
                    await self._print(self._results(mirror))
        except asyncio.CancelledError:
            pass
        except MirrorError as error:
            self._fatal = str(error)
            self._codes.append(error.exit_code)
        except ReaderGoneError:
            self._codes.append(ExitCode.SIGPIPE)
        except Exception as error:
            logging.getLogger("mirror").exception("a bug in mirror: please report it")
            self._fatal = f"a bug: {type(error).__name__}"
            self._codes.append(ExitCode.BUG)
        code = worst([*self._codes, mirror.exit_code, stdout_code()])
        self.observe(
            RunFinished(
                seconds=time.monotonic() - started, exit_code=code, fatal=self._fatal, unfinished=mirror.unfinished
            )
        )
        if not self._tell():
            code = worst([code, ExitCode.STOPPED])
        if self._ping is not None:
            await self._ping.finish(render(self._tally.summary()), code)
        return code

    async def _print(self, results: AsyncGenerator[list[Result], None]) -> None:
        async with contextlib.aclosing(results):
            async for come in results:
                lines = [line for result in come if (line := self._line(result))]
                if lines:
                    # In a thread: a slow reader must not hold up the downloads.
                    await asyncio.to_thread(write_lines, lines)
                if self._hooks is not None:
                    for result in come:
                        if result.manifest is not None and _is_news(result):
                            await self._hooks.submit(result.manifest)

    def _line(self, result: Result) -> bytes:
        if self._flags.as_json:
            return encode_line(result.manifest) if result.manifest is not None else b""
        if not result.planned:
            return b""
        lines = [f"{result.prompt_id}\t{asset.name}\t{asset.identity}\n" for asset in result.planned]
        return "".join(lines).encode()

    def _tell(self) -> bool:
        """The summary, to everybody who wants it; False if it cannot be written."""
        if self._progress is not None:
            self._progress.close()
        summary = self._tally.summary()
        if not self._flags.quiet and self._settings.log.format == "text":
            click.echo(render(summary), err=True)
        elif not self._flags.quiet:
            line = {
                "time": now(),
                "level": "info",
                "message": "summary",
                "run_id": summary.run_id,
                "summary": summary,
            }
            click.echo(msgspec.json.encode(line), err=True)
        path = self._flags.summary
        if path is None:
            return True
        try:
            _write(path, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
        except OSError as error:
            logging.getLogger("mirror").warning(f"--summary {path}: cannot be written: {error.strerror}")
            return False
        return True


def _collect_less() -> None:
    """What a run makes dies by its count of references: to look for rings in it every 700 objects, as Python does by
    itself, takes a sixth of the time of many small files. What is loaded by now stays, and is not looked at again.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS, 10, 10)


def _write(path: Path, data: bytes) -> None:
    """Write to a file, a device or a pipe; to a pipe only if somebody reads it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    os.set_blocking(fd, True)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _is_news(result: Result) -> bool:
    """Whether this run dealt with the prompt, and its manifest is one that is written."""
    return not result.skipped and result.state not in (PromptState.UNKNOWN, PromptState.UNRESOLVED)
