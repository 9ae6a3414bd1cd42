"""``mirror demo``: see it work before giving it a token."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from mirror.demo.show import Demo


@click.command()
@click.option("--root", type=click.Path(path_type=Path), help="A new or empty folder (else a temporary one).")
@click.option("--s3", is_flag=True, help="With a bucket, too: in an embedded OpenStack Swift, if that is installed.")
def demo(root: Path | None, s3: bool) -> int:
    """Do the whole job against an embedded service: no account, no network, some seconds.

    The command line is killed in the middle, resumes, polls what is still running, and every byte is checked.
    """
    if root is not None and root.exists() and any(root.iterdir()):
        raise click.UsageError(f"{root} is not empty: the demo wants a folder of its own")
    folder = root.absolute() if root is not None else Path(tempfile.mkdtemp(prefix="mirror-demo-"))
    if not s3:
        return asyncio.run(Demo(folder, click.echo).run())
    from mirror.demo.bucket import serving  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="mirror-demo-bucket-") as store, serving(Path(store)) as bucket:
        return asyncio.run(Demo(folder, click.echo, bucket).run())
