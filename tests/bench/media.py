"""The bytes that are fetched: random ones as the data of a PNG, since the mirror refuses what is no media."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_SHAPE = b"IHDR" + struct.pack(">IIBBBBB", 1024, 1024, 8, 2, 0, 0, 0)
_HEADER = b"\x89PNG\r\n\x1a\n" + struct.pack(">I17sI", 13, _SHAPE, zlib.crc32(_SHAPE))
_END = struct.pack(">4xI4sI", 0, b"IEND", 0xAE426082)
_PIECE = 16 << 20
_KEY = 64
"""So many first bytes tell which file it is: the last of them are random."""

_ROOM = 6 << 30


@dataclass(frozen=True)
class Media:
    """So many files of one size in a folder, named 0.png and so on."""

    folder: Path
    count: int
    size: int

    @property
    def files(self) -> list[Path]:
        return [self.folder / f"{number}.png" for number in range(self.count)]

    def __str__(self) -> str:
        size = f"{self.size >> 20} MiB" if self.size >= 1 << 20 else f"{self.size >> 10} KiB"
        return f"{self.count:,} × {size}"

    def by_head(self) -> dict[bytes, Path]:
        """Each file by its first bytes."""
        return {head(path): path for path in self.files}

    def sha256(self) -> dict[str, str]:
        """Digests by the files' names."""
        with ThreadPoolExecutor() as threads:
            return dict(zip((path.name for path in self.files), threads.map(_sha256, self.files), strict=True))


def make(folder: Path, count: int, size: int) -> Media:
    """Write so many files of that size."""
    folder.mkdir(parents=True)
    media = Media(folder, count, size)
    for path in media.files:
        with path.open("wb") as file:
            left = size - len(_HEADER) - 8 - len(_END)
            file.write(_HEADER + struct.pack(">I4s", left, b"IDAT"))
            while left:
                left -= file.write(os.urandom(min(_PIECE, left)))
            file.write(_END)
    return media


def head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(_KEY)


def memory_folder() -> str:
    """Where files stand in memory, if there is room; else the usual place for temporary files."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free >= _ROOM else tempfile.gettempdir()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
