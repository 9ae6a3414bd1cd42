"""S3 servers to test against, each a context manager: `with swift(folder) as server: …`.

A server listens on 127.0.0.1 alone, keeps everything below the folder it is given, and is gone when the block ends or
the process that opened it dies, however it dies.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import boto3.session
from botocore.config import Config

from tests.s3.tls import certificate

_PROJECT = Path(__file__).parents[2]
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_making_a_client = threading.Lock()


@functools.cache
def _session() -> boto3.session.Session:
    """One for all: it keeps the models of the services, of which the reading takes longer than all else."""
    return boto3.session.Session()


@dataclass(frozen=True)
class Server:
    """An S3 endpoint and one who may use it."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    ca_file: Path | None = None  # whom to trust, where the endpoint is https
    _clients: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def client(self, service: str = "s3", **config: Any) -> Any:
        """A boto3 client: addresses by path, never retries, ignores the machine's proxies; `config` has the last word.

        The same arguments get the same client again; it is closed with the server.
        """
        name = repr((service, self.endpoint, self.access_key, self.secret_key, sorted(config.items(), key=str)))
        with _making_a_client:
            if name not in self._clients:
                self._clients[name] = self._new_client(service, config)
            return self._clients[name]

    def _new_client(self, service: str, config: dict[str, Any]) -> Any:
        settings = {"retries": {"total_max_attempts": 1}, "connect_timeout": 60, "read_timeout": 120, "proxies": {}}
        s3 = {"addressing_style": "path", **config.get("s3", {})}
        return _session().client(
            cast("Any", service),  # the stubs have an overload a service
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            verify=str(self.ca_file) if self.ca_file else None,
            config=Config(**{**settings, **config, "s3": s3}),
        )

    def new_bucket(self) -> str:
        """The name of a bucket made just now, that nobody else uses."""
        name = f"mirror-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=name)
        return name

    def user(self, policy: dict[str, Any]) -> Server:
        """The same server for a new user who may do what this IAM policy says, and no more. MiniStack only."""
        assert self.kind == "ministack", "only MiniStack has users with policies"
        iam, name = self.client("iam"), f"user-{uuid.uuid4().hex[:12]}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return replace(self, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])

    def at(self, endpoint: str) -> Server:
        """The same server by another address: that of a proxy in front of it."""
        return replace(self, endpoint=endpoint)

    def close(self) -> None:
        """Closes the clients; the server itself goes on."""
        while self._clients:
            self._clients.popitem()[1].close()


@contextlib.contextmanager
def swift(folder: Path, *, tls: bool = False, min_part: int = 5 << 20) -> Iterator[Server]:
    """OpenStack Swift: a real store of many moving parts. `folder` must be on a file system with user xattrs."""
    files = certificate(folder / "tls") if tls else None
    arguments = ["--dir", str(folder / "node"), "--min-part", str(min_part)]
    if files:
        arguments += ["--cert", str(files.cert_file), "--key", str(files.key_file)]
    with (
        _running([sys.executable, "-m", "mirror.demo.swift", *arguments], folder) as told,
        contextlib.closing(Server("swift", **told, ca_file=files.ca_file if files else None)) as server,
    ):
        yield server


@contextlib.contextmanager
def ministack(folder: Path, *, tls: bool = False) -> Iterator[Server]:
    """MiniStack: strict about signatures, checksums, conditions and policies. The key is that of an IAM user."""
    files = certificate(folder / "tls") if tls else None
    arguments = ["--dir", str(folder / "node")]
    if files:
        arguments += ["--cert", str(files.cert_file), "--key", str(files.key_file)]
    with _running([sys.executable, "-m", "tests.s3.ministack", *arguments], folder) as told:
        root = Server("ministack", access_key="test", secret_key="test", **told)
        root = replace(root, ca_file=files.ca_file if files else None)
        with contextlib.closing(root), contextlib.closing(root.user(_EVERYTHING)) as server:
            yield server


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    """Ceph's radosgw, where it is installed: an older dialect that knows no checksum but MD5."""
    script = str(Path(__file__).with_name("radosgw.sh"))
    ports = [str(port) for port in _free_ports(2)]
    with (
        _running(["bash", script, str(folder / "node"), *ports], folder) as told,
        contextlib.closing(Server("ceph", **told)) as server,
    ):
        yield server


def ceph_is_here() -> bool:
    return all(map(shutil.which, ("radosgw", "ceph-mon", "ceph-osd", "ceph", "setpriv")))


def _free_ports(number: int) -> list[int]:
    """Ports that were free a moment ago, for who cannot be handed a socket."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, *, patience: float = 120) -> Iterator[dict[str, Any]]:
    """Runs a server until the block ends; what it tells in its first line.

    Raises:
        RuntimeError: it told nothing; the message has the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=_PROJECT, env=environ
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            ready, _, _ = select.select([process.stdout], [], [], patience)
            line = process.stdout.readline() if ready else b""
            if not line:
                raise RuntimeError(f"{command[:3]} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
            yield json.loads(line)
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
