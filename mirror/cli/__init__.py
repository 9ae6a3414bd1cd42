"""The command line. A file is a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import importlib
import os
import sys

import click

from mirror import __version__
from mirror.errors import ExitCode, MirrorError

_COMMANDS = {
    "fetch": "Mirror prompts: ask, download, verify, write manifests.",
    "sync": "Mirror what is new in the service's history, and what is unfinished: the nightly run.",
    "status": "Say what the catalog knows.",
    "verify": "Compare what is there, on disk or in the bucket, with the manifests; repair it.",
    "forget": "Remove prompts from the catalog, and with --delete their files.",
    "rebuild": "Make the catalog again from the manifests.",
    "cleanup": "Remove what interrupted runs left: stale partial files, uploads in the bucket.",
    "schema": "Print the JSON Schema of the manifest, the summary or the configuration.",
    "doctor": "Check configuration, token, disk and API, and say what to fix.",
    "demo": "Do the whole job against an embedded service, without account or network.",
}


class ReaderGoneError(Exception):
    """Nobody reads stdout any more. No OSError: click would end the process for it, with an exit code of its own."""


class _Commands(click.Group):
    """Imports a command's module when it is called; the help needs only the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"mirror.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
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
    _fill_closed_streams()
    os.umask(os.umask(0o077) | 0o002)  # nothing that we make can be written to by everybody
    code = run(arguments)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _drop_stdout()
        code = code or int(ExitCode.SIGPIPE)
    except OSError:
        _drop_stdout()
        code = code or int(ExitCode.STOPPED)
    if code in (ExitCode.SIGINT, ExitCode.SIGTERM, ExitCode.SIGPIPE):
        # Everything of ours is closed; a thread that still waits for a name server must not hold the process.
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is returned, and every error told on stderr."""
    try:
        result = cli.main(arguments, prog_name="mirror", standalone_mode=False)
    except click.exceptions.Abort:
        return ExitCode.SIGINT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MirrorError as error:
        click.echo(f"mirror: {error}", err=True)
        return error.exit_code
    except (BrokenPipeError, ReaderGoneError):
        _drop_stdout()
        return ExitCode.SIGPIPE
    return result if isinstance(result, int) else ExitCode.OK


def _fill_closed_streams() -> None:
    """Streams that were closed from the start go nowhere, and no file that is opened later takes their place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _drop_stdout() -> None:
    """Nobody reads it any more: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
