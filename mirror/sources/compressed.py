"""gzip and zstd, taken apart as they come: what there is goes on at once, and no step gives more than it may.

Frames that follow one another (``cat a.gz b.gz``) are one stream. A stream that is cut off or damaged gives what came
before.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Literal

from mirror.errors import ConfigError
from mirror.sources.lines import BLOCK, Damaged

Codec = Literal["gzip", "zstd"]

CODECS: dict[str, Codec] = {".gz": "gzip", ".zst": "zstd"}
"""By the last part of a name."""

_MAGIC = {
    "gzip": (re.compile(rb"\x1f\x8b", re.DOTALL), 2),
    "zstd": (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), 4),
}
_BEGINNINGS = re.compile(rb"\x1f|\x28(\xb5(\x2f)?)?|[\x50-\x5f](\x2a(\x4d)?)?|", re.DOTALL)
"""What more bytes may make a frame's first ones of."""

_SLICE = 128
"""Bytes given to zstd at once. Four of them can stand for a block of 128 KiB: this bounds a step to some 4 MiB."""


async def decompressed(blocks: AsyncGenerator[bytes, None], expected: Codec | None) -> AsyncGenerator[bytes, None]:
    """What the blocks hold: as they are, or taken apart where they begin as gzip or zstd, or are ``expected`` to be.

    Closes ``blocks``.

    Raises:
        Damaged: (while iterating) the stream ends too early, or is none.
        ConfigError: (while iterating) zstd is not installed.
    """
    async with aclosing(blocks):
        head = b""
        async for block in blocks:
            head += block
            if not _BEGINNINGS.fullmatch(head):
                break
        codec = codec_of(head) or expected
        if codec is None:
            if head:
                yield head
            async for block in blocks:
                yield block
            return
        frames = _Frames(codec)
        for piece in frames.pieces(head):
            yield piece
            await asyncio.sleep(0)
        async for block in blocks:
            for piece in frames.pieces(block):
                yield piece
                await asyncio.sleep(0)  # a bomb holds nobody up
        frames.finish()


def codec_of(head: bytes) -> Codec | None:
    """How a stream that begins like this is compressed; None for not at all."""
    return next((codec for codec in CODECS.values() if _MAGIC[codec][0].match(head)), None)


def require_zstd() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import zstandard  # noqa: PLC0415
    except ImportError:
        raise ConfigError("zstd needs the library zstandard: pip install 'prompt-mirror[tables]'") from None
    return zstandard


class _Frames:
    """gzip members, or zstd frames, one after the other."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        zstd = require_zstd() if codec == "zstd" else None
        self._zstd: Any = zstd.ZstdDecompressor() if zstd else None
        self._errors = (zlib.error, *((zstd.ZstdError,) if zstd else ()))
        self._frame: Any = None
        self._between = b""  # what may be the beginning of another frame
        self._ended = 0

    def pieces(self, block: bytes) -> Iterator[bytes]:
        """What so many more bytes give."""
        data: bytes | memoryview = block
        full = False  # there may be more inside the decompressor
        while data or full:
            if self._frame is None and not (data := self._next(bytes(data))):
                return
            before = None if self._zstd else self._frame.copy()  # zstd gives whole blocks or nothing
            try:
                piece, rest = self._step(data)
            except self._errors as error:
                if before is not None:
                    yield from self._before_damage(before, bytes(data))
                raise Damaged(f"the {self._codec} stream is damaged: {error}") from None
            data = rest
            full = not data and len(piece) >= BLOCK and not self._frame.eof
            if self._frame.eof:
                self._ended += 1
                self._frame = None
            if piece:
                yield piece

    def _before_damage(self, frame: Any, data: bytes) -> Iterator[bytes]:
        """zlib keeps what it had made in a step that failed: once more, a byte at a time."""
        for at in range(len(data)):
            left = data[at : at + 1]
            while True:
                try:
                    piece = frame.decompress(left, BLOCK)
                except zlib.error:
                    return
                if piece:
                    yield piece
                left = frame.unconsumed_tail
                if not left and len(piece) < BLOCK:
                    break

    def finish(self) -> None:
        """Check that the stream is whole."""
        if self._frame is not None or not self._ended:
            raise Damaged(f"the {self._codec} stream ends too early")
        if self._between:
            raise Damaged(f"something that is not {self._codec} follows the {self._codec} stream", whole=True)

    def _next(self, data: bytes) -> bytes:
        """Open the next frame, which ``data`` goes on with; nothing, where more of it is needed."""
        data = self._between + data
        if self._ended:
            if self._codec == "gzip":
                data = data.lstrip(b"\0")  # tapes are filled up with them
            magic, size = _MAGIC[self._codec]
            if len(data) < size:
                self._between = data
                return b""
            if not magic.match(data):
                raise Damaged(f"something that is not {self._codec} follows the {self._codec} stream", whole=True)
        self._between = b""
        self._frame = self._zstd.decompressobj() if self._zstd else zlib.decompressobj(wbits=31)
        return data

    def _step(self, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
        """A piece of what is inside, and what is left to look at."""
        if not self._zstd:
            piece: bytes = self._frame.decompress(data, BLOCK)
            return piece, self._frame.unused_data if self._frame.eof else self._frame.unconsumed_tail
        data = memoryview(data)
        piece = self._frame.decompress(data[:_SLICE])
        rest = data[_SLICE:]
        return piece, self._frame.unused_data + bytes(rest) if self._frame.eof else rest
