"""A store's refusals as errors of ours: which class, how far it reaches, and what a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.errors import (
    ChecksumMismatch,
    Denied,
    ExitCode,
    Full,
    MirrorError,
    Obstructed,
    Severity,
    StoreUnavailable,
    TooLarge,
)
from mirror.settings import S3Settings
from mirror.stores.s3.errors import (
    BadParts,
    ClockSkewed,
    CredentialsExpired,
    NoSuchKey,
    NoSuchUpload,
    NotSupported,
    PreconditionFailed,
    Refusal,
    Unreachable,
    WrongRegion,
    code_in,
    error_of,
    region_in,
)
from mirror.stores.s3.policy import RIGHTS, on_one_line
from mirror.stores.s3.store import S3Store
from tests.helpers import sha256
from tests.properties import examples
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_small import as_user, in_bucket, settings_for

OURS = S3Settings(bucket="mine", prefix="films")
WHERE = "s3://mine/films/p/k"
FATAL, ITEM, TRANSIENT = Severity.FATAL, Severity.ITEM, Severity.TRANSIENT
STOPPED, INCOMPLETE = ExitCode.STOPPED, ExitCode.INCOMPLETE

modest = examples(200)


def refused(code: str, status: int, operation: str = "PutObject", **headers: str) -> MirrorError:
    return error_of(Refusal(operation=operation, code=code, status=status, where=WHERE, headers=headers), OURS)


# How temporary ones end is decided by who catches them: the severity of the class stands here.
TABLE: list[tuple[str, type[MirrorError], Severity, ExitCode, str]] = [
    # codes and statuses → class, severity, exit code, words of the message
    ("NoSuchUpload/404 NoSuchUpload/400", NoSuchUpload, ITEM, STOPPED, "answered NoSuchUpload to PutObject"),
    ("InvalidPart/400 InvalidPartOrder/400", BadParts, ITEM, STOPPED, WHERE),
    ("PreconditionFailed/412 /412 Odd/412 /304 NotModified/304", PreconditionFailed, ITEM, STOPPED, WHERE),
    ("NoSuchBucket/404", Denied, FATAL, STOPPED, "there is no bucket mine: create it, or check [s3] bucket"),
    ("NoSuchKey/404 NotFound/404 NoSuchVersion/404 404/404 /404 Odd/404", NoSuchKey, ITEM, STOPPED, WHERE),
    (
        "ExpiredToken/400 ExpiredToken/403 ExpiredTokenException/400 TokenRefreshRequired/400",
        CredentialsExpired,
        FATAL,
        STOPPED,
        "log in anew",
    ),
    ("RequestTimeTooSkewed/403", ClockSkewed, FATAL, STOPPED, "this machine's clock is wrong"),
    (
        "PermanentRedirect/301 AuthorizationHeaderMalformed/400 IllegalLocationConstraintException/400 /301",
        WrongRegion,
        FATAL,
        STOPPED,
        "set [s3] region",
    ),
    (
        "BadDigest/400 InvalidDigest/400 XAmzContentSHA256Mismatch/400 XAmzContentChecksumMismatch/400",
        ChecksumMismatch,
        TRANSIENT,
        INCOMPLETE,
        "other bytes came there than were sent",
    ),
    (
        (
            "SlowDown/503 SlowDown/200 ServiceUnavailable/503 InternalError/500 InternalError/200 RequestTimeout/400 "
            "ConditionalRequestConflict/409 OperationAborted/409 Throttling/400 ThrottlingException/400 "
            "RequestLimitExceeded/503 BandwidthLimitExceeded/509 TooManyRequests/429 SlowDown/507 "
            "/408 /425 /429 /500 /502 /503 /504 /599 Odd/503"
        ),
        Unreachable,
        TRANSIENT,
        STOPPED,
        "the store answered",
    ),
    (
        "InvalidAccessKeyId/403 SignatureDoesNotMatch/403 InvalidToken/400 InvalidSecurity/403 NotSignedUp/403",
        Denied,
        FATAL,
        STOPPED,
        "the credentials are not accepted: check the key, its secret and [s3] profile",
    ),
    ("EntityTooLarge/400 MaxMessageLengthExceeded/400 /413", TooLarge, ITEM, INCOMPLETE, "larger than the store takes"),
    (
        "QuotaExceeded/403 InsufficientStorage/507 XMinioStorageFull/507 /507 Odd/507",
        Full,
        FATAL,
        STOPPED,
        "it is full: make room and run again",
    ),
    ("KeyTooLongError/400", Obstructed, ITEM, INCOMPLETE, "shorten [s3] prefix"),
    ("InvalidObjectState/403", Obstructed, ITEM, INCOMPLETE, "restore it first"),
    ("MethodNotAllowed/405 /405", Obstructed, ITEM, INCOMPLETE, "something else stands there"),
    ("InvalidStorageClass/400", StoreUnavailable, FATAL, STOPPED, "[s3] storage_class"),
    ("InvalidTag/400", StoreUnavailable, FATAL, STOPPED, "[s3] tags"),
    ("KMS.NotFoundException/400 KMS.DisabledException/400", StoreUnavailable, FATAL, STOPPED, "[s3] kms_key_id"),
    ("NotImplemented/501 NotImplemented/400 /501", NotSupported, FATAL, STOPPED, "`mirror doctor` tries them"),
    ("AccessDenied/403 AllAccessDisabled/403 /401 /403 Odd/403", Denied, FATAL, STOPPED, "the right s3:PutObject is"),
    ("InvalidRequest/400 /400 Odd/409 /418 /505 /0 InvalidRange/416", StoreUnavailable, ITEM, STOPPED, WHERE),
]
ROWS = [(*each.split("/"), *row[1:]) for row in TABLE for each in row[0].split()]


@pytest.mark.parametrize(
    ("code", "status", "kind", "severity", "exit_code", "words"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS]
)
def test_what_a_refusal_is(
    code: str, status: str, kind: type[MirrorError], severity: Severity, exit_code: ExitCode, words: str
) -> None:
    error = refused(code, int(status))
    assert type(error) is kind
    assert (error.severity, error.exit_code) == (severity, exit_code)
    assert words in str(error)
    if kind is not Denied or code != "NoSuchBucket":
        assert str(error).startswith(f"{WHERE}: the store answered {code or f'HTTP {status}'} to PutObject")


@pytest.mark.parametrize("operation", [*RIGHTS, "RestoreObject"])
@pytest.mark.parametrize("code", ["AccessDenied", ""])
def test_a_missing_right_is_named_with_the_policy_that_gives_it(operation: str, code: str) -> None:
    error = refused(code, 403, operation)
    assert f"the right {RIGHTS.get(operation, f's3:{operation}')} is missing" in str(error)
    assert on_one_line(OURS, RIGHTS.get(operation, f"s3:{operation}")) in str(error)


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_stores_own_word_on_when_to_try_again_is_heeded_however_it_is_spelled(name: str, status: int) -> None:
    """botocore hands all names over in lower case, aiohttp as they stood on the wire."""
    assert refused("SlowDown", status, **{name: "7"}).retry_after == 7
    assert refused("SlowDown", status, **{name: "soon"}).retry_after is None
    assert refused("SlowDown", status).retry_after is None


@pytest.mark.parametrize("name", ["x-amz-bucket-region", "X-Amz-Bucket-Region"])
@pytest.mark.parametrize(
    ("told", "region"),
    [("eu-west-1", "eu-west-1"), ("", None), ("evil.example/", None), ("a b", None), ("x" * 41, None), ("ü", None)],
)
def test_where_the_bucket_is_comes_from_a_header_however_it_is_spelled(
    name: str, told: str, region: str | None
) -> None:
    error = refused("PermanentRedirect", 301, **{name: told})
    assert isinstance(error, WrongRegion)
    assert error.region == region


@pytest.mark.parametrize("name", ["date", "Date", "DATE"])
def test_the_stores_clock_comes_from_its_answer(name: str) -> None:
    error = refused("RequestTimeTooSkewed", 403, **{name: "Wed, 28 Jan 2026 10:03:40 GMT"})
    assert isinstance(error, ClockSkewed)
    assert error.date == "Wed, 28 Jan 2026 10:03:40 GMT"
    without = refused("RequestTimeTooSkewed", 403)
    assert isinstance(without, ClockSkewed)
    assert without.date is None


ERROR = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message><Region>%s</Region></Error>'


@pytest.mark.parametrize(
    ("body", "code", "region"),
    [
        (ERROR % (b"SlowDown", b"eu-west-1"), "SlowDown", "eu-west-1"),
        (ERROR % (b"KMS.NotFoundException", b"x"), "KMS.NotFoundException", "x"),
        (ERROR % (b"\n SlowDown\t", b" eu-west-1\r\n"), "SlowDown", "eu-west-1"),
        (b"<Error xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Code>A</Code></Error>", "A", None),
        (b"<Code>A</Code><Code>B</Code>", "A", None),
        (b"", "", None),
        (b"not found", "", None),
        (b"{'Code': 'A'}", "", None),
        (b"<html><body>503</body></html>", "", None),
        (b"<Code></Code><Region></Region>", "", None),
        (b"<Code>A", "", None),
        (ERROR % (b"&evil;", b"&evil;"), "", None),
        (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + ERROR % (b"&e;", b"&e;"), "", None),
        (ERROR % (b"<![CDATA[A]]>", b"<b>x</b>"), "", None),
        (ERROR % (b"Two words", b"two words"), "", None),
        (ERROR % (b"\x1b[31mA", b"../evil"), "", None),
        (ERROR % ("ü".encode(), "ü".encode()), "", None),
        (ERROR % (b"A" * 81, b"x" * 41), "", None),
        (ERROR % (b"A" * 80, b"x" * 40), "A" * 80, "x" * 40),
        (bytes(range(256)) * 64, "", None),
        (b" " * (64 << 10) + ERROR % (b"A", b"x"), "", None),
        (b"<Code>" * 500_000, "", None),
        (b"<Code>" + b" " * 5_000_000 + b"A</Code>", "", None),
        (ERROR % (b"A", b"x") + b"<a>" * 1_000_000, "A", "x"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_of_a_stores_xml_only_a_code_and_a_region_are_taken(body: bytes, code: str, region: str | None) -> None:
    assert code_in(body) == code
    assert region_in(body) == region


@modest
@given(st.binary(max_size=200) | st.text(max_size=40).map(lambda text: ERROR % (text.encode(), text.encode())))
def test_any_body_gives_a_plain_code_or_none(body: bytes) -> None:
    assert code_in(body) == "" or (code_in(body).replace(".", "").isascii() and code_in(body).isprintable())
    region = region_in(body)
    assert region is None or (region.isascii() and region.isprintable())


codes = st.sampled_from([row[0] for row in ROWS]) | st.text(max_size=20)
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "x-amz-bucket-region", "Date"]), st.text(max_size=30), max_size=4
)


@modest
@given(codes, st.integers(-1, 1000), st.sampled_from([*RIGHTS, "", "Odd"]), headers)
@example("", 0, "", {})
def test_every_refusal_is_an_error_of_ours(code: str, status: int, operation: str, told: dict[str, str]) -> None:
    error = refused(code, status, operation, **told)
    assert isinstance(error, MirrorError)
    assert error.exit_code in (STOPPED, INCOMPLETE)
    assert str(error)


@pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
@pytest.mark.parametrize("operation", ["PutObject", "HeadObject", "CreateMultipartUpload"])
def test_a_message_has_nothing_of_the_stores_own_text(
    bucket: Bucket, proxy: FaultProxy, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy's error document has a message that says "scripted"."""
    proxy.fault(operation, faults.answer(403, "AccessDenied"))

    async def act(store: S3Store) -> None:
        if operation == "PutObject":
            await store.objects.put("k", [b"x"], 1, sha256(b"x"), {})
        else:
            await store.objects.control.call(operation, Key="k")

    as_user(bucket.server, monkeypatch)
    with pytest.raises(Denied) as caught:
        in_bucket(settings_for(bucket.through(proxy), tmp_path), act)
    assert RIGHTS[operation] in str(caught.value)
    assert "scripted" not in f"{caught.value}{caught.value!r}{caught.value.__cause__}"
    assert proxy.unused == 0
