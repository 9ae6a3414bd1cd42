"""Connections and bodies that break, stall or lie about their length: the file comes whole, or fails by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import faults, media
from tests.fault_table import CUT, RESUMED, Row, Table, cut_of, cut_then
from tests.faults import FOREVER, Fault, Reply

S3 = {"headers": {"x-amz-request-id": "4442587FB7D0A2F9"}}
IMPATIENT = {"transfer_stall_timeout": 0.4}
LARGE = media.mp4(2_000_000, seed=4)
SEGMENTS = {"transfer_segment_size": 256 << 10}

CLAIMS_AND_STALLS = Fault("claims", lambda f, r: replace(faults.huge_length().reply(f, r), ending="stall"), FOREVER)


def claims(length: object) -> Fault:
    """Content-Length is not that of the body; then the connection closes."""
    told = {"Content-Length": str(length)}
    return Fault("claims", lambda f, r: replace(f.reply(r).with_headers(told), ending="close"))


def empty(reply: Reply) -> Fault:
    return Fault("empty", lambda _f, _r: reply)


ROWS = [
    # It breaks in the middle: what came is kept, the rest is asked for.
    Row("reset in the middle", faults.reset_after(CUT, hold=True), ["whole", RESUMED]),
    Row("closed in the middle", faults.close_after(CUT, hold=True), ["whole", RESUMED]),
    Row("stalls in the middle", faults.stall_after(CUT), ["whole", RESUMED], settings=IMPATIENT),
    Row("chunks cut in the middle of one", cut_of(faults.chunked()), 2),  # of no known length: it may start over
    Row(
        "cut until patience ends, then resumed by the next run",
        cut_then(faults.close_after(0, times=2)),
        ["whole", RESUMED, RESUMED],
        "Truncated",
        later=[RESUMED],
    ),
    Row("stalls until patience ends", faults.stall_after(0, times=3), 3, "Unavailable", settings=IMPATIENT),
    # It never begins.
    Row("hangs up", faults.hang_up(), 2),
    Row("hangs up with a reset", faults.hang_up(reset=True), 2),
    Row("hangs up for ever", faults.hang_up(times=FOREVER), 6, "Unavailable"),
    Row("never answers", faults.never_answers(), 2, settings=IMPATIENT),
    Row("nobody listens", faults.redirect("http://127.0.0.1:1/", times=FOREVER), ["whole"] * 3, "Unavailable"),
    Row("a header that is too long", faults.huge_header(), ["whole"], "Refused"),
    Row("no HTTP at all", Fault("noise", lambda _f, _r: Reply(999999, {})), 1, "Refused"),
    # Its length is unknown, or a lie.
    Row("no length", faults.no_length()),
    Row("chunked", faults.chunked()),
    Row("no length and cut, which the MD5 tells", faults.no_length(CUT), ["whole", "whole"], serve=S3),
    Row("claims 10 TB", faults.huge_length(times=FOREVER), 3, "Full"),
    Row("claims 10 TB, then stalls", CLAIMS_AND_STALLS, 3, "Full", settings=IMPATIENT),
    Row("more than it claims, which the MD5 tells", claims(140_000), ["whole", "whole"], serve=S3),
    *(Row(f"claims {text!r} bytes", claims(text), ["whole"], "Refused") for text in ("-1", "many", "1, 2", "9" * 20)),
    Row("an empty body", faults.status(200), ["whole"], "NotMedia"),
    Row("an empty body in chunks", empty(Reply(framing="chunked")), ["whole"], "NotMedia"),
    Row("an empty body without length", empty(Reply(framing="close", ending="close")), ["whole"], "NotMedia"),
    # Nothing breaks, it is only slow.
    Row("trickles", faults.trickle(600_000)),
    # A large file in segments: what a helper could not fetch is fetched all the same.
    *(
        Row(
            f"segments, {fault}",
            [faults.trickle(4_000_000), fault],
            20,
            body=LARGE,
            settings=SEGMENTS,
        )
        for fault in (
            faults.behave(times=FOREVER),
            faults.reset_after(100_000, times=3),
            faults.close_after(100_000, times=3),
            faults.ignore_range(times=3),
            faults.range_start(1000, times=3),
            faults.range_start(-1000, times=3),
            faults.range_end(-1000, times=3),
            faults.other_etag(times=3),
            faults.changed(media.mp4(2_000_000, seed=5), honour_if_range=False),
            faults.status(503, times=3),
        )
    ),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(ROWS, tmp_path_factory.mktemp("wire"))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fault(row: Row, table: Table) -> None:
    table.check(row)
