"""Our own signatures are those of botocore's signer, whatever is signed."""

from __future__ import annotations

from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import settings as at_most
from hypothesis import strategies as st

from mirror.stores.s3.address import address_of
from mirror.stores.s3.signing import EMPTY
from mirror.stores.s3.sigv4 import Key, Request, authorized, host_of

PLAIN: Any = ReadOnlyCredentials("AKID", "secret/+=", None)
SESSION: Any = ReadOnlyCredentials("AKID", "secret/+=", "token//==")


class Theirs(botocore.auth.S3SigV4Auth):
    """botocore's signer, told the moment and the payload's digest."""

    def __init__(self, credentials: Any, region: str, payload: str, stamp: str) -> None:
        super().__init__(credentials, "s3", region)
        self._told = (payload, stamp)

    def payload(self, request: AWSRequest) -> str:
        return self._told[0]

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._told[1]
        super()._modify_request_before_signing(request)  # type: ignore[misc]


def theirs(request: Request, credentials: Any, region: str, stamp: str) -> dict[str, str]:
    made = AWSRequest(method=request.method, url=request.url, headers=dict(request.headers))
    Theirs(credentials, region, request.payload, stamp).add_auth(made)
    return dict(made.headers.items())


text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
NAMES = (
    "Content-Type Content-MD5 If-Match If-None-Match Range X-Amz-Meta-A x-amz-meta-source-url x-amz-tagging "
    "x-amz-checksum-sha256 x-amz-request-payer x-amz-storage-class"
)
names = st.sampled_from(NAMES.split())
keys = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=3).map(
    "/".join
)
queries = st.one_of(
    st.just(""),
    st.sampled_from(
        ["partNumber=1&uploadId=a.b~c", "uploads", "versionId=%2B", "b=2&a=1", "a=2&a=1", "x=&x", "z=a=b&y"]
    ),
    st.builds(
        "partNumber={}&uploadId={}".format, st.integers(1, 10_000), st.from_regex(r"[A-Za-z0-9._~%-]+", fullmatch=True)
    ),
)
ENDPOINTS = (
    "http://127.0.0.1:9000 https://store.example https://store.example:443 http://STORE.example:80 "
    "https://store.example:8443 http://[::1]:9000 https://[2001:db8::1]"
)
endpoints = st.sampled_from(["", *ENDPOINTS.split()])
stamps = st.builds(
    "{}{:02}{:02}T{:02}{:02}{:02}Z".format,
    st.integers(2000, 2100),
    st.integers(1, 12),
    st.integers(1, 28),
    *[st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)],
)


@at_most(max_examples=400, deadline=None)
@given(
    st.sampled_from(["PUT", "GET", "HEAD"]),
    st.tuples(endpoints, keys, queries),
    st.dictionaries(names, text, max_size=6),
    st.sampled_from([EMPTY, "0" * 64]),
    st.tuples(st.sampled_from([PLAIN, SESSION]), st.sampled_from(["eu-central-1", "us-east-1"]), stamps),
)
def test_a_request_is_signed_as_botocore_signs_it(
    method: str, url: tuple[str, str, str], headers: dict[str, str], payload: str, who: tuple[Any, str, str]
) -> None:
    endpoint, key, query = url
    credentials, region, stamp = who
    address = address_of("bucket", endpoint, region, "auto")
    request = Request(method, address.url(key) + (f"?{query}" if query else ""), headers, payload)
    ours = authorized(request, Key(credentials, region, stamp[:8]), stamp)
    assert ours == theirs(request, credentials, region, stamp)


def test_a_key_is_for_one_set_of_credentials_one_region_and_one_day() -> None:
    key = Key(PLAIN, "eu-central-1", "20260131")
    assert key.is_for(PLAIN, "eu-central-1", "20260131")
    assert not key.is_for(SESSION, "eu-central-1", "20260131")
    assert not key.is_for(PLAIN, "us-east-1", "20260131")
    assert not key.is_for(PLAIN, "eu-central-1", "20260201")
    assert "secret" not in f"{key}{key!r}"


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("https://Bucket.S3.amazonaws.com", "bucket.s3.amazonaws.com"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("https://store.example:443", "store.example"),
        ("http://store.example:443", "store.example:443"),
        ("http://[::1]:9000", "[::1]:9000"),
    ],
)
def test_the_host_is_spelled_as_it_is_sent(base: str, host: str) -> None:
    assert host_of(base) == host
