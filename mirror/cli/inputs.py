"""What commands that take lists of ids share: the flags that name them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import click
from msgspec import Struct

from mirror.cli.common import prompt_ids
from mirror.errors import ConfigError
from mirror.models import PromptId
from mirror.observers.log import LogObserver
from mirror.settings import Settings
from mirror.sources.inputs import FORMATS, Reading, ids_of, is_local

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


class Selection(Struct, frozen=True):
    """The prompts that a command is about: those that are named, or all where none is."""

    ids: tuple[PromptId, ...]
    inputs: tuple[str, ...]
    reading: Reading

    @property
    def is_all(self) -> bool:
        return not self.ids and not self.inputs

    async def batches(self, on_bad_line: Callable[[str], None]) -> AsyncGenerator[list[PromptId], None]:
        """The ids that are named, in their order."""
        source = ids_of(self.ids, self.inputs, self.reading, on_bad_line=on_bad_line, observer=LogObserver())
        async with aclosing(source):
            async for batch in source:
                yield [PromptId(each) for each in batch]


def selection(settings: Settings, ids: Iterable[str], flags: Mapping[str, Any]) -> Selection:
    """What the arguments and the flags of :func:`input_flags` say.

    Raises:
        ConfigError: a file among them cannot be read.
    """
    require_inputs(flags["inputs"])
    reading = Reading(settings=settings, column=flags["column"], format=flags["input_format"])
    return Selection(tuple(prompt_ids(ids)), flags["inputs"], reading)
