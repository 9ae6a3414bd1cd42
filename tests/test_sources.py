"""Where ids come from: lists, generators, files, pipes and terminals, all of them real."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from io import FileIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.sources import Batch
from mirror.sources.args import BATCH, from_iterable
from mirror.sources.inputs import Reading, open_input
from mirror.sources.lines import BLOCK, MAX_LINE, LineParser, Report


async def taken(source: AsyncGenerator[Batch, None]) -> list[Batch]:
    async with aclosing(source):
        return [batch async for batch in source]


def all_of(source: AsyncGenerator[Batch, None]) -> list[str]:
    return [found for batch in asyncio.run(taken(source)) for found in batch]


def from_file(path: str | os.PathLike[str], *, on_bad_line: Report) -> AsyncGenerator[Batch, None]:
    return open_input(os.fspath(path), Reading(), on_bad_line=on_bad_line, observer=print)


def from_stdin(fd: int, *, on_bad_line: Report) -> AsyncGenerator[Batch, None]:
    return open_input("-", Reading(), on_bad_line=on_bad_line, observer=print, stdin=fd)


def parsed(*blocks: bytes) -> tuple[list[str], list[str]]:
    """Ids and reports of a text given in blocks."""
    bad: list[str] = []
    parser = LineParser("ids.txt", bad.append)
    ids = [found for block in blocks for found in parser.feed(block)]
    return ids + parser.finish(), bad


def sources_since(before: list[threading.Thread]) -> list[threading.Thread]:
    """The sources' threads that were not there before."""
    return [thread for thread in threading.enumerate() if thread.name == "mirror-source" and thread not in before]


def have_ended(before: list[threading.Thread]) -> None:
    for thread in sources_since(before):
        thread.join(60)
        assert not thread.is_alive()


class TestLines:
    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            (b"", []),
            (b"\n\n \t\r\n", []),
            (b"a\nb\n", ["a", "b"]),
            (b"a\r\nb", ["a", "b"]),
            (b"  a \n\tb\t\n", ["a", "b"]),
            (b"# all\n a # some\nb#c\n#d\nd\t#e # f\n", ["a", "b#c", "d"]),
            (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
            (b"\xef\xbb\xbf# comment\nb\n", ["b"]),
            (b"\xef\xbb\xbf", []),
            ("é\u3000\nあ\n".encode(), ["é", "あ"]),
            (b"a b\n", ["a b"]),
        ],
    )
    def test_what_is_an_id(self, text: bytes, ids: list[str]) -> None:
        assert parsed(text) == (ids, [])

    def test_a_bad_line_is_reported_and_the_rest_goes_on(self) -> None:
        text = b"a\n\xff\nb\n" + b"x" * (MAX_LINE + 1) + b"\nc\n\xc3"
        assert parsed(text) == (
            ["a", "b", "c"],
            ["ids.txt:2: not UTF-8", "ids.txt:4: longer than 65,536 bytes", "ids.txt:6: not UTF-8"],
        )

    def test_utf_16_is_reported(self) -> None:
        _, bad = parsed("a\nb\n".encode("utf-16"))
        assert bad[0] == "ids.txt:1: not UTF-8"

    @pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("size", [MAX_LINE - 3, MAX_LINE - 2, MAX_LINE, MAX_LINE + 1])
    def test_the_limit_is_the_same_for_one_block_and_for_many(self, size: int, before: bytes) -> None:
        text = before + b"x" * size + b"\nend"
        whole = parsed(text)
        assert whole == parsed(text[:5], text[5:100], text[100:]) == parsed(text[:-4], text[-4:])
        assert bool(whole[1]) == (size + len(before) > MAX_LINE)

    def test_a_line_without_end_is_not_kept(self) -> None:
        bad: list[str] = []
        parser = LineParser("ids.txt", bad.append)
        tracemalloc.start()
        for _ in range(200):
            assert parser.feed(b"x" * BLOCK) == []
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * BLOCK
        assert parser.feed(b"\nid\n") == ["id"]
        assert bad == ["ids.txt:1: longer than 65,536 bytes"]

    @given(
        lines=st.lists(
            st.one_of(
                st.sampled_from([b"", b"\r", b"#", b"a #b", b"\xff", b"\xef\xbb\xbf", b"y" * (MAX_LINE + 1)]),
                st.binary(max_size=8),
                st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
            ),
            max_size=12,
        ),
        cuts=st.lists(st.integers(0, MAX_LINE + 200), max_size=8),
    )
    def test_any_cut_gives_the_same(self, lines: list[bytes], cuts: list[int]) -> None:
        text = b"\n".join(lines)
        edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        blocks = [text[start:stop] for start, stop in pairwise(edges)]
        assert parsed(*blocks) == parsed(text)


