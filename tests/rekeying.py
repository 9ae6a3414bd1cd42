"""Messages of TLS 1.3 that no library sends when asked: new keys, as often as one likes (RFC 8446, sections 5, 7)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_UPDATE = b"\x18\0\0\1\1" + b"\x16"
"""A handshake message that asks for new keys of the other side, too; and that it is one."""


def key_updates(key_log: Path) -> Iterator[bytes]:
    """Records, from the first one that a server sends behind its handshake. ``key_log`` is what it has logged.
    Its cipher is the one that OpenSSL likes best, TLS_AES_256_GCM_SHA384.
    """
    lines = [line.split() for line in key_log.read_text().splitlines()]
    secret = bytes.fromhex(next(line[2] for line in lines if line[0] == "SERVER_TRAFFIC_SECRET_0"))
    header = b"\x17\3\3" + (len(_KEY_UPDATE) + 16).to_bytes(2, "big")
    while True:
        key, nonce = _expanded(secret, b"key", 32), _expanded(secret, b"iv", 12)
        yield header + AESGCM(key).encrypt(nonce, _KEY_UPDATE, header)
        secret = _expanded(secret, b"traffic upd", 48)


def _expanded(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.digest(secret, info + b"\1", "sha384")[:size]
