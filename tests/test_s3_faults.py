"""What each failure of a store comes to: tried again, looked into, started over, or told in words that help."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mirror.errors import ChecksumMismatch, Denied, Full, MirrorError, Obstructed, Severity, StoreUnavailable, TooLarge
from tests.helpers import sha256
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault
from tests.s3.proxy import FOREVER
from tests.s3_runs_faults import ATTEMPTS, End, Row, table
from tests.store_contract import LARGE, SMALL

WRONG = "A" * 43 + "="


def contradicted(headers: dict[str, str]) -> dict[str, str]:
    """An answer that says the store has other bytes than were sent."""
    return {**headers, "x-amz-checksum-sha256": WRONG}


PASSING: dict[str, Fault] = {
    "503 SlowDown": faults.answer(503, "SlowDown"),
    "503 alone": faults.answer(503),
    "503 before the body was read": faults.answer(503, "SlowDown", early=True),
    "500 InternalError": faults.answer(500, "InternalError"),
    "500 though it was done": faults.forward_then_answer(500, "InternalError"),
    "429 TooManyRequests": faults.answer(429, "TooManyRequests"),
    "400 RequestTimeout": faults.answer(400, "RequestTimeout"),
    "409 ConditionalRequestConflict": faults.answer(409, "ConditionalRequestConflict"),
    "409 OperationAborted": faults.answer(409, "OperationAborted"),
    "reset before": faults.reset_before(),
    "lost answer": faults.forward_then_reset(),
    "400 BadDigest": faults.answer(400, "BadDigest"),
}
"""What is over at the second try."""

SENDING: dict[str, Fault] = {
    "corrupted on its way": faults.corrupt_upload(100_000),
    "contradicted": faults.edit_response_headers(contradicted),
}
"""The same, of bodies only."""

ANSWERED: dict[str, Fault] = {
    "cut answer": faults.cut_answer(30),
    "200 with an error inside": faults.answer(200, "InternalError"),
    "200 with an error inside though it was done": faults.forward_then_answer(200, "InternalError"),
}
"""The same, where the answer is a document."""


def passing(operation: str, kinds: dict[str, Fault], body: bytes, asked: int = 2) -> list[Row]:
    return [
        Row(f"{operation} {name}", [(operation, fault, 1)], {operation: asked}, body=body)
        for name, fault in kinds.items()
    ]


def lasting(operation: str, body: bytes) -> list[Row]:
    """What is there again at every try."""
    always = {"SlowDown": StoreUnavailable, "BadDigest": ChecksumMismatch}
    return [
        Row(
            f"{operation} {code} for ever",
            [(operation, faults.answer(503 if code == "SlowDown" else 400, code), FOREVER)],
            {operation: ATTEMPTS},
            kind,
            Severity.ITEM if code == "SlowDown" else Severity.TRANSIENT,
            [code, operation],
            body=body,
        )
        for code, kind in always.items()
    ]


def refused(
    status: int, code: str, kind: type[MirrorError], severity: Severity, *says: str, operation: str = "PutObject"
) -> Row:
    """What is an end at once, and says what to do."""
    body = SMALL if operation == "PutObject" else LARGE
    fails = [(operation, faults.answer(status, code), FOREVER)]
    return Row(f"{operation} {status} {code}", fails, {operation: 1}, kind, severity, says, body=body)


SMALL_ROWS = [
    *passing("PutObject", PASSING | SENDING, SMALL),
    *lasting("PutObject", SMALL),
    Row(
        "PutObject Retry-After",
        [("PutObject", faults.answer(503, "SlowDown", headers={"Retry-After": "1"}), 1)],
        {"PutObject": 2},
        pause=1.0,
    ),
    Row(
        "PutObject lost answer and a look that fails",
        [("PutObject", faults.forward_then_reset(), 1), ("HeadObject", faults.answer(503), 1)],
        {"PutObject": 2, "HeadObject": 2},
    ),
    Row(
        "PutObject 412 of nobody's object",
        [("PutObject", faults.answer(412, "PreconditionFailed"), 1)],
        {"PutObject": 1, "HeadObject": 1},
        StoreUnavailable,
        says=["comes and goes"],
    ),
    Row(
        "PutObject contradicted for ever",  # what is there is looked at, and right
        [("PutObject", SENDING["contradicted"], FOREVER)],
        {"PutObject": 2, "HeadObject": 1},
    ),
    Row(
        "PutObject corrupted for ever",
        [("PutObject", SENDING["corrupted on its way"], FOREVER)],
        {"PutObject": ATTEMPTS},
        ChecksumMismatch,
        Severity.TRANSIENT,
    ),
    refused(400, "EntityTooLarge", TooLarge, Severity.ITEM, "larger than the store takes"),
    refused(507, "InsufficientStorage", Full, Severity.FATAL, "make room"),
    refused(403, "QuotaExceeded", Full, Severity.FATAL, "make room"),
    refused(403, "AccessDenied", Denied, Severity.FATAL, "s3:PutObject", '"Version":"2012-10-17"', "arn:aws:s3:::"),
    refused(404, "NoSuchBucket", Denied, Severity.FATAL, "create it"),
    refused(403, "SignatureDoesNotMatch", Denied, Severity.FATAL, "credentials are not accepted"),
    refused(501, "NotImplemented", StoreUnavailable, Severity.FATAL, "mirror doctor"),
    refused(405, "MethodNotAllowed", Obstructed, Severity.ITEM, "something else stands there"),
    refused(400, "KeyTooLongError", Obstructed, Severity.ITEM, "shorten [s3] prefix"),
    refused(418, "Teapot", StoreUnavailable, Severity.ITEM, "Teapot"),
]

_OF_ANY = {name: PASSING[name] for name in ("503 SlowDown", "500 though it was done", "reset before", "lost answer")}
_OF_PARTS = {name: PASSING[name] for name in ("503 before the body was read", "400 BadDigest")}
_OF_ENDS = {name: PASSING[name] for name in ("409 ConditionalRequestConflict",)}

LARGE_ROWS = [
    *passing("CreateMultipartUpload", {**_OF_ANY, "cut answer": ANSWERED["cut answer"]}, LARGE),
    *passing("UploadPart", _OF_ANY | _OF_PARTS | SENDING, LARGE, asked=3),
    *passing("CompleteMultipartUpload", _OF_ANY | _OF_ENDS | ANSWERED, LARGE),
    *lasting("UploadPart", LARGE)[:1],
    *lasting("CompleteMultipartUpload", LARGE)[:1],
    Row(
        "CreateMultipartUpload lost answer and a listing that fails",
        [("CreateMultipartUpload", faults.forward_then_reset(), 1), ("ListMultipartUploads", faults.answer(503), 1)],
        {"CreateMultipartUpload": 2, "ListMultipartUploads": 3, "AbortMultipartUpload": 1},
        body=LARGE,
    ),
    Row(
        "UploadPart NoSuchUpload",
        [("UploadPart", faults.answer(404, "NoSuchUpload"), 1)],
        {"CreateMultipartUpload": 2, "AbortMultipartUpload": 1},
        body=LARGE,
    ),
    Row(
        "CompleteMultipartUpload NoSuchUpload though it is there",
        [("CompleteMultipartUpload", faults.answer(404, "NoSuchUpload"), 1)],
        {"CreateMultipartUpload": 2, "CompleteMultipartUpload": 2, "AbortMultipartUpload": 1},
        body=LARGE,
    ),
    refused(403, "AccessDenied", Denied, Severity.FATAL, "s3:PutObject", operation="CreateMultipartUpload"),
    refused(403, "AccessDenied", Denied, Severity.FATAL, "s3:PutObject", operation="CompleteMultipartUpload"),
    refused(403, "AccessDenied", Denied, Severity.FATAL, "s3:GetObject", operation="HeadObject"),
    refused(400, "EntityTooLarge", TooLarge, Severity.ITEM, "larger", operation="CompleteMultipartUpload"),
]

ON_SWIFT = [
    row for row in LARGE_ROWS if row.name.endswith(("lost answer", "though it was done", "corrupted on its way"))
]
"""Of the large ones, those in which the server takes part."""

TABLES: dict[str, Sequence[Row]] = {"ministack": [*SMALL_ROWS, *LARGE_ROWS], "swift": [*SMALL_ROWS, *ON_SWIFT]}
ALL = [pytest.param(kind, row, id=f"{kind}-{row}") for kind, rows in TABLES.items() for row in rows]

Ends = Callable[[str], dict[str, End]]


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """What came of a server's table. It is run when the first of its rows is asked for."""

    @functools.cache
    def run(kind: str) -> dict[str, End]:
        root: Path = tmp_path_factory.mktemp(f"faults-{kind}") / "archive"
        return table(TABLES[kind], Bucket.new(request.getfixturevalue(kind)), root)

    return run


@pytest.mark.parametrize(("kind", "row"), ALL)
def test_it_comes_to_the_end_it_must(ends: Ends, kind: str, row: Row) -> None:
    end = ends(kind)[row.name]
    if row.error is None:
        assert end.error is None
        assert end.receipt is not None
        assert (end.receipt.path, end.receipt.sha256) == ("film.mp4", sha256(row.body))
        assert end.files == {"film.mp4": row.body}
        assert end.uploads == 0
    else:
        assert isinstance(end.error, row.error)
        assert end.error.severity is row.severity
        assert [word for word in row.says if word not in str(end.error)] == []
        assert end.files == {}
    assert {operation: end.asked[operation] for operation in row.asked} == row.asked
    assert all(pause >= row.pause for pause in end.pauses)
    assert end.pauses or not row.pause


@pytest.mark.parametrize(("kind", "row"), ALL)
def test_nothing_of_it_stands_in_the_way_of_the_next_run(ends: Ends, kind: str, row: Row) -> None:
    end = ends(kind)[row.name]
    assert end.later_files == {"film.mp4": row.body}
    assert end.later_uploads == 0