class TestIterables:
    def test_a_list_is_cut_in_batches(self) -> None:
        ids = [str(number) for number in range(2 * BATCH + 1)]
        batches = asyncio.run(taken(from_iterable(ids)))
        assert [len(batch) for batch in batches] == [BATCH, BATCH, 1]
        assert [found for batch in batches for found in batch] == ids
        assert asyncio.run(taken(from_iterable(("a", "b")))) == [["a", "b"]]
        assert asyncio.run(taken(from_iterable([]))) == []

    def test_a_generator_is_asked_for_the_second_id_after_the_first_was_taken(self) -> None:
        done = threading.Event()

        def ids() -> Iterator[str]:
            yield "a"
            assert done.wait(60)
            yield "b"

        async def main() -> list[Batch]:
            got = []
            async with aclosing(from_iterable(ids())) as source:
                got.append(await anext(source))
                second = asyncio.ensure_future(anext(source))
                await asyncio.sleep(0.01)  # the loop goes on while the generator blocks
                assert not second.done()
                done.set()
                got.append(await second)
                assert await anext(source, None) is None
            return got

        assert asyncio.run(main()) == [["a"], ["b"]]

    def test_an_async_iterable_is_passed_on_one_by_one(self) -> None:
        async def ids() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        assert asyncio.run(taken(from_iterable(ids()))) == [["a"], ["b"]]

    def test_what_a_generator_raises_is_raised(self) -> None:
        def ids() -> Iterator[str]:
            yield "a"
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            all_of(from_iterable(ids()))

    def test_one_string_is_refused(self) -> None:
        with pytest.raises(TypeError, match="put it into a list"):
            from_iterable("ef8ec19d")

    @pytest.mark.parametrize("ids", [["a", 1], iter(["a", 1])])
    def test_what_is_no_string_is_refused(self, ids: list[str]) -> None:
        with pytest.raises(TypeError, match="got int"):
            all_of(from_iterable(ids))

    def test_a_blocked_generator_does_not_hold_up_the_end(self) -> None:
        release, before = threading.Event(), threading.enumerate()

        def ids() -> Iterator[str]:
            release.wait(60)
            yield "late"

        async def main() -> None:
            async with aclosing(from_iterable(ids())) as source:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(source), 0.01)

        asyncio.run(main())
        release.set()  # the thread finds the loop closed, and ends without a word
        have_ended(before)


def refuse(report: str) -> None:
    raise AssertionError(report)


