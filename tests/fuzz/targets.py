"""One function a parser: any bytes go in; it returns where all that must hold does, and raises where it does not."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace
from multidict import CIMultiDict
from yarl import URL

from mirror import names, times
from mirror.adoption import record_from
from mirror.answers import read_answer, read_envelope, read_history
from mirror.catalog.rows import decode as decode_row
from mirror.config import load
from mirror.download import parse_content_range, read_head
from mirror.errors import ApiUnavailable, BadAnswer, ConfigError, MirrorError, Refused, StoreUnavailable
from mirror.manifests import document
from mirror.media import why_not_media
from mirror.media.look import Look
from mirror.models import Manifest, ManifestFile, PromptId, Receipt
from mirror.plan import plan
from mirror.retry import LONGEST_PAUSE, parse_retry_after
from mirror.settings import S3Settings
from mirror.sources.lines import Damaged, LineParser, Parser
from mirror.sources.tables import CsvParser, JsonLinesParser
from mirror.stores import Document
from mirror.stores.journal import journal_of
from mirror.stores.s3.address import locate
from mirror.stores.s3.checksums import composite, contradicts, hex_of, multipart_etag
from mirror.stores.s3.errors import Refusal, code_in, error_of, region_in
from mirror.urls import check_url, identity, is_signed, origin, redact, shown

ASKED = PromptId("ef8ec19d6670c018814358a21a910090")
API = "https://api.example/getTaskInfo"
Target = Callable[[bytes], None]


def _told(error: MirrorError, where: str = "") -> None:
    """What cannot be used is told in a line or two."""
    assert where in str(error)
    assert 0 < len(str(error)) < 1000
    assert str(error).isprintable() or where


def answer(body: bytes) -> None:
    """An answer, by way of the plan, to the manifest and back to the catalog."""
    try:
        found = read_answer(read_envelope(body), ASKED, API)
    except (ApiUnavailable, BadAnswer) as error:
        _told(error)
        return
    made = plan(found.task)
    taken = [names.key(asset.name) for asset in made.assets]
    assert len(set(taken)) == len(taken), "two files of one name"
    files = []
    for asset in made.assets:
        check_url(asset.url)
        assert redact(asset.identity) == asset.identity
        receipt = Receipt(path=asset.name, bytes=1, sha256="0" * 64)
        files.append(document.entry(asset, receipt))
    state = document.state_of(found.task, missing=bool(made.failures))
    manifest = document.compose(ASKED, state, found, files, made.failures)
    line = document.encode_line(manifest)
    assert line.count(b"\n") == 1
    written = document.encode(manifest)
    assert document.decode(written) == document.decode(line) == manifest
    record = record_from(Document(content=written), ASKED)
    assert record is not None
    assert {file.identity for file in record.files if file.entry} == {asset.identity for asset in made.assets}


def history(body: bytes) -> None:
    """A page of the history: rows that can be enlisted, or flaws."""
    try:
        page = read_history(read_envelope(body, lenient=True))
    except (ApiUnavailable, BadAnswer) as error:
        _told(error)
        return
    for row in page.rows:
        assert row.prompt_id
        assert row.created_at is None or 0 < row.created_at < 1e17


def manifest(content: bytes) -> None:
    """A manifest read back: what is accepted names files of its own folder only, and comes back as it is."""
    try:
        found = document.decode(content)
    except StoreUnavailable as error:
        _told(error)
        return
    for file in _files(found):
        assert Path(file.path).name == file.path
        assert not names.is_reserved(file.path)
        assert 0 <= file.bytes < 2**63, "what a database can hold"
    assert document.decode(document.encode(found)) == found
    assert document.says_more(found, found)
    record = record_from(Document(content=content), names.for_prompt(found.prompt_id)[0], PromptId(found.prompt_id))
    assert record is not None
    for kept in record.files:
        for entry in filter(None, (kept.entry, kept.failure)):
            assert decode_row(msgspec.json.encode(entry), type(entry)) == entry


def _files(found: Manifest) -> Iterator[ManifestFile]:
    yield from found.files
    yield from (error.was for error in found.errors if isinstance(error.was, ManifestFile))


def journal(content: bytes) -> None:
    """A journal: the records up to the first that is damaged; to read it again after a rewrite changes nothing."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "a.journal"
        path.write_bytes(content)
        read = journal_of(path)
        records = read.read()
        whole = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
        assert len(records) <= len(whole)
        read.rewrite(records)
        read.close()
        assert journal_of(path).read() == records


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def headers(content: bytes) -> None:
    """An answer's headers: what is taken over fits into a manifest and a request, and no number is absurd."""
    told = CIMultiDict(BytesHeaderParser().parsebytes(content).items())
    told = CIMultiDict({name: str(value) for name, value in told.items()})
    head = read_head(told, None)
    for value in (head.etag, head.last_modified, head.content_type, head.validator.if_range):
        assert value is None or (value.isascii() and value.isprintable() and len(value) <= 510)
    assert len(head.checks) <= 1
    assert all(re.fullmatch(r"([0-9a-f]{2})*", digest) for digest in head.checks.values())
    date = times.from_http(told.get("Last-Modified"))
    assert date is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", date)
    pause = parse_retry_after(told.get("Retry-After"), 1.7e9)
    assert pause is None or 0 <= pause <= LONGEST_PAUSE
    ranged = parse_content_range(told.get("Content-Range"))
    if ranged is not None:
        first, last, total = ranged
        assert 0 <= first <= last < (total if total is not None else 10**18)
    checksum = hex_of(told.get("x-amz-checksum-sha256"))
    assert composite([told.get("x-amz-checksum-sha256")]) is None or len(checksum or "") == 64
    assert multipart_etag([told.get("ETag", "")]) is None or head.etag is None or len(head.etag) < 40
    assert contradicts({"x-amz-checksum-sha256": ""}, dict(told)) in (None, "x-amz-checksum-sha256")


