"""What the commands share: settings, values of flags, logs, and a run that ends cleanly on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import click

from mirror.config import load, parse_duration, parse_size
from mirror.errors import ConfigError, ExitCode
from mirror.models import PromptId
from mirror.observers.log import configure
from mirror.places import Places
from mirror.settings import FOREVER, Settings
from mirror.stores.files import translated


class Parsed(click.ParamType[float]):
    """A flag whose value one of the configuration's parsers understands."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Parsed("duration", parse_duration)
SIZE = Parsed("size", parse_size)


def settings_for(ctx: click.Context, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a command, with logging set up as they say; warnings about them are logged.

    Raises:
        ConfigError: they are wrong.
    """
    loaded = load(ctx.obj, flags)
    log = loaded.settings.log
    configure(log.format, log.level, secrets=(loaded.settings.api.token,)).setLevel(log.level.upper())
    for warning in loaded.warnings:
        logging.getLogger("mirror").warning(warning)
    return loaded.settings


C = TypeVar("C", bound=Callable[..., Any])


def s3_flags(command: C) -> C:
    """The flags that name a bucket, for commands that work on one; ``--s3`` is theirs."""
    command = click.option("--s3-endpoint", metavar="URL", help="The store, if it is not AWS.")(command)
    return click.option("--bucket", "s3", metavar="s3://BUCKET/PREFIX", help="The bucket (else [s3] bucket).")(command)


def wait_lock_flag(command: C) -> C:
    """``--wait-lock``, its value optional."""
    return click.option(
        "--wait-lock",
        type=DURATION,
        is_flag=False,
        flag_value=FOREVER,
        metavar="[DURATION]",
        help="Where another run holds the archive, wait for its end (10m: so long at most).",
    )(command)


def require_root(places: Places) -> None:
    """Check that there is an archive.

    Raises:
        ConfigError: there is none.
        StoreError: nobody can tell.
    """
    root = places.disk.root
    with translated(f"the archive's root {root}"):
        is_there = root.is_dir()
    if not is_there:
        raise ConfigError(f"{root}: there is no such folder; is --root right?")


async def open_disk(places: Places, wait_lock: float | None) -> None:
    """Take the root's lock, waiting for it where that is allowed; the log says for whom.

    Raises:
        Locked: another run holds it.
        StoreError: the root cannot be worked on.
    """
    await places.disk.open_when_free(wait_lock, logging.getLogger("mirror").warning)


def require_bucket(settings: Settings) -> None:
    """Check that a bucket is configured.

    Raises:
        ConfigError: there is none.
    """
    if not settings.s3.bucket:
        raise ConfigError("no bucket is configured: give [s3] bucket, MIRROR_S3_BUCKET or --bucket s3://bucket/prefix")


def run_until_signal(main: Callable[[], Coroutine[Any, Any, ExitCode]], stopped: Callable[[ExitCode], None]) -> int:
    """Run a coroutine on a loop of its own. The first SIGINT or SIGTERM cancels it, the second ends the process.

    ``stopped`` is told the signal's exit code before the cancellation. The coroutine decides its exit code.
    """
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(main())

        def cancel(code: ExitCode) -> None:
            stopped(code)
            task.cancel()

        seen: list[ExitCode] = []

        # Not the loop's own handlers: they would wait for the loop, which may hang in a write to a stderr unread.
        def stop(number: int, _frame: object) -> None:
            code = ExitCode(128 + number)
            if seen:
                os._exit(code)
            seen.append(code)
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is done
                loop.call_soon_threadsafe(cancel, code)

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        return loop.run_until_complete(task)
    finally:
        # Not asyncio.run: it would wait for threads that a slow name server holds.
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def run_command(main: Callable[[], Coroutine[Any, Any, ExitCode]]) -> int:
    """Run a coroutine until it ends or a signal ends it; the exit code of what happened."""
    stopped: list[ExitCode] = []

    async def guarded() -> ExitCode:
        try:
            return await main()
        except asyncio.CancelledError:
            return stopped[0] if stopped else ExitCode.SIGINT

    return run_until_signal(guarded, stopped.append)


def prompt_ids(arguments: Iterable[str]) -> list[PromptId]:
    """Arguments as promptIds; bytes that are no UTF-8 are spelled out, so that they can be told of."""
    return [PromptId(argument.encode("utf-8", "backslashreplace").decode()) for argument in arguments]
