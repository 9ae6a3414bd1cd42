"""Digests of a stream, all taken in one pass. SHA-256 is always among them: it is what the manifest says."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from mirror.errors import ConfigError
from mirror.media.look import Look


class Crc:
    """A running CRC. ``update`` takes bytes and the value so far; ``width`` is in bits."""

    def __init__(self, update: Callable[[bytes | memoryview, int], int], width: int, value: int = 0) -> None:
        self._update = update
        self._width = width
        self._value = value

    def update(self, data: bytes | memoryview) -> None:
        self._value = self._update(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._width // 4}x}"

    def copy(self) -> Crc:
        return Crc(self._update, self._width, self._value)


def crc64nvme() -> Crc:
    """A CRC-64/NVME. Needs the extra ``crt``: in pure Python it would be the slowest step of all.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        module: Any = importlib.import_module("awscrt.checksums")
    except ImportError:
        raise ConfigError(
            '[s3] checksum = "crc64nvme" needs the package awscrt: pip install "prompt-mirror[crt]", '
            'or set checksum = "sha256"'
        ) from None
    return Crc(module.crc64nvme, 64)


class Digests:
    """The digests of the bytes from 0 to ``at``.

    ``checks`` names what is needed beside SHA-256, as ``md5``, ``sha1``, ``crc32``, ``crc64nvme``, or with a prefix
    that says where the expected value was told (``etag-md5``). A ``look`` sees the same bytes.
    """

    def __init__(self, checks: Iterable[str] = (), look: Look | None = None) -> None:
        self.at = 0
        self.look = look
        self._hashes = {"sha256": hashlib.sha256()}
        for name in {_algorithm(check) for check in checks} - {"sha256"} if checks else ():
            self._hashes[name] = _new(name)

    def update(self, data: bytes | memoryview) -> None:
        for digest in self._hashes.values():
            digest.update(data)
        if self.look is not None:
            self.look.feed(data)
        self.at += len(data)

    def hex(self, check: str) -> str:
        return self._hashes[_algorithm(check)].hexdigest()

    @property
    def sha256(self) -> str:
        return self._hashes["sha256"].hexdigest()

    def copy(self) -> Digests:
        twin = Digests(look=self.look.copy() if self.look is not None else None)
        twin.at = self.at
        twin._hashes = {name: digest.copy() for name, digest in self._hashes.items()}
        return twin


KNOWN = frozenset({"md5", "sha1", "sha256", "crc32"})


def are_known(checks: Iterable[str]) -> bool:
    """Whether these can be taken: a journal may come from a later version."""
    return all(_algorithm(check) in KNOWN for check in checks)


def _algorithm(check: str) -> str:
    return check.rpartition("-")[2]


def _new(name: str) -> hashlib._Hash:
    # Not for security: it is compared with what the other side says it sent or got.
    kinds: dict[str, Callable[[], Any]] = {"crc32": lambda: Crc(zlib.crc32, 32), "crc64nvme": crc64nvme}
    made: hashlib._Hash = kinds[name]() if name in kinds else hashlib.new(name, usedforsecurity=False)
    return made
