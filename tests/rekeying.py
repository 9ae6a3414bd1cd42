"""Messages of TLS 1.3 that no library sends when asked: new keys and tickets, as often as one likes (RFC 8446, sections
4.6, 5, 7)."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_UPDATE = b"\x18\0\0\1\1" + b"\x16"
"""A handshake message that asks for new keys of the other side, too; and that it is one."""


def key_updates(key_log: Path) -> Iterator[bytes]:
    """Records, from the first one that a server sends behind its handshake. ``key_log`` is what it has logged.
    Its cipher is the one that OpenSSL likes best, TLS_AES_256_GCM_SHA384.
    """
    secret = _first_secret(key_log)
    header = b"\x17\3\3" + (len(_KEY_UPDATE) + 16).to_bytes(2, "big")
    while True:
        key, nonce = _expanded(secret, b"key", 32), _expanded(secret, b"iv", 12)
        yield header + AESGCM(key).encrypt(nonce, _KEY_UPDATE, header)
        secret = _expanded(secret, b"traffic upd", 48)


def tickets(key_log: Path) -> Iterator[bytes]:
    """Records as full of them as may be, likewise."""
    ticket = b"\0\0\x1c\x20" + bytes(4) + b"\0" + b"\0\1x" + b"\0\0"
    message = b"\4" + len(ticket).to_bytes(3, "big") + ticket
    content = message * (16_000 // len(message)) + b"\x16"
    header = b"\x17\3\3" + (len(content) + 16).to_bytes(2, "big")
    secret = _first_secret(key_log)
    key, nonce = AESGCM(_expanded(secret, b"key", 32)), int.from_bytes(_expanded(secret, b"iv", 12), "big")
    for number in itertools.count():
        yield header + key.encrypt((nonce ^ number).to_bytes(12, "big"), content, header)


def _first_secret(key_log: Path) -> bytes:
    lines = [line.split() for line in key_log.read_text().splitlines()]
    return bytes.fromhex(next(line[2] for line in lines if line[0] == "SERVER_TRAFFIC_SECRET_0"))


def _expanded(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.digest(secret, info + b"\1", "sha384")[:size]
