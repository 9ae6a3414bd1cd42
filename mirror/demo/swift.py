"""OpenStack Swift with its S3 API as one command: `python -m mirror.demo.swift --dir FOLDER`.

It needs the `swift` package and nothing else: no root, no memcached, no configuration on the machine. The folder must
be on a file system with user xattrs. Once all its servers are up it prints one line of JSON (endpoint, access_key,
secret_key, region) and serves until its stdin closes. Whatever ends it, SIGKILL included, ends its two children: each
holds the reading end of a pipe whose only writer is this process.

The module imports nothing but the standard library, and starts nothing on being imported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
STORAGE = ("account", "container", "object")
FILTERS = (
    *("catch_errors", "gatekeeper", "healthcheck", "memcache", "listing_formats", "bulk", "s3api", "tempauth"),
    *("copy", "slo", "dlo", "versioned_writes", "symlink"),
)
OPTIONS: dict[str, dict[str, object]] = {
    "slo": {"max_manifest_segments": 10_000, "max_manifest_size": 32 << 20, "yield_frequency": 5},
    "versioned_writes": {"allow_versioned_writes": "true", "allow_object_versioning": "true"},
}


@dataclass(frozen=True)
class Node:
    """What a node is to be like. The access key reads account:user, as Swift's tempauth wants it."""

    folder: Path
    port: int = 0
    access_key: str = "test:tester"
    secret_key: str = "testing"  # noqa: S105  it guards nothing
    region: str = "us-east-1"
    min_part: int = 5 << 20
    certificate: Path | None = None
    key: Path | None = None
    fsync: bool = False
    verbose: bool = False

    @property
    def configuration(self) -> Path:
        return self.folder / "etc"


