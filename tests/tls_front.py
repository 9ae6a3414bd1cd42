"""TLS on a port of its own in front of an origin: what it decrypts goes there, byte by byte as it comes."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

from tests.origin import Origin
from tests.s3.tls import Certificate


class TlsFront:
    """Open from its making until it is closed: ``with TlsFront(origin, certificate) as front: …``."""

    def __init__(self, origin: Origin, certificate: Certificate) -> None:
        host, _, port = origin.url.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._context = certificate.server_context()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        """One connection; a client that does not take to the certificate ends it."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            self._keep(stack, plain)
            client = self._context.wrap_socket(plain, server_side=True)
            self._keep(stack, client)
            upstream = socket.create_connection(self._upstream)
            self._keep(stack, upstream)
            while _carry(client, upstream):
                pass

    def _keep(self, stack: contextlib.ExitStack, sock: socket.socket) -> None:
        """Closed at the end, and woken up if the whole front is closed before."""
        with self._lock:
            self._open.add(sock)
        stack.callback(self._forget, sock)

    def _forget(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
            sock.close()


def _carry(client: ssl.SSLSocket, upstream: socket.socket) -> bool:
    """Pass on what came from either side; False when one of them has ended."""
    ready = [client] if client.pending() else select.select([client, upstream], [], [])[0]
    for source, target in ((client, upstream), (upstream, client)):
        if source in ready:
            data = source.recv(1 << 16)
            if not data:
                return False
            target.sendall(data)
    return True
