"""What is sent as a request's head, and what is taken for an answer's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mirror.h1 import CutShort, Unreadable, Unsendable
from mirror.h1.chunks import Chunks
from mirror.h1.head import LONGEST_HEAD, LONGEST_LINE, Headers, check_begun, common_lines, parse, request
from tests.properties import examples

COMMON = common_lines("h.example", {"User-Agent": "x"})


def test_a_request_is_these_bytes() -> None:
    sent = request("/a%20b?c=[d]&e", COMMON, {"Range": "bytes=1-"})
    assert sent == (b"GET /a%20b?c=[d]&e HTTP/1.1\r\nHost: h.example\r\nUser-Agent: x\r\nRange: bytes=1-\r\n\r\n")


def test_letters_beyond_ascii_go_as_utf_8() -> None:
    assert request("/\u00e9", COMMON, {"X": "\u00e9"}).count("\u00e9".encode()) == 2


@pytest.mark.parametrize("target", ["", "a", "*", "/a b", "/\r\n", "/\n", "/\0", "/\x7f", "/\t", "/#x", "/\udcff"])
def test_no_target_can_say_more_than_a_path(target: str) -> None:
    with pytest.raises(Unsendable):
        request(target, COMMON, {})


@pytest.mark.parametrize("text", ["\r\n", "\n", "\r", "a\r\nB: c", "\0", "\x7f", "a\nb", "\x1b", "\udc80"])
def test_no_field_can_say_more_than_one_line(text: str) -> None:
    for headers in ({"A": text}, {text: "a"}):
        with pytest.raises(Unsendable):
            request("/", COMMON, headers)
    with pytest.raises(Unsendable):
        common_lines(text, {})


@pytest.mark.parametrize("name", ["", " ", "A ", "A:", "A B", "\u00e9", "(a)"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(Unsendable):
        request("/", COMMON, {name: "a"})


def raw(*lines: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([first, *lines]).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Content-Length: 5"], (5, False, True)),
        (["content-LENGTH:5 "], (5, False, True)),
        (["Content-Length: 5", "Content-Length: 5"], (5, False, True)),
        (["Content-Length: 5, 5"], (5, False, True)),
        (["Content-Length: 0"], (0, False, True)),
        (["Content-Length: 5", "Connection: close"], (5, False, False)),
        (["Content-Length: 5", "Connection: keep-alive", "Connection: X, Close"], (5, False, False)),
        ([], (None, False, False)),
        (["Transfer-Encoding: chunked"], (None, True, True)),
        (["Transfer-Encoding: Chunked "], (None, True, True)),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], (None, True, False)),
    ],
)
def test_the_framing(lines: list[str], expected: tuple[int | None, bool, bool]) -> None:
    head = parse(raw(*lines))
    assert (head.length, head.is_chunked, head.is_lasting) == expected


@pytest.mark.parametrize(
    ("first", "lines", "expected"),
    [
        ("HTTP/1.0 200 OK", ["Content-Length: 5"], (5, False)),
        ("HTTP/1.0 200 OK", ["Content-Length: 5", "Connection: Keep-Alive"], (5, True)),
        ("HTTP/1.0 200 OK", [], (None, False)),
        ("HTTP/1.1 204 No Content", ["Content-Length: 5"], (0, True)),
        ("HTTP/1.1 304 Not Modified", ["Content-Length: 5", "Transfer-Encoding: chunked"], (0, True)),
        ("HTTP/1.1 304 Not Modified", [], (0, True)),
        ("HTTP/1.1 200", ["Content-Length: 5"], (5, True)),
        ("HTTP/1.1 200 ", ["Content-Length: 5"], (5, True)),
        ("HTTP/1.1 999 \xff\xe9", ["Content-Length: 5"], (5, True)),
    ],
)
def test_the_first_line(first: str, lines: list[str], expected: tuple[int | None, bool]) -> None:
    head = parse(raw(*lines, first=first))
    assert (head.length, head.is_lasting) == expected


@pytest.mark.parametrize(
    "first",
    [
        *("", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 2000 OK", "HTTP/1.1 099 OK", "HTTP/1.1 +20 OK"),
        *("HTTP/1.2 200 OK", "HTTP/2 200 OK", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "http/1.1 200 OK", "ICY 200 OK"),
        *(" HTTP/1.1 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 200 O\0K"),
        *("HTTP/1.1 200 OK\n", "HTTP/1.1 200 O\rK", "HTTP/1.1 20\xb2 OK", "HTTP/1.1 200 " + "x" * LONGEST_LINE),
    ],
)
def test_no_status_line(first: str) -> None:
    with pytest.raises(Unreadable):
        parse(raw("Content-Length: 5", first=first))


@pytest.mark.parametrize(
    "line",
    [
        *("", "A", ":", ": a", "A : a", " A: a", "\tA: a", "A B: a", "A: a\nB: b", "A: a\rB: b", "A: \0", "A: \x7f"),
        *(" folded", "\xe9: a", "A\0: a", "Content-Length: -5", "Content-Length: +5", "Content-Length: 5;"),
        *("Content-Length: 0x5", "Content-Length: 5_0", "Content-Length: \xb2", "Content-Length: 5 5"),
        *("Content-Length: 1, 2", "Content-Length:", "Content-Length: ,", "Content-Length: 5,"),
        *("Content-Length: " + "9" * 19, "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity"),
        *("Transfer-Encoding: chunked, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding:"),
        *("Transfer-Encoding: chunked;a=b", "A: " + "x" * LONGEST_LINE),
    ],
)
def test_no_field(line: str) -> None:
    with pytest.raises(Unreadable):
        parse(raw("Server: x", line))


def test_lengths_that_differ_are_none() -> None:
    with pytest.raises(Unreadable):
        parse(raw("Content-Length: 5", "Content-Length: 6"))


def test_chunks_are_not_of_http_1_0() -> None:
    with pytest.raises(Unreadable):
        parse(raw("Transfer-Encoding: chunked", first="HTTP/1.0 200 OK"))


def test_a_head_of_many_lines_is_too_long() -> None:
    with pytest.raises(Unreadable):
        parse(raw(*["A: " + "x" * 1000] * (LONGEST_HEAD // 1000 + 2)))


def test_names_are_found_in_any_case_and_the_first_of_several_counts() -> None:
    headers = parse(raw("ETag: 1", "etag: 2", "X-Y:  a b\t ", "Z:", "L: \xff", "M: \u00c3\u00a9")).headers
    assert (headers.get("eTAG"), headers["X-y"], headers.get("Z"), headers.get("none")) == ("1", "a b", "", None)
    assert "x-Y" in headers
    assert "none" not in headers
    assert headers.get("none", "other") == "other"
    assert (headers["L"], headers["M"]) == ("\udcff", "\u00e9")
    assert sorted(headers) == ["etag", "l", "m", "x-y", "z"]
    assert len(headers) == 5


@pytest.mark.parametrize(
    "begun", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r", b"HTTP/1.0 200\r\nA: b\r\n\r", b"HTTP/1.1 \xff"]
)
def test_what_may_become_a_head(begun: bytes) -> None:
    for start in range(len(begun) + 1):
        check_begun(bytearray(begun), start)


@pytest.mark.parametrize(
    "begun", [b"\r\n", b"X", b"HTTP/2", b"HTTP/1.2", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\rA", b"HTTP/1.1 2\r\r"]
)
def test_what_never_becomes_one(begun: bytes) -> None:
    def grow() -> None:
        for end in range(1, len(begun) + 1):
            check_begun(bytearray(begun[:end]), end - 1)

    with pytest.raises(Unreadable):
        grow()
    with pytest.raises(Unreadable):
        check_begun(bytearray(begun), 0)


def unchunked(data: bytes, cuts: list[int]) -> tuple[bytes, bool, bytes]:
    """The body, whether it ended, and what came after it."""
    chunks, body, at = Chunks(), b"", 0
    for cut in [*cuts, len(data)]:
        piece, used = chunks.feed(bytearray(data), at, cut)
        body += piece
        if chunks.ended:
            return body, True, data[used:]
        assert used == cut
        at = cut
    return body, False, b""


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b'a\r\n0123456789\r\n00B;x="y";z\r\n0123456789a\r\n000\r\n\r\n', b"01234567890123456789a"),
        (b"1 \t; a\r\n\n\r\n0;\r\nA: b\r\nC:\r\n\r\n", b"\n"),
    ],
)
def test_chunks_split_anywhere(data: bytes, body: bytes) -> None:
    for cut in range(len(data) + 1):
        assert unchunked(data + b"more", [cut]) == (body, True, b"more")
    assert unchunked(data, [*range(len(data))]) == (body, True, b"")
    for end in range(len(data)):
        assert not unchunked(data[:end], [])[1]


@pytest.mark.parametrize(
    "data",
    [
        *(b"\r\n", b"g\r\n", b"-1\r\n", b"0x1\r\n", b"1_0\r\n", b" 1\r\n", b"1\n", b"1\r\nab\r\n", b"1\r\na\n"),
        *(b"1;\0\r\n", b"1 x\r\n", b"f" * 16 + b"\r\n", b"1;" + b"x" * 5000, b"0\r\nA b\r\n", b"0\r\n a: b\r\n"),
        *(b"0\r\na: b\n", b"0\r\n" + b"a: " + b"b" * (70 << 10), b"0\r\n" + b"a: b\r\n" * 12_000),
        *(b"1\r\na\r\r\n", b"\xb9\r\n", b"1\r\n\xff1\r\n", b"1\r;\n"),
    ],
)
def test_no_chunks(data: bytes) -> None:
    with pytest.raises(CutShort):
        unchunked(data, [])
    with pytest.raises(CutShort):
        unchunked(data, [*range(min(len(data), 10_000))])


@examples(100)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_what_was_put_into_chunks_comes_out(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert unchunked(data, sorted(min(cut, len(data)) for cut in cuts)) == (b"".join(pieces), True, b"")


@examples(200)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda more: b"HTTP/1.1 200 OK\r\n" + more))
def test_any_bytes_are_a_head_or_none(data: bytes) -> None:
    try:
        head = parse(data)
    except Unreadable:
        return
    assert 100 <= head.status <= 999
    assert head.length is None or head.length >= 0


def test_of_several_fields_of_a_name_the_first_counts_whoever_read_them() -> None:
    told = CIMultiDict([("ETag", '"1"'), ("etag", '"2"'), ("Content-Type", "image/png")])
    assert Headers.in_lower_case(told) == {"etag": '"1"', "content-type": "image/png"}
