"""The origin does what its names say, so that a failing test of the product can be trusted."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import faults, media
from tests.faults import FOREVER, Fault
from tests.origin import LAST_MODIFIED, Origin, Reply, Request, answer, documented_example, task

BODY = media.blob(50_000)
MD5 = f'"{hashlib.md5(BODY).hexdigest()}"'
PATH = "/file.bin"
LATER = {"Range": "bytes=1000-1999"}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as served:
        yield served


class Got:
    """An answer read whole."""

    def __init__(self, connection: HTTPConnection) -> None:
        response = connection.getresponse()
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.whole = True
        try:
            self.body = response.read()
        except IncompleteRead as error:
            self.body, self.whole = error.partial, False
        finally:
            response.close()


def dial(origin: Origin) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", urlsplit(origin.url).port or 0, timeout=30)


def get(
    origin: Origin, path: str = PATH, headers: Mapping[str, str] | None = None, method: str = "GET", body: str = ""
) -> Got:
    """One request on a connection of its own."""
    with closing(dial(origin)) as connection:
        connection.request(method, path, body or None, dict(headers or {}))
        return Got(connection)


def ask_api(origin: Origin, prompt_id: str) -> Any:
    got = get(origin, f"/getTaskInfo?promptId={prompt_id}", {"Authorization": origin.token})
    return json.loads(got.body)


def raw(origin: Origin, path: str = PATH) -> socket.socket:
    """A socket on which a request for `path` was sent."""
    sock = socket.create_connection(("127.0.0.1", urlsplit(origin.url).port or 0), timeout=30)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


def serving() -> int:
    """How many threads origins have; others of this process come and go."""
    return sum(thread.name.startswith("origin") for thread in threading.enumerate())


def drain(sock: socket.socket) -> tuple[bytes, bool]:
    """All that still comes, without the head, and whether an RST ended it."""
    came = b""
    try:
        while piece := sock.recv(1 << 16):
            came += piece
    except ConnectionResetError:
        return came.partition(b"\r\n\r\n")[2], True
    return came.partition(b"\r\n\r\n")[2], False


# A file that behaves


def test_a_file_comes_with_its_validators_on_one_connection(origin: Origin) -> None:
    assert origin.add(PATH, BODY) == origin.url + PATH
    with closing(dial(origin)) as connection:
        for method, body in (("GET", BODY), ("HEAD", b""), ("GET", BODY)):
            connection.request(method, PATH)
            got = Got(connection)
            assert (got.status, got.body) == (200, body)
            assert got.headers == {
                "accept-ranges": "bytes",
                "content-length": str(len(BODY)),
                "content-type": "application/octet-stream",
                "etag": MD5,
                "last-modified": LAST_MODIFIED,
            }
    assert [(r.method, r.number, r.status, r.bytes_sent, r.connection) for r in origin.requests] == [
        ("GET", 1, 200, len(BODY), 1),
        ("HEAD", 2, 200, 0, 1),
        ("GET", 3, 200, len(BODY), 1),
    ]


def test_headers_are_what_the_test_says(origin: Origin) -> None:
    origin.add("/a.png", BODY, etag=None, last_modified=None, headers={"x-amz-checksum-sha256": "abc="})
    got = get(origin, "/a.png")
    assert got.headers["content-type"] == "image/png"
    assert got.headers["x-amz-checksum-sha256"] == "abc="
    assert not {"etag", "last-modified"} & got.headers.keys()


def test_paths_are_found_as_sent_and_decoded(origin: Origin) -> None:
    origin.add("/ü b.png", b"named")
    origin.add("/s.png", b"any query")
    origin.add("/s.png?sig=1", b"this query")
    assert get(origin, "/%C3%BC%20b.png").body == b"named"
    assert get(origin, "/s.png?sig=2").body == b"any query"
    assert get(origin, "/s.png?sig=1").body == b"this query"
    assert get(origin, "/nowhere").status == 404
    assert [r.query for r in origin.requests] == ["", "sig=2", "sig=1", ""]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-", 0, 50_000),
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=49990-60000", 49_990, 50_000),
        ("bytes=-10", 49_990, 50_000),
        ("bytes=-60000", 0, 50_000),
    ],
)
def test_a_range_brings_a_part(origin: Origin, asked: str, first: int, end: int) -> None:
    origin.add(PATH, BODY)
    got = get(origin, headers={"Range": asked})
    assert (got.status, got.body) == (206, BODY[first:end])
    assert got.headers["content-range"] == f"bytes {first}-{end - 1}/50000"
    assert got.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("asked", ["bytes=5-1", "bytes=0-1,4-5", "bytes=-", "lines=1-2"])
def test_a_range_that_is_none_brings_the_whole(origin: Origin, asked: str) -> None:
    origin.add(PATH, BODY)
    got = get(origin, headers={"Range": asked})
    assert (got.status, got.body) == (200, BODY)


@pytest.mark.parametrize("asked", ["bytes=50000-", "bytes=-0"])
def test_a_range_past_the_end_brings_416(origin: Origin, asked: str) -> None:
    origin.add(PATH, BODY)
    got = get(origin, headers={"Range": asked})
    assert (got.status, got.headers["content-range"]) == (416, "bytes */50000")


@pytest.mark.parametrize(
    ("etag", "validator", "status"),
    [
        ("md5", MD5, 206),
        ("md5", LAST_MODIFIED, 206),
        ("md5", '"old"', 200),
        ("md5", "Tue, 27 Jan 2026 10:03:40 GMT", 200),
        ('W/"weak"', 'W/"weak"', 200),
        (None, '"old"', 200),
    ],
)
def test_if_range_guards_the_part(origin: Origin, etag: str | None, validator: str, status: int) -> None:
    origin.add(PATH, BODY, etag=etag)
    assert get(origin, headers={**LATER, "If-Range": validator}).status == status


def test_if_match_guards_the_part(origin: Origin) -> None:
    origin.add(PATH, BODY)
    assert get(origin, headers={**LATER, "If-Match": MD5}).status == 206
    assert get(origin, headers={**LATER, "If-Match": '"old"'}).status == 412


# Faults


def test_faults_come_in_order_and_then_the_file_behaves(origin: Origin) -> None:
    script = [faults.behave(), faults.status(503, retry_after=2, times=2), faults.html_page()]
    origin.add(PATH, BODY, fault=script)
    answers = [get(origin) for _ in range(6)]
    assert [got.status for got in answers] == [200, 503, 503, 200, 200, 200]
    assert answers[1].headers["retry-after"] == "2"
    assert answers[3].headers["content-type"].startswith("text/html")
    assert [got.body == BODY for got in answers] == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("fault", "came", "reset"),
    [
        (faults.reset_after(20_000), BODY[:20_000], True),
        (faults.reset_after(0), b"", True),
        (faults.close_after(20_000), BODY[:20_000], False),
        (faults.no_length(), BODY, False),
        (faults.no_length(20_000), BODY[:20_000], False),
        (faults.huge_length(), BODY, False),
        (faults.close_idle(), BODY, False),
        (faults.hang_up(), b"", False),
        (faults.hang_up(reset=True), b"", True),
    ],
    ids=str,
)
def test_the_connection_ends_as_named(origin: Origin, fault: Fault, came: bytes, reset: bool) -> None:
    origin.add(PATH, BODY, fault=fault)
    with raw(origin) as sock:
        assert drain(sock) == (came, reset)
    assert origin.body_bytes(PATH) == len(came)
    assert get(origin).body == BODY


@pytest.mark.parametrize(
    ("fault", "end"), [(faults.reset_after(5, hold=True), 5), (faults.hold_after(5), None)], ids=str
)
def test_a_held_body_waits_for_its_release(origin: Origin, fault: Fault, end: int | None) -> None:
    url = origin.add(PATH, BODY, fault=[fault, faults.close_after(len(BODY))])
    with raw(origin) as sock:
        origin.wait_bytes(PATH, 5)
        time.sleep(0.02)
        assert origin.body_bytes(PATH) == 5
        origin.release(url)
        if end:
            assert drain(sock) == (BODY[:end], True)
        else:
            origin.wait_bytes(PATH, len(BODY))


def test_the_origin_closes_under_what_stalls_holds_trickles_and_idles() -> None:
    with Origin() as origin:
        script = [faults.stall_after(100), faults.hold_after(100), faults.trickle(10), faults.never_answers()]
        origin.add(PATH, BODY, fault=script)
        origin.add("/big", bytes(1 << 25))
        before = serving() - 1
        socks = [raw(origin) for _ in script] + [raw(origin, "/big"), raw(origin, "/nowhere")]
        origin.wait_for(lambda: origin.count() == 6 and origin.body_bytes(PATH) > 200)
        assert serving() == before + 7
        began = time.monotonic()
    assert time.monotonic() - began < 60, "the trickle would take more than an hour"
    assert serving() == before
    for sock in socks:
        sock.close()


def test_a_client_that_leaves_ends_its_thread(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=faults.stall_after(100))
    before = serving()
    raw(origin).close()
    origin.wait_for(lambda: origin.count() == 1 and serving() == before)
    assert origin.requests[0].ended is not None


def test_a_trickle_takes_its_time(origin: Origin) -> None:
    origin.add(PATH, BODY[:300], fault=faults.trickle(1000))
    began = time.monotonic()
    assert get(origin).body == BODY[:300]
    assert 0.2 < time.monotonic() - began < 25


def test_a_connection_closed_on_reuse_is_on_record(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=faults.close_on_reuse())
    with raw(origin) as sock:
        origin.wait_for(lambda: origin.requests[-1:] != [] and origin.requests[-1].ended is not None)
        sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert drain(sock) == (BODY, False)
    assert [(r.connection, r.status) for r in origin.requests] == [(1, 200), (1, 0)]
    assert get(origin).body == BODY


def test_chunks_are_right_or_end_too_soon(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=[faults.chunked(), faults.chunked_cut_after(10_000), faults.chunked_cut_after(8192)])
    got = get(origin)
    assert (got.whole, got.body, "content-length" in got.headers) == (True, BODY, False)
    one = b"2000\r\n" + BODY[:8192] + b"\r\n"
    for wire in (one + b"2000\r\n" + BODY[8192:10_000], one):
        with raw(origin) as sock:
            assert drain(sock) == (wire, False)
    assert [r.bytes_sent for r in origin.requests] == [50_000, 10_000, 8192]


@pytest.mark.parametrize(
    ("fault", "status", "content_range", "body"),
    [
        (faults.ignore_range(), 200, None, BODY),
        (faults.range_start(+10), 206, "bytes 1010-1999/50000", BODY[1010:2000]),
        (faults.range_start(-10), 206, "bytes 990-1999/50000", BODY[990:2000]),
        (faults.range_end(+10), 206, "bytes 1000-2009/50000", BODY[1000:2010]),
        (faults.range_end(-10), 206, "bytes 1000-1989/50000", BODY[1000:1990]),
        (faults.range_total(60_000), 206, "bytes 1000-1999/60000", BODY[1000:2000]),
        (faults.range_total(None), 206, "bytes 1000-1999/*", BODY[1000:2000]),
        (faults.range_body(-10), 206, "bytes 1000-1999/50000", BODY[1000:1990]),
        (faults.range_body(+2), 206, "bytes 1000-1999/50000", BODY[1000:2000] + b"\0\0"),
        (faults.no_content_range(), 206, None, BODY[1000:2000]),
        (faults.unsatisfiable(), 416, "bytes */50000", None),
        (faults.other_etag(), 206, "bytes 1000-1999/50000", BODY[1000:2000]),
        (faults.weak_etag(), 206, "bytes 1000-1999/50000", BODY[1000:2000]),
        (faults.redirect("/else", 307), 307, None, b""),
    ],
    ids=str,
)
def test_a_range_is_answered_as_named(
    origin: Origin, fault: Fault, status: int, content_range: str | None, body: bytes | None
) -> None:
    origin.add(PATH, BODY, fault=fault)
    got = get(origin, headers=LATER)
    assert (got.status, got.headers.get("content-range")) == (status, content_range)
    assert got.whole
    assert body is None or got.body == body
    assert got.headers["content-length"] == str(len(got.body))


def test_a_multipart_answer_wraps_the_part(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=faults.multipart())
    got = get(origin, headers=LATER)
    assert (got.status, got.headers["content-type"]) == (206, "multipart/byteranges; boundary=cut")
    assert got.body == b"--cut\r\nContent-Range: bytes 1000-1999/50000\r\n\r\n" + BODY[1000:2000] + b"\r\n--cut--\r\n"


def test_validators_change_as_named(origin: Origin) -> None:
    resume = {**LATER, "If-Range": MD5}
    new = media.blob(50_000, seed=1)
    for fault, status, etag, body in [
        (faults.other_etag('"o"'), 206, '"o"', BODY[1000:2000]),
        (faults.weak_etag(), 200, f"W/{MD5}", BODY),
        (faults.changing_etag(), 200, '"v1"', BODY),
        (faults.changing_etag(honour_if_range=False), 206, '"v1"', BODY[1000:2000]),
        (faults.changed(new), 200, f'"{hashlib.md5(new).hexdigest()}"', new),
        (faults.changed(new, honour_if_range=False), 206, f'"{hashlib.md5(new).hexdigest()}"', new[1000:2000]),
    ]:
        origin.add(PATH, BODY, fault=fault)
        got = get(origin, headers=resume)
        assert (got.status, got.headers["etag"], got.body) == (status, etag, body), fault
    assert get(origin, headers={**LATER, "If-Range": LAST_MODIFIED}).headers["last-modified"] != LAST_MODIFIED


def test_bytes_are_wrong_as_named(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=[faults.flipped_byte(), faults.gzipped()])
    flipped, packed = get(origin), get(origin)
    assert [n for n in range(50_000) if flipped.body[n] != BODY[n]] == [25_000]
    assert (len(flipped.body), flipped.headers["etag"]) == (50_000, MD5)
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == BODY


def test_headers_are_huge_as_named(origin: Origin) -> None:
    origin.add(PATH, BODY, fault=[faults.huge_header(), faults.huge_length()])
    for expected in (b"X-Huge: " + b"x" * (1 << 17), b"Content-Length: 10000000000000\r\n"):
        with raw(origin) as sock:
            origin.wait_for(lambda: origin.requests[-1:] != [])
            came = b""
            while b"\r\n\r\n" not in came:
                came += sock.recv(1 << 16)
        assert expected in came


# The API


def test_answers_follow_their_script(origin: Origin) -> None:
    origin.prompt("p", [answer(task("p", 10)), b"<html>", Reply(502), lambda n: answer(None, 510, f"number {n}")])
    url, headers = "/getTaskInfo?promptId=p", {"Authorization": origin.token}
    got = [get(origin, url, headers) for _ in range(5)]
    assert json.loads(got[0].body) == answer(task("p", 10))
    assert (got[1].status, got[1].body) == (200, b"<html>")
    assert got[2].status == 502
    assert [json.loads(g.body)["msg"] for g in got[3:]] == ["number 4", "number 5"]
    assert [r.number for r in origin.api_requests] == [1, 2, 3, 4, 5]
    assert origin.media_requests == []


def test_the_token_is_checked_and_unknown_prompts_have_no_data(origin: Origin) -> None:
    origin.prompt("p", answer(task("p")))
    assert json.loads(get(origin, "/getTaskInfo?promptId=p").body)["code"] == 401
    assert ask_api(origin, "q") == {"code": 900, "msg": "no data", "data": None}
    assert ask_api(origin, "p")["code"] == 200
    origin.authorization = f"Bearer {origin.token}"
    assert ask_api(origin, "p")["code"] == 401
    assert [r.number for r in origin.requests] == [0, 0, 1, 0]


def test_an_answer_can_be_faulty(origin: Origin) -> None:
    origin.prompt("a/b", answer(task("a/b")), fault=[faults.close_after(10), faults.hold_after(5, times=FOREVER)])
    headers = {"Authorization": origin.token}
    assert not get(origin, "/getTaskInfo?promptId=a%2Fb", headers).whole
    origin.release("a/b")
    assert get(origin, "/getTaskInfo?promptId=a%2Fb", headers).whole


def test_other_endpoints_and_the_history(origin: Origin) -> None:
    def echo(request: Request) -> dict[str, Any]:
        return answer(request.body.decode(), msg=request.method)

    origin.handle("/echo", echo)
    headers = {"Authorization": origin.token}
    assert json.loads(get(origin, "/echo", headers, "POST", "hi").body) == answer("hi", msg="POST")
    origin.history([{"id": n} for n in range(25)])
    for body, expected in [("", range(20)), ('{"page": 2}', range(20, 25)), ("page=3&pageSize=4", range(8, 12))]:
        got = get(origin, "/newImageHistory", headers, "POST", body)
        assert [row["id"] for row in json.loads(got.body)["data"]] == list(expected)
    assert len(origin.api_requests) == 4


def test_the_documented_example_is_served(origin: Origin) -> None:
    prompt_id, bodies = documented_example(origin)
    root = ask_api(origin, prompt_id)["data"]
    assert list(root) == ["taskId", "promptId", "taskType", "thumbFileUrl", "state", "reason", "imageList", "taskList"]
    assert [child["promptId"] for child in root["taskList"]] == [
        "0fdd439fe1a94c8aa3ddaca3cdf50fe5",
        "5a6ec746cfaf424da38350a323d0fb52",
    ]
    assert root["imageList"] == [image for child in root["taskList"] for image in child["imageList"]]
    urls = {image[key] for image in root["imageList"] for key in ("path", "origin")}
    assert {url.rpartition("/")[2]: get(origin, url.removeprefix(origin.url)).body for url in urls} == bodies
    assert origin.count("/faceWap/") == 3
    assert origin.body_bytes(origin.url + "/faceWap/") == sum(map(len, bodies.values()))
    origin.clear()
    assert origin.requests == []


def test_waiting_in_vain_says_what_was_seen(origin: Origin) -> None:
    origin.add(PATH, BODY)
    get(origin)
    with pytest.raises(TimeoutError, match=r"GET /file\.bin 200 50000"):
        origin.wait_bytes(PATH, 50_001, timeout=0.1)


# Media


def test_media_bodies_are_the_size_asked_for_and_differ_by_seed() -> None:
    for make in (media.jpeg, media.webp, media.mp4):
        for size in (1000, 70_000, 200_002):
            body = make(size=size)
            assert len(body) == size
            assert body == make(size=size)
            assert body != make(size=size, seed=1)
        with pytest.raises(ValueError, match="bytes cannot be made"):
            make(size=20)
    assert media.png(seed=1) != media.png(seed=2)


def test_png_chunks_add_up() -> None:
    body = media.png(5, 7)
    at, kinds = 8, []
    while at < len(body):
        length, kind = struct.unpack_from(">I4s", body, at)
        assert zlib.crc32(body[at + 4 : at + 8 + length]) == struct.unpack_from(">I", body, at + 8 + length)[0]
        kinds.append(kind)
        at += 12 + length
    assert (at, kinds) == (len(body), [b"IHDR", b"IDAT", b"IEND"])
    assert struct.unpack_from(">II", body, 16) == (5, 7)


def test_mp4_boxes_and_webp_chunks_add_up() -> None:
    body = media.mp4(5000)
    at, kinds = 0, []
    while at < len(body):
        length, kind = struct.unpack_from(">I4s", body, at)
        kinds.append(kind)
        at += length
    assert (at, kinds) == (len(body), [b"ftyp", b"moov", b"mdat"])
    picture = media.webp(size=5000)
    assert struct.unpack_from("<4sI4s4s", picture) == (b"RIFF", 4992, b"WEBP", b"VP8L")
    assert media.jpeg(size=5000)[:2] + media.jpeg(size=5000)[-2:] == b"\xff\xd8\xff\xd9"
