"""Statuses, ranges, validators, checksums and redirects: a file comes whole and right, or fails by name."""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from collections.abc import Mapping
from email.utils import formatdate

import pytest

from tests import faults, media
from tests.drivers import DRIVERS
from tests.fault_table import BODY, BY_DATE, CUT, ELSEWHERE, OTHER_BODY, RESUMED, Row, Table, cut_of, cut_then
from tests.faults import FOREVER, Fault, File, Reply, Request

WHOLE = ["whole"]
TWICE = ["whole", "whole"]
RESTARTED = ["whole", RESUMED, "whole"]
LARGER = media.mp4(len(BODY) + 1, seed=6)
LIMIT = {"transfer_max_file_size": len(BODY)}
NO_VALIDATOR = {"etag": None, "last_modified": None}


def s3(etag: str | None = "md5", **headers: str) -> Mapping[str, object]:
    """An object as S3 serves it; underscores in the names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"etag": etag, "headers": {"x-amz-request-id": "4442587FB7D0A2F9", **named}}


def sum_of(name: str, body: bytes = BODY) -> str:
    """A digest as ``x-amz-checksum-*`` states it."""
    digest = zlib.crc32(body).to_bytes(4, "big") if name == "crc32" else hashlib.new(name, body).digest()
    return base64.b64encode(digest).decode()


def in_a_second(status: int) -> Fault:
    return Fault("later", lambda _f, _r: Reply(status, {"Retry-After": formatdate(time.time() + 1, usegmt=True)}))


def page(body: bytes, content_type: str) -> Fault:
    return Fault("page", lambda _f, _r: Reply(200, {"Content-Type": content_type}, body))


def part_with(**headers: str | None) -> Fault:
    """206 with the bytes asked for, If-Range ignored, under other headers."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault("part", lambda f, r: f.reply(r.without("if-range")).with_headers(changed))


def redirected(code: int, *, absolute: bool) -> Fault:
    def reply(_file: File, request: Request) -> Reply:
        host = f"http://{request.headers['host']}" if absolute else ""
        return Reply(code, {"Location": host + ELSEWHERE}, b"moved")

    return Fault("redirect", reply, FOREVER)


STATUS = [
    *(Row(f"{code} once", faults.status(code, retry_after=0), TWICE) for code in (408, 425, 429, 500, 502, 503, 504)),
    Row("503 and a second to wait", faults.status(503, retry_after=1), TWICE),
    Row("429 and a date to wait for", in_a_second(429), TWICE),
    Row("503 and a date that is past", faults.status(503, retry_after="Wed, 28 Jan 2026 10:03:40 GMT"), TWICE),
    *(
        Row(f"503 and an absurd Retry-After, {text!r}", faults.status(503, retry_after=text), TWICE)
        for text in ("soon", "-5", "1e3", "0x10", "", "Wed, 99 Foo 2026 99:99:99 GMT", "\xb2")
    ),
    Row("503 in the middle of a resume", cut_then(faults.status(503, retry_after=0)), ["whole", RESUMED, RESUMED]),
    *(
        Row(f"{code} for ever", faults.status(code, retry_after=0, times=FOREVER), ["whole"] * 3, "Unavailable")
        for code in (429, 500, 503)
    ),
    Row("404", faults.status(404), WHOLE, "Gone"),
    Row("410", faults.status(410), WHOLE, "Gone"),
    Row("403 and no fresh URL", faults.status(403), WHOLE, "UrlExpired"),
    *(Row(f"{code}", faults.status(code, body=b"no"), WHOLE, "Refused") for code in (400, 401, 402, 418, 501, 505)),
    *(Row(f"{code} is no file", faults.status(code), WHOLE, "Refused") for code in (201, 204, 300, 304)),
    Row("404 with a page in the middle of a resume", cut_then(faults.html_page(404)), ["whole", RESUMED], "Gone"),
]

