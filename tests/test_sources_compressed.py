"""gzip and zstd: recognised, streamed, bounded, and told of where they are damaged."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mirror.sources.compressed import Codec, decompressed
from mirror.sources.inputs import Reading, open_input
from mirror.sources.lines import Damaged, LineParser, batches
from tests.conftest import Archive
from tests.helpers import done_prompt, running
from tests.origin import Origin
from tests.properties import examples
from tests.source_runs import cut, nobody, parquet, pipe, read


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


Pack = Callable[[bytes], bytes]
both = pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, "gz"), (zstd, "zst")], ids=["gzip", "zstd"])
IDS = [f"{number:032x}" for number in range(20_000)]
TEXT = "".join(f"{found}\n" for found in IDS).encode()


async def blocks_of(blocks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for block in blocks:
        yield block


def unpacked(blocks: Iterable[bytes], expected: Codec | None = None) -> tuple[bytes, Damaged | None]:
    """What comes out, and how it ended."""

    async def main() -> tuple[bytes, Damaged | None]:
        data = b""
        try:
            async for piece in decompressed(blocks_of(blocks), expected):
                data += piece
        except Damaged as error:
            return data, error
        return data, None

    return asyncio.run(main())


@both
@pytest.mark.parametrize("name", ["ids.txt.{}", "ids", "ids.txt"])
def test_by_name_or_by_its_first_bytes(tmp_path: Path, pack: Pack, suffix: str, name: str) -> None:
    path = tmp_path / name.format(suffix)
    path.write_bytes(pack(TEXT))
    assert read(path) == (IDS, [])


@both
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_tables_inside(tmp_path: Path, pack: Pack, suffix: str, form: str) -> None:
    tables = {"csv": b'x,id\n"a\nb",1\n', "jsonl": b'{"id":1}', "parquet": parquet({"id": ["1"]})}
    (tmp_path / f"ids.{form}.{suffix}").write_bytes(pack(tables[form]))
    (tmp_path / f"hidden.{form}").write_bytes(pack(tables[form]))
    assert read(tmp_path / f"ids.{form}.{suffix}") == (["1"], [])
    assert read(tmp_path / f"hidden.{form}") == (["1"], [])


@both
def test_members_that_follow_one_another_are_one_stream(tmp_path: Path, pack: Pack, suffix: str) -> None:
    (tmp_path / f"ids.{suffix}").write_bytes(pack(b"a\nb") + pack(b"") + pack(b"c\nd\n") + pack(b"e"))
    assert read(tmp_path / f"ids.{suffix}") == (["a", "bc", "d", "e"], [])


def test_gzip_padded_with_zeros_and_zstd_with_a_skippable_frame(tmp_path: Path) -> None:
    (tmp_path / "ids.gz").write_bytes(gzip.compress(b"a\n") + b"\0" * 1000 + gzip.compress(b"b\n") + b"\0" * 70_000)
    assert read(tmp_path / "ids.gz") == (["a", "b"], [])
    (tmp_path / "ids").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0four" + zstd(b"a\n") + zstd(b"b\n"))
    assert read(tmp_path / "ids") == (["a", "b"], [])


@both
def test_a_stream_cut_off_gives_what_came_before(tmp_path: Path, pack: Pack, suffix: str) -> None:
    whole = pack(TEXT)
    path = tmp_path / f"ids.csv.{suffix}"
    packed = pack(b"id\n" + TEXT)
    path.write_bytes(packed[: len(packed) // 2])
    ids, bad = read(path)
    kind = "gzip" if suffix == "gz" else "zstd"
    assert 0 < len(ids) < len(IDS)
    assert ids == IDS[: len(ids)], "no id that was cut in two"
    assert bad == [f"ids.csv.{suffix}:{len(ids) + 2}: the {kind} stream ends too early"]

    path = tmp_path / f"ids.{suffix}"
    path.write_bytes(whole[:-1])
    ids, bad = read(path)
    assert (ids, bad) == (IDS, [f"ids.{suffix}:{len(IDS) + 1}: the {kind} stream ends too early"])


@both
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_hardly_begun(tmp_path: Path, pack: Pack, suffix: str, length: int) -> None:
    path = tmp_path / f"ids.{suffix}"
    path.write_bytes(pack(TEXT)[:length])
    ids, bad = read(path)
    assert (ids, len(bad)) == ([], 1)
    assert bad[0].startswith(f"ids.{suffix}:1: the ")


@both
def test_garbage_is_reported(tmp_path: Path, pack: Pack, suffix: str) -> None:
    kind = "gzip" if suffix == "gz" else "zstd"
    path = tmp_path / f"ids.{suffix}"
    path.write_bytes(b"plain\ntext\n")
    ids, bad = read(path)
    assert (ids, len(bad)) == ([], 1)
    assert bad[0].startswith(f"ids.{suffix}:1: the {kind} stream is damaged: ")

    path.write_bytes(pack(b"a\nb") + b"and more")
    assert read(path) == (
        ["a", "b"],
        [f"ids.{suffix}:2: something that is not {kind} follows the {kind} stream"],
    )


@both
def test_damage_in_the_middle(tmp_path: Path, pack: Pack, suffix: str) -> None:
    lines = random.Random(1).sample(range(10**9), 60_000)
    packed = bytearray(pack("".join(f"{line}\n" for line in lines).encode()))
    at = len(packed) // 2
    packed[at : at + 64] = b"\xff" * 64
    path = tmp_path / f"ids.{suffix}"
    path.write_bytes(packed)
    ids, bad = read(path)
    good = next((number for number, (a, b) in enumerate(zip(ids, map(str, lines), strict=False)) if a != b), len(ids))
    assert good > len(lines) / 3
    assert any(" stream is damaged: " in line for line in bad)


def test_what_a_damaged_block_held_before_the_damage_is_used(tmp_path: Path) -> None:
    """All of it is in one read; zlib says nothing but that it failed."""
    packed = gzip.compress(b"a\nb\n", mtime=0)
    (tmp_path / "ids.gz").write_bytes(packed[:-8] + bytes(8))
    ids, bad = read(tmp_path / "ids.gz")
    assert ids == ["a", "b"]
    assert bad == ["ids.gz:3: the gzip stream is damaged: Error -3 while decompressing data: incorrect data check"]


@both
def test_a_bomb_is_taken_apart_in_small_pieces(pack: Pack, suffix: str) -> None:
    if suffix == "gz":
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    else:
        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20))
    assert len(bomb) < 300_000
    reports: list[str] = []

    async def main() -> int:
        source = batches(decompressed(blocks_of([bomb]), None), LineParser("bomb", reports.append))
        async with aclosing(source):
            return len([batch async for batch in source])

    tracemalloc.start()
    assert asyncio.run(main()) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert reports == ["bomb:1: longer than 65,536 bytes"]


def test_the_worst_zstd_there_can_be_is_bounded() -> None:
    """Blocks of 128 KiB in four bytes each, which no compressor makes."""
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(27 - 10) << 3])
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\n"
    frame = header + block * 2000 + (0).to_bytes(3, "little")[:0] + b"\x01\0\0"
    size = 0

    async def main() -> int:
        nonlocal size
        largest = 0
        async for piece in decompressed(blocks_of([frame]), None):
            largest = max(largest, len(piece))
            size += len(piece)
        return largest

    assert asyncio.run(main()) <= 5 << 20
    assert size == 2000 * (128 << 10)


@both
def test_a_slow_writers_first_line_comes_at_once(pack: Pack, suffix: str) -> None:
    async def main(fd: int, write: io.FileIO) -> None:
        source = open_input("-", Reading(), on_bad_line=print, observer=nobody, stdin=fd)
        packer = zlib.compressobj(wbits=31) if suffix == "gz" else zstandard.ZstdCompressor().compressobj()
        flush = zlib.Z_SYNC_FLUSH if suffix == "gz" else zstandard.COMPRESSOBJ_FLUSH_BLOCK
        async with aclosing(source):
            for line in ("a", "b"):
                write.write(packer.compress(f"{line}\n".encode()) + packer.flush(flush))
                assert await asyncio.wait_for(anext(source), 60) == [line]
            write.write(packer.flush())
            write.close()
            assert await anext(source, None) is None

    with pipe() as (fd, write):
        asyncio.run(main(fd, write))


@pytest.mark.parametrize("first", [b"a\n", b"(\n", b"P*M\n"])
def test_a_plain_first_line_is_not_held_back(first: bytes) -> None:
    async def main(fd: int, write: io.FileIO) -> None:
        async with aclosing(open_input("-", Reading(), on_bad_line=print, observer=nobody, stdin=fd)) as source:
            write.write(first)
            assert await asyncio.wait_for(anext(source), 60) == [first.decode().strip()]

    with pipe() as (fd, write):
        asyncio.run(main(fd, write))


@given(
    parts=st.lists(st.binary(max_size=200), max_size=4),
    zipped=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    end=st.sampled_from([b"", b"\0\0", b"x", b"xxxxxx"]),
    lost=st.integers(0, 30),
)
def test_any_cut_gives_the_same(parts: list[bytes], zipped: bool, cuts: list[int], end: bytes, lost: int) -> None:
    packed = b"".join(gzip.compress(part, mtime=0) if zipped else zstd(part) for part in parts) + end
    packed = packed[: max(0, len(packed) - lost)]
    codec: Codec = "gzip" if zipped else "zstd"
    data, damage = unpacked(cut(packed, cuts), codec)
    whole, other = unpacked([packed], codec)
    assert (data, str(damage), damage and damage.whole) == (whole, str(other), other and other.whole)
    if not lost and not end and parts:
        assert (data, damage) == (b"".join(parts), None)


@examples(50)
@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_what_is_not_compressed_passes_unchanged(data: bytes, cuts: list[int]) -> None:
    if not data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")) and data[1:4] != b"\x2a\x4d\x18":
        assert unpacked(cut(data, cuts)) == (data, None)


@both
def test_a_million_lines_do_not_stand_in_memory(tmp_path: Path, pack: Pack, suffix: str) -> None:
    path = tmp_path / f"ids.{suffix}"
    text = b"".join(b"%s\n" % os.urandom(16).hex().encode() for _ in range(1_000_000))
    path.write_bytes(gzip.compress(text, 1) if suffix == "gz" else zstd(text))
    program = (
        "import sys, asyncio, tracemalloc, zlib\n"
        "from mirror.sources.inputs import Reading, open_input\n"
        "async def main():\n"
        "    source = open_input(sys.argv[1], Reading(), on_bad_line=print, observer=print)\n"
        "    count = check = 0\n"
        "    async for batch in source:\n"
        "        count += len(batch)\n"
        "        check = zlib.crc32(''.join(f'{found}\\n' for found in batch).encode(), check)\n"
        "    print(count, check, tracemalloc.get_traced_memory()[1])\n"
        "tracemalloc.start()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, check=True, timeout=300)
    count, check, peak = map(int, done.stdout.split())
    assert (count, check) == (1_000_000, zlib.crc32(text))
    assert peak < 8 << 20 < path.stat().st_size


def test_a_run_takes_what_a_damaged_file_has(origin: Origin, archive: Archive, tmp_path: Path) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "1.png")
    whole = gzip.compress(b"id\np\nq\n")
    (tmp_path / "ids.csv.gz").write_bytes(whole)
    done = archive.run("fetch", "-i", "ids.csv.gz")
    assert (done.code, done.summary["prompts"]) == (0, {"complete": 2})

    (tmp_path / "ids.csv.gz").write_bytes(whole[:-4])
    done = archive.run("fetch", "-i", "ids.csv.gz")
    assert (done.code, done.summary["prompts"]) == (3, {"complete": 2})
    assert "ids.csv.gz:4: the gzip stream ends too early" in done.err


def test_gzip_on_stdin_is_fetched_as_it_comes(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "1.png")
    packer = zlib.compressobj(wbits=31)
    with running(archive, "fetch", "-i", "-", "--json", stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        os.write(process.stdin.fileno(), packer.compress(b"p\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        assert '"prompt_id":"p"' in process.stdout.readline()
        os.write(process.stdin.fileno(), packer.flush())
        process.stdin.close()
        assert process.wait(60) == 0
