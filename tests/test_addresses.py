"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.addresses import is_public, names_private_place
from tests.properties import examples

modest = examples(100)


PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.0.1", "169.254.169.254", "100.64.0.0", "100.100.100.200", "100.127.255.255", "168.63.129.16"),
    *("192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *(
        "0.0.0.0",
        "0.1.2.3",
        "198.18.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *(
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1:7f00:0:100:808:808",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ),
    *(
        "100::1",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "",
        "example.com",
        "127.1",
        "2130706433",
        "0x7f000001",
    ),
]
PUBLIC = [
    *(
        "1.1.1.1",
        "8.8.8.8",
        "52.216.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "169.253.0.1",
        "223.255.255.255",
    ),
    *("2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"),
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
]


SPECIAL = [
    ("0.0.0.0/8", "this network, RFC 791"),
    ("10.0.0.0/8", "private use, RFC 1918"),
    ("100.64.0.0/10", "shared by a carrier's customers, RFC 6598"),
    ("127.0.0.0/8", "loopback, RFC 1122"),
    ("169.254.0.0/16", "link-local and clouds' metadata, RFC 3927"),
    ("172.16.0.0/12", "private use, RFC 1918"),
    ("192.0.0.0/24", "IETF protocols, RFC 6890"),
    ("192.0.2.0/24", "documentation, RFC 5737"),
    ("192.88.99.0/24", "6to4 relays, RFC 7526"),
    ("192.168.0.0/16", "private use, RFC 1918"),
    ("198.18.0.0/15", "benchmarks, RFC 2544"),
    ("198.51.100.0/24", "documentation, RFC 5737"),
    ("203.0.113.0/24", "documentation, RFC 5737"),
    ("224.0.0.0/4", "multicast, RFC 5771"),
    ("240.0.0.0/4", "reserved, and broadcast, RFC 1112"),
    ("::/96", "unspecified, loopback and IPv4-compatible, RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-translated, RFC 2765"),
    ("64:ff9b:1::/48", "a network's own translation, RFC 8215"),
    ("100::/64", "discard, RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix, RFC 9780"),
    ("2001:2::/48", "benchmarks, RFC 5180"),
    ("2001:10::/28", "ORCHID, RFC 4843"),
    ("2001:20::/28", "ORCHIDv2, RFC 7343: no address of a machine"),
    ("2001:db8::/32", "documentation, RFC 3849"),
    ("3fff::/20", "documentation, RFC 9637"),
    ("5f00::/16", "segment routing, RFC 9602"),
    ("fc00::/7", "unique local, RFC 4193"),
    ("fe80::/10", "link-local, RFC 4291"),
    ("fec0::/10", "site-local, RFC 3879"),
    ("ff00::/8", "multicast, RFC 4291"),
]
"""The ranges of IANA's registries of special-purpose addresses that are not reached from everywhere, and multicast."""

NEIGHBOURS = [
    *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
    *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0"),
    *("192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
    *("198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0"),
    *("223.255.255.255", "168.63.129.15", "168.63.129.17", "192.31.196.1", "192.52.193.1", "192.175.48.1"),
    *("2000::", "2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2620:4f:8000::1"),
    *("2003::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
]
"""What stands right before and after such a range and is anybody's, and the registries' ranges that are global."""


def around(address: IPv4Address) -> list[IPv6Address]:
    """The IPv6 addresses that lead to an IPv4 one: mapped, 6to4, NAT64, Teredo, and a site's tunnel."""
    bits = int(address)
    return [
        IPv6Address(outer)
        for outer in (
            0xFFFF << 32 | bits,
            0x2002 << 112 | bits << 80,
            0x64FF9B << 96 | bits,
            0x20010000 << 96 | bits ^ 0xFFFFFFFF,
            0x26064700 << 96 | 0x5EFE << 32 | bits,
        )
    ]


@pytest.mark.parametrize(("network", "what"), SPECIAL)
def test_no_address_of_a_special_range_is_gone_to(network: str, what: str) -> None:
    found = ip_network(network)
    for address in (found[0], found[1], found[found.num_addresses // 2], found[-2], found[-1]):
        assert not is_public(str(address)), what
        if isinstance(address, IPv4Address):
            assert not [outer for outer in around(address) if is_public(str(outer))], what


@pytest.mark.parametrize("address", NEIGHBOURS)
def test_what_stands_beside_one_is_anybodys(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("prefix", ["2606:4700::5efe", "2606:4700::200:5efe"])
def test_a_tunnel_within_a_site_leads_where_its_inner_address_does(prefix: str) -> None:
    assert is_public(f"{prefix}:808:808")
    assert not is_public(f"{prefix}:7f00:1")
    assert not is_public("fe80::5efe:808:808")


@pytest.mark.parametrize("scoped", ["fe80::1%1", "fe80::1%eth0", "::1%lo", "fec0::1%2", "ff02::1%eth0"])
def test_a_zone_changes_nothing(scoped: str) -> None:
    assert not is_public(scoped)
    assert names_private_place(f"[{scoped}]")


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_not_gone_to(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)
    assert not names_private_place(address)


@modest
@given(st.ip_addresses(v=4))
def test_an_address_inside_another_counts_as_itself(address: IPv4Address) -> None:
    assert {is_public(str(outer)) for outer in around(address)} == {is_public(str(address))}


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost.", "a.localhost", "printer.local", "db.internal", "metadata.google.internal"),
        *("[::1]", "::1", "[fe80::1%25eth0]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "127.0.0.1."),
        *("127.1", "1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.0x0.1", "0177.0x0.0.1"),
        *("ⓛocalhost", "ＬＯＣＡＬＨＯＳＴ", "127。0。0。1", "127．0｡0．1", "１２７.0.0.1", "①②⑦.⓪.⓪.①"),
        "169｡254｡169｡254",
        *("%6cocalhost", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "a.ⓛocal", "db.internal.", "db。internal"),
        *("redis", "metadata", "kubernetes.default.svc.cluster.local", "nas.lan", "router.home.arpa", "a.localdomain"),
    ],
)
def test_hosts_that_are_plainly_private(host: str) -> None:
    assert names_private_place(host)


@pytest.mark.parametrize(
    "host",
    ["muyuhan.s3.amazonaws.com", "163.com", "0x0.st", "1.example", "local.example", "[2606:4700::1111]", "8.8.8.8"],
)
def test_hosts_that_may_be_public(host: str) -> None:
    assert not names_private_place(host)