def url(content: bytes) -> None:
    """A URL: it has an identity, a name and a form to be shown; one that is gone to means one host to everybody."""
    text = content.decode("utf-8", "surrogateescape")
    assert redact(identity(text)) == identity(text)
    assert redact(redact(text)) == redact(text)
    assert shown(text).isprintable()
    assert len(shown(text)) <= 301
    is_signed(text)
    name = names.from_url(text)
    assert names.safe(name) == name
    for store in (S3Settings(bucket="mine"), S3Settings(bucket="mine", endpoint_url="https://s:9000")):
        located = locate(text, store)
        assert located is None or (located.bucket and located.key)
    try:
        check_url(text)
    except Refused as error:
        _told(error)
        return
    scheme, host, port = origin(text)
    try:
        asked = URL(text, encoded=True)
    except ValueError:
        return  # refused where it is asked for
    assert (asked.scheme, (asked.raw_host or "").lower(), asked.explicit_port or port) == (scheme, host, port)
    assert asked.raw_query_string == urlsplit(text).query


def config(content: bytes) -> None:
    """A configuration file: settings, or an error that names the file and shows no token."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "mirror.toml"
        path.write_bytes(content)
        try:
            found = load(path, {}, {}).settings
        except ConfigError as error:
            _told(error, f"{path}: ")
            return
        assert "s3cr3t" not in repr(found)
        assert found.api.timeout >= 0


def s3_error(body: bytes) -> None:
    """The XML of a store's refusal: an error of ours with nothing of the store's own text but a plain code."""
    code, region = code_in(body), region_in(body)
    assert re.fullmatch(r"[A-Za-z0-9.]{0,80}", code)
    assert region is None or re.fullmatch(r"[A-Za-z0-9-]{1,40}", region)
    status = 400 + len(body) % 200
    error = error_of(Refusal(operation="PutObject", code=code, status=status, where="s3://b/k"), S3Settings(bucket="b"))
    assert isinstance(error, MirrorError)


def lines(content: bytes) -> None:
    """Ids one a line: the same wherever the blocks were cut, and each one line."""
    _same_when_cut(lambda bad: LineParser("ids.txt", bad), content)


def csv(content: bytes) -> None:
    """Ids in a table, named and numbered."""
    _same_when_cut(lambda bad: CsvParser("ids.csv", bad), content)
    _same_when_cut(lambda bad: CsvParser("ids.tsv", bad, column="2", delimiter="\t"), content)


def jsonl(content: bytes) -> None:
    """Ids in JSON lines."""
    _same_when_cut(lambda bad: JsonLinesParser("ids.jsonl", bad), content)


def _same_when_cut(make: Callable[[Callable[[str], None]], Parser], content: bytes) -> None:
    middle = content[0] % (len(content) + 1) if content else 0
    results = []
    for blocks in ([content], [content[:middle], content[middle:]]):
        bad: list[str] = []
        ids: list[str] = []
        with contextlib.suppress(ConfigError):  # no column
            parser = make(bad.append)
            for block in blocks:
                ids += parser.feed(block)
            ids += parser.finish()
        assert all(found and found == found.strip() for found in ids)
        results.append((ids, bad))
    assert results[0] == results[1]


def packed(content: bytes) -> None:
    """gzip and zstd: what can be taken apart is, in bounded steps; the rest is damaged."""
    from mirror.sources.compressed import _Frames, codec_of  # noqa: PLC0415 - zstandard is an extra

    codec = codec_of(content[:4])
    if codec is None:
        return
    frames = _Frames(codec)
    size = 0
    with contextlib.suppress(Damaged):
        for piece in frames.pieces(content):
            assert len(piece) <= 5 << 20
            size += len(piece)
            if size > 64 << 20:
                return  # a bomb
        frames.finish()


def row(content: bytes) -> None:
    """A column of the catalog: a value, or the error that tells to rebuild."""
    import sqlite3  # noqa: PLC0415

    kinds: tuple[Any, ...] = (ManifestFile, Receipt)
    for kind in kinds:
        try:
            found = decode_row(content, kind)
        except sqlite3.DatabaseError:
            continue
        assert decode_row(msgspec.json.encode(found), kind) == found
        assert replace(found, path="x").path == "x"


def page(content: bytes) -> None:
    """The first bytes of a file: media, or why not."""
    for kind in (None, "text/html; charset=x", "image/png"):
        assert why_not_media(content[:512], kind) is None or content[:512] != b"\x89PNG"


def structure(content: bytes) -> None:
    """A file's structure: the same is said of it in whatever pieces it comes, and little is held meanwhile."""
    size = content[-1] + 1 if content else 1
    whole, pieces = Look(), Look()
    whole.feed(content)
    for at in range(0, len(content), size):
        pieces.feed(memoryview(content)[at : at + size])
        twin = pieces.copy()
        twin.feed(b"\xff\xd9;")
        assert pieces._walk is None or len(pieces._walk.held) < 16
    found = whole.verdict()
    assert pieces.verdict() == found
    assert found.missing.isprintable()
    assert not (found.missing and found.trailing)
    assert 0 <= found.trailing <= len(content)


TARGETS: dict[str, Target] = {
    "answer": answer,
    "history": history,
    "manifest": manifest,
    "journal": journal,
    "headers": headers,
    "url": url,
    "config": config,
    "s3-error": s3_error,
    "lines": lines,
    "csv": csv,
    "jsonl": jsonl,
    "packed": packed,
    "row": row,
    "page": page,
    "structure": structure,
}