class TestFile:
    def test_ids_come_in_order_a_block_a_batch(self, tmp_path: Path) -> None:
        ids = [f"{number:032x}" for number in range(10_000)]
        path = tmp_path / "ids.txt"
        path.write_text("".join(f"{found}\n" for found in ids))
        batches = asyncio.run(taken(from_file(path, on_bad_line=refuse)))
        assert [found for batch in batches for found in batch] == ids
        assert len(batches) == -(-path.stat().st_size // BLOCK)

    def test_a_bad_line_is_reported_with_the_files_name(self, tmp_path: Path) -> None:
        path = tmp_path / "ids.txt"
        path.write_bytes(b"a\n\xff\nb\n")
        bad: list[str] = []
        assert all_of(from_file(path, on_bad_line=bad.append)) == ["a", "b"]
        assert bad == [f"{path}:2: not UTF-8"]

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "ids.txt"
        path.write_text("".join(f"{number:032x}\n" for number in range(100_000)))

        async def count() -> int:
            async with aclosing(from_file(path, on_bad_line=refuse)) as source:
                return sum([len(batch) async for batch in source])

        tracemalloc.start()
        assert asyncio.run(count()) == 100_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < path.stat().st_size / 2

    @pytest.mark.parametrize("name", ["absent.txt", "."])
    def test_what_cannot_be_opened_is_named(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        with pytest.raises(ConfigError, match=str(path)):
            all_of(from_file(path, on_bad_line=refuse))

    def test_a_socket_cannot_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's name must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
            with pytest.raises(ConfigError, match="socket: cannot be opened"):
                all_of(from_file("socket", on_bad_line=refuse))

    def test_a_named_pipe_is_read_as_it_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)

        async def main() -> list[Batch | None]:
            async with aclosing(from_file(path, on_bad_line=refuse)) as source:
                first = asyncio.ensure_future(anext(source))
                write = await asyncio.to_thread(os.open, path, os.O_WRONLY)
                os.write(write, b"a\nb")
                got: list[Batch | None] = [await first]
                os.close(write)
                return [*got, await anext(source), await anext(source, None)]

        assert asyncio.run(main()) == [["a"], ["b"], None]

    def test_a_named_pipe_without_a_writer_does_not_hold_up_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        before = threading.enumerate()

        async def main() -> None:
            async with aclosing(from_file(path, on_bad_line=refuse)) as source:
                first = asyncio.ensure_future(anext(source))
                while not sources_since(before):  # it looks first what kind of file that is
                    await asyncio.sleep(0.001)
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first

        asyncio.run(main())
        os.close(os.open(path, os.O_WRONLY))  # lets the thread go, and waits for it to come there
        have_ended(before)


@contextmanager
def pipe() -> Iterator[tuple[int, FileIO]]:
    """A pipe: the descriptor to read from, and the end to write to."""
    read, write = os.pipe()
    with FileIO(read, "r"), FileIO(write, "w") as end:
        yield read, end


class TestStdin:
    def test_ids_come_before_the_pipe_is_closed(self) -> None:
        async def main(read: int, write: FileIO) -> None:
            async with aclosing(from_stdin(read, on_bad_line=refuse)) as source:
                write.write(b"a\nb\nc")
                assert await anext(source) == ["a", "b"]
                write.write(b"d\n# e\n")
                assert await anext(source) == ["cd"]
                write.write(b"f")
                write.close()
                assert await anext(source) == ["f"]
                assert await anext(source, None) is None

        with pipe() as (read, write):
            asyncio.run(main(read, write))

    def test_nothing_is_read_before_the_last_batch_was_taken(self) -> None:
        async def main(read: int, write: FileIO) -> None:
            async with aclosing(from_stdin(read, on_bad_line=refuse)) as source:
                write.write(b"a\n")
                assert await anext(source) == ["a"]
                write.write(b"b\n")
                await asyncio.sleep(0.05)
                os.set_blocking(read, False)
                assert os.read(read, 100) == b"b\n", "it is still in the pipe"

        with pipe() as (read, write):
            asyncio.run(main(read, write))

    def test_a_descriptor_that_does_not_block_is_waited_for(self) -> None:
        async def main(read: int, write: FileIO) -> None:
            os.set_blocking(read, False)
            async with aclosing(from_stdin(read, on_bad_line=refuse)) as source:
                first = asyncio.ensure_future(anext(source))
                await asyncio.sleep(0.01)
                write.write(b"a\n")
                assert await first == ["a"]

        with pipe() as (read, write):
            asyncio.run(main(read, write))

    def test_a_regular_file_and_dev_null(self, tmp_path: Path) -> None:
        path = tmp_path / "ids.txt"
        path.write_text("a\nb")
        with path.open("rb") as file:
            assert all_of(from_stdin(file.fileno(), on_bad_line=refuse)) == ["a", "b"]
        with Path(os.devnull).open("rb") as file:
            assert all_of(from_stdin(file.fileno(), on_bad_line=refuse)) == []

    def test_a_terminal_until_control_d(self) -> None:
        ours, theirs = pty.openpty()
        try:
            os.write(ours, b"a\n\x04")
            assert all_of(from_stdin(theirs, on_bad_line=refuse)) == ["a"]
        finally:
            os.close(ours)
            os.close(theirs)

    def test_what_cannot_be_read_is_a_configuration_error(self) -> None:
        with pipe() as (_, write), pytest.raises(ConfigError, match="stdin: cannot be read: Bad file"):
            all_of(from_stdin(write.fileno(), on_bad_line=refuse))

    def test_cancelling_does_not_wait_for_the_read(self) -> None:
        async def main(read: int) -> None:
            async with aclosing(from_stdin(read, on_bad_line=refuse)) as source:
                waiting = asyncio.ensure_future(anext(source))
                await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

        before = threading.enumerate()
        with pipe() as (read, write):
            asyncio.run(main(read))
            write.close()
            have_ended(before)  # else it may come to read what has this number next


HEAD = """
import asyncio
from mirror.sources.inputs import Reading, open_input

async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    async for batch in open_input("-", Reading(), on_bad_line=print, observer=print):
        print(batch, flush=True)
"""


def test_a_process_whose_stdin_is_silent_ends_when_it_is_cancelled() -> None:
    program = HEAD + "try:\n    asyncio.run(main())\nexcept asyncio.CancelledError:\n    print('cancelled')\n"
    with pipe() as (read, _):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], stdin=read, capture_output=True, timeout=60, check=True
        )
    assert (done.stdout, done.stderr) == (b"cancelled\n", b"")


def test_a_process_whose_stdin_is_silent_ends_on_a_signal() -> None:
    program = HEAD.replace("call_later(0.05, task.cancel)", "call_soon(print, 'ready')") + (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
        "asyncio.run(main())\n"
    )
    with pipe() as (read, _):
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program], stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == -signal.SIGINT


def test_a_process_without_stdin_says_so() -> None:
    program = "from mirror.sources.stdin import stdin_blocks\nstdin_blocks()\n"
    shell = ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, program]
    done = subprocess.run(shell, capture_output=True, timeout=60, check=False)
    assert b"ConfigError: stdin: cannot be read: it is closed" in done.stderr