RANGE = [
    Row("Range is ignored", cut_then(faults.ignore_range()), ["whole", RESUMED]),
    Row("206 begins too late", cut_then(faults.range_start(100)), RESTARTED),
    Row("206 begins too early", cut_then(faults.range_start(-100)), RESTARTED),
    Row("206 begins at 0", cut_then(faults.range_start(-CUT)), RESTARTED),
    Row("206 ends too early", cut_then(faults.range_end(-1000)), ["whole", RESUMED, f"{len(BODY) - 1000}- if etag"]),
    Row("206 of another total", cut_then(faults.range_total(len(BODY) + 1)), RESTARTED),
    Row("206 of a total that nobody knows", cut_then(faults.range_total(None)), ["whole", RESUMED]),
    Row("206 with more than it says", cut_then(faults.range_body(10)), RESTARTED),
    Row("206 with less than it says", cut_then(faults.range_body(-10)), RESTARTED),
    Row("206 without Content-Range", cut_then(faults.no_content_range()), RESTARTED),
    *(
        Row(f"206 with Content-Range {text!r}", cut_then(part_with(Content_Range=text)), RESTARTED)
        for text in ("bytes", f"bytes {CUT}-/{len(BODY)}", f"bytes */{len(BODY)}", f"lines {CUT}-9/10", "bytes 9-1/10")
    ),
    Row("206 in several parts", cut_then(faults.multipart()), RESTARTED),
    Row("206 though the whole was asked for", Fault("part", lambda f, _r: f.part(0, CUT)), TWICE),
    Row("416 once", cut_then(faults.unsatisfiable()), RESTARTED),
    Row("416 for ever", cut_then(faults.unsatisfiable(times=FOREVER)), RESTARTED, "Refused"),
    Row("416 to the first request", faults.unsatisfiable(), WHOLE, "Refused"),
    Row(
        "the file is shorter now",
        cut_then(faults.changed(BODY[: CUT // 2])),
        ["whole", RESUMED],
        wanted=BODY[: CUT // 2],
    ),
    Row(
        "the file is shorter than what is held, and If-Range ignored",
        cut_then(faults.changed(BODY[: CUT // 2], honour_if_range=False)),
        RESTARTED,
        wanted=BODY[: CUT // 2],
    ),
]

VALIDATOR = [
    Row("Last-Modified only", cut_then(), ["whole", BY_DATE], serve={"etag": None}),
    Row("a weak ETag beside Last-Modified", cut_then(), ["whole", BY_DATE], serve={"etag": 'W/"1"'}),
    Row("a weak ETag only", cut_then(), TWICE, serve={"etag": 'W/"1"', "last_modified": None}),
    Row("an ETag without quotes", cut_then(), TWICE, serve={"etag": "naked", "last_modified": None}),
    Row("no validator", cut_then(), TWICE, serve=NO_VALIDATOR),
    Row("the ETag turns weak", cut_then(faults.weak_etag(times=FOREVER)), ["whole", RESUMED]),
    Row("another ETag, If-Range ignored", cut_then(faults.other_etag()), RESTARTED),
    Row("a weak ETag in 206, If-Range ignored", cut_then(part_with(ETag='W/"1"')), RESTARTED),
    Row("206 leaves the ETag out", cut_then(part_with(ETag=None)), ["whole", RESUMED]),
    Row(
        "another Last-Modified, If-Range ignored",
        cut_then(part_with(Last_Modified="Thu, 29 Jan 2026 13:54:20 GMT")),
        ["whole", BY_DATE, "whole"],
        serve={"etag": None},
    ),
    Row(
        "an ETag that is always new, If-Range honoured",
        [cut_of(faults.changing_etag()), faults.changing_etag()],
        ["whole", RESUMED],
    ),
    Row(
        "an ETag that is always new, If-Range ignored",
        [cut_of(faults.changing_etag()), faults.changing_etag(honour_if_range=False)],
        RESTARTED,
    ),
    Row("another file, If-Range honoured", cut_then(faults.changed(OTHER_BODY)), ["whole", RESUMED], wanted=OTHER_BODY),
    Row(
        "another file, If-Range ignored",
        cut_then(faults.changed(OTHER_BODY, honour_if_range=False)),
        RESTARTED,
        wanted=OTHER_BODY,
    ),
]

CHECKSUM = [
    Row("a flipped byte and S3's MD5", faults.flipped_byte(), TWICE, serve=s3()),
    Row("a flipped byte for ever", faults.flipped_byte(times=FOREVER), ["whole"] * 3, "ChecksumMismatch", serve=s3()),
    Row("a flipped byte in what is resumed", cut_then(faults.flipped_byte(CUT + 9)), RESTARTED, serve=s3()),
    Row("a flipped byte in what was held", cut_of(faults.flipped_byte(9)), RESTARTED, serve=s3()),
    *(
        Row(f"a flipped byte and {name}", faults.flipped_byte(), TWICE, serve=serve)
        for name, serve in {
            "SHA-256": s3('"opaque"', x_amz_checksum_sha256=sum_of("sha256")),
            "SHA-1": s3('"opaque"', x_amz_checksum_sha1=sum_of("sha1")),
            "CRC-32": s3('"opaque"', x_amz_checksum_crc32=sum_of("crc32")),
            "SHA-256 with its type": s3(
                '"opaque"', x_amz_checksum_sha256=sum_of("sha256"), x_amz_checksum_type="FULL_OBJECT"
            ),
            "SSE-S3": s3(x_amz_server_side_encryption="AES256"),
        }.items()
    ),
    *(
        Row(f"no MD5, {name}", serve=serve)
        for name, serve in {
            "not S3": {"etag": f'"{32 * "0"}"'},
            "multipart": s3(f'"{32 * "0"}-2"'),
            "KMS": s3(f'"{32 * "0"}"', x_amz_server_side_encryption="aws:kms"),
            "KMS twice": s3(f'"{32 * "0"}"', x_amz_server_side_encryption="aws:kms:dsse"),
            "SSE-C": s3(f'"{32 * "0"}"', x_amz_server_side_encryption_customer_algorithm="AES256"),
            "weak": s3(f'W/"{32 * "0"}"'),
        }.items()
    ),
    *(
        Row(f"no checksum of the whole, {name}", serve=s3('"opaque"', **headers))
        for name, headers in {
            "composite": {"x_amz_checksum_sha256": f"{sum_of('sha256', b'')}-2"},
            "composite by type": {"x_amz_checksum_sha256": sum_of("sha256", b""), "x_amz_checksum_type": "COMPOSITE"},
            "no base64": {"x_amz_checksum_sha256": "!"},
            "of another kind": {"x_amz_checksum_crc64nvme": sum_of("crc32", b"")},
        }.items()
    ),
]

CONTENT = [
    Row("a page with 200", faults.html_page(), WHOLE, "NotMedia"),
    Row(
        "an XML error with 200",
        page(b"<?xml version='1.0'?>\n<Error><Code>A</Code></Error>", "application/xml"),
        WHOLE,
        "NotMedia",
    ),
    Row("a JSON error with 200", page(b'{"error": "no such file"}', "application/json"), WHOLE, "NotMedia"),
    Row("a page that calls itself a film", page(b"\n <html><body>Sorry</body>", "video/mp4"), WHOLE, "NotMedia"),
    Row("gzip", faults.gzipped(), WHOLE, "NotMedia"),
    Row("a page in the middle of a resume", cut_then(faults.html_page()), ["whole", RESUMED], "NotMedia"),
    Row("a coding that is none", serve={"headers": {"Content-Encoding": "identity"}}),
    Row("the coding of an upload", serve={"headers": {"Content-Encoding": "aws-chunked"}}),
    Row("larger than max_file_size", asked=WHOLE, error="TooLarge", settings=LIMIT, body=LARGER),
    Row("larger than max_file_size, in chunks", faults.chunked(), WHOLE, "TooLarge", settings=LIMIT, body=LARGER),
    Row("as large as max_file_size", asked=WHOLE, settings=LIMIT),
]

REDIRECT = [
    *(Row(f"{code} to a path", redirected(code, absolute=False)) for code in (301, 302, 303, 307, 308)),
    Row("302 to a URL", redirected(302, absolute=True)),
    Row("to itself", faults.redirect("film.mp4", times=FOREVER), WHOLE, "Refused"),
    Row(
        "ever further",
        Fault("further", lambda _f, r: Reply(302, {"Location": f"film.mp4?{r.number}"}), FOREVER),
        11,
        "Refused",
    ),
    *(
        Row(f"to {url[:20]}", faults.redirect(url, times=FOREVER), WHOLE, "Refused")
        for url in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/film.mp4",
            "gopher://127.0.0.1/",
            "data:video/mp4,film",
            "http://user:password@127.0.0.1/",
            "http://",
            "http://127.0.0.1:99999/",
            "http://[::1/",
            "http://127.0.0.1/a b",
        )
    ),
    Row("to nowhere", faults.status(302, times=FOREVER), WHOLE, "Refused"),
]

ROWS = [*STATUS, *RANGE, *VALIDATOR, *CHECKSUM, *CONTENT, *REDIRECT]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(ROWS, tmp_path_factory.mktemp("http"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
