"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

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
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
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
    bits = int(address)
    for outer in (0xFFFF << 32 | bits, 0x2002 << 112 | bits << 80, 0x64FF9B << 96 | bits):
        assert is_public(str(IPv6Address(outer))) is is_public(str(address))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost.", "a.localhost", "printer.local", "db.internal", "metadata.google.internal"),
        *("[::1]", "::1", "[fe80::1%25eth0]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "127.0.0.1."),
        *("127.1", "1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.0x0.1", "0177.0x0.0.1"),
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
