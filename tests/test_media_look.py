"""The look at a file's structure: what is whole passes, what is cut off is told at every byte, and nothing raises."""

from __future__ import annotations

import asyncio
import io
import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mirror.media.look import Look, from_afar
from mirror.media.walk import Verdict
from tests import media
from tests.properties import examples

ALL_CUTS = 4000
"""Files of up to so many bytes are cut at each of them, larger ones at a few hundred."""


def looked(*pieces: bytes | memoryview) -> Verdict:
    look = Look()
    for piece in pieces:
        look.feed(piece)
    return look.verdict()


def pictures(count: int = 3, size: int = 40) -> list[Image.Image]:
    return [Image.frombytes("RGB", (size, size), media.blob(3 * size * size, seed)) for seed in range(count)]


def saved(form: str, frames: int = 1, size: int = 40, **options: object) -> bytes:
    first, *rest = pictures(frames, size)
    told = {"save_all": True, "append_images": rest} if rest else {}
    file = io.BytesIO()
    first.save(file, form, **told, **options)
    return file.getvalue()


def film(frames: int = 20, **options: str) -> bytes:
    """A film that PyAV has made; ``movflags`` among the options."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file, av.open(file.name, "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 5
        for number in range(frames):
            frame = av.VideoFrame.from_image(  # type: ignore[no-untyped-call]
                pictures(1, 48)[0].rotate(number).resize((64, 48))
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        container.close()
        return file.read()


def with_thumbnail() -> bytes:
    """A JPEG with another one in its Exif segment: that one's end is not the file's."""
    exif = b"Exif\0\0" + saved("JPEG", size=16)
    return saved("JPEG", exif=exif)


def box(kind: bytes, data: bytes = b"", *, long: bool = False, to_the_end: bool = False) -> bytes:
    if to_the_end:
        return struct.pack(">I4s", 0, kind) + data
    if long:
        return struct.pack(">I4sQ", 1, kind, len(data) + 16) + data
    return struct.pack(">I4s", len(data) + 8, kind) + data


FTYP = box(b"ftyp", b"isom\0\0\2\0isom")
FRAGMENT = FTYP + box(b"moov", bytes(9)) + box(b"moof", bytes(90)) + box(b"mdat", bytes(50))
PICTURE = FTYP.replace(b"isom", b"avif") + box(b"meta", bytes(50)) + box(b"mdat", bytes(40))

WHOLE = {
    "png": media.png(),
    "png, many chunks": saved("PNG", size=200),
    "apng": saved("PNG", frames=3),
    "jpeg": media.jpeg(size=3000),
    "jpeg, progressive": saved("JPEG", progressive=True),
    "jpeg with restarts": saved("JPEG", restart_marker_blocks=1),
    "jpeg with a thumbnail": with_thumbnail(),
    "webp": media.webp(size=3000),
    "webp, lossy": saved("WEBP"),
    "webp, animated": saved("WEBP", frames=3),
    "gif": saved("GIF"),
    "gif, animated": saved("GIF", frames=4),
    "mp4": media.mp4(3000),
    "mp4, moov at its end": film(),
    "mp4, moov first": film(movflags="faststart"),
    "mp4, long sizes": FTYP + box(b"what", bytes(9)) + box(b"mdat", bytes(100), long=True) + box(b"moov", bytes(20)),
    "quicktime without ftyp": box(b"wide") + box(b"mdat", bytes(100)) + box(b"moov", bytes(20)),
}
OPEN = {
    "mp4, mdat to its end": FTYP + box(b"moov", bytes(30)) + box(b"mdat", bytes(90), to_the_end=True),
    "mp4, fragmented": film(movflags="frag_keyframe+empty_moov"),
    "avif": PICTURE,
}
"""Whole as well; but where these are cut between two boxes nobody can tell."""

ENDS_WITH_PICTURE = [name for name in WHOLE if not name.startswith(("mp4", "quicktime"))]
TOLD_FROM = {"png": 4, "apng": 4, "jpeg": 2, "webp": 4, "gif": 4, "mp4": 8, "quicktime": 8}
"""Bytes by which a format is known."""


def cuts(name: str, body: bytes) -> Iterator[int]:
    first = TOLD_FROM[name.partition(" ")[0].rstrip(",")]
    if len(body) <= ALL_CUTS:
        yield from range(first, len(body))
    else:
        yield from [*range(first, 200), *random.Random(1).sample(range(200, len(body) - 100), 300)]
        yield from range(len(body) - 100, len(body))


@pytest.mark.parametrize("name", [*WHOLE, *OPEN])
def test_what_is_whole_passes(name: str) -> None:
    found = looked({**WHOLE, **OPEN}[name])
    assert (bool(found.kind), found.missing, found.trailing) == (True, "", 0)


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_is_seen_wherever_it_is(name: str) -> None:
    body = WHOLE[name]
    assert [cut for cut in cuts(name, body) if not looked(body[:cut]).missing] == []


def test_a_fragmented_film_is_whole_only_between_its_fragments() -> None:
    body = OPEN["mp4, fragmented"]
    ends, at = [], 0
    while at < len(body):
        size, kind = struct.unpack_from(">I4s", body, at)
        at += size
        if kind in (b"mdat", b"mfra"):
            ends.append(at)
    assert len(ends) > 3
    passed = [cut for cut in range(8, len(body) + 1) if not looked(body[:cut]).missing]
    assert [cut for cut in passed if not looked(body[:cut]).trailing] == ends
    assert {cut - max(end for end in ends if end <= cut) for cut in passed} == set(range(5))  # no more of a next box


@pytest.mark.parametrize("name", WHOLE)
def test_the_pieces_in_which_it_comes_make_no_difference(name: str) -> None:
    body = WHOLE[name]

    @examples(60)
    @given(st.lists(st.integers(1, 700), min_size=1), st.integers(0, len(body)), st.binary(max_size=20))
    def holds(sizes: Sequence[int], cut: int, more: bytes) -> None:
        sent = body[:cut] + more
        look, at, number = Look(), 0, 0
        while at < len(sent):
            size = sizes[number % len(sizes)]
            piece = sent[at : at + size]
            look.feed(memoryview(piece) if number % 2 else piece)
            twin, look = look, look.copy()
            twin.feed(b"\xff\xd9;IEND")  # it has gone its own way
            at, number = at + size, number + 1
        assert look.verdict() == looked(sent)

    holds()


@pytest.mark.parametrize("name", WHOLE)
def test_byte_by_byte(name: str) -> None:
    body = WHOLE[name]
    assert looked(*(body[at : at + 1] for at in range(len(body)))) == looked(body)


@pytest.mark.parametrize("name", ENDS_WITH_PICTURE)
@pytest.mark.parametrize("more", [b"x", bytes(100), b"\xff\xd8\xff\xe0 a second picture", media.mp4(2000)])
def test_bytes_after_the_end_of_a_picture_are_counted(name: str, more: bytes) -> None:
    found = looked(WHOLE[name] + more)
    assert (found.missing, found.trailing) == ("", len(more))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (FTYP + box(b"mdat", bytes(100)), "no moov"),
        (FTYP + box(b"mdat", bytes(100), to_the_end=True), "no moov"),
        (FTYP + box(b"moov", bytes(100)), "no mdat"),
        (FTYP + box(b"moov", bytes(9)) + struct.pack(">I4s", 7, b"free"), "do not add up"),
        (FTYP + box(b"moov", bytes(9)) + b"\n", "within a box's header"),
        (FTYP + box(b"moov", bytes(9)) + box(b"moof", bytes(16)), "no mdat"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 15) + bytes(100), "do not add up"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 2**63) + bytes(100), "more bytes"),
        (FTYP + box(b"moov", bytes(9)) + box(b"moof", bytes(90)), "between a moof box and its data"),
        (FRAGMENT + box(b"moof", bytes(90)), "between a moof box and its data"),
        (FRAGMENT + box(b"moof", bytes(90)) + b"and text behind it", "more bytes"),
        *(
            (media.mp4(3000) + box(kind, bytes(90))[:-1], "1 more bytes")
            for kind in (b"mdat", b"free", b"uuid", b"udta")
        ),
        *((media.mp4(3000) + box(b"moof", bytes(90))[:cut], "box") for cut in range(5, 98)),
        (FTYP + box(b"meta", bytes(50)) + box(b"mdat", bytes(40))[:-1], "1 more bytes"),
        (media.mp4(3000) + struct.pack(">I4sI", 1, b"mdat", 0), "within a box's header"),
        (media.png()[:40] + bytes(100), "no chunk"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIDAT", "no chunk"),
        (b"\xff\xd8\xff\xd9", "before its picture"),
        (b"\xff\xd8" + b"\xff" * 10**6, "before its picture"),
        (b"GIF89a" + bytes(2000), "no trailer"),
        (b"RIFF\x00\x01\x00\x00WEBPVP8 ", "248 more bytes"),
    ],
)
def test_what_is_missing_is_told(body: bytes, why: str) -> None:
    assert why in looked(body).missing


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x89",
        media.blob(5000),
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"GIF87a" + bytes(7) + b"what",
        b"A text on free things that goes on",
        b"All free things",
        b"%PDF-1.7",
        media.mp4(3000)[8:],
    ],
)
def test_of_what_is_not_known_nothing_is_said(body: bytes) -> None:
    assert looked(body) == Verdict()


@pytest.mark.parametrize("film", [media.mp4(3000), FRAGMENT, PICTURE], ids=["film", "fragments", "picture"])
@pytest.mark.parametrize("pieces", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "more",
    [
        *(bytes(count) for count in (1, 3, 4, 7, 8, 9, 4096)),
        b"\n",
        b"\r\n",
        b"junk",
        b"<!-- by a proxy -->",
        b"\0\0\1\x0aSEFH" + bytes(40) + b"\x14\0\0\0SEFT",
        struct.pack(">I4s", 7, b"free"),
        struct.pack(">I4sQ", 1, b"\xff\xfe\0\0", 1 << 50),
        struct.pack(">I4sI", 1, b"what", 0),
        b"\xff" * 1000,
    ],
)
def test_bytes_after_a_whole_film_that_make_no_box_are_counted(film: bytes, more: bytes, pieces: int) -> None:
    body = film + more
    found = looked(*(body[at : at + pieces] for at in range(0, len(body), pieces)))
    assert (found.missing, found.trailing) == ("", len(more))


def test_a_last_fragment_of_nothing_waits_for_no_data() -> None:
    assert looked(FRAGMENT + box(b"moof", box(b"mfhd", bytes(8)))) == Verdict("MP4")


def test_boxes_that_nobody_knows_are_boxes() -> None:
    assert looked(media.mp4(3000) + box(b"what", bytes(99)) + box(b"free")) == Verdict("MP4")
    assert looked(media.mp4(3000) + box(b"what", bytes(99)) + b"\n") == Verdict("MP4", "", 1)


def test_a_damaged_scan_that_ends_as_it_should_is_not_cut_off() -> None:
    """A decoder shows most of it."""
    body = bytearray(saved("JPEG", size=100))
    body[-500:-490] = b"\xff\xda\xff\xff\xff\xc4\xff\xfe\xff\xff"
    assert looked(bytes(body)).missing == ""


def gif_of_tiny_blocks(size: int) -> bytes:
    return saved("GIF")[:13] + b"," + bytes(9) + b"\x08" + b"\x01\x00\x01\x01" * (size // 4)


HOSTILE = {
    "boxes of eight bytes": lambda size: FTYP + box(b"free") * (size // 8),
    "chunks of no bytes": lambda size: b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sI", 0, b"tEXt", 0) * (size // 12),
    "fill bytes": lambda size: b"\xff\xd8" + b"\xff" * size,
    "markers": lambda size: b"\xff\xd8" + b"\xff\xe1\x00\x02" * (size // 4),
    "scans": lambda size: b"\xff\xd8" + b"\xff\xda\x00\x02\xff" * (size // 5),
    "sub-blocks of a byte": lambda size: saved("GIF")[:781] + b",\0\0\0\0\0\0\0\0\0\x08" + b"\x01\x01" * (size // 2),
    "a full sub-block, and a small one": lambda size: (
        saved("GIF")[:781] + b",\0\0\0\0\0\0\0\0\0\x08" + (b"\xff" + bytes(255) + b"\x01\x01") * (size // 258)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_structures_take_time_that_grows_with_their_size_only(name: str) -> None:
    def calls(size: int, piece: int) -> int:
        body, count = HOSTILE[name](size), 0

        def counting(_frame: object, event: str, _arg: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counting)
        try:
            looked(*(body[at : at + piece] for at in range(0, len(body), piece)))
        finally:
            sys.setprofile(None)
        return count

    assert calls(200_000, 1 << 20) < 3 * 200_000
    assert calls(20_000, 1) < 20 * 20_000


def test_nothing_but_a_header_is_held() -> None:
    for body in [*WHOLE.values(), *OPEN.values()]:
        look = Look()
        for at in range(0, len(body), 7):
            look.feed(body[at : at + 7])
            assert look._walk is None or len(look._walk.held) < 16


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (media.mp4(1 << 20), ""),
        (media.mp4(1 << 20)[:-1], "1 more bytes"),
        (FTYP + box(b"mdat", bytes(1 << 20)) + box(b"moov", bytes(5000)), ""),
        (FTYP + box(b"mdat", bytes(1 << 20)), "no moov"),
        (media.webp(size=100_000)[:-10], "10 more bytes"),
        (media.png(200, 200)[:-1], "IEND"),
    ],
)
def test_a_look_from_afar_reads_little(body: bytes, missing: str) -> None:
    reads = []

    async def read(start: int, stop: int) -> bytes:
        reads.append(stop - start)
        return body[start:stop]

    assert missing in (told := asyncio.run(from_afar(read, len(body))).missing)
    assert bool(told) == bool(missing)
    assert len(reads) <= 6
    assert sum(reads) <= 6 << 10


def test_what_would_take_many_reads_is_not_judged_from_afar() -> None:
    chunk = struct.pack(">I", 5000) + b"IDAT" + bytes(5000) + struct.pack(">I", zlib.crc32(b"IDAT" + bytes(5000)))
    body = media.png()[:33] + chunk * 20

    async def read(start: int, stop: int) -> bytes:
        return body[start:stop]

    assert asyncio.run(from_afar(read, len(body))) == Verdict()
    assert looked(body).missing
