"""What commands that take lists of ids share: the flags that name them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from mirror.errors import ConfigError
from mirror.sources.inputs import FORMATS, is_local

C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        metavar="FILE|-",
        help="Read ids from a file (text, .csv, .tsv, .jsonl, .parquet; .gz, .zst), from s3://BUCKET/KEY or - (stdin).",
    ),
    click.option("--column", metavar="NAME|N", help="Which column of a table holds the ids [promptId, prompt_id, id]."),
    click.option("--input-format", type=click.Choice(FORMATS), help="The format of each -i, whatever its name says."),
)


def input_flags(command: C) -> C:
    """``-i``, ``--column`` and ``--input-format``: parameters ``inputs``, ``column`` and ``input_format``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def require_inputs(inputs: Iterable[str]) -> None:
    """Check that the files among them can be read.

    Raises:
        ConfigError: one of them cannot.
    """
    for name in inputs:
        if is_local(name) and not os.access(name, os.R_OK):
            raise ConfigError(f"-i {name}: cannot be read: is it there, and yours to read?")
