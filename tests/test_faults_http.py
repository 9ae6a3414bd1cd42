"""Statuses, ranges, validators and redirects: a file comes whole and right, or fails by name."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests import faults, media
from tests.drivers import DRIVERS
from tests.fault_table import BODY, BY_DATE, CUT, ELSEWHERE, OTHER_BODY, RESUMED, Row, Section, Table, cut_of, cut_then
from tests.faults import FOREVER, Fault, File, Reply, Request
from tests.origin import LAST_MODIFIED

WHOLE = ["whole"]
TWICE = ["whole", "whole"]
RESTARTED = ["whole", RESUMED, "whole"]
NO_VALIDATOR = {"etag": None, "last_modified": None}
NEW_VERSION = "it is the new version, and no mixture"
SHORTER = media.mp4(CUT // 2, seed=1)
AS_LONG = media.mp4(CUT, seed=2)


def in_a_second(status: int) -> Fault:
    return Fault("later", lambda _f, _r: Reply(status, {"Retry-After": formatdate(time.time() + 1, usegmt=True)}))


def part_with(**headers: str | None) -> Fault:
    """206 with the bytes asked for, If-Range ignored, under other headers."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault("part", lambda f, r: f.reply(r.without("if-range")).with_headers(changed))


def redirected(code: int, *, to: str = "") -> Fault:
    """To the same file elsewhere: ``to`` is a scheme and host, or empty for a path only."""

    def reply(_file: File, request: Request) -> Reply:
        return Reply(code, {"Location": to.format(host=request.server) + ELSEWHERE}, b"moved")

    return Fault("redirect", reply, FOREVER)


STATUS = [
    *(Row(f"{code} once", faults.status(code, retry_after=0), TWICE) for code in (408, 425, 429, 500, 502, 503, 504)),
    Row("503 once, without Retry-After", faults.status(503), TWICE),
    Row("503 with Retry-After of a second", faults.status(503, retry_after=1), TWICE),
    Row("429 with Retry-After as a date", in_a_second(429), TWICE),
    Row("503 with Retry-After as a date that is past", faults.status(503, retry_after=LAST_MODIFIED), TWICE),
    *(
        Row(f"503 with an absurd Retry-After, {text!r}", faults.status(503, retry_after=text), TWICE)
        for text in ("soon", "-5", "1e3", "0x10", "", "Wed, 99 Foo 2026 99:99:99 GMT", "\xb2")
    ),
    Row("503 when asked for the rest", cut_then(faults.status(503, retry_after=0)), ["whole", RESUMED, RESUMED]),
    *(
        Row(f"{code} for ever", faults.status(code, retry_after=0, times=FOREVER), ["whole"] * 3, "Unavailable")
        for code in (429, 500, 502, 503, 504)
    ),
    Row("404", faults.status(404), WHOLE, "Gone"),
    Row("410", faults.status(410), WHOLE, "Gone"),
    Row("403, and the service has no other URL", faults.status(403), WHOLE, "UrlExpired"),
    *(Row(f"{code}", faults.status(code, body=b"no"), WHOLE, "Refused") for code in (400, 401, 402, 418, 501, 505)),
    *(Row(f"{code}, which is no file", faults.status(code), WHOLE, "Refused") for code in (201, 204, 300, 304)),
    Row("404 with a page when asked for the rest", cut_then(faults.html_page(404)), RESTARTED),
    Row("404 to both when asked for the rest", cut_then(faults.html_page(404, times=2)), RESTARTED, "Gone"),
]

RANGE = [
    Row("200: Range is ignored", cut_then(faults.ignore_range()), ["whole", RESUMED], replaced=True),
    Row("206 that begins too late", cut_then(faults.range_start(100)), RESTARTED),
    Row("206 that begins too early", cut_then(faults.range_start(-100)), RESTARTED),
    Row("206 that begins at 0", cut_then(faults.range_start(-CUT)), RESTARTED),
    Row(
        "206 that ends too early",
        cut_then(faults.range_end(-1000)),
        ["whole", RESUMED, f"{len(BODY) - 1000}- if etag"],
        note="what it brings is kept, and the rest asked for",
    ),
    Row("206 of another total", cut_then(faults.range_total(len(BODY) + 1)), RESTARTED),
    Row(
        "206 of an unknown total that ends behind the file's end",
        cut_then(part_with(Content_Range=f"bytes {CUT}-{len(BODY)}/*", Content_Length=str(len(BODY) - CUT + 1))),
        RESTARTED,
    ),
    Row("206 of an unknown total (`*`)", cut_then(faults.range_total(None)), ["whole", RESUMED]),
    Row("206 with more bytes than its Content-Range says", cut_then(faults.range_body(10)), RESTARTED),
    Row("206 with fewer bytes than its Content-Range says", cut_then(faults.range_body(-10)), RESTARTED),
    Row("206 without Content-Range", cut_then(faults.no_content_range()), RESTARTED),
    *(
        Row(f"206 with Content-Range `{text}`", cut_then(part_with(Content_Range=text)), RESTARTED)
        for text in ("bytes", f"bytes {CUT}-/{len(BODY)}", f"bytes */{len(BODY)}", f"lines {CUT}-9/10", "bytes 9-1/10")
    ),
    Row("206 as multipart/byteranges", cut_then(faults.multipart()), RESTARTED),
    Row("206 though the whole was asked for", Fault("part", lambda f, _r: f.part(0, CUT)), TWICE),
    Row("416 once, though the bytes are there", cut_then(faults.unsatisfiable()), RESTARTED),
    Row("416 for ever", cut_then(faults.unsatisfiable(times=FOREVER)), RESTARTED, "Refused"),
    Row("416 to the first request", faults.unsatisfiable(), WHOLE, "Refused"),
    Row(
        "416: the file is exactly as long as what is held, and another one",
        cut_then(faults.changed(AS_LONG, honour_if_range=False)),
        RESTARTED,
        wanted=[AS_LONG],
        note=NEW_VERSION,
    ),
    Row(
        "416: the file is shorter than what is held",
        cut_then(faults.changed(SHORTER, honour_if_range=False)),
        RESTARTED,
        wanted=[SHORTER],
        note=NEW_VERSION,
    ),
    Row(
        "the file is shorter than what is held, and If-Range honoured",
        cut_then(faults.changed(SHORTER)),
        ["whole", RESUMED],
        wanted=[SHORTER],
        replaced=True,
        note=NEW_VERSION,
    ),
]

