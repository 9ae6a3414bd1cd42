"""What proves that a store has what was sent: against digests made with other tools, and values made by hand."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mirror
from mirror.digests import Digests, crc64nvme
from mirror.stores.s3.checksums import (
    Policy,
    base64_of,
    composite,
    contradicts,
    hex_of,
    multipart_etag,
    proofs,
    same_etag,
)
from tests.properties import examples

modest = examples(100)

CHECK = b"123456789"
NVME = "rosUhgp5mIg="
"""The check value of CRC-64/NVME in the catalogue of CRCs, 0xAE8B14860A799888, in base64."""
SHA = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
"""What coreutils' sha256sum says of the nine bytes."""
MD5 = "25f9e794323b453885f5181f1b624d0b"
"""What md5sum says."""


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sha(content: bytes) -> str:
    return b64(hashlib.sha256(content).digest())


def bit_by_bit(content: bytes) -> int:
    """Bit by bit, from the polynomial alone."""
    crc = (1 << 64) - 1
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


BUFFERS = pytest.mark.parametrize(
    "buffers", [[CHECK], [b"1234", b"56789"], [b"", b"123456789", b""], [CHECK[:1], CHECK[1:]]]
)


@BUFFERS
@pytest.mark.parametrize(
    ("policy", "headers"),
    [
        ("sha256", {"x-amz-checksum-sha256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="}),
        ("crc64nvme", {"x-amz-checksum-crc64nvme": NVME}),
        ("when_required", {"Content-MD5": "JfnnlDI7RTiF9RgfG2JNCw=="}),
    ],
)
def test_what_is_sent_beside_a_body(policy: Policy, headers: dict[str, str], buffers: list[bytes]) -> None:
    assert proofs(policy, buffers, SHA) == headers


