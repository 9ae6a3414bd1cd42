"""Small, valid media bodies, the same for the same arguments.

Made by hand, so that tests need no picture library and can ask for an exact size: pixels cost nothing in a JPEG or a
WebP here, what is left of the wanted size is padding that every decoder skips.
"""

from __future__ import annotations

import random
import struct
import zlib


def blob(size: int, seed: int = 0) -> bytes:
    """Bytes of no format that do not compress."""
    return random.Random(seed).randbytes(size)


def png(width: int = 16, height: int = 16, seed: int = 0) -> bytes:
    """An RGB picture of noise: about three bytes a pixel."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg(width: int = 16, height: int = 16, seed: int = 0, size: int | None = None) -> bytes:
    """A grey baseline picture; comments carry the seed and fill it up to `size` bytes.

    Both Huffman tables hold one code, a single 0 bit (no difference, end of block), so a block is two 0 bits.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    table = bytes([1, *[0] * 15, 0])
    scan_bits = 2 * -(-width // 8) * -(-height // 8)
    scan = bytearray(-(-scan_bits // 8))
    if scan_bits % 8:
        scan[-1] = 0xFF >> (scan_bits % 8)
    start = b"\xff\xd8" + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0") + segment(0xFE, b"seed %d" % seed)
    rest = (
        segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC0, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
        + segment(0xC4, b"\x00" + table)
        + segment(0xC4, b"\x10" + table)
        + segment(0xDA, b"\1\1\0\0\x3f\0")
        + bytes(scan)
        + b"\xff\xd9"
    )
    missing = _missing(size, len(start) + len(rest), least=4)
    filler = blob(missing, seed)
    padding = bytearray()
    while missing:
        take = missing if missing <= 65_537 else min(65_537, missing - 4)
        padding += segment(0xFE, filler[: take - 4])
        missing -= take
    return start + bytes(padding) + rest


def webp(width: int = 16, height: int = 16, seed: int = 0, size: int | None = None) -> bytes:
    """A lossless picture of one colour that the seed names; a chunk no decoder knows fills it up to an even `size`."""
    bits, length = 0, 0

    def put(value: int, count: int) -> None:
        nonlocal bits, length
        bits |= value << length
        length += count

    put(0x2F, 8)
    put(width - 1, 14)
    put(height - 1, 14)
    put(0, 1 + 3)  # no alpha; version 0
    put(0, 3)  # no transform, no colour cache, one set of prefix codes
    red, green, blue = random.Random(seed).randbytes(3)
    for symbol in (green, red, blue, 255, 0):  # prefix codes of one symbol each: a pixel then takes no bits
        put(0b101, 3)
        put(symbol, 8)
    picture = _riff_chunk(b"VP8L", bits.to_bytes(-(-length // 8), "little"))
    if size is not None and size % 2:
        raise ValueError("a RIFF file has an even size")
    missing = _missing(size, 12 + len(picture), least=8)
    padding = _riff_chunk(b"PADD", blob(missing - 8, seed)) if missing else b""
    return _riff_chunk(b"RIFF", b"WEBP" + picture + padding)


def mp4(size: int = 4096, seed: int = 0, width: int = 720, height: int = 1280, seconds: int = 5) -> bytes:
    """A video file whose boxes add up to `size` bytes: one track with no samples, then data of no codec."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        data = b"".join(parts)
        return struct.pack(">I", 8 + len(data)) + kind + data

    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    milliseconds = 1000 * seconds
    movie = struct.pack(">5IIH10x", 0, 0, 0, 1000, milliseconds, 0x10000, 0x100) + matrix + struct.pack(">24xI", 2)
    track = struct.pack(">6I16x", 3, 0, 0, 1, 0, milliseconds) + matrix + struct.pack(">II", width << 16, height << 16)
    entry = box(b"avc1", struct.pack(">6xH16xHHII4xH32xHH", 1, width, height, 72 << 16, 72 << 16, 1, 24, 0xFFFF))
    samples = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        *(box(kind, bytes(8)) for kind in (b"stts", b"stsc", b"stco")),
        box(b"stsz", bytes(12)),
    )
    data_here = box(b"dinf", box(b"dref", struct.pack(">II", 0, 1), box(b"url ", struct.pack(">I", 1))))
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">5IHH", 0, 0, 0, 1000, milliseconds, 0x55C4, 0)),
        box(b"hdlr", struct.pack(">8x4s12x", b"vide"), b"video\0"),
        box(b"minf", box(b"vmhd", struct.pack(">I8x", 1)), data_here, samples),
    )
    head = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isommp41")
    head += box(b"moov", box(b"mvhd", movie), box(b"trak", box(b"tkhd", track), media))
    return head + box(b"mdat", blob(_missing(size, len(head) + 8, least=0), seed))


def _missing(size: int | None, have: int, least: int) -> int:
    """Bytes of padding a body of `have` bytes needs; a header makes it `least` or more."""
    missing = 0 if size is None else size - have
    if missing and missing < least:
        raise ValueError(f"{size} bytes cannot be made: {have} can, and {have + least} or more")
    return missing


def _riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
