"""``mirror schema``: the JSON Schemas of what others read and write."""

from __future__ import annotations

import click

from mirror.cli.streams import write_stdout
from mirror.schemas import NAMES, schema_of


@click.command()
@click.argument("name", type=click.Choice(NAMES))
def schema(name: str) -> None:
    """Print the JSON Schema of the manifest, the summary or the configuration."""
    write_stdout(schema_of(name))