def test_what_is_sent_beside_no_bytes_at_all() -> None:
    empty = hashlib.sha256().hexdigest()
    assert proofs("sha256", [], empty) == {"x-amz-checksum-sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}
    assert proofs("crc64nvme", [], empty) == {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}
    assert proofs("when_required", [], empty) == {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}


def test_the_known_values_are_those_of_other_tools() -> None:
    assert (hashlib.sha256(CHECK).hexdigest(), hashlib.md5(CHECK).hexdigest()) == (SHA, MD5)
    assert bit_by_bit(CHECK) == 0xAE8B14860A799888 == int.from_bytes(base64.b64decode(NVME), "big")


@modest
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_running_crc_is_that_of_the_whole(buffers: list[bytes]) -> None:
    crc = crc64nvme()
    for buffer in buffers:
        crc.update(buffer)
    assert crc.hexdigest() == f"{bit_by_bit(b''.join(buffers)):016x}"
    digests = Digests(["crc64nvme"])
    for buffer in buffers:
        digests.update(buffer)
    assert digests.hex("crc64nvme") == digests.copy().hex("crc64nvme") == crc.hexdigest()


def test_a_copy_of_a_running_crc_goes_its_own_way() -> None:
    crc = crc64nvme()
    crc.update(b"1234")
    twin = crc.copy()
    crc.update(b"56789")
    assert base64_of(crc.hexdigest()) == NVME
    assert twin.hexdigest() == f"{bit_by_bit(b'1234'):016x}"
    twin.update(b"56789")
    assert base64_of(twin.hexdigest()) == NVME


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "awscrt":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from mirror.errors import ConfigError
from mirror.digests import crc64nvme
from mirror.stores.s3.checksums import proofs
from tests.properties import examples
assert proofs("sha256", [b""], "00" * 32) and proofs("when_required", [b""], "00" * 32)
for attempt in (crc64nvme, lambda: proofs("crc64nvme", [b"x"], "00" * 32)):
    try:
        attempt()
    except ConfigError as error:
        print(error)
    else:
        sys.exit("it was found")
"""


def test_without_the_extra_it_is_said_what_to_install_or_to_set() -> None:
    path = os.pathsep.join([str(Path(mirror.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environ, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert len(said) == 2
    for message in said:
        assert '[s3] checksum = "crc64nvme"' in message
        assert 'pip install "prompt-mirror[crt]"' in message
        assert 'checksum = "sha256"' in message


@pytest.mark.parametrize(
    ("checksum", "digest"),
    [
        (b64(bytes.fromhex(SHA)), SHA),
        (NVME, "ae8b14860a799888"),
        ("AA==", "00"),
        (None, None),
        ("", None),
        (f"{b64(bytes.fromhex(SHA))}-3", None),
        ("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU", None),
        ("A", None),
        ("====", None),
        ("AA==\n", None),
        (" AA==", None),
        ("AA_-", None),
        ("ü", None),
        ("\ud800", None),
        ("\0", None),
    ],
)
def test_a_whole_objects_checksum_in_hex(checksum: str | None, digest: str | None) -> None:
    assert hex_of(checksum) == digest


@modest
@given(st.text() | st.text("ABab01+/=-_ ", max_size=12))
def test_any_text_is_a_checksum_or_not_and_nothing_is_raised(text: str) -> None:
    found = hex_of(text)
    assert found is None or found == base64.b64decode(text).hex()


@modest
@given(st.binary(min_size=1, max_size=64))
def test_a_digest_comes_back_from_base64(content: bytes) -> None:
    assert base64_of(content.hex()) == b64(content)
    assert hex_of(base64_of(content.hex())) == content.hex()


ONE, TWO = b"a" * 5, b"b" * 3


def test_the_checksum_of_a_multipart_object_is_that_of_its_parts_checksums() -> None:
    both = hashlib.sha256(hashlib.sha256(ONE).digest() + hashlib.sha256(TWO).digest()).digest()
    assert composite([sha(ONE), sha(TWO)]) == f"{b64(both)}-2"
    assert composite([sha(TWO), sha(ONE)]) != f"{b64(both)}-2"
    assert composite([sha(ONE)]) == f"{b64(hashlib.sha256(hashlib.sha256(ONE).digest()).digest())}-1"
    assert composite(iter([sha(ONE)] * 10_000)) == f"{sha(hashlib.sha256(ONE).digest() * 10_000)}-10000"


@pytest.mark.parametrize("parts", [[], [None], [""], [sha(ONE), None], [None, sha(ONE)], [sha(ONE), ""]])
def test_without_every_parts_checksum_there_is_none_of_the_whole(parts: list[str | None]) -> None:
    assert composite(parts) is None


@pytest.mark.parametrize("garbage", ["A", "AAA", "ü", "sha256", f"{sha(ONE)}-2"])
def test_what_a_store_tells_as_a_parts_checksum_and_is_none_is_not_known(garbage: str) -> None:
    assert composite([sha(ONE), garbage]) is None


def test_the_etag_of_a_multipart_object_is_the_md5_of_its_parts() -> None:
    etags = [hashlib.md5(part).hexdigest() for part in (ONE, TWO)]
    both = hashlib.md5(hashlib.md5(ONE).digest() + hashlib.md5(TWO).digest()).hexdigest()
    assert multipart_etag(etags) == f'"{both}-2"'
    assert multipart_etag([f'"{etag}"' for etag in etags]) == f'"{both}-2"'
    assert multipart_etag(reversed(etags)) != f'"{both}-2"'


@pytest.mark.parametrize("etag", ["", '""', MD5[:-1], MD5 + "0", MD5.upper(), f"{MD5}-1", "opaque", f'W/"{MD5}"'])
def test_an_etag_that_is_no_md5_gives_none_of_the_whole(etag: str) -> None:
    assert multipart_etag([MD5, etag]) is None
    assert multipart_etag([]) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (f'"{MD5}"', MD5, True),
        (MD5, MD5, True),
        ("", '""', True),
        (MD5, f"{MD5}-1", False),
        (MD5, MD5.upper(), False),
        (MD5, f'W/"{MD5}"', False),
    ],
)
def test_two_etags_are_one_with_or_without_quotes(one: str, other: str, same: bool) -> None:
    assert same_etag(one, other) is same_etag(other, one) is same


OURS, OTHER = sha(ONE), sha(TWO)
SENT_MD5 = {"Content-MD5": b64(hashlib.md5(ONE).digest())}
HEX_MD5, OTHER_MD5 = hashlib.md5(ONE).hexdigest(), hashlib.md5(TWO).hexdigest()
KMS, CUSTOMER = "x-amz-server-side-encryption", "X-Amz-Server-Side-Encryption-Customer-Algorithm"
SHA_HEADER, CRC_HEADER = "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme"


@pytest.mark.parametrize(
    ("sent", "answer", "wrong"),
    [
        ({SHA_HEADER: OURS}, {}, None),
        ({SHA_HEADER: OURS}, {SHA_HEADER: OURS}, None),
        ({SHA_HEADER: OURS}, {SHA_HEADER: OTHER}, SHA_HEADER),
        ({SHA_HEADER: OURS}, {SHA_HEADER: ""}, SHA_HEADER),
        ({SHA_HEADER: OURS}, {SHA_HEADER: f"{OURS}-1"}, SHA_HEADER),
        ({SHA_HEADER: OURS}, {CRC_HEADER: NVME}, None),
        ({SHA_HEADER: OURS}, {"ETag": f'"{OTHER_MD5}"'}, None),
        ({CRC_HEADER: NVME}, {CRC_HEADER: NVME}, None),
        ({CRC_HEADER: NVME}, {CRC_HEADER: "AAAAAAAAAAA="}, CRC_HEADER),
        ({"Content-Type": "a/b"}, {"Content-Type": "c/d"}, None),
        (SENT_MD5, {}, None),
        (SENT_MD5, {"ETag": f'"{HEX_MD5}"'}, None),
        (SENT_MD5, {"ETag": HEX_MD5}, None),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}"'}, "ETag"),
        (SENT_MD5, {"ETag": OTHER_MD5}, "ETag"),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}-1"'}, None),
        (SENT_MD5, {"ETag": '"opaque"'}, None),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}"', KMS: "AES256"}, "ETag"),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}"', KMS: "aws:kms"}, None),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}"', KMS: "aws:kms:dsse"}, None),
        (SENT_MD5, {"ETag": f'"{OTHER_MD5}"', CUSTOMER: "AES256"}, None),
        ({**SENT_MD5, SHA_HEADER: OURS}, {SHA_HEADER: OTHER, "ETag": HEX_MD5}, SHA_HEADER),
    ],
)
def test_what_of_an_answer_contradicts_what_was_sent(
    sent: dict[str, str], answer: dict[str, str], wrong: str | None
) -> None:
    assert contradicts(sent, answer) == wrong
