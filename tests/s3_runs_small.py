"""What a process does with the store in a bucket, from its opening to its end: for the tests of its small pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mirror import Settings
from mirror.config import load
from mirror.places import Places, open_places
from mirror.stores.s3.store import S3Store
from tests.s3.bucket import Bucket
from tests.s3.servers import Server

T = TypeVar("T")


def as_user(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of whoever may use the server, where this process looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("AWS_REGION", server.region)


def settings_for(bucket: Bucket | None, root: Path, **values: Any) -> Settings:
    """As the command line would resolve them, given the bucket's environment; ``values`` are named section_key."""
    environ = bucket.environ if bucket is not None else {}
    given = {"root": root, "transfer_min_free_space": 0, "transfer_attempts": 2, **values}
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
