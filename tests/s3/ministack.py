"""MiniStack's S3, IAM and STS as one command: `python -m tests.s3.ministack --dir FOLDER`.

It prints one line of JSON (endpoint, region) and serves on 127.0.0.1 until its stdin closes. Signatures and policies
are checked, except for those who use the root key: whoever starts it makes a user first (`tests.s3.servers` does).
What MiniStack would do beyond S3 is off: no listener but this one, and no look at the machine's containers.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import socket
import sys
import threading
from pathlib import Path


def _end_with_stdin() -> None:
    while sys.stdin.buffer.read(1 << 10):
        pass
    os._exit(0)


def run(folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
    """Serves until stdin closes; objects live below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    os.environ |= {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3,iam,sts",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "s3"),
        "STATE_DIR": str(folder / "state"),
        "TMPDIR": str(folder),
        "LOG_LEVEL": "WARNING",
        "IOT_MTLS_ENABLED": "0",  # it would listen on every interface
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{folder / 'no-docker'}",
    }
    app = importlib.import_module("ministack.app").app
    settings = importlib.import_module("hypercorn.config").Config()
    settings.bind = [f"fd://{listener.fileno()}"]
    settings.keep_alive_timeout = 75
    settings.loglevel = "WARNING"
    if certificate:
        settings.certfile, settings.keyfile = str(certificate), str(key)
    region = os.environ.get("MINISTACK_REGION", "us-east-1")
    endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    print(json.dumps({"endpoint": endpoint, "region": region}), flush=True)  # the backlog keeps who is early
    asyncio.run(importlib.import_module("hypercorn.asyncio").serve(app, settings))


def main() -> None:
    parser = argparse.ArgumentParser(description="MiniStack's S3, IAM and STS, until stdin closes.")
    parser.add_argument("--dir", type=Path, required=True, help="where it keeps objects and state")
    parser.add_argument("--cert", type=Path, help="PEM; it is then served over https")
    parser.add_argument("--key", type=Path)
    given = parser.parse_args()
    run(given.dir.absolute(), given.cert and given.cert.absolute(), given.key and given.key.absolute())


if __name__ == "__main__":
    main()
