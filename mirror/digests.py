"""Digests of a stream, all taken in one pass. SHA-256 is always among them: it is what the manifest says."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable


class _Crc32:
    def __init__(self, value: int = 0) -> None:
        self._value = value

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"

    def copy(self) -> _Crc32:
        return _Crc32(self._value)


class Digests:
    """The digests of the bytes from 0 to ``at``.

    ``checks`` names what is needed beside SHA-256, as ``md5``, ``sha1``, ``crc32``, or with a prefix that says where
    the expected value was told (``etag-md5``).
    """

    def __init__(self, checks: Iterable[str] = ()) -> None:
        self.at = 0
        self._hashes = {"sha256": hashlib.sha256()} | {
            name: _new(name) for name in {_algorithm(check) for check in checks} - {"sha256"}
        }

    def update(self, data: bytes) -> None:
        for digest in self._hashes.values():
            digest.update(data)
        self.at += len(data)

    def hex(self, check: str) -> str:
        return self._hashes[_algorithm(check)].hexdigest()

    @property
    def sha256(self) -> str:
        return self.hex("sha256")

    def copy(self) -> Digests:
        twin = Digests()
        twin.at = self.at
        twin._hashes = {name: digest.copy() for name, digest in self._hashes.items()}
        return twin


KNOWN = frozenset({"md5", "sha1", "sha256", "crc32"})


def _algorithm(check: str) -> str:
    return check.rpartition("-")[2]


def _new(name: str) -> hashlib._Hash:
    # Not for security: it is compared with what the origin says it sent.
    return _Crc32() if name == "crc32" else hashlib.new(name, usedforsecurity=False)  # type: ignore[return-value]
