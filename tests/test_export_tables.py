"""`mirror export` of jsonl, csv and parquet: the same rows for every reader, typed, and what tampering does to them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mirror.manifests.rows import Row, rows_of
from mirror.models import Manifest, ManifestApi, ManifestFile, Media, NamedBy, PromptState, Role, S3Object
from tests import media
from tests.conftest import Archive
from tests.export_runs import flip, generated, hostile, library
from tests.helpers import mirrored, picture
from tests.origin import answer, task

FORMS = ("jsonl", "csv", "parquet")


def family(archive: Archive) -> None:
    """Mirror a prompt whose files have all there is to tell: a child's, one that two places name, a video."""
    shared, _ = picture(archive.origin, "/c/shared.png")
    film = archive.origin.add("/c/film.mp4", media.mp4(5000))
    weak = archive.origin.add(
        "/c/%3Dweak.png", media.png(seed=3), etag='W/"a,b"', content_type="=cmd()", last_modified=None
    )
    child = task("child", images=[(shared, film)], taskId=7)
    archive.origin.prompt("root", answer(task("root", images=[(shared, weak)], children=[child], taskId=2**62)))
    assert mirrored(archive, "root").code == 0


def exported(archive: Archive, form: str, *arguments: str) -> Path:
    path = archive.root.with_name(f"table.{form}")
    done = archive.run("export", form, *arguments, "--output", str(path))
    assert (done.code, done.err.count("\n")) == (0, 1)
    return path


