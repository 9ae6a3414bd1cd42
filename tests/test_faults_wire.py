"""Connections and bodies that break, stall or lie about their length: the file comes whole, or fails by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import faults, media
from tests.drivers import DRIVERS
from tests.fault_table import BODY, CUT, RESUMED, Row, Section, Table, cut_of, cut_then
from tests.faults import FOREVER, Fault, Reply

S3 = {"headers": {"x-amz-request-id": "4442587FB7D0A2F9"}}
IMPATIENT = {"transfer_connect_timeout": 4, "transfer_stall_timeout": 4}
LARGE = media.mp4(2_000_000, seed=4)
OTHER_LARGE = media.mp4(2_000_000, seed=5)
NO_FORMAT = media.blob(len(BODY))
SEGMENTS = {"transfer_segment_size": 256 << 10}

CLAIMS_AND_STALLS = Fault("claims", lambda f, r: replace(faults.huge_length().reply(f, r), ending="stall"), FOREVER)


def claims(length: object) -> Fault:
    """Content-Length is not that of the body; then the connection closes."""
    told = {"Content-Length": str(length)}
    return Fault("claims", lambda f, r: replace(f.reply(r).with_headers(told), ending="close"))


def empty(reply: Reply) -> Fault:
    return Fault("empty", lambda _f, _r: reply)


def old_http(fault: Fault) -> Fault:
    """The same over HTTP/1.0, with Content-Length: each answer has a connection of its own."""

    def reply(file: faults.File, request: faults.Request) -> Reply:
        made = fault.reply(file, request)
        return replace(made.with_headers({"Content-Length": str(len(made.body))}), framing="close", ending="close")

    return Fault(f"HTTP/1.0 {fault}", reply, fault.times)


BREAKS = [
    Row("reset in the middle", faults.reset_after(CUT, hold=True), ["whole", RESUMED]),
    Row("closed in the middle", faults.close_after(CUT, hold=True), ["whole", RESUMED]),
    Row("reset after the header", faults.reset_after(0), 2),
    Row("closed a byte before the end", faults.close_after(len(BODY) - 1), 2),
    Row("chunked, and cut in the middle of a chunk", cut_of(faults.chunked()), 2, note="of unknown length"),
    Row("stalls in the middle", faults.stall_after(CUT), ["whole", RESUMED], settings=IMPATIENT),
    Row(
        "the header of a chunk that never ends, a byte now and then",
        faults.framing_without_end(times=FOREVER),
        3,
        "Unavailable",
        settings=IMPATIENT,
    ),
    Row("stalls for ever", faults.stall_after(0, times=3), 3, "Unavailable", settings=IMPATIENT),
    Row(
        "cut again and again, without progress",
        cut_then(faults.close_after(0, times=2)),
        ["whole", RESUMED, RESUMED],
        "Truncated",
        later=[RESUMED],
    ),
]

BEGINS = [
    Row("closed before any answer", faults.hang_up(), 2),
    Row("reset before any answer", faults.hang_up(reset=True), 2),
    Row("closed before any answer, for ever", faults.hang_up(times=FOREVER), 6, "Unavailable"),
    Row("never answered", faults.never_answers(), 2, settings=IMPATIENT),
    Row("a header line of 100 KB", faults.huge_header(100_000, times=FOREVER), ["whole"] * 3, "Unavailable"),
    Row("a header line of 10 KB", faults.huge_header(10_000)),
    Row("no HTTP at all", Fault("noise", lambda _f, _r: Reply(999999, {})), 2),
    Row("no HTTP at all, for ever", Fault("noise", lambda _f, _r: Reply(999999, {}), FOREVER), 3, "Unavailable"),
]

LENGTH = [
    Row("no Content-Length", faults.no_length()),
    Row("chunked", faults.chunked()),
    Row("HTTP/1.0 with a length", old_http(faults.behave())),
    Row(
        "HTTP/1.0 with a length, closed in the middle",
        [cut_of(old_http(faults.behave())), old_http(faults.behave(times=FOREVER))],
        ["whole", RESUMED],
    ),
    Row("no length and cut, which S3's MD5 tells", faults.no_length(CUT), ["whole", "whole"], serve=S3),
    Row("no length and cut, which a film's structure tells", faults.no_length(CUT), ["whole", "whole"]),
    Row("the same for ever", faults.no_length(CUT, times=FOREVER), ["whole"] * 3, "Truncated"),
    Row(
        "no length and cut, no checksum, and no format that is known",
        faults.no_length(CUT),
        wanted=[NO_FORMAT[:CUT]],
        body=NO_FORMAT,
        note="**not noticed**: nothing on the wire tells, and `verified` in the manifest is empty",
    ),
    Row("a Content-Length of 10 TB", faults.huge_length(times=FOREVER), 3, "Full"),
    Row("a Content-Length of 10 TB, then a stall", CLAIMS_AND_STALLS, 3, "Full", settings=IMPATIENT),
    Row("more bytes than Content-Length, which S3's MD5 tells", claims(140_000), 2, serve=S3),
    *(Row(f"`Content-Length: {text}`", claims(text), 2) for text in ("-1", "many", "1, 2", "9" * 20)),
    Row("an empty body", faults.status(200), ["whole"], "NotMedia"),
    Row("an empty body in chunks", empty(Reply(framing="chunked")), ["whole"], "NotMedia"),
    Row("an empty body without length", empty(Reply(framing="close", ending="close")), ["whole"], "NotMedia"),
    Row("a slow body", faults.trickle(600_000)),
]

FIRST = faults.trickle(4_000_000)
SEGMENT = [
    Row("nothing", [FIRST, faults.behave(times=FOREVER)], 20, body=LARGE, settings=SEGMENTS),
    Row("resets", [FIRST, faults.reset_after(100_000, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("closes", [FIRST, faults.close_after(100_000, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("200: Range is ignored", [FIRST, faults.ignore_range(times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("206 that begins too late", [FIRST, faults.range_start(1000, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("206 that begins too early", [FIRST, faults.range_start(-1000, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("206 that ends too early", [FIRST, faults.range_end(-1000, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("206 with another ETag", [FIRST, faults.other_etag(times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row("503", [FIRST, faults.status(503, times=3)], 20, body=LARGE, settings=SEGMENTS),
    Row(
        "the file changes meanwhile, If-Range ignored",
        [FIRST, faults.changed(OTHER_LARGE, honour_if_range=False)],
        20,
        body=LARGE,
        settings=SEGMENTS,
        wanted=[LARGE, OTHER_LARGE],
        note="the old version or the new, and no mixture",
    ),
]

SECTIONS = [
    Section("An answer that breaks off", BREAKS, "The file has 150,000 bytes; the middle is after 60,000."),
    Section("An answer that does not begin", BEGINS),
    Section("Lengths", LENGTH),
    Section(
        "A large file in segments",
        SEGMENT,
        "One request brings the file from its start, further ones fetch segments of 256 KiB from its end. What goes "
        "wrong does so with the first three of these.",
    ),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(SECTIONS, tmp_path_factory.mktemp("wire"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", [row for section in SECTIONS for row in section.rows], ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
