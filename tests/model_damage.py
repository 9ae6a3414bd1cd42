"""What disks and people do to files, in the stateful model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def harm_file(path: Path, content: bytes, how: str, outside: Path) -> None:
    """Do something to a file. It is another file then: another prompt may have a link to it, and keeps what it has."""
    if how == "touch":
        os.utime(path, (1, 1))
        return
    path.unlink()
    if how == "folder":
        (path / "notes").mkdir(parents=True)
    elif how == "symlink":
        path.symlink_to(outside)
    elif how != "delete":
        path.write_bytes(_changed(content, how))


def _changed(content: bytes, how: str) -> bytes:
    half = len(content) // 2
    if how == "flip":
        return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :] if content else b"!"
    if how == "noise":
        return content[:half] + b"\1" * (len(content) - half)
    return {"cut": content[:half], "grow": content + b"!", "empty": b""}[how]


def put_back(path: Path, content: bytes) -> None:
    """Somebody restores a file from elsewhere."""
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
