"""What a process does with the store in a bucket, from its opening to its end: for the tests of its small pieces."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import pytest

from mirror import Settings
from mirror.config import load
from mirror.errors import Changed
from mirror.models import Receipt, Span
from mirror.places import Places, open_places
from mirror.settings import S3Settings
from mirror.stores import Head, Sink, Target
from mirror.stores.s3.signing import EMPTY, Identity
from mirror.stores.s3.store import S3Store
from tests import media
from tests.s3.bucket import Bucket
from tests.s3.servers import Server

T = TypeVar("T")

SECRET = "s3cr3t/of+nobody"
KEY = "AKIANOBODY"
REGION = "us-east-1"


def as_user(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of whoever may use the server, where this process looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)


def settings_for(bucket: Bucket | None, root: Path, **values: Any) -> Settings:
    """As the command line would resolve them, given the bucket's environment; ``values`` are named section_key.

    With so little memory a body of more than 8 MiB goes in parts.
    """
    environ = bucket.environ if bucket is not None else {}
    given = {"root": root, "transfer_min_free_space": 0, "transfer_attempts": 2, "transfer_memory": "64M", **values}
    return load(None, given, {name: value for name, value in environ.items() if name.startswith("MIRROR_")}).settings


def in_places(settings: Settings, act: Callable[[Places], Awaitable[T]]) -> T:
    """What a process does with its destinations. The credentials are found in the environment, as ever."""

    async def run() -> T:
        places = open_places(settings)
        places.disk.open()
        try:
            await places.ready()
            return await act(places)
        finally:
            await places.close()

    return asyncio.run(run())


def in_bucket(settings: Settings, act: Callable[[S3Store], Awaitable[T]]) -> T:
    """The same with the store in the bucket alone."""

    async def run(places: Places) -> T:
        assert places.bucket is not None
        return await act(places.bucket)

    return in_places(settings, run)


BODY = media.blob((10 << 20) + 1)
"""Three parts: what follows the second is there only when the first has landed."""
HEAD = Head(length=len(BODY), etag='"1"', last_modified="Wed, 28 Jan 2026 10:03:40 GMT", content_type="video/mp4")
TARGET = Target(identity="http://o/film.mp4", folder="p", names=("film.mp4", "film-1.mp4"), prompt_id="p")


async def interrupted(store: S3Store, target: Target = TARGET) -> None:
    """An upload that ended after its first part, perhaps after its second."""
    sink = await store.sink(target)
    await sink.begin(HEAD)
    await sink.write(0, BODY)
    await sink.close()


async def finished(store: S3Store, target: Target = TARGET) -> Receipt:
    """What a run makes of a file: what is missing is sent; what cannot go on starts over, once."""
    sink = await store.sink(target)
    try:
        for _ in range(2):
            with contextlib.suppress(Changed):
                if sink.committed is None:
                    await complete(sink)
                break
            await sink.abort()
        assert sink.committed is not None
        await store.settle(target.identity)
        return sink.committed
    finally:
        await sink.close()


async def complete(sink: Sink) -> None:
    if sink.head != HEAD:
        await sink.begin(HEAD)
    at = 0
    for span in [*sink.written(), Span(len(BODY), len(BODY))]:
        if at < span.start:
            await sink.write(at, BODY[at : span.start])
        at = span.stop
    await sink.commit()


def loaded(**ours: Any) -> Identity:
    identity = Identity(S3Settings(bucket="mine", **ours))
    identity.load()
    return identity


def signed_as(identity: Identity) -> str:
    """The access key id that a request is signed with."""
    headers = identity.headers("GET", "http://h/mine", {}, REGION, EMPTY)
    return headers["Authorization"].partition("Credential=")[2].partition("/")[0]


class Answer(NamedTuple):
    status: int
    body: bytes
    date: str | None


def asked(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), answer.headers["Date"])
    finally:
        connection.close()


def sent(identity: Identity, url: str, region: str = REGION) -> Answer:
    return asked(url, identity.headers("GET", url, {}, region, EMPTY))