def expected(archive: Archive) -> list[dict[str, Any]]:
    """The rows as the manifests have them, read as plain JSON."""
    found = []
    for path in sorted(archive.root.glob("*/manifest.json")):
        manifest = json.loads(path.read_bytes())
        for file in manifest["files"]:
            first = file["named_by"][0]
            inside = file["media"] or {}
            found.append(
                {
                    "prompt_id": manifest["prompt_id"],
                    "state": manifest["state"],
                    "mirrored_at": _moment(manifest["mirrored_at"]),
                    "path": f"{path.parent.name}/{file['path']}",
                    "name": file["path"],
                    **{key: file[key] for key in ("role", "url", "bytes", "sha256", "content_type", "etag")},
                    "last_modified": _moment(file["last_modified"]),
                    "verified": file["verified"],
                    "named_by_prompt_id": first["prompt_id"],
                    **{key: first[key] for key in ("task_id", "image_id", "field")},
                    "named_by_count": len(file["named_by"]),
                    "named_by": file["named_by"],
                    "media_kind": inside.get("kind"),
                    **{key: inside.get(key) for key in ("width", "height", "seconds", "frame_rate", "codec")},
                    **{f"s3_{key}": None for key in ("bucket", "key", "etag", "version_id", "checksum_sha256", "via")},
                }
            )
    assert found
    return found


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a reader gives it, its own types of missing values, times and lists made plain."""
    pandas = library("pandas")
    found: dict[str, Any] = {}
    for name, given in row.items():
        value = given.tolist() if hasattr(given, "tolist") else given
        if isinstance(value, list):
            found[name] = [dict(each) if isinstance(each, Mapping) else each for each in value]
        elif value is None or value is pandas.NaT or value != value:
            found[name] = None
        elif isinstance(value, datetime):
            found[name] = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
        else:
            found[name] = value
    return found


def read(reader: str, form: str, path: Path) -> list[dict[str, Any]]:
    """What a reader finds, without being told anything but the file's name (and to pandas, that its JSON is lines)."""
    pandas, duckdb = library("pandas"), library("duckdb")
    if reader == "duckdb":
        found = duckdb.sql(f"FROM '{path}'")
        return [plain(dict(zip(found.columns, row, strict=True))) for row in found.fetchall()]
    if reader == "pyarrow":
        module = library("pyarrow." + {"jsonl": "json"}.get(form, form))
        table = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_table"}[form]
        return [plain(row) for row in getattr(module, table)(path).to_pylist()]
    frame = {
        "jsonl": lambda: pandas.read_json(path, lines=True),
        "csv": lambda: pandas.read_csv(path),
        "parquet": lambda: pandas.read_parquet(path),
    }[form]()
    return [plain(row) for row in frame.to_dict("records")]


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row as CSV has it, typed as a reader that takes times for text would."""
    told = dict(row)
    told["verified"] = " ".join(row["verified"])
    told["named_by"] = json.dumps(row["named_by"], separators=(",", ":"))
    return {
        name: value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
        for name, value in told.items()
    }


@pytest.mark.parametrize("reader", ["pyarrow", "duckdb", "pandas"])
@pytest.mark.parametrize("form", FORMS)
def test_every_reader_has_the_rows_of_the_manifests(archive: Archive, form: str, reader: str) -> None:
    hostile(archive)
    family(archive)
    found = read(reader, form, exported(archive, form))
    wanted = expected(archive)
    assert list(found[0]) == list(Row.__struct_fields__)
    if form == "csv":
        wanted = [as_text(row) for row in wanted]
        found = [
            as_text(row | {"verified": row["verified"].split(), "named_by": json.loads(row["named_by"])})
            for row in found
        ]
    elif (form, reader) == ("jsonl", "pandas"):  # which reads a time only where the column's name says so
        found = [row | {"last_modified": _moment(row["last_modified"])} for row in found]
    assert found == wanted


def test_the_columns_of_parquet_have_their_types(archive: Archive) -> None:
    family(archive)
    schema = library("pyarrow.parquet").read_schema(exported(archive, "parquet"))
    place = "prompt_id: string not null, task_id: int64, image_id: int64, field: string not null"
    named = f"list<element: struct<{place}> not null>"
    kinds = {"bytes": "int64", "named_by_count": "int64", "task_id": "int64", "image_id": "int64", "width": "int64"}
    kinds |= {"height": "int64", "seconds": "double", "frame_rate": "double", "named_by": named}
    kinds |= {"mirrored_at": "timestamp[us, tz=UTC]", "last_modified": "timestamp[us, tz=UTC]"}
    kinds |= {"verified": "list<element: string not null>"}
    assert {field.name: _whole(field.type) for field in schema} == {
        name: kinds.get(name, "string") for name in Row.__struct_fields__
    }
    never_null = [field.name for field in schema if not field.nullable]
    assert never_null == [
        *("prompt_id", "state", "path", "name", "role", "url", "bytes", "verified", "named_by_count", "named_by")
    ]


def _whole(kind: Any) -> str:
    """pyarrow cuts what is long."""
    if hasattr(kind, "value_field"):
        inner = kind.value_field
        return f"list<{inner.name}: {_whole(inner.type)}{'' if inner.nullable else ' not null'}>"
    if kind.num_fields:
        fields = [f"{each.name}: {_whole(each.type)}{'' if each.nullable else ' not null'}" for each in kind.fields]
        return f"struct<{', '.join(fields)}>"
    return str(kind)


def test_csv_is_as_the_standard_says_and_values_stay_as_they_are(archive: Archive) -> None:
    family(archive)
    content = exported(archive, "csv").read_bytes()
    assert content.startswith(b"prompt_id,state,mirrored_at,path,")
    assert content.count(b"\r\n") == content.count(b"\n") == 4
    rows = list(csv.DictReader(content.decode().splitlines()))
    (odd,) = (row for row in rows if row["content_type"] == "=cmd()")
    assert (odd["name"], odd["etag"], odd["last_modified"]) == ("=weak.png", 'W/"a,b"', "")


def test_a_fraction_of_a_second_is_kept(archive: Archive) -> None:
    """No manifest of ours has one."""
    (only,) = generated(archive.root, 1)
    path = archive.root / only / "manifest.json"
    path.write_text(path.read_text().replace('13:54:20Z"', '13:54:20.123456Z"'))
    for form in FORMS:
        row, _ = read("duckdb", form, exported(archive, form))
        assert row["mirrored_at"] == datetime(2026, 1, 29, 13, 54, 20, 123456, tzinfo=UTC)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_nothing(archive: Archive, form: str) -> None:
    archive.root.mkdir()
    path = exported(archive, form)
    if form == "jsonl":
        assert path.read_bytes() == b""
    else:
        assert read("pyarrow", form, path) == []
        assert read("pandas", form, path) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_of_a_file_is_found_by_the_table(archive: Archive, form: str) -> None:
    """DuckDB hashes what is there, and compares."""
    hostile(archive)
    table = exported(archive, form)
    hashed = f"SELECT filename, sha256(content) AS found FROM read_blob('{archive.root}/*/*')"
    joined = f"FROM '{table}' AS told LEFT JOIN ({hashed}) AS there ON there.filename = '{archive.root}/' || told.path"
    wrong = f"SELECT path {joined} WHERE found IS DISTINCT FROM sha256"
    duckdb = library("duckdb")
    assert duckdb.sql(f"SELECT count(found) {joined}").fetchall() == [(20,)]
    assert duckdb.sql(wrong).fetchall() == []
    flip(archive.root / "p" / "plain.png", 200)
    assert duckdb.sql(wrong).fetchall() == [("p/plain.png",)]


def test_a_flipped_bit_of_a_parquet_file_is_found_by_its_reader(archive: Archive) -> None:
    """Each page has its checksum: wherever in the data a bit is flipped, pyarrow refuses to read it."""
    generated(archive.root, 50)
    path = exported(archive, "parquet")
    pyarrow = library("pyarrow.parquet")
    metadata = pyarrow.read_metadata(path)
    assert {metadata.row_group(0).column(0).compression, metadata.created_by.split()[0]} == {
        "SNAPPY",
        "parquet-cpp-arrow",
    }
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    assert columns
    for column in columns:
        first = column.dictionary_page_offset or column.data_page_offset
        flip(path, first + column.total_compressed_size - 1)
        with pytest.raises(OSError, match=r"(?i)crc|checksum"):
            pyarrow.read_table(path, page_checksum_verification=True)
        flip(path, first + column.total_compressed_size - 1)
    assert pyarrow.read_table(path, page_checksum_verification=True).num_rows == 100


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_flipped_bit_of_a_table_of_text_is_another_value(archive: Archive, form: str) -> None:
    """No checksum guards it: what is another digest by then is no file's."""
    hostile(archive)
    path = exported(archive, form)
    before = read("pandas", form, path)
    flip(path, path.read_bytes().index(before[0]["sha256"].encode()))
    after = read("pandas", form, path)
    on_disk = {hashlib.sha256(body).hexdigest() for body in archive.files().values()}
    assert [row["sha256"] in on_disk for row in after] == [False, *[True] * 19]


