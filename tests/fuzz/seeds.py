"""What each target's inputs are made from: real examples, and the words they are made of."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import mirror
from mirror.models import Receipt
from mirror.stores import Head
from mirror.stores.journal import VERSION, Claim, Committed, Started, journal_of
from tests import media
from tests.fuzz.targets import ASKED
from tests.origin import answer, task

_STORE = "https://muyuhan.s3.amazonaws.com/faceWap/test/original"
_PICTURE = f"{_STORE}/1769594446809030000_TFVMoqDf.png"
_SIGNED = f"{_STORE}/1769594620471325196_04aerrvp.mp4?X-Amz-Credential=a%2Fb&X-Amz-Signature=0123&v=2"


def _answer() -> bytes:
    child = task("0fdd439fe1a94c8aa3ddaca3cdf50fe5", images=[(_PICTURE, _SIGNED)], taskId="1043", state=30)
    return json.dumps(answer(task(ASKED, children=[child], images=[(None, _PICTURE)], taskId=1, state=30))).encode()


def _manifest() -> bytes:
    place = {"prompt_id": ASKED, "task_id": 1, "image_id": None, "field": "origin"}
    file: dict[str, Any] = {
        "path": "a.png",
        "role": "origin",
        "url": "https://h/a.png",
        "bytes": 9,
        "sha256": "0" * 64,
        "etag": '"x"',
        "last_modified": "2026-01-29T13:54:20Z",
        "named_by": [place],
        "verified": ["length", "etag-md5"],
        "media": {"kind": "image", "width": 1, "height": 2, "seconds": None},
        "s3": {"bucket": "b", "key": f"m/{ASKED}/a.png", "etag": '"x"', "via": "upload", "checksum_sha256": "AAAA"},
    }
    lost = {**file, "path": "b.png", "url": "https://h/b.png", "s3": None}
    failed = {"url": "https://h/b.png", "role": "origin", "error": "Gone", "message": "no", "attempts": 1, "was": lost}
    return json.dumps(
        {
            "version": 1,
            "prompt_id": ASKED,
            "state": "partial",
            "mirrored_at": "2026-01-29T13:54:20Z",
            "api": {"url": "https://api.example/getTaskInfo", "code": 200, "msg": "SUCCESS"},
            "task": task(ASKED, images=[(None, "https://h/a.png"), (None, "https://h/b.png")]),
            "files": [file],
            "errors": [failed, {"error": "BadAnswer", "message": "state"}],
        }
    ).encode()


def _journal() -> bytes:
    head = Head(length=100, etag='"x"', last_modified="Thu, 29 Jan 2026 13:54:20 GMT", checks={"etag-md5": "0" * 32})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.journal"
        written = journal_of(path)
        written.rewrite(
            [
                Started(version=VERSION, identity="https://h/a.png", head=head),
                Claim(start=0, stop=50, sha256="0" * 64),
                Claim(start=70, stop=100, crc32=7),
                Committed(folder="p", receipt=Receipt(path="a.png", bytes=100, sha256="0" * 64)),
            ]
        )
        written.close()
        return path.read_bytes()


_HEADERS = b"""ETag: "0123456789abcdef0123456789abcdef"
Last-Modified: Thu, 29 Jan 2026 13:54:20 GMT
Content-Type: video/mp4
Content-Range: bytes 0-9/100
Retry-After: 30
x-amz-request-id: 1
x-amz-checksum-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

"""
_LATER = b'ETag: W/"x"\nRetry-After: Thursday, 29-Jan-26 12:00:30 GMT\nLast-Modified: Thu Jan 29 12:00:30 2026\n\n'

_CONFIG = b"""[api]
base_url = "https://api.example/v1"
token = "s3cr3t"
timeout = "30s"
[transfer]
memory = "64M"
concurrency = 4
[s3]
bucket = "b-1"
tags = { a = "b" }
[security]
allow_hosts = ["h"]
"""
_EXAMPLE = Path(mirror.__file__).parents[1] / "config.example.toml"

_ERROR = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE e [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>
<Error><Code>AuthorizationHeaderMalformed</Code><Message>&b;</Message><Region>eu-central-1</Region></Error>"""