VALIDATOR = [
    Row("Last-Modified, no ETag", cut_then(), ["whole", BY_DATE], serve={"etag": None}),
    Row("a weak ETag beside Last-Modified", cut_then(), ["whole", BY_DATE], serve={"etag": 'W/"1"'}),
    Row("a weak ETag and nothing else", cut_then(), TWICE, serve={"etag": 'W/"1"', "last_modified": None}),
    Row("an ETag without quotes", cut_then(), TWICE, serve={"etag": "naked", "last_modified": None}),
    Row("neither ETag nor Last-Modified", cut_then(), TWICE, serve=NO_VALIDATOR),
    Row("the ETag turns weak", cut_then(faults.weak_etag(times=FOREVER)), ["whole", RESUMED], replaced=True),
    Row("206 with another ETag, the same bytes", cut_then(faults.other_etag()), RESTARTED),
    Row("206 with a weak ETag", cut_then(part_with(ETag='W/"1"')), RESTARTED),
    Row("206 without the ETag", cut_then(part_with(ETag=None)), RESTARTED),
    Row("206 with an ETag without quotes", cut_then(part_with(ETag="naked")), RESTARTED),
    Row(
        "206 with another Last-Modified",
        cut_then(part_with(Last_Modified="Thu, 29 Jan 2026 13:54:20 GMT")),
        ["whole", BY_DATE, "whole"],
        serve={"etag": None},
    ),
    Row(
        "an ETag that is new with each answer, If-Range honoured",
        [cut_of(faults.changing_etag()), faults.changing_etag()],
        ["whole", RESUMED],
        replaced=True,
    ),
    Row(
        "an ETag that is new with each answer, If-Range ignored",
        [cut_of(faults.changing_etag()), faults.changing_etag(honour_if_range=False)],
        RESTARTED,
    ),
    Row(
        "the file changes meanwhile, If-Range honoured",
        cut_then(faults.changed(OTHER_BODY)),
        ["whole", RESUMED],
        wanted=[OTHER_BODY],
        replaced=True,
        note=NEW_VERSION,
    ),
    Row(
        "the file changes meanwhile, If-Range ignored",
        cut_then(faults.changed(OTHER_BODY, honour_if_range=False)),
        RESTARTED,
        wanted=[OTHER_BODY],
        note=NEW_VERSION,
    ),
]

REDIRECT = [
    *(Row(f"{code} to a path of the same host", redirected(code)) for code in (301, 302, 303, 307, 308)),
    Row("302 to a URL of the same host", redirected(302, to="http://{host}")),
    Row("to itself", faults.redirect("film.mp4", times=FOREVER), WHOLE, "Refused"),
    Row(
        "ever further",
        Fault("further", lambda _f, r: Reply(302, {"Location": f"film.mp4?{r.number}"}), FOREVER),
        11,
        "Refused",
    ),
    *(
        Row(f"to `{url}`", faults.redirect(url, times=FOREVER), WHOLE, "Refused")
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
    Row("without a Location", faults.status(302, times=FOREVER), WHOLE, "Refused"),
    Row(
        "to a port where nobody listens",
        faults.redirect("http://127.0.0.1:1/", times=FOREVER),
        ["whole"] * 3,
        "Unavailable",
    ),
]

SECTIONS = [
    Section("Statuses", STATUS, "The file's own URL is answered with a status that brings no file."),
    Section(
        "Ranges",
        RANGE,
        "The first answer breaks off after 60,000 of 150,000 bytes. Mirror asks for the rest with `Range` and "
        "`If-Range`, and this is what comes.",
    ),
    Section(
        "Validators",
        VALIDATOR,
        "Again the first answer breaks off. Whether the rest belongs to the same version is for the ETag, else for "
        "Last-Modified to tell.",
    ),
    Section("Redirects", REDIRECT),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(SECTIONS, tmp_path_factory.mktemp("http"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", [row for section in SECTIONS for row in section.rows], ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
