"""A reverse proxy on loopback that can misbehave: put it between a client and an S3 server.

A request goes upstream as it came, its Host included, so a signature made for the proxy's address holds; bodies are
streamed both ways. What goes wrong, and with which request, is scripted: `proxy.fault("PutObject", faults.answer(503,
"SlowDown"), times=2)`. Closing the proxy ends every thread at once, those that stall too.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import urlsplit

from tests.s3.exchange import Exchange
from tests.s3.faults import Fault
from tests.s3.seen import Seen
from tests.s3.tls import Certificate
from tests.s3.wire import Head, Wire

FOREVER = 1 << 62  # as `times`: every such request from here on

Match: TypeAlias = "str | Callable[[Seen], bool]"


@dataclass
class _Rule:
    match: Match
    fault: Fault
    left: int

    def fits(self, seen: Seen) -> bool:
        if not self.left:
            return False
        return seen.operation == self.match if isinstance(self.match, str) else self.match(seen)


class FaultProxy:
    """The proxy, from its making until it is closed: `with FaultProxy(server.endpoint) as proxy: …`.

    An https server needs its `ca_file`; the proxy itself speaks https where it is given a certificate.
    """

    def __init__(self, upstream: str, *, ca_file: Path | None = None, certificate: Certificate | None = None) -> None:
        target = urlsplit(upstream)
        self._upstream = upstream
        self._address = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
        self._trust = _older(ssl.create_default_context(cafile=ca_file)) if target.scheme == "https" else None
        self._identity = _older(certificate.server_context()) if certificate else None
        self._rules: list[_Rule] = []
        self._seen: list[Seen] = []
        self._order = count(1)
        self._wires: dict[Wire, threading.Thread] = {}
        self._released = 0  # when: a number of the same count
        self.closing = threading.Event()
        self.changed = threading.Condition()  # guards all of the above, and is told of every step
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        scheme = "https" if certificate else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Breaks off whatever is under way and ends all threads."""
        if self.closing.is_set():
            return
        self.closing.set()
        with contextlib.suppress(OSError):  # wakes accept(), which closing its socket would not
            socket.create_connection(self._listener.getsockname(), timeout=1).close()
        self._acceptor.join()
        self._listener.close()
        with self.changed:
            self.changed.notify_all()
            threads = set(self._wires.values())
            for wire in self._wires:
                wire.shutdown()
        for thread in threads:
            thread.join()

    # The script

    def fault(self, match: Match, fault: Fault, times: int = 1) -> None:
        """The next `times` requests that match meet this fault, unless one scripted before takes them.

        `match` is an operation's name ("UploadPart") or a function of the request, its head just read.
        """
        with self.changed:
            self._rules.append(_Rule(match, fault, times))

    @property
    def unused(self) -> int:
        """How many faults have not met their request yet."""
        with self.changed:
            return sum(rule.left for rule in self._rules if rule.left < FOREVER // 2)

    def release(self) -> None:
        """Lets everything go on that has come in by now and is on hold, or will be before its end."""
        with self.changed:
            self._released = next(self._order)
            self.changed.notify_all()

    # What happened

    @property
    def requests(self) -> list[Seen]:
        """Every request since the last `clear`, in order of arrival, as it stands now."""
        with self.changed:
            return [replace(seen) for seen in self._seen]

    def count(self, match: Match) -> int:
        """How many requests match."""
        rule = _Rule(match, Fault(), 1)
        return sum(map(rule.fits, self.requests))

    @property
    def bytes_up(self) -> int:
        """Bytes of request bodies that arrived here."""
        with self.changed:
            return sum(seen.bytes_up for seen in self._seen)

    @property
    def bytes_down(self) -> int:
        """Bytes of answers' bodies that were sent to clients."""
        with self.changed:
            return sum(seen.bytes_down for seen in self._seen)

    @property
    def most_at_once(self) -> int:
        """How many requests were under way at the same time, at most."""
        steps = [(seen.started, 1) for seen in self.requests]
        steps += [(seen.ended, -1) for seen in self.requests if seen.ended]
        now = most = 0
        for _, step in sorted(steps):
            now += step
            most = max(most, now)
        return most

    def clear(self) -> None:
        """Forgets the requests, and with them the counts; scripted faults stay."""
        with self.changed:
            self._seen.clear()

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 60.0) -> None:
        """Blocks until `predicate()` holds (in a coroutine: `await asyncio.to_thread(proxy.wait_for, …)`).

        Raises:
            TimeoutError: it did not come to hold.
        """
        end = time.monotonic() + timeout
        with self.changed:
            while not predicate():
                if time.monotonic() > end:
                    last = [f"{s.method} {s.path}?{s.query} {s.upstream}>{s.status}" for s in self._seen[-20:]]
                    raise TimeoutError(f"not within {timeout} s; the last requests: {last}")
                self.changed.wait(0.05)  # it may ask for more than what happens here

    # For an exchange

    def enter(self, connection: int, head: Head) -> tuple[Seen, Fault]:
        """Enters a request into the record and finds what is to go wrong with it."""
        head.first = head.first.replace(f" {self._upstream}/", " /", 1)  # whose forward proxy it may be, too
        method, target, *_ = (*head.first.split(), "", "")
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, value in head.fields}
        with self.changed:
            seen = Seen(connection, method, path, query, headers, next(self._order))
            self._seen.append(seen)
            rule = next((rule for rule in self._rules if rule.fits(seen)), None)
            if rule:
                rule.left -= 1
            self.changed.notify_all()
            return seen, rule.fault if rule else Fault()

    def end(self, seen: Seen) -> None:
        """Notes that a request has ended, once."""
        with self.changed:
            if seen.ended is None:
                seen.ended = next(self._order)
            self.changed.notify_all()

    def wait_release(self, seen: Seen) -> None:
        """Waits for a release that comes after the request did, however long before this."""
        with self.changed:
            self.changed.wait_for(lambda: self._released > seen.started or self.closing.is_set())

    def connect(self) -> Wire:
        """A new connection to the server, which `close` breaks off like those of clients."""
        sock = socket.create_connection(self._address, timeout=60)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._trust:
            sock = self._trust.wrap_socket(sock, server_hostname=self._address[0])
        wire = Wire(sock)
        with self.changed:
            self._wires[wire] = threading.current_thread()
            if self.closing.is_set():
                wire.shutdown()
        return wire

    def forget(self, wire: Wire) -> None:
        """Closes a connection."""
        with self.changed:
            self._wires.pop(wire, None)
        wire.sock.close()

    # Connections

    def _accept(self) -> None:
        for number in count(1):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self.closing.is_set():
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(sock)
            thread = threading.Thread(target=self._serve, args=(wire, number), name=f"proxy-{number}", daemon=True)
            with self.changed:
                self._wires[wire] = thread
            thread.start()

    def _serve(self, client: Wire, number: int) -> None:
        """One client connection and its own to the server, from request to request."""
        exchange = Exchange(self, client, number)
        try:
            with contextlib.suppress(OSError):  # either side goes away, or the proxy's closing ends the step
                if self._identity:
                    client.sock = self._identity.wrap_socket(client.sock, server_side=True)
                while exchange.carry():
                    pass
        finally:
            exchange.hang_up()
            self.forget(client)


def _older(context: ssl.SSLContext) -> ssl.SSLContext:
    """TLS 1.2: what can be read of a socket is then a message, never a session ticket that came by itself."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
