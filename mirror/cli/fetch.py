"""``mirror fetch``: the main job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import click
import msgspec

from mirror.cli.common import DURATION, SIZE, run_until_signal, settings_for, write_stdout
from mirror.client import Mirror
from mirror.config import require_api
from mirror.errors import ConfigError, ExitCode, MirrorError, worst
from mirror.events import Noted, Observer, RunFinished
from mirror.manifests.document import encode_line
from mirror.observers.log import LogObserver, configure
from mirror.observers.progress import Progress
from mirror.observers.tally import Tally, render
from mirror.run import Result
from mirror.settings import FetchOptions, Settings
from mirror.sources import Batch
from mirror.sources.args import from_iterable
from mirror.sources.file import from_file
from mirror.sources.stdin import from_stdin
from mirror.times import now


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-i", "--input", "inputs", multiple=True, metavar="FILE|-", help="Read ids, one a line; - is stdin.")
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--s3", metavar="s3://BUCKET/PREFIX", help="Put everything into this bucket, too.")
@click.option("--s3-endpoint", metavar="URL", help="The store, if it is not AWS.")
@click.option("--s3-only", is_flag=True, default=None, help="Straight into the bucket: no local copy.")
@click.option("--only", type=click.Choice(["origin", "thumbnail"]), help="Fetch files of one kind only.")
@click.option("--wait", type=DURATION, default=0.0, help="Keep polling tasks that are queued or running (30m, 2h).")
@click.option("--max-time", type=DURATION, default=0.0, help="Stop cleanly after this time.")
@click.option("--json", "as_json", is_flag=True, help="Print one manifest a line as each prompt is finished.")
@click.option("--dry-run", is_flag=True, help="Ask the API and say what would be fetched; change nothing.")
@click.option("--refresh", is_flag=True, help="Ask the API again for what is complete, and fetch what is new.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed for good (ids that are named always are).")
@click.option("--concurrency", type=click.IntRange(0, 4096), help="Requests at once to one host; 0 adapts.")
@click.option("--limit-rate", type=SIZE, help="Bytes a second in all (10M).")
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write the summary as JSON.")
@click.option("--no-progress", is_flag=True, help="No progress bar, even on a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Log errors only, and no summary.")
@click.option("-v", "--verbose", is_flag=True, help="Log every file and every retry.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How log lines look.")
@click.pass_context
def fetch(ctx: click.Context, /, ids: tuple[str, ...], inputs: tuple[str, ...], **flags: Any) -> int:
    """Mirror prompts into the archive: every thumbnail and every original, verified, with a manifest.

    What is complete already costs no request; what was interrupted goes on where it stopped.
    """
    if not ids and not inputs:
        raise click.UsageError("give promptIds, or -i FILE, or -i - for stdin")
    level = "error" if flags["quiet"] else "debug" if flags["verbose"] else None
    keys = ("root", "s3", "s3_endpoint", "s3_only", "concurrency", "limit_rate", "log_format")
    settings = settings_for(ctx, {**{key: flags[key] for key in keys}, "log_level": level})
    require_api(settings.api)
    summary: Path | None = flags["summary"]
    if summary is not None and not os.access(summary.parent, os.W_OK):
        raise ConfigError(f"--summary {summary}: its folder does not exist or cannot be written to")
    for name in inputs:
        if name != "-" and not os.access(name, os.R_OK):
            raise ConfigError(f"-i {name}: cannot be read: is it there, and yours to read?")
    options = FetchOptions(**{key: flags[key] for key in FetchOptions.__struct_fields__ if key in flags})
    command = _Fetch(settings, options, ids, inputs, flags)
    return run_until_signal(command.run, command.stopped)


class _Fetch:
    """One call of the command: observers wired, results printed, the exit code found."""

    def __init__(
        self,
        settings: Settings,
        options: FetchOptions,
        ids: tuple[str, ...],
        inputs: tuple[str, ...],
        flags: dict[str, Any],
    ) -> None:
        self._settings = settings
        self._options = options
        self._ids = ids
        self._inputs = inputs
        self._json: bool = flags["as_json"]
        self._quiet: bool = flags["quiet"]
        self._summary: Path | None = flags["summary"]
        self._tally = Tally()
        self._progress = Progress() if sys.stderr.isatty() and not flags["no_progress"] and not self._quiet else None
        self._log = LogObserver(heartbeat=None if self._progress else 30.0)
        self._codes: list[ExitCode] = []
        self._fatal: str | None = None
        log = settings.log
        configure(log.format, log.level, self._progress, (settings.api.token,))

    def stopped(self, code: ExitCode) -> None:
        """A signal came."""
        self._codes.append(code)

    async def run(self) -> ExitCode:
        """Until everything is done or something stops it; the summary is told in either case."""
        started = time.monotonic()
        observers: list[Observer] = [self._tally, self._log, *([self._progress] if self._progress else [])]
        mirror = Mirror(self._settings, observers=observers)
        try:
            async with mirror:
                await self._fetch(mirror)
        except asyncio.CancelledError:
            pass
        except MirrorError as error:
            self._fatal = str(error)
            self._codes.append(error.exit_code)
        except BrokenPipeError:
            self._codes.append(ExitCode.SIGPIPE)
        except Exception as error:
            logging.getLogger("mirror").exception("a bug in mirror: please report it")
            self._fatal = f"a bug: {type(error).__name__}"
            self._codes.append(ExitCode.BUG)
        code = worst([*self._codes, mirror.exit_code])
        end = RunFinished(
            seconds=time.monotonic() - started, exit_code=code, fatal=self._fatal, unfinished=mirror.unfinished
        )
        for observer in observers:
            observer(end)
        self._tell()
        return code

    async def _fetch(self, mirror: Mirror) -> None:
        results = mirror.results(self._source(), self._options, want_manifests=self._json)
        async with contextlib.aclosing(results):
            async for result in results:
                data = self._line(result)
                if data:
                    # In a thread: a slow reader must not hold up the downloads.
                    await asyncio.to_thread(write_stdout, data)

    def _line(self, result: Result) -> bytes:
        if self._json:
            return encode_line(result.manifest) if result.manifest is not None else b""
        lines = [f"{result.prompt_id}\t{asset.name}\t{asset.identity}\n" for asset in result.planned]
        return "".join(lines).encode()

    async def _source(self) -> AsyncGenerator[Batch, None]:
        """The ids of the command line first, then those of each input in turn."""
        sources = [from_iterable(self._ids)] if self._ids else []
        sources += [
            from_stdin(on_bad_line=self._bad_line) if name == "-" else from_file(name, on_bad_line=self._bad_line)
            for name in self._inputs
        ]
        for source in sources:
            async with contextlib.aclosing(source):
                async for batch in source:
                    yield batch

    def _bad_line(self, message: str) -> None:
        self._log(Noted(level="warning", message=message))
        self._codes.append(ExitCode.INCOMPLETE)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress.close()
        summary = self._tally.summary()
        with contextlib.suppress(OSError):  # nobody reads stderr any more: the exit code says it all
            if not self._quiet and self._settings.log.format == "text":
                click.echo(render(summary), err=True)
            elif not self._quiet:
                line = {"time": now(), "level": "info", "message": "summary", "summary": summary}
                click.echo(msgspec.json.encode(line), err=True)
        if self._summary is not None:
            try:
                self._summary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
            except OSError as error:
                raise ConfigError(f"--summary {self._summary}: cannot be written: {error.strerror}") from None
