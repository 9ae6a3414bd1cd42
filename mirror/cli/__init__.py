"""The command line. A file is a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator

import click

from mirror import __version__
from mirror.cli import streams
from mirror.errors import ExitCode, MirrorError, StoreUnavailable, first_error, worst

_COMMANDS = {
    "fetch": "Mirror prompts: ask, download, verify, write manifests.",
    "sync": "Mirror what is new in the service's history, and what is unfinished: the nightly run.",
    "status": "Say what the catalog knows.",
    "verify": "Compare what is there, on disk or in the bucket, with the manifests; repair it.",
    "export": "Hand on what is there: digests, a bag, a table with a row for each file.",
    "gallery": "Write a static page of what was mirrored.",
    "forget": "Remove prompts from the catalog, and with --delete their files.",
    "rebuild": "Make the catalog again from the manifests.",
    "cleanup": "Remove what interrupted runs left: stale partial files, uploads in the bucket.",
    "schema": "Print the JSON Schema of the manifest, the summary or the configuration.",
    "doctor": "Check configuration, token, disk and API, and say what to fix.",
    "demo": "Do the whole job against an embedded service, without account or network.",
}


class _Commands(click.Group):
    """Imports a command's module when it is called; the help needs only the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"mirror.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        gc.freeze()
        gc.enable()
        if callable(signal.getsignal(signal.SIGINT)):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is something to put away
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mirror")
@click.option("--config", metavar="FILE", help="Configuration file (else MIRROR_CONFIG, ./mirror.toml, the user's).")
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Mirror the pictures and videos that a media service made for you.

    Exit codes: 0 all is mirrored; 2 wrong usage or configuration; 3 some prompts failed or are incomplete;
    4 the run had to stop; 5 some tasks are still queued or running; 130, 143 interrupted.
    """
    ctx.obj = config


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    streams.take_over()
    os.umask(os.umask(0o077) | 0o002)  # nothing that we make can be written to by everybody
    code = worst([ExitCode(run(arguments)), streams.stdout_code()])
    if (failure := streams.stdout_failure()) is not None:
        click.echo(f"mirror: {failure}", err=True)
    if code in (ExitCode.SIGINT, ExitCode.SIGTERM, ExitCode.SIGPIPE) or streams.is_stdout_stalled():
        # Everything of ours is closed; a thread that still waits for a name server, or for a reader, must not hold
        # the process.
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is returned, and every error told on stderr."""
    try:
        with system_needed():
            result = cli.main(arguments, prog_name="mirror", standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.SIGINT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MirrorError as error:
        click.echo(f"mirror: {error}", err=True)
        return error.exit_code
    except streams.ReaderGoneError:
        return ExitCode.SIGPIPE
    except Exception:
        logging.getLogger("mirror").exception("a bug in mirror: please report it")
        return ExitCode.BUG
    return result if isinstance(result, int) else ExitCode.OK


@contextlib.contextmanager
def system_needed() -> Iterator[None]:
    """What is done here needs threads and memory.

    Raises:
        StoreUnavailable: the system gives no more of them.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ExceptionGroup) as error:
        first = first_error(error)
        if isinstance(first, MemoryError):
            told = "no more memory can be had: raise the limit (ulimit -v, the container's) and run again"
        elif str(first).startswith("can't start new thread"):
            told = (
                "no more threads can be started: raise the limit (ulimit -u, ulimit -v, the container's) and run again"
            )
        else:
            raise
        raise StoreUnavailable(told) from error