def test_values_that_no_column_can_hold_are_null() -> None:
    """Manifests of ours have none of them."""
    file = ManifestFile(
        path="a",
        role=Role.ORIGIN,
        url="u",
        bytes=1,
        sha256=None,
        last_modified="soon",
        named_by=(NamedBy(prompt_id="p", task_id=2**63, image_id=-(2**63), field="origin"),),
        media=Media(kind="image", width=2**70),
        s3=S3Object(bucket="b", key="p/a", etag="e", via="copy"),
    )
    manifest = Manifest(
        prompt_id="p",
        state=PromptState.PARTIAL,
        mirrored_at="2026-01-29T13:54:20+02:00",
        api=ManifestApi(url="u"),
        files=(
            file,
            msgspec.structs.replace(file, named_by=(), media=None, s3=None, last_modified="2026-01-01T00:00:00"),
        ),
    )
    first, second = rows_of("p", manifest)
    assert (first.mirrored_at, first.last_modified) == (datetime(2026, 1, 29, 11, 54, 20, tzinfo=UTC), None)
    assert (first.task_id, first.image_id, first.named_by[0].task_id, first.width) == (None, -(2**63), None, None)
    assert (first.s3_bucket, first.s3_key, first.s3_via, first.s3_version_id) == ("b", "p/a", "copy", None)
    assert (second.named_by_count, second.named_by_prompt_id, second.media_kind, second.s3_key) == (0, None, None, None)
    assert second.last_modified is None
