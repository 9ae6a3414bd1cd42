"""Fixtures: a server of each kind, started at first use and kept for the session; and a new bucket on one.

For a conftest: `pytest_plugins = ["tests.s3.fixtures"]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.s3 import servers
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3.servers import Server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenStack Swift over http."""
    with servers.swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def swift_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenStack Swift over https."""
    with servers.swift(tmp_path_factory.mktemp("swift-tls"), tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MiniStack over http."""
    with servers.ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ceph's radosgw, where it is installed."""
    if not (os.environ.get("MIRROR_TEST_RADOSGW") and servers.ceph_is_here()):
        pytest.skip("MIRROR_TEST_RADOSGW is not set, or radosgw is not installed")
    with servers.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(params=["swift", "ministack"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A new bucket, once on each server; `@pytest.mark.parametrize("bucket", ["swift"], indirect=True)` says which."""
    return Bucket.new(request.getfixturevalue(request.param))


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    """A fault proxy in front of the server that `bucket` is on: `bucket.through(proxy)`."""
    with FaultProxy(bucket.server.endpoint, ca_file=bucket.server.ca_file) as running:
        yield running
