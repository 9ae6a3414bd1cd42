"""What an origin's headers are taken for: the range, the validators and the digests."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mirror.digests import Digests
from mirror.download import parse_content_range, read_head
from tests.properties import examples, near

SHA256 = base64.b64encode(hashlib.sha256(b"x").digest()).decode()


@examples(150)
@given(st.integers(0, 10**18 - 2), st.integers(0, 10**9), st.none() | st.integers(1, 10**9))
def test_a_range_comes_back_from_its_header(first: int, more: int, rest: int | None) -> None:
    last = min(first + more, 10**18 - 2)
    total = None if rest is None else min(last + rest, 10**18 - 1)
    written = f"bytes {first}-{last}/{'*' if total is None else total}"
    assert parse_content_range(written) == (first, last, total)
    assert parse_content_range(f"  {written.replace('bytes', 'Bytes')} ") == (first, last, total)


@examples(200)
@given(
    st.text()
    | near([b"bytes 0-9/100", b"bytes 5-5/*"], [b"-", b"/", b"*", b"bytes "]).map(lambda b: b.decode("latin-1"))
)
@example("bytes ٠-٩/١٠")
@example("bytes 0-9/100, bytes 20-29/100")
def test_any_range_is_whole_and_in_its_file_or_none(value: str) -> None:
    found = parse_content_range(value)
    if found is not None:
        first, last, total = found
        assert 0 <= first <= last < (total if total is not None else 10**18)
        assert value.strip().lower().split() == ["bytes", value.split()[1]]
        assert value.isascii()


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "bytes", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "bytes 0-9", "bytes 0-/9"),
        *("bytes -9/9", "bytes 0-9/100/", "items 0-9/100", "bytes=0-9/100", "bytes 0-9/0x64", "bytes 0 - 9/100"),
        *("bytes +0-9/100", "bytes 0-9/1e2", "bytes 0-9/100;", "bytes 0-" + "9" * 30 + "/*", "bytes 0_0-9/100"),
    ],
)
def test_what_is_no_range(value: str | None) -> None:
    assert parse_content_range(value) is None


words = st.text(max_size=40) | st.sampled_from(
    ['"x"', 'W/"x"', SHA256, f"{SHA256}-3", "COMPOSITE", '"' + "0" * 32 + '"', "a"]
)
NAMES = ["ETag", "Last-Modified", "Content-Type", "x-amz-request-id", "x-amz-checksum-sha256", "x-amz-checksum-sha1"]
NAMES += ["x-amz-checksum-crc32", "x-amz-checksum-type", "x-amz-server-side-encryption"]


@examples(200)
@given(st.dictionaries(st.sampled_from(NAMES), words, max_size=6), st.none() | st.integers(0, 2**63))
def test_any_headers_give_a_head_that_can_be_written_and_checked(told: dict[str, str], length: int | None) -> None:
    head = read_head(CIMultiDict(told), length)
    for value in (head.etag, head.last_modified, head.content_type, head.validator.if_range):
        assert value is None or (value.isascii() and value.isprintable() and value)
    digests = Digests(head.checks)
    assert all(digests.hex(check) for check in head.checks)
    assert len(head.checks) <= 1


@pytest.mark.parametrize("told", ["W/", "yesterday", "0", "1769594620", "Wed, 99 Foo 2026 99:99:99 GMT"])
def test_a_last_modified_that_is_no_date_is_no_validator(told: str) -> None:
    head = read_head(CIMultiDict({"ETag": 'W/"1"', "Last-Modified": told}), 1)
    assert head.validator.if_range is None


@examples(100)
@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), max_size=60), st.booleans()
)
def test_an_etag_is_taken_over_as_it_is_and_only_a_strong_one_validates(tag: str, weak: bool) -> None:
    etag = f'{"W/" if weak else ""}"{tag}"'
    head = read_head(CIMultiDict({"ETag": etag}), None)
    assert head.etag == etag
    assert head.validator.if_range == (None if weak else etag)


@pytest.mark.parametrize(
    "etag", ["x", '"x', 'x"', '"x"y"', 'w/"x"', '"x\ny"', '"\u00e9"', '"' + "x" * 501 + '"', '"a b"', "", "*"]
)
def test_what_is_no_etag_is_none(etag: str) -> None:
    assert read_head(CIMultiDict({"ETag": etag}), None).etag is None
