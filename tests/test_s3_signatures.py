"""What a signature is worth: to whom it opens what, for how long, and by whose clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import settings as at_most
from hypothesis import strategies as st

from mirror.stores.s3.address import address_of
from mirror.stores.s3.signing import Identity
from tests.s3.bucket import Bucket
from tests.s3_runs_small import KEY, REGION, SECRET, as_user, asked, loaded, sent, signed_as


@pytest.fixture
def identity(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Identity:
    as_user(bucket.server, monkeypatch)
    return loaded()


def test_a_presigned_url_opens_one_object_until_it_is_altered(bucket: Bucket, identity: Identity) -> None:
    bucket.put("a/ü +&.bin", b"content")
    bucket.put("other", b"secret")
    address = address_of(bucket.name, bucket.server.endpoint, REGION, "path")
    url = identity.presigned(address.url("a/ü +&.bin"), bucket.server.region, 60)
    answer = asked(url)
    assert (answer.status, answer.body) == (200, b"content")
    assert bucket.server.secret_key not in url
    signature = url.rpartition("=")[2]
    plain = address.url("a/ü +&.bin")
    altered = [
        plain,
        url.replace(plain, address.url("other")),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"),
        url.replace(signature, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        url.replace(f"&X-Amz-Signature={signature}", ""),
    ]
    assert len({url, *altered}) == 6
    assert {each for each in altered if asked(each).status < 400} == set()
    assert asked(url, method="DELETE").status == 403
    assert bucket.keys() == ["a/ü +&.bin", "other"]


def at(offset: timedelta) -> str:
    return format_datetime(datetime.now(UTC) + offset, usegmt=True)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_is_put_right_by_the_stores_own(bucket: Bucket, identity: Identity, hours: int) -> None:
    url = address_of(bucket.name, bucket.server.endpoint, REGION, "path").url("k")
    bucket.put("k", b"content")
    assert sent(identity, url, bucket.server.region).status == 200
    assert identity.heed_clock(at(timedelta(hours=hours)))
    refused = sent(identity, url, bucket.server.region)
    assert refused.status == 403
    if hours < 0:  # that one has run out
        assert asked(identity.presigned(url, bucket.server.region, 60)).status == 403
    assert identity.heed_clock(refused.date)
    assert sent(identity, url, bucket.server.region).status == 200


@pytest.mark.parametrize(
    ("date", "new"),
    [
        (timedelta(hours=1), True),
        (timedelta(hours=-1), True),
        (timedelta(seconds=20), False),
        ("Fri, 31 Dec 9999 23:59:59 GMT", True),
        ("Mon, 01 Jan 0001 00:00:00 GMT", True),
        ("Wed, 28 Jan 2026 10:03:40", True),
        ("Wed, 28 Jan 2026 10:03:40 -0000", True),
        (None, False),
        ("", False),
        ("soon", False),
        ("Wed, 99 Jan 2026 10:03:40 GMT", False),
        ("\ud800", False),
    ],
)
def test_a_stores_date_is_heeded_if_it_says_something_new(
    date: str | timedelta | None, new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    identity = loaded()
    date = at(date) if isinstance(date, timedelta) else date
    assert identity.heed_clock(date) is new
    assert identity.heed_clock(date) is False, "the same again is nothing new"
    assert signed_as(identity) == KEY, "whatever the date, requests can be signed"


dates = st.builds(
    "{}, {} {} {} {}:{:02}:{:02} {}".format,
    st.sampled_from(["Wed", "Sun"]),
    st.integers(0, 32),
    st.sampled_from(["Jan", "Feb", "Dec"]),
    st.sampled_from([0, 1, 69, 1970, 2026, 9999, 10_000]),
    st.integers(0, 25),
    st.integers(0, 60),
    st.integers(0, 61),
    st.sampled_from(["GMT", "", "+9999", "-2359", "-0000", "EST", "x"]),
)


def test_any_date_leaves_an_identity_that_can_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    identity = loaded()

    @at_most(max_examples=150, deadline=None)
    @given(st.text() | dates)
    def holds(date: str) -> None:
        assert identity.heed_clock(date) in (True, False)
        assert signed_as(identity) == KEY

    holds()
