"""Ids out of tables: CSV, TSV, JSON lines and Parquet, as files and as streams."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import ConfigError
from mirror.sources.inputs import Format, format_of
from mirror.sources.records import MAX_RECORD, find_column
from mirror.sources.tables import CsvParser, JsonLinesParser
from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import Origin
from tests.source_runs import cut, fed, parquet, read, read_bytes


def in_csv(data: bytes, **options: Any) -> tuple[list[str], list[str]]:
    bad: list[str] = []
    return fed(CsvParser("t.csv", bad.append, **options), [data]), bad


def in_jsonl(data: bytes, column: str | None = None) -> tuple[list[str], list[str]]:
    bad: list[str] = []
    return fed(JsonLinesParser("t.jsonl", bad.append, column=column), [data]), bad


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ids", "text"),
        ("ids.txt", "text"),
        ("ids.csv.bak", "text"),
        ("a.csv/ids", "text"),
        ("ids.gz", "text"),
        ("ids.csv", "csv"),
        ("IDS.CSV.GZ", "csv"),
        ("ids.tsv.zst", "tsv"),
        ("ids.jsonl", "jsonl"),
        ("ids.ndjson.gz", "jsonl"),
        ("s3://b/2026.01/ids.parquet", "parquet"),
        ("ids.pq", "parquet"),
        ("-", "text"),
    ],
)
def test_the_name_says_the_format(name: str, form: str) -> None:
    assert format_of(name) == form


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["a", "id", "prompt_id", "promptId"], None, 3),
        (["ID", "Prompt_Id"], None, 1),
        (["x", " PROMPTID "], None, 1),
        (["x", "y"], None, None),
        (["task", "Task"], "Task", 1),
        (["x", "Task"], "task", 1),
        (["id"], "task", None),
    ],
)
def test_which_column(names: list[str], wanted: str | None, found: int | None) -> None:
    assert find_column(names, wanted) == found


class TestCsv:
    @pytest.mark.parametrize(
        ("data", "options", "ids"),
        [
            (b"", {}, []),
            (b"promptId\na\nb\n", {}, ["a", "b"]),
            (b"x,id\n1,a\n\n2,b", {}, ["a", "b"]),
            (b"\xef\xbb\xbfid,x\r\na,1\r\nb,2\r\n", {}, ["a", "b"]),
            (b'\xef\xbb\xbf"id",x\r\n"a",1\r\n', {}, ["a"]),
            (b'id,note\na,"one\ntwo, ""three""\r\n"\nb,\n', {}, ["a", "b"]),
            (b'note,id\n"one\n\n",a\nit is 5" wide,b\n"x"y,c\n', {}, ["a", "b", "c"]),
            (b'id\n" a "\n"b\n"\n', {}, ["a", "b"]),
            (b"Task,id\na,1\n", {"column": "task"}, ["a"]),
            (b"1,a\n2,b\n", {"column": "2"}, ["a", "b"]),
            (b"n,PromptID\n1,a\n", {"column": "2"}, ["a"]),
            (b"id\tx,y\na\t1\n", {"delimiter": "\t"}, ["a"]),
            (b"id\n17\n", {}, ["17"]),
        ],
    )
    def test_what_is_an_id(self, data: bytes, options: dict[str, str], ids: list[str]) -> None:
        assert in_csv(data, **options) == (ids, [])

    def test_bad_lines_are_reported_and_the_rest_goes_on(self) -> None:
        data = b'x,id\n1,a\n2\n\xff,b\n3,\n"two\nlines, \xff",c\n4\r5,d\n"two\nlines",\n5,e\n'
        assert in_csv(data) == (
            ["a", "e"],
            [
                "t.csv:3: there is no column id",
                "t.csv:4: not UTF-8",
                "t.csv:5: the id is empty",
                "t.csv:6: not UTF-8",
                f"t.csv:8: not CSV: {_lone_cr()}",
                "t.csv:9: the id is empty",
            ],
        )

    @pytest.mark.parametrize(
        ("rows", "ids", "bad"),
        [
            (b'b,"oops\nc,2\nd,""3\ne,4', ["c", "d", "e"], ["t.csv:2: a quote is opened and never closed"]),
            (
                b'b,"oops\nc,x",",y\nd,3\ne,4',
                ["d", "e"],
                [
                    "t.csv:2: a quote is opened and never closed",
                    "t.csv:3: a quote is opened and not closed on this line",
                ],
            ),
            # Nobody can tell that this one was not meant to end where the next one stands.
            (b'b,"oops\nc,1\nd,x"2"\ne,4', ["b", "e"], []),
        ],
    )
    def test_a_quote_that_never_ends_costs_its_own_line(self, rows: bytes, ids: list[str], bad: list[str]) -> None:
        assert in_csv(b"id,x\n" + rows) == (ids, bad)

    @pytest.mark.parametrize("line", [b'x",",y', b"b,1"])
    def test_a_quote_without_end_is_not_looked_for_for_ever(self, line: bytes) -> None:
        rows = 2 * MAX_RECORD // len(line)
        ids, bad = in_csv(b'id,x\na,"oops\n' + (line + b"\n") * rows + b"end,1\n")
        assert bad[0] == f"t.csv:2: a quote is opened and not closed within {MAX_RECORD:,} bytes"
        assert len(ids) + len(bad) > rows / 2
        assert line != b"b,1" or ids == ["b"] * rows + ["end"]

    @pytest.mark.parametrize("size", [MAX_RECORD, MAX_RECORD + 2, 5 * MAX_RECORD])
    def test_a_record_is_bounded(self, size: int) -> None:
        long = b",x" * (size // 2)
        bad: list[str] = []
        parser = CsvParser("t.csv", bad.append)
        ids = fed(parser, [b"x,id\n1,a\n", *cut(long, range(0, size, 1 << 16)), b"\n2,b\n"])
        assert (ids, bad) == in_csv(b"x,id\n1,a\n" + long + b"\n2,b\n")
        assert ids == (["a", "x", "b"] if size <= MAX_RECORD else ["a", "b"])
        assert bad == ([] if size <= MAX_RECORD else [f"t.csv:3: longer than {MAX_RECORD:,} bytes"])

    @pytest.mark.parametrize("block", [b"x" * 65536, (b"x" * 63 + b"\n") * 1024], ids=["one line", "an open quote"])
    def test_what_has_no_end_is_not_kept(self, block: bytes) -> None:
        parser = CsvParser("t.csv", lambda report: None)
        parser.feed(b'id\n"')
        tracemalloc.start()
        for _ in range(60):
            parser.feed(block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * MAX_RECORD

    @pytest.mark.parametrize(
        ("data", "column", "told"),
        [
            (b"x,y z\n1,2\n", None, "no column promptId, prompt_id or id; its columns are: 'x', 'y z'. Give --column"),
            (b"x,id\n1,2\n", "task", "no column named 'task'; its columns are: 'x', 'id'"),
        ],
    )
    def test_without_the_column_it_says_which_there_are(self, data: bytes, column: str | None, told: str) -> None:
        with pytest.raises(ConfigError) as caught:
            in_csv(data, column=column)
        assert told in str(caught.value)

    @given(
        rows=st.lists(
            st.tuples(
                st.text(alphabet="ab1é", min_size=1, max_size=6),
                st.text(alphabet='ab,"\n\r\té ', max_size=8),
            ),
            max_size=12,
        ),
        delimiter=st.sampled_from([",", "\t"]),
        end=st.sampled_from(["\n", "\r\n"]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        cuts=st.lists(st.integers(0, 300), max_size=8),
    )
    def test_what_csv_writes_is_read_however_it_is_cut(
        self, rows: list[tuple[str, str]], delimiter: str, end: str, quoting: Any, cuts: list[int]
    ) -> None:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
        # csv quotes a lone CR only where it writes CRLF.
        kept = [(note if end == "\r\n" else note.replace("\r", ""), found) for found, note in rows]
        writer.writerows([("note", "id"), *kept])
        bad: list[str] = []
        parser = CsvParser("t.csv", bad.append, delimiter=delimiter)
        assert fed(parser, cut(text.getvalue().encode(), cuts)) == [found for found, _ in rows]
        assert bad == []

    @given(
        data=st.lists(
            st.sampled_from(
                [b"id,x\n", b"a", b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"\xff", b"\xef\xbb\xbf", b" "]
            ),
            max_size=40,
        ),
        cuts=st.lists(st.integers(0, 60), max_size=8),
    )
    def test_any_bytes_give_the_same_however_they_are_cut(self, data: list[bytes], cuts: list[int]) -> None:
        whole = b"id,x\n" + b"".join(data)
        bad: list[str] = []
        assert (fed(CsvParser("t.csv", bad.append), cut(whole, cuts)), bad) == in_csv(whole)


def _lone_cr() -> csv.Error:
    with pytest.raises(csv.Error) as caught:
        next(csv.reader(["4\r5,d\n"]))
    return caught.value


class TestJsonLines:
    @pytest.mark.parametrize(
        ("data", "column", "ids"),
        [
            (b'{"promptId":"a"}\n{"id":"c","prompt_id":"b"}\r\n\n{"ID": "d", "x": [{}]}', None, ["a", "b", "d"]),
            (b'\xef\xbb\xbf{"id":"a"}\n', None, ["a"]),
            (b'"a"\n"b\\u00e9"\n17\n', None, ["a", "bé", "17"]),
            (b'{"id":17}\n{"id":17.0}\n{"id":123456789012345678901234567890}', None, ["17", "17", "1234567890" * 3]),
            (b'{"a.b":"x","a":{"b":"y"}}', "a.b", ["x"]),
            (b'{"2":"x"}', "2", ["x"]),
        ],
    )
    def test_what_is_an_id(self, data: bytes, column: str | None, ids: list[str]) -> None:
        assert in_jsonl(data, column) == (ids, [])

    def test_bad_lines_are_reported_and_the_rest_goes_on(self) -> None:
        values = [b'{"id":null}', b'{"x":1}', b'{"id":', b'{"id":["a"]}', b'{"id":true}', b'{"id":1.5}', b"[1]", b"nul"]
        values += [b'{"id":" "}', b'{"id":"\xff"}', b'{"a":{"id":"x"}}', b'{"x":' + b"[" * 100_000, b'{"id":"z"}']
        ids, bad = in_jsonl(b"\n".join(values))
        assert ids == ["z"]
        assert [line.split(":")[1] for line in bad] == [str(number) for number in range(1, len(values))]
        assert bad[:2] == ["t.jsonl:1: the id is empty", "t.jsonl:2: there is no key promptId, prompt_id or id"]

    def test_a_line_is_bounded(self) -> None:
        long = json.dumps({"id": "a", "x": "y" * MAX_RECORD}).encode()
        assert in_jsonl(long + b'\n{"id":"b"}\n') == (["b"], [f"t.jsonl:1: longer than {MAX_RECORD:,} bytes"])

    @given(
        lines=st.lists(
            st.one_of(
                st.sampled_from([b'{"id":"a"}', b'{"ID":1}', b'"b"', b"", b"\r", b"\xff", b"{", b'{"id":null}']),
                st.binary(max_size=6),
            ),
            max_size=12,
        ),
        cuts=st.lists(st.integers(0, 100), max_size=8),
    )
    def test_any_cut_gives_the_same(self, lines: list[bytes], cuts: list[int]) -> None:
        data = b"\n".join(lines)
        bad: list[str] = []
        assert (fed(JsonLinesParser("t.jsonl", bad.append), cut(data, cuts)), bad) == in_jsonl(data)


class TestParquet:
    @pytest.mark.parametrize(
        ("column", "ids"),
        [
            (["a", "b"], ["a", "b"]),
            (pyarrow.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
            (pyarrow.array([b"a", b"b"]), ["a", "b"]),
            (pyarrow.array(["a"], pyarrow.large_string()), ["a"]),
            ([1, 2**60], ["1", str(2**60)]),
            ([17.0], ["17"]),
            ([Decimal(17)], ["17"]),
        ],
        ids=["text", "dictionary", "bytes", "large", "whole", "float", "decimal"],
    )
    def test_what_is_an_id(self, tmp_path: Path, column: Any, ids: list[str]) -> None:
        (tmp_path / "t.parquet").write_bytes(parquet({"other": [None] * len(ids), "PromptId": column}))
        assert read(tmp_path / "t.parquet") == (ids, [])

    def test_bad_rows_are_reported_with_their_number(self, tmp_path: Path) -> None:
        columns = {"id": ["a", None, "", "b", None]}
        (tmp_path / "t.pq").write_bytes(parquet(columns, row_group_size=2))
        bad = ["t.pq:2: the id is empty", "t.pq:3: the id is empty", "t.pq:5: the id is empty"]
        assert read(tmp_path / "t.pq") == (["a", "b"], bad)

    @pytest.mark.parametrize(("column", "ids"), [("a.b", ["x"]), ("2", ["y"]), ("c", ["y"]), (None, None), ("a", None)])
    def test_the_column(self, tmp_path: Path, column: str | None, ids: list[str] | None) -> None:
        (tmp_path / "t.pq").write_bytes(parquet({"a": [{"b": "no"}], "c": ["y"], "a.b": ["x"]}))
        if ids is not None:
            assert read(tmp_path / "t.pq", column=column) == (ids, [])
            return
        with pytest.raises(ConfigError, match="columns are: 'a', 'c', 'a.b'" if column is None else "holds struct<"):
            read(tmp_path / "t.pq", column=column)

    def test_what_is_no_parquet_is_named(self, tmp_path: Path) -> None:
        for content in (b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"a\nb\n"):
            (tmp_path / "t.parquet").write_bytes(content)
            with pytest.raises(ConfigError, match=r"t\.parquet: cannot be read as Parquet"):
                read(tmp_path / "t.parquet")

    def test_a_damaged_row_group_is_reported_and_the_next_is_read(self, tmp_path: Path) -> None:
        ids = [f"{number:032x}" for number in range(300)]
        data = bytearray(
            parquet({"id": ids}, row_group_size=100, compression="none", use_dictionary=False, write_page_checksum=True)
        )
        data[data.index(ids[150].encode()) + 3] ^= 1
        (tmp_path / "t.parquet").write_bytes(data)
        found, bad = read(tmp_path / "t.parquet")
        assert found == ids[:100] + ids[200:]
        assert len(bad) == 1
        assert bad[0].startswith("t.parquet:101: row group 2 cannot be read on: ")

    def test_from_a_pipe_it_is_put_aside_and_nothing_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        assert read_bytes(parquet({"id": ["a", "b"]}), "parquet") == (["a", "b"], [])
        assert list(tmp_path.iterdir()) == []

    def test_only_one_column_and_not_all_of_it_is_in_memory(self, tmp_path: Path) -> None:
        rows = 400_000
        columns = {"id": [f"{number:032x}" for number in range(rows)], "wide": [os.urandom(100) for _ in range(rows)]}
        (tmp_path / "t.parquet").write_bytes(
            parquet(columns, row_group_size=rows, use_dictionary=False, compression="none")
        )
        program = (
            "import sys, asyncio, pyarrow\n"
            "from mirror.sources.inputs import Reading, open_input\n"
            "async def main():\n"
            "    source = open_input(sys.argv[1], Reading(), on_bad_line=print, observer=print)\n"
            "    print(sum([len(batch) async for batch in source]), pyarrow.default_memory_pool().max_memory())\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "t.parquet")], capture_output=True, check=True, timeout=300
        )
        count, peak = map(int, done.stdout.split())
        assert count == rows
        assert peak < rows * 36 / 3


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_a_run_takes_its_ids_from_a_table(origin: Origin, archive: Archive, tmp_path: Path, form: Format) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "1.png")
    tables = {
        "csv": b'note,task\n"a\nb",p\n,\nc,q\n',
        "tsv": b"note\ttask\na\tp\n\t\nc\tq\n",
        "jsonl": b'{"task":"p"}\n{}\n{"task":"q"}\n',
        "parquet": parquet({"task": ["p", None, "q"]}),
    }
    (tmp_path / f"ids.{form}").write_bytes(tables[form])
    done = archive.run("fetch", "-i", f"ids.{form}", "--column", "task")
    assert (done.code, done.summary["prompts"]) == (3, {"complete": 2})
    assert f"ids.{form}:{4 if form == 'csv' else 3 if form == 'tsv' else 2}: " in done.err


def test_a_table_on_stdin_needs_its_format_and_a_wrong_column_stops(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "1.png")
    assert archive.run("fetch", "-i", "-", "--input-format", "csv", stdin="x,id\n1,p\n").code == 0
    wrong = archive.run("fetch", "-i", "-", "--input-format", "csv", "--column", "task", stdin="x,id\n1,p\n")
    assert (wrong.code, "stdin: there is no column named 'task'; its columns are: 'x', 'id'" in wrong.err) == (2, True)


@pytest.mark.parametrize("name", ["ids.parquet", "ids.txt.zst", "hidden"])
def test_without_the_extra_it_says_how_to_get_it(origin: Origin, archive: Archive, tmp_path: Path, name: str) -> None:
    """The libraries stand behind folders that cannot be imported."""
    for library in ("pyarrow", "zstandard"):
        (tmp_path / "shadow" / library).mkdir(parents=True)
        (tmp_path / "shadow" / library / "__init__.py").write_text("raise ImportError('not here')")
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd" if name == "hidden" else b"")
    path = os.pathsep.join([str(tmp_path / "shadow"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = archive.run("fetch", "-i", name, environ={"PYTHONPATH": path})
    assert (done.code, "pip install 'prompt-mirror[tables]'" in done.err) == (2, True)
    assert "Traceback" not in done.err