class Cache:
    """Stands in for memcached, within the proxy: an account and a container less to look up per request."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    def get(self, key: str, **_: object) -> Any:
        text, expires = self._held.get(key, ("null", 0.0))
        return json.loads(text) if expires > time.monotonic() else None

    def set(self, key: str, value: Any, **options: Any) -> None:
        self._held[key] = (json.dumps(value), time.monotonic() + (options.get("time") or 3600))

    def delete(self, key: str, **_: object) -> None:
        self._held.pop(key, None)


def cache_filter(_settings: dict[str, str], **_: str) -> Any:
    """What the configuration names as the memcache filter."""
    cache = Cache()

    def wrap(app: Any) -> Any:
        def serve(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return serve

    return wrap


def _section(name: str, values: dict[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), "", ""])


def _configure(node: Node, ports: dict[str, int]) -> None:
    """Writes all that Swift reads: its configuration and its rings."""
    for folder in (node.configuration, node.folder / "disks" / "d1", node.folder / "recon"):
        folder.mkdir(parents=True, exist_ok=True)
    limits: dict[str, object] = {"max_meta_value_length": 2048, "max_header_size": 16384}
    (node.configuration / "swift.conf").write_text(
        _section("swift-hash", {"swift_hash_path_prefix": "one", "swift_hash_path_suffix": "node"})
        + _section("swift-constraints", limits)
        + _section("storage-policy:0", {"name": "single", "default": "yes"})
    )
    common: dict[str, object] = {
        "swift_dir": node.configuration,
        "devices": node.folder / "disks",
        "mount_check": "false",
        "bind_ip": HOST,
        "disable_fallocate": "true",
        "log_level": "ERROR",
        "log_address": node.folder / "no-syslog",
        "recon_cache_path": node.folder / "recon",
    }
    for name in STORAGE:
        app: dict[str, object] = {"use": f"egg:swift#{name}", "auto_create_account_prefix": "."}
        app |= {"network_chunk_size": 1 << 20, "disk_chunk_size": 1 << 20, "replication_server": "false"}
        (node.configuration / f"{name}.conf").write_text(
            _section("DEFAULT", common | {"bind_port": ports[name]})
            + _section("pipeline:main", {"pipeline": f"{name}-server"})
            + _section(f"app:{name}-server", app)
        )
    app = {"use": "egg:swift#proxy", "account_autocreate": "true", "error_suppression_limit": 1_000_000}
    app |= {"object_chunk_size": 1 << 20, "client_chunk_size": 1 << 20}
    account, _, user = node.access_key.partition(":")
    s3api = {"location": node.region, "s3_acl": "false", "max_upload_part_num": 10_000}
    options = OPTIONS | {
        "s3api": {**s3api, "min_segment_size": node.min_part},
        "tempauth": {f"user_{account}_{user}": f"{node.secret_key} .admin"},
    }
    (node.configuration / "proxy.conf").write_text(
        _section("DEFAULT", common | {"bind_port": ports["proxy"]})
        + _section("pipeline:main", {"pipeline": " ".join((*FILTERS, "proxy-server"))})
        + _section("app:proxy-server", app)
        + _section("filter:memcache", {"paste.filter_factory": f"{__name__}:cache_filter"})
        + "".join(
            _section(f"filter:{name}", {"use": f"egg:swift#{name}", **options.get(name, {})})
            for name in FILTERS
            if name != "memcache"
        )
    )
    ring = importlib.import_module("swift.common.ring")
    for name in STORAGE:
        builder = ring.RingBuilder(4, 1, 0)  # 16 partitions, one replica
        place = {"ip": HOST, "port": ports[name], "replication_ip": HOST, "replication_port": ports[name]}
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "d1", "meta": "", **place})
        builder.rebalance(seed=1)
        builder.get_ring().save(str(node.configuration / f"{name}.ring.gz"))


def _serve(node: Node, names: Sequence[str], listeners: dict[str, socket.socket], ready: int) -> None:
    """Serves for ever from this process; writes one byte into `ready` for each server that is up."""
    os.environ["TZ"] = "UTC+0"
    time.tzset()
    eventlet = importlib.import_module("eventlet")
    utils = importlib.import_module("swift.common.utils")
    utils.set_swift_dir(str(node.configuration))
    utils.monkey_patch()
    wsgi = importlib.import_module("swift.common.wsgi")
    server = importlib.import_module("eventlet.wsgi")
    importlib.import_module("swift.common.storage_policy").reload_storage_policies()
    if not node.fsync:
        _forget_fsync(utils)
    for name in names:
        section = f"{name}-server"
        configuration = str(node.configuration / f"{name}.conf")
        app, _, _, _ = wsgi.init_request_processor(configuration, section, verbose=node.verbose)
        sock = importlib.import_module("eventlet.greenio").GreenSocket(listeners[name])
        if name == "proxy" and node.certificate:
            tls = importlib.import_module("eventlet.green.ssl")
            context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(node.certificate, node.key)
            sock = context.wrap_socket(sock, server_side=True)
        options = {"protocol": wsgi.SwiftHttpProtocol, "capitalize_response_headers": False, "socket_timeout": 60}
        eventlet.spawn(server.server, sock, app, None if node.verbose else utils.NullLogger(), **options)
        os.write(ready, b".")
    os.close(ready)  # so that the end of the pipe tells of a child that did not come this far
    while True:
        eventlet.sleep(3600)


def _forget_fsync(utils: Any) -> None:
    """A node that lives as long as a test has no power cut to fear."""

    def nothing(*_: object) -> None:
        pass

    diskfile = importlib.import_module("swift.obj.diskfile")
    for name in ("fsync", "fsync_dir", "drop_buffer_cache"):
        for module in (utils, diskfile):
            setattr(module, name, nothing)


def _fork(node: Node, names: Sequence[str], listeners: dict[str, socket.socket], pipes: tuple[int, ...]) -> None:
    """A child that serves `names`, and that dies when the writer of the `alive` pipe does."""
    alive, keep_alive, was_ready, ready = pipes
    if os.fork():
        return
    try:
        os.close(keep_alive)
        os.close(was_ready)
        for name in listeners.keys() - set(names):
            listeners[name].close()
        threading.Thread(target=lambda: os._exit(0 if os.read(alive, 1) else 1), daemon=True).start()
        _serve(node, names, listeners, ready)
    finally:
        os._exit(1)


def run(node: Node) -> None:
    """Serves until stdin closes.

    Raises:
        RuntimeError: a server did not come up; why is on stderr.
    """
    warnings.simplefilter("ignore")
    ports = {"proxy": node.port}
    listeners = {name: socket.create_server((HOST, ports.get(name, 0)), backlog=512) for name in (*STORAGE, "proxy")}
    for listener in listeners.values():
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts
    _configure(node, {name: listener.getsockname()[1] for name, listener in listeners.items()})
    endpoint = f"{'https' if node.certificate else 'http'}://{HOST}:{listeners['proxy'].getsockname()[1]}"
    pipes = (*os.pipe(), *os.pipe())
    for names in (STORAGE, ("proxy",)):
        _fork(node, names, listeners, pipes)
    os.close(pipes[0])
    os.close(pipes[3])
    for listener in listeners.values():
        listener.close()
    for _ in range(len(STORAGE) + 1):
        if not os.read(pipes[2], 1):
            raise RuntimeError("Swift did not come up")
    keys = {"access_key": node.access_key, "secret_key": node.secret_key, "region": node.region}
    sys.stdout.write(json.dumps({"endpoint": endpoint, **keys}) + "\n")
    sys.stdout.flush()
    while sys.stdin.buffer.read(1 << 10):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="One node of OpenStack Swift with the S3 API, until stdin closes.")
    parser.add_argument("--dir", type=Path, required=True, help="where it keeps everything")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", type=Path, help="PEM; the S3 API is then served over https")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--min-part", type=int, default=Node.min_part, help="bytes (default: 5 MiB, as S3)")
    parser.add_argument("--fsync", action="store_true", help="have every write reach the disk")
    parser.add_argument("--verbose", action="store_true", help="log to the console")
    given = parser.parse_args()
    node = Node(
        given.dir.absolute(),
        port=given.port,
        min_part=given.min_part,
        certificate=given.cert and given.cert.absolute(),
        key=given.key and given.key.absolute(),
        fsync=given.fsync,
        verbose=given.verbose,
    )
    run(node)


if __name__ == "__main__":
    main()
