"""No secret leaves by a side door: a log, a file, another host; and nothing that is made can be written to by all."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER
from tests.helpers import done_prompt, large_prompt
from tests.origin import Origin, answer, task

PICTURE = media.png(seed=1)
TOKEN = "t0ken+/with=signs-0815"
PASSWORD = "pr0xy-passw0rd"
PING = "/0f6c8a1e-5b1d-4b0c-9d3f-ping"
ACCESS, KEY, SESSION = "AKIAACCESSACCESS", "s3cretKey/s3cretKey+s3cret", "session/T0ken=="
SIGNATURE = "signature-5678"


def spellings(secret: str) -> set[bytes]:
    """A secret as it is, in a URL, in JSON, and in base64 wherever it stands in the encoded text."""
    plain = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
    inside = {base64.b64encode(b"x" * before + secret.encode()).decode()[4:-4] for before in range(3)}
    return {text.encode() for text in plain | inside}


def holding(secrets: Iterable[str], texts: dict[str, bytes]) -> list[tuple[str, str]]:
    """Which of the secrets stand in which of the texts."""
    return [
        (secret, name)
        for secret in secrets
        for name, text in texts.items()
        if any(spelling in text for spelling in spellings(secret))
    ]


@pytest.fixture
def canary() -> Iterator[Origin]:
    """A bucket, a monitor and a media host that write down everything they get, and do nothing."""
    with Origin() as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(token=TOKEN) as running:
        yield running


@pytest.fixture
def secret_environ(origin: Origin, canary: Origin, tmp_path: Path) -> dict[str, str]:
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\n{ env; echo "$0" "$@"; cat; } >> hook.out; env >&2\n')
    hook.chmod(0o755)
    proxy = urlsplit(origin.url).netloc
    return {
        "MIRROR_API_BASE_URL": "http://api.example",
        "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "false",
        "MIRROR_TRANSFER_PROXY": f"http://me:{PASSWORD}@{proxy}",
        "MIRROR_TRANSFER_ATTEMPTS": "1",
        "MIRROR_METRICS_TEXTFILE": str(tmp_path / "mirror.prom"),
        "MIRROR_METRICS_PING_URL": canary.url + PING,
        "MIRROR_HOOKS_ON_PROMPT": str(hook),
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_SESSION_TOKEN": SESSION,
    }


def test_nothing_that_a_run_writes_or_sends_holds_one(
    archive: Archive, origin: Origin, canary: Origin, secret_environ: dict[str, str], tmp_path: Path
) -> None:
    """A proxy with a password, a bucket that refuses, a monitor that fails, an API that repeats the token."""
    signed = f"http://media.example/a.png?X-Amz-Signature={SIGNATURE}"
    origin.add(signed, PICTURE)
    images = [(None, signed), (None, f"http://media.example/gone.png?sig={SIGNATURE}&se=1")]
    told = answer(task("p", images=images, reason=TOKEN), msg=f"no {TOKEN}")
    for api in ("http://api.example", ""):
        origin.handle(f"{api}/getTaskInfo", lambda _: told)
    common = ("fetch", "p", "-v", "--json", "--summary")
    direct = {
        "MIRROR_API_BASE_URL": origin.api_url,
        "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
        "MIRROR_TRANSFER_PROXY": "",
        "MIRROR_S3_BUCKET": "bucket",
        "MIRROR_S3_ENDPOINT_URL": canary.url,
        "MIRROR_S3_REGION": "r-1",
    }
    processes = {
        "proxy": archive.start(*common, "one.json", environ=secret_environ),
        "bucket": archive.start(
            *common,
            "two.json",
            "--log-format",
            "json",
            environ={**secret_environ, **direct, "MIRROR_ARCHIVE_ROOT": str(tmp_path / "second")},
        ),
        "no proxy": archive.start(
            *common,
            "three.json",
            environ={
                **secret_environ,
                "MIRROR_TRANSFER_PROXY": f"http://me:{PASSWORD}@127.0.0.1:1",
                "MIRROR_ARCHIVE_ROOT": str(tmp_path / "third"),
            },
        ),
        "doctor": archive.start(
            "doctor", environ={**secret_environ, **direct, "MIRROR_ARCHIVE_ROOT": str(tmp_path / "fourth")}
        ),
        "wrong token": archive.start("fetch", "p", environ={**secret_environ, "MIRROR_API_TOKEN": f"{TOKEN}\r\nX: y"}),
        "wrong proxy": archive.start("fetch", "p", environ={"MIRROR_TRANSFER_PROXY": f"ftp://me:{PASSWORD}@h"}),
    }
    texts: dict[str, bytes] = {}
    for name, process in processes.items():
        out, err = process.communicate(timeout=180)
        texts |= {f"{name} stdout": out.encode(), f"{name} stderr": err.encode()}
        assert "Traceback" not in err, err
    codes = {"proxy": 3, "bucket": 4, "no proxy": 3, "doctor": 4, "wrong token": 2, "wrong proxy": 2}
    assert {name: process.returncode for name, process in processes.items()} == codes
    assert b"MIRROR_PROMPT_ID=p" in (tmp_path / "hook.out").read_bytes()
    texts |= {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    in_hook = texts.pop("hook.out")  # documented: the environment, but for our credentials
    assert holding([TOKEN, PING, ACCESS, KEY, SESSION, SIGNATURE], {"hook": in_hook}) == []
    # The bucket's access key id is a name, and stands in what is signed; it is in no text of ours either.
    assert holding([TOKEN, PASSWORD, PING, ACCESS, KEY, SESSION, SIGNATURE], texts) == []

    others = [request for request in [*origin.requests, *canary.requests] if not request.is_api]
    sent = {f"{number} {request.target}": repr(request).encode() for number, request in enumerate(others)}
    pings, rest = (
        {name: text for name, text in sent.items() if (PING in name) == is_ping} for is_ping in (True, False)
    )
    assert {urlsplit(name.split()[1]).netloc for name in sent} >= {"media.example", urlsplit(canary.url).netloc, ""}
    assert (
        holding([TOKEN, KEY, PASSWORD], {name: text for name, text in sent.items() if name.split()[1][0] == "/"}) == []
    )
    assert holding([TOKEN, KEY], sent) == []
    assert holding([ACCESS, SESSION, SIGNATURE], pings) == []
    assert holding([PING], rest) == []


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_who_may_read_and_write_what_is_made(archive: Archive, origin: Origin, umask: int, tmp_path: Path) -> None:
    done_prompt(origin, "p", "a.png")
    large_prompt(origin, "q", media.mp4(3_000_000), [faults.close_after(2_000_000), faults.status(503, times=FOREVER)])
    environ = {"MIRROR_METRICS_TEXTFILE": str(tmp_path / "mirror.prom"), "MIRROR_TRANSFER_ATTEMPTS": "1"}
    process = archive.start("fetch", "p", "q", "--summary", "summary.json", environ=environ, umask=umask)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 3, err
    modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.lstat().st_mode) for p in tmp_path.rglob("*")}
    assert [name for name, mode in modes.items() if mode & stat.S_IWOTH] == []
    inside = {name: mode for name, mode in modes.items() if name.startswith("archive/")}
    assert modes["archive/.mirror"] == 0o700
    assert modes["archive/p/a.png"] == modes["archive/p/manifest.json"] == 0o644 & ~umask
    assert [name for name, mode in inside.items() if mode & umask] == []
    assert {name.rpartition(".")[2] for name in inside if "parts/" in name} == {"part", "journal"}
