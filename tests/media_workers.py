"""``python -m tests.media_workers PARENT MEMORY``: a helper that answers badly, as the name of the file asks it to."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO


def _send(outgoing: BinaryIO, data: bytes) -> None:
    outgoing.write(len(data).to_bytes(4) + data)
    outgoing.flush()


def _answer(name: str) -> Any:
    media = {"kind": "image", "width": 1, "height": 1, "codec": "png"}
    return {
        "odd kind": {"media": {**media, "kind": "<script>"}},
        "odd codec": {"media": {**media, "codec": "png\n\x1b[31m"}},
        "odd width": {"media": {**media, "width": -1}},
        "odd type": {"media": {**media, "width": "1"}},
        "huge": {"media": {**media, "width": 1 << 40}},
        "odd text": {"error": "a\nb"},
        "reads outside": {"read": [-5, 10**9]},
        "good": {"media": media},
        "is killed once": {"known": True},
        "says that it takes much": {"error": "it takes more memory than a helper may have"},
        "cannot here": {"error": "it could not be decoded here: no thread", "unread": True},
    }[name]


def main() -> None:
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    _send(outgoing, b"{}")
    while header := incoming.read(4):
        root, _, name = json.loads(incoming.read(int.from_bytes(header)))["path"]
        match name:
            case "crashes":
                os.abort()
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "is killed once" if not (killed := Path(root, "killed")).exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "uses its time":
                os.kill(os.getpid(), signal.SIGXCPU)
            case "ends":
                return
            case "hangs":
                time.sleep(600)
            case "no json":
                _send(outgoing, b"\xff\x00{")
            case "endless":
                outgoing.write(b"\xff" * 100_000)
                outgoing.flush()
            case _:
                _send(outgoing, json.dumps(_answer(name)).encode())


if __name__ == "__main__":
    main()
