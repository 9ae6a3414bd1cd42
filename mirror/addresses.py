"""Which addresses a URL written by somebody else may lead to: public ones."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_REFUSED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and health address, inside public space
        "fec0::/10", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "64:ff9b:1::/48",  # where an IPv4 address stands in it, each network decides for itself
    )
]  # fmt: skip
"""Beside ``is_global``, whose table in Python 3.11 has holes."""

_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOCAL_ZONES = (
    *(".localhost", ".localdomain", ".local", ".internal", ".intranet", ".private", ".corp", ".home", ".lan"),
    ".home.arpa",
)
"""Zones without an owner in the world's DNS (RFC 6761, 6762 and 8375, and ICANN's ``internal``)."""


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
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP and not is_public(str(_last_bits(address))):
            return False
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address in network for network in _REFUSED if network.version == address.version)


def names_private_place(host: str) -> bool:
    """True if a host, not resolved, is plainly not public: for requests whose address a proxy looks up.

    A name without a dot is: where it leads to, the proxy's own search list says. So is one with a percent sign, which
    is none of DNS, and may become another one once it is decoded.
    """
    # As IDNA reads it: fullwidth and circled letters are plain ones, and there are three more dots.
    bare = re.sub("[\u3002\uff0e\uff61]", ".", unicodedata.normalize("NFKC", host)).strip("[]").rstrip(".").lower()
    try:
        ip_address(bare.partition("%")[0])
    except ValueError:
        # 127.1, 0x7f000001 or 2130706433: forms that a resolver would take for an address
        is_number = re.fullmatch(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}", bare)
        return bool(is_number) or "." not in bare or "%" in bare or bare.endswith(_LOCAL_ZONES)
    return not is_public(bare)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 one."""
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    return _last_bits(address) if address in _NAT64 else None


def _last_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
