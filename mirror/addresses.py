"""Which addresses a URL written by somebody else may lead to: public ones."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_REFUSED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and health address, inside public space
        "fec0::/10", "fd00:ec2::254/128", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
    )
]  # fmt: skip
"""Beside ``is_global``, whose table in Python 3.11 has holes."""

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "metadata.google.internal", "metadata")


def is_public(text: str) -> bool:
    """True if the address is global unicast, with any IPv4 inside an IPv6 one unwrapped and checked too."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(str(inner))
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address in network for network in _REFUSED if network.version == address.version)


def names_private_place(host: str) -> bool:
    """True if a host, not resolved, is plainly not public: for requests whose address a proxy looks up."""
    bare = host.strip("[]").rstrip(".").lower()
    if bare in _LOCAL_NAMES or bare.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ip_address(bare.partition("%")[0])
    except ValueError:
        # 127.1, 0x7f000001 or 2130706433: forms that a resolver would take for an address
        return bool(re.fullmatch(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}", bare))
    return not is_public(bare)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside a mapped, compatible, 6to4, Teredo or NAT64 one."""
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
