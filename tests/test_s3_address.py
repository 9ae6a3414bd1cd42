"""An object's URL and back: what names an object of the store, and what only looks as if it did."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.settings import S3Settings
from mirror.stores.s3.address import Address, Located, address_of, locate, quoted
from tests.properties import examples

AWS = S3Settings(bucket="mine", region="eu-central-1")
OWN = S3Settings(bucket="mine", endpoint_url="https://store.example:9000")
MAPPED = S3Settings(
    bucket="mine",
    sources={"cdn.example": "media", "img.example": "media/pictures", "files.example:8443": "other/a/b/"},
)
modest = examples(200)

PLAIN = "https://store.example:9000"


@pytest.mark.parametrize(
    ("bucket", "endpoint", "region", "addressing", "base", "path_style"),
    [
        ("mine", "", "us-east-1", "auto", "https://mine.s3.us-east-1.amazonaws.com", False),
        ("mine", "", "eu-central-1", "virtual", "https://mine.s3.eu-central-1.amazonaws.com", False),
        ("mine", "", "eu-central-1", "path", "https://s3.eu-central-1.amazonaws.com/mine", True),
        ("mine", "", "cn-north-1", "auto", "https://mine.s3.cn-north-1.amazonaws.com.cn", False),
        ("mine", "", "cn-northwest-1", "path", "https://s3.cn-northwest-1.amazonaws.com.cn/mine", True),
        ("my.own", "", "us-east-1", "auto", "https://s3.us-east-1.amazonaws.com/my.own", True),
        ("my_own", "", "us-east-1", "auto", "https://s3.us-east-1.amazonaws.com/my_own", True),
        ("Mine", "", "us-east-1", "auto", "https://s3.us-east-1.amazonaws.com/Mine", True),
        ("m-", "", "us-east-1", "auto", "https://s3.us-east-1.amazonaws.com/m-", True),
        ("a" * 63, "", "us-east-1", "auto", f"https://{'a' * 63}.s3.us-east-1.amazonaws.com", False),
        ("a" * 64, "", "us-east-1", "auto", f"https://s3.us-east-1.amazonaws.com/{'a' * 64}", True),
        ("my.own", "", "us-east-1", "virtual", "https://my.own.s3.us-east-1.amazonaws.com", False),
        ("mine", PLAIN, "us-east-1", "auto", f"{PLAIN}/mine", True),
        ("mine", PLAIN, "us-east-1", "path", f"{PLAIN}/mine", True),
        ("mine", f"{PLAIN}/", "us-east-1", "auto", f"{PLAIN}/mine", True),
        ("mine", PLAIN, "us-east-1", "virtual", "https://mine.store.example:9000", False),
        ("mine", f"{PLAIN}/", "us-east-1", "virtual", "https://mine.store.example:9000", False),
        ("mine", "http://[::1]:9000", "us-east-1", "auto", "http://[::1]:9000/mine", True),
        ("mine", "http://127.0.0.1", "cn-north-1", "auto", "http://127.0.0.1/mine", True),
    ],
)
def test_the_address_of_a_bucket(
    bucket: str, endpoint: str, region: str, addressing: str, base: str, path_style: bool
) -> None:
    assert address_of(bucket, endpoint, region, addressing) == Address(base, path_style=path_style)


@pytest.mark.parametrize(
    ("key", "spelled"),
    [
        ("a/b.mp4", "a/b.mp4"),
        ("a b", "a%20b"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("ü", "%C3%BC"),
        ("a%2Fb", "a%252Fb"),
        ("~-._", "~-._"),
        ("(a)*'!", "%28a%29%2A%27%21"),
        ("a?b#c", "a%3Fb%23c"),
    ],
)
def test_a_key_has_the_one_spelling_that_is_signed(key: str, spelled: str) -> None:
    assert quoted(key) == spelled
    assert Address("https://h/b", path_style=True).url(key) == f"https://h/b/{spelled}"


FOUND = {  # url → settings, bucket, key
    # AWS, virtual-hosted
    "https://b-1.s3.amazonaws.com/k": (AWS, "b-1", "k"),
    "http://b-1.s3.amazonaws.com/k": (AWS, "b-1", "k"),
    "https://b-1.s3.eu-west-1.amazonaws.com/a/k.mp4": (AWS, "b-1", "a/k.mp4"),
    "https://b-1.s3-eu-west-1.amazonaws.com/k": (AWS, "b-1", "k"),
    "https://b-1.s3.dualstack.eu-west-1.amazonaws.com/k": (AWS, "b-1", "k"),
    "https://b-1.s3-accelerate.amazonaws.com/k": (AWS, "b-1", "k"),
    "https://b-1.s3-accelerate.dualstack.amazonaws.com/k": (AWS, "b-1", "k"),
    "https://my.own.bucket.s3.eu-west-1.amazonaws.com/k": (AWS, "my.own.bucket", "k"),
    "https://x.s3.s3.amazonaws.com/k": (AWS, "x.s3", "k"),
    # path style
    "https://s3.amazonaws.com/b-1/k": (AWS, "b-1", "k"),
    "https://s3.eu-west-1.amazonaws.com/b-1/a/k": (AWS, "b-1", "a/k"),
    "https://s3-ap-southeast-2.amazonaws.com/b-1/k": (AWS, "b-1", "k"),
    "https://s3.dualstack.eu-west-1.amazonaws.com/b-1/k": (AWS, "b-1", "k"),
    "https://s3.amazonaws.com/Old_Bucket.x/k": (AWS, "Old_Bucket.x", "k"),
    # spelling
    "HTTPS://B-1.S3.Amazonaws.COM/K": (AWS, "b-1", "K"),
    "https://b-1.s3.amazonaws.com:443/k": (AWS, "b-1", "k"),
    "http://b-1.s3.amazonaws.com:80/k": (AWS, "b-1", "k"),
    "https://b-1.s3.amazonaws.com/a%20b/%C3%BC.mp4": (AWS, "b-1", "a b/ü.mp4"),
    "https://b-1.s3.amazonaws.com/a+b%2Bc": (AWS, "b-1", "a+b+c"),
    "https://b-1.s3.amazonaws.com/a%252Fb": (AWS, "b-1", "a%2Fb"),
    "https://b-1.s3.amazonaws.com/100%25": (AWS, "b-1", "100%"),
    "https://b-1.s3.amazonaws.com/a..b/...": (AWS, "b-1", "a..b/..."),
    "https://b-1.s3.amazonaws.com/k?X-Amz-Signature=abc&X-Amz-Expires=60#part": (AWS, "b-1", "k"),
    f"https://b-1.s3.amazonaws.com/{'k' * 1024}": (AWS, "b-1", "k" * 1024),
    # a store of one's own
    "https://store.example:9000/b-1/a/k": (OWN, "b-1", "a/k"),
    "https://STORE.example:9000/b-1/k": (OWN, "b-1", "k"),
    "http://store.example:9000/b-1/k": (OWN, "b-1", "k"),
    "https://b-1.store.example:9000/a/k": (OWN, "b-1", "a/k"),
    "https://my.own.store.example:9000/k": (OWN, "my.own", "k"),
    # hosts that are mapped
    "https://cdn.example/a/k": (MAPPED, "media", "a/k"),
    "https://CDN.example/k": (MAPPED, "media", "k"),
    "https://cdn.example:8080/k": (MAPPED, "media", "k"),
    "https://img.example/a/k": (MAPPED, "media", "pictures/a/k"),
    "https://files.example:8443/k": (MAPPED, "other", "a/b/k"),
    "https://cdn.example/a%20b+c": (MAPPED, "media", "a b+c"),
    "https://b-2.s3.amazonaws.com/k": (MAPPED, "b-2", "k"),
}


@pytest.mark.parametrize(("url", "expected"), FOUND.items(), ids=[url[:80] for url in FOUND])
def test_an_object_is_located_by_its_url(url: str, expected: tuple[S3Settings, str, str]) -> None:
    where, bucket, key = expected
    assert locate(url, where) == Located(bucket, key)


def test_a_mapped_host_comes_before_the_stores_own_names() -> None:
    where = S3Settings(bucket="mine", sources={"b-1.s3.amazonaws.com": "other/x"})
    assert locate("https://b-1.s3.amazonaws.com/k", where) == Located("other", "x/k")


AT_AWS = "https://b-1.s3.amazonaws.com"
NOWHERE: list[tuple[S3Settings, list[str]]] = [
    (
        AWS,
        [
            # hosts that only look alike
            "https://s3.amazonaws.com.evil.example/b-1/k",
            "https://b-1.s3.amazonaws.com.evil.example/k",
            "https://b-1.s3.amazonaws.com.cn.evil.example/k",
            "https://evil-s3.amazonaws.com/b-1/k",
            "https://evils3.amazonaws.com/b-1/k",
            "https://b-1.s3xamazonaws.com/k",
            "https://b-1.s3.amazonawsxcom/k",
            "https://s3.evil.amazonaws.com/b-1/k",
            "https://b-1.s3-website-eu-west-1.amazonaws.com/k",
            "https://b-1.s3-website.eu-west-1.amazonaws.com/k",
            "https://point-1.s3-accesspoint.eu-west-1.amazonaws.com/k",
            "https://123456789012.s3-control.eu-west-1.amazonaws.com/k",
            "https://ec2.amazonaws.com/b-1/k",
            "https://amazonaws.com/b-1/k",
            "https://b-1.s3.amazonaws.com./k",
            "https://.s3.amazonaws.com/k",
            "https://-b.s3.amazonaws.com/k",
            "https://b_1.s3.amazonaws.com/k",
            "https://evil.example/s3.amazonaws.com/b-1/k",
            "https://evil.example?https://b-1.s3.amazonaws.com/k",
            "https://evil.example#@b-1.s3.amazonaws.com/k",
            "https://b-1.s3.amazonaws.com@evil.example/k",
            "https://b-1.s3.amazonaws.com:443@evil.example/k",
            "https://b-1.s3.amazonaws.com\\@evil.example/k",
            "https://evil.example\\.s3.amazonaws.com/k",
            "https://b-1.s3.amazonaws.com:8443/k",
            "https://b-1.s3.amazonaws.com:0/k",
            "https://[::1]/b-1/k",
            "https://[b-1.s3.amazonaws.com]/k",
            # other schemes, and no URL at all
            "ftp://b-1.s3.amazonaws.com/k",
            "file:///b-1.s3.amazonaws.com/k",
            "s3://b-1/k",
            "//b-1.s3.amazonaws.com/k",
            "b-1.s3.amazonaws.com/k",
            "",
            "https://",
            "https:///b-1/k",
            # no key, or none that everybody reads alike
            AT_AWS,
            f"{AT_AWS}/",
            f"{AT_AWS}/?k",
            f"{AT_AWS}/a/",
            f"{AT_AWS}//k",
            f"{AT_AWS}/a//k",
            f"{AT_AWS}/./k",
            f"{AT_AWS}/../k",
            f"{AT_AWS}/a/../k",
            f"{AT_AWS}/a/..",
            f"{AT_AWS}/a/.",
            f"{AT_AWS}/%2e%2e/k",
            f"{AT_AWS}/a%2F..%2Fk",
            f"{AT_AWS}/a%2F%2Fk",
            f"{AT_AWS}/%2Fk",
            f"{AT_AWS}/k%2F",
            f"{AT_AWS}/a%00b",
            f"{AT_AWS}/a%0Ab",
            f"{AT_AWS}/a%0D%0Ax-amz-acl:public",
            f"{AT_AWS}/a%7Fb",
            f"{AT_AWS}/a%C2%85b",
            f"{AT_AWS}/a%E2%80%AEb",
            f"{AT_AWS}/a%FFb",
            f"{AT_AWS}/a%ED%A0%80b",
            f"{AT_AWS}/{'k' * 1025}",
            f"{AT_AWS}/{'%C3%BC' * 513}",
            "https://s3.amazonaws.com/b-1",
            "https://s3.amazonaws.com/b-1/",
            "https://s3.amazonaws.com//b-1/k",
            "https://s3.amazonaws.com/../b-1/k",
            "https://s3.amazonaws.com/b-1/../b-2/k",
            "https://s3.amazonaws.com/b-1%2F..%2Fb-2/k",
            "https://s3.amazonaws.com/b%201/k",
            "https://s3.amazonaws.com/b%3A1/k",
            "https://s3.amazonaws.com/b%401/k",
        ],
    ),
    (
        OWN,
        [
            "https://store.example/b-1/k",
            "https://store.example:443/b-1/k",
            "https://store.example:9001/b-1/k",
            "https://evilstore.example:9000/b-1/k",
            "https://store.example:9000.evil.example/b-1/k",
            "https://store.example:9000@evil.example/b-1/k",
            "https://store.example:9000/b-1",
            "https://.store.example:9000/k",
            "https://b-1.s3.amazonaws.com/k",
            "https://s3.amazonaws.com/b-1/k",
        ],
    ),
    (
        MAPPED,
        [
            "https://cdn.example.evil.example/k",
            "https://x.cdn.example/k",
            "https://cdn.example@evil.example/k",
            "https://evil.example/cdn.example/k",
            "https://files.example/k",
            "https://files.example:8444/k",
            "https://cdn.example/",
            "https://img.example/../k",
            "https://img.example/%2e%2e/k",
            "https://img.example/a%2F..%2F..%2Fk",
            "ftp://cdn.example/k",
        ],
    ),
]
HOSTILE = [(url, where) for where, urls in NOWHERE for url in urls]


@pytest.mark.parametrize(("url", "where"), HOSTILE, ids=[url[:80] for url, _ in HOSTILE])
def test_what_names_no_object_of_the_store_is_not_located(url: str, where: S3Settings) -> None:
    assert locate(url, where) is None


@pytest.mark.parametrize("port", ["65536", "99999", "port", "-1", "4 43", "٤٤٣"])
def test_a_port_that_is_none_is_not_located(port: str) -> None:
    assert locate(f"https://b-1.s3.amazonaws.com:{port}/k", AWS) is None


@pytest.mark.parametrize("user", ["user@", "user:secret@", "other.s3.amazonaws.com@", "@"])
def test_a_user_in_the_url_leads_to_no_other_bucket(user: str) -> None:
    assert locate(f"https://{user}b-1.s3.amazonaws.com/k", AWS) in (None, Located("b-1", "k"))
    assert locate(f"https://{user}cdn.example/k", MAPPED) in (None, Located("media", "k"))
    assert locate(f"https://{user}store.example:9000/b-1/k", OWN) in (None, Located("b-1", "k"))
    assert locate(f"https://{user}b-1.store.example:9000/k", OWN) in (None, Located("b-1", "k"))


@pytest.mark.parametrize("label", ["..", "b 1", "b\\1", "b%2F1", "b:1", "b%00", "*"])
def test_what_stands_before_a_stores_own_host_is_a_bucket_only_if_it_has_the_form_of_one(label: str) -> None:
    assert locate(f"https://{label}.store.example:9000/b-1/k", OWN) is None


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("b-1.s3.cn-north-1.amazonaws.com.cn", "us-east-1"),
        ("s3.cn-north-1.amazonaws.com.cn/b-1", "eu-central-1"),
        ("b-1.s3.us-gov-west-1.amazonaws.com", "us-east-1"),
        ("b-1.s3.eu-west-1.amazonaws.com", "cn-north-1"),
        ("b-1.s3.amazonaws.com", "cn-north-1"),
        ("b-1.s3.eu-west-1.amazonaws.com", "us-gov-east-1"),
    ],
)
def test_a_bucket_of_another_partition_is_another_bucket_of_that_name(host: str, region: str) -> None:
    assert locate(f"https://{host}/k", S3Settings(bucket="mine", region=region)) is None


@pytest.mark.parametrize("host", ["b-1.s3.cn-north-1.amazonaws.com.cn", "s3.cn-northwest-1.amazonaws.com.cn/b-1"])
def test_a_bucket_in_china_is_located_from_china(host: str) -> None:
    assert locate(f"https://{host}/k", S3Settings(bucket="mine", region="cn-north-1")) == Located("b-1", "k")


@pytest.mark.parametrize("query", ["versionId=3", "partNumber=1", "X-Amz-Signature=a&versionId=3", "tagging", "acl"])
def test_a_url_of_something_else_than_the_object_as_it_is_now_is_not_located(query: str) -> None:
    assert locate(f"{AT_AWS}/k?{query}", AWS) is None


buckets = st.from_regex(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", fullmatch=True)
dotted = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}[a-z0-9](\.[a-z0-9]{2,9}){1,3}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=40).filter(
    lambda name: name.isprintable() and "/" not in name and name not in (".", "..")
)
keys = st.lists(names, min_size=1, max_size=5).map("/".join).filter(lambda key: len(key.encode()) <= 1024)
regions = st.sampled_from(["us-east-1", "eu-central-1", "ap-southeast-2", "cn-north-1", "us-gov-west-1"])
endpoints = st.sampled_from(["", "https://store.example", "http://127.0.0.1:9000", "http://[::1]:9000/"])


@modest
@given(buckets | dotted, keys, regions, endpoints, st.sampled_from(["auto", "path"]))
@example("b-1", "a+b %2F%25 ü?#&=/~", "us-east-1", "", "auto")
def test_every_sound_key_comes_back_from_its_url(
    bucket: str, key: str, region: str, endpoint: str, addressing: str
) -> None:
    url = address_of(bucket, endpoint, region, addressing).url(key)
    assert locate(url, S3Settings(bucket="mine", endpoint_url=endpoint, region=region)) == Located(bucket, key)


@modest
@given(buckets, keys, regions, st.sampled_from(["", "https://store.example:9000"]))
def test_and_from_a_virtual_hosted_one(bucket: str, key: str, region: str, endpoint: str) -> None:
    url = address_of(bucket, endpoint, region, "virtual").url(key)
    assert locate(url, S3Settings(bucket="mine", endpoint_url=endpoint, region=region)) == Located(bucket, key)


anything = st.text(st.characters() | st.sampled_from("\ud800\udfff\x00\t\r\n"), max_size=60)
alike = st.builds(
    "{}://{}{}{}/{}".format,
    st.sampled_from(["http", "https", "HTTPS", "s3", "", "javascript"]),
    st.sampled_from(["", "a@", "b.", "..", "[", "x:y@", "ü."]),
    st.sampled_from(["s3.amazonaws.com", "b.s3.eu-west-1.amazonaws.com", "cdn.example", "store.example:9000", "[::1]"]),
    st.sampled_from(["", ":443", ":99999", ":x", ".", "]", "@c"]),
    anything,
)


@modest
@given(anything | alike, st.sampled_from([AWS, OWN, MAPPED]))
@example("https://b-1.s3.amazonaws.com/\ud800", AWS)
@example("https://b-1.s3.amazonaws.com:x/k", AWS)
def test_any_text_is_located_or_not_and_nothing_is_raised(text: str, where: S3Settings) -> None:
    found = locate(text, where)
    assert found is None or (found.key and re.fullmatch(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*", found.bucket))
