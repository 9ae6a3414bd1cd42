"""The guard where sockets are made: to public addresses only."""

from __future__ import annotations

import socket
from typing import Any

from mirror.addresses import is_public


class AddressRefusedError(OSError):
    """A name or literal led to an address that is not public."""


def public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Made for each address just before it is connected to, literal ones too: no check here can be evaded."""
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise AddressRefusedError("not a public address, and security.allow_private_addresses is not set")
    return socket.socket(family=family, type=kind, proto=protocol)