_ROWS = b'id,promptId,note\n1,ef8ec19d,"a ""quoted"", note\nof two lines"\n2,0fdd439f,\r\n'
_LINES = b"\xef\xbb\xbfef8ec19d6670c018814358a21a910090\r\n# a comment\n0fdd439f # another\n\n\xff\n"
_JSONL = b'{"promptId":"a","x":[{}]}\n"b"\n17\n{"ID":1.0}\n{"id":null}\n{"id":"\\u00e9"}\n'
_FILE = json.dumps(json.loads(_manifest())["files"][0]).encode()


_GIF = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b"!\xf9\4" + bytes(5) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def _zstd(data: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - an extra

    packed: bytes = zstandard.ZstdCompressor().compress(data)
    return packed


def seeds() -> dict[str, list[bytes]]:
    """Valid inputs of each target."""
    page = [{"promptId": ASKED, "createdAt": 1769594620471, "state": 30}, {"promptId": "", "createdAt": "1"}]
    return {
        "answer": [_answer()],
        "history": [json.dumps({"code": 200, "msg": "", "data": page}).encode()],
        "manifest": [_manifest()],
        "journal": [_journal()],
        "headers": [_HEADERS, _LATER],
        "url": [
            _PICTURE.encode(),
            _SIGNED.encode(),
            b"http://u:p@[::1]:80/a/..;token=1/%2e?u=https%3A%2F%2Fh%3Fsig%3D1",
        ],
        "config": [_CONFIG, _EXAMPLE.read_bytes()],
        "s3-error": [_ERROR],
        "lines": [_LINES],
        "csv": [_ROWS, _ROWS.replace(b",", b"\t")],
        "jsonl": [_JSONL],
        "packed": [gzip.compress(_LINES, mtime=0) * 2, _zstd(_LINES) * 2],
        "row": [_FILE],
        "page": [b"\xef\xbb\xbf<!-- x --> <!DOCTYPE html>", b"\x89PNG\r\n", b'{"code":1}'],
        "structure": [media.png(), media.jpeg(size=900), media.webp(), media.mp4(900), _GIF],
    }


TOKENS: dict[str, list[bytes]] = {
    "answer": [b'"taskList":', b'"imageList":', b'"origin":', b'"path":', b"null", b"[[[[", b'"state":2', b"30.0"],
    "history": [b"Infinity", b"NaN", b'"\\ud800"', b'"createdAt":', b"null"],
    "manifest": [b'"../x"', b'"/etc/passwd"', b'"manifest.json"', b'"was":', b'"version":2', b"18446744073709551616"],
    "journal": [b"00000000 ", b'{"type":"claim",', b'"stop":'],
    "headers": [b"bytes */100", b"W/", b"aws:kms", b"x-amz-server-side-encryption: ", b" -2300", b"Jan 0100"],
    "url": [
        b"//",
        b"@",
        b"[",
        b"]",
        b"%25",
        b"%3D",
        b"\\u0026",
        b"X-Amz-Signature=",
        b"#",
        b";",
        b"?",
        b"xn--",
        b":443",
    ],
    "config": [b"1979-05-27T07:32:00Z", b"inf", b"{}", b"[[api]]", b'"2000W"', b"0x", b"'''"],
    "s3-error": [b"<Code>", b"</Code>", b"<Region>"],
    "row": [b'"bytes":', b"null", b"[[[["],
    "structure": [
        b"IEND",
        b"\xff\xda\0\2",
        b"\xff\xd9",
        b"\0\0\0\0moov",
        b"\0\0\0\1mdat",
        b"moof",
        b"meta",
        b",",
        b";",
    ],
}
