"""Bodies of the right length that are not the file: wrong bytes, pages, codings, and files that are too large."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping

import pytest

from tests import faults, media
from tests.drivers import DRIVERS
from tests.fault_table import BODY, CUT, RESUMED, Row, Section, Table, cut_of, cut_then
from tests.faults import FOREVER, Fault, Reply

WHOLE = ["whole"]
TWICE = ["whole", "whole"]
RESTARTED = ["whole", RESUMED, "whole"]
LARGER = media.mp4(len(BODY) + 1, seed=6)
LIMIT = {"transfer_max_file_size": len(BODY)}
WRONG = bytes(byte ^ (0xFF * (at == len(BODY) // 2)) for at, byte in enumerate(BODY))


def s3(etag: str | None = "md5", **headers: str) -> Mapping[str, object]:
    """An object as S3 serves it; underscores in the names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"etag": etag, "headers": {"x-amz-request-id": "4442587FB7D0A2F9", **named}}


def sum_of(name: str, body: bytes = BODY) -> str:
    """A digest as ``x-amz-checksum-*`` states it."""
    digest = zlib.crc32(body).to_bytes(4, "big") if name == "crc32" else hashlib.new(name, body).digest()
    return base64.b64encode(digest).decode()


def page(body: bytes, content_type: str) -> Fault:
    return Fault("page", lambda _f, _r: Reply(200, {"Content-Type": content_type}, body))


CHECKSUM = [
    Row("S3's ETag is the MD5", faults.flipped_byte(), TWICE, serve=s3()),
    *(
        Row(name, faults.flipped_byte(), TWICE, serve=serve)
        for name, serve in {
            "`x-amz-checksum-sha256`": s3('"opaque"', x_amz_checksum_sha256=sum_of("sha256")),
            "`x-amz-checksum-sha1`": s3('"opaque"', x_amz_checksum_sha1=sum_of("sha1")),
            "`x-amz-checksum-crc32`": s3('"opaque"', x_amz_checksum_crc32=sum_of("crc32")),
            "`x-amz-checksum-sha256` of type FULL_OBJECT": s3(
                '"opaque"', x_amz_checksum_sha256=sum_of("sha256"), x_amz_checksum_type="FULL_OBJECT"
            ),
            "the MD5, and SSE-S3": s3(x_amz_server_side_encryption="AES256"),
        }.items()
    ),
    Row(
        "the byte is wrong for ever", faults.flipped_byte(times=FOREVER), ["whole"] * 3, "ChecksumMismatch", serve=s3()
    ),
    Row("the byte is in what is resumed", cut_then(faults.flipped_byte(CUT + 9)), RESTARTED, serve=s3()),
    Row("the byte is in what was held", cut_of(faults.flipped_byte(9)), RESTARTED, serve=s3()),
    Row(
        "nobody states a checksum",
        faults.flipped_byte(),
        WHOLE,
        wanted=[WRONG],
        serve={"etag": '"opaque"'},
        note="**not noticed**: `verified` in the manifest says `length` only",
    ),
]

NO_CHECKSUM = [
    *(
        Row(name, serve=serve)
        for name, serve in {
            "an ETag of 32 hex digits that is not S3's": {"etag": f'"{32 * "0"}"'},
            "the ETag of a multipart upload": s3(f'"{32 * "0"}-2"'),
            "an object encrypted with KMS": s3(f'"{32 * "0"}"', x_amz_server_side_encryption="aws:kms"),
            "an object encrypted with KMS twice": s3(f'"{32 * "0"}"', x_amz_server_side_encryption="aws:kms:dsse"),
            "an object encrypted with a customer's key": s3(
                f'"{32 * "0"}"', x_amz_server_side_encryption_customer_algorithm="AES256"
            ),
            "a weak ETag of 32 hex digits": s3(f'W/"{32 * "0"}"'),
        }.items()
    ),
    *(
        Row(name, serve=s3('"opaque"', **headers))
        for name, headers in {
            "a checksum of checksums (`…-2`)": {"x_amz_checksum_sha256": f"{sum_of('sha256', b'')}-2"},
            "a checksum of type COMPOSITE": {
                "x_amz_checksum_sha256": sum_of("sha256", b""),
                "x_amz_checksum_type": "COMPOSITE",
            },
            "a checksum that is no base64": {"x_amz_checksum_sha256": "!"},
            "a checksum of an unknown kind": {"x_amz_checksum_crc64nvme": sum_of("crc32", b"")},
        }.items()
    ),
]

CONTENT = [
    Row("an HTML page with status 200", faults.html_page(), WHOLE, "NotMedia"),
    Row(
        "an XML error with status 200",
        page(b"<?xml version='1.0'?>\n<Error><Code>A</Code></Error>", "application/xml"),
        WHOLE,
        "NotMedia",
    ),
    Row("a JSON error with status 200", page(b'{"error": "no such file"}', "application/json"), WHOLE, "NotMedia"),
    Row("an HTML page that calls itself a film", page(b"\n <html><body>Sorry</body>", "video/mp4"), WHOLE, "NotMedia"),
    Row("an HTML page in place of the rest", cut_then(faults.html_page()), ["whole", RESUMED], "NotMedia"),
    Row("a film that is cut off, of the length that was told", page(BODY[:CUT], "video/mp4"), WHOLE, "NotMedia"),
    Row("bytes after a picture's end", body=media.png() + b"and more"),
    Row("gzip, though identity was asked for", faults.gzipped(), WHOLE, "NotMedia"),
    Row("`Content-Encoding: identity`", serve={"headers": {"Content-Encoding": "identity"}}),
    Row(
        "`Content-Encoding: aws-chunked`, left over from an upload",
        serve={"headers": {"Content-Encoding": "aws-chunked"}},
    ),
    Row("a byte larger than `transfer.max_file_size`", asked=WHOLE, error="TooLarge", settings=LIMIT, body=LARGER),
    Row("the same in chunks, of unknown length", faults.chunked(), WHOLE, "TooLarge", settings=LIMIT, body=LARGER),
    Row("exactly as large as `transfer.max_file_size`", asked=WHOLE, settings=LIMIT),
]

SECTIONS = [
    Section(
        "A wrong byte", CHECKSUM, "One byte is wrong and the length is right. It is found by what the store states."
    ),
    Section("What is no checksum of the file", NO_CHECKSUM, "Nothing is wrong here, and must not be taken for it."),
    Section("What is no media", CONTENT),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(SECTIONS, tmp_path_factory.mktemp("content"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", [row for section in SECTIONS for row in section.rows], ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
