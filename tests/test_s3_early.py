"""A store that says it has an object before it can have it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

from tests import media
from tests.conftest import Archive
from tests.helpers import large_prompt
from tests.origin import Origin

ETAG = '"' + "0" * 32 + '"'
LISTED = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def answered(head: str) -> bytes:
    """What the store says to a request, of which it reads no more than the head."""
    method, target, _ = head.split(" ", 2)
    if method == "PUT":
        return f"HTTP/1.1 200 OK\r\nETag: {ETAG}\r\nContent-Length: 0\r\nx-amz-request-id: 1\r\n\r\n".encode()
    if method == "HEAD" and target.strip("/") == "bucket":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-amz-request-id: 1\r\n\r\n"
    if method == "HEAD" or "?" not in target:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nx-amz-request-id: 1\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nx-amz-request-id: 1\r\n\r\n" % len(LISTED) + LISTED


def serve(peer: socket.socket) -> None:
    """Of what it is sent it reads the heads; behind that of a PUT nothing more, and it keeps the connection."""
    head = b""
    with contextlib.suppress(OSError):
        while not head.startswith(b"PUT"):
            head = b""
            while b"\r\n\r\n" not in head:
                more = peer.recv(4096)
                if not more:
                    return
                head += more
            peer.sendall(answered(head.decode("latin-1")))


@contextlib.contextmanager
def store() -> Iterator[int]:
    """Its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as held:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer = held.enter_context(listener.accept()[0])
                    threading.Thread(target=serve, args=(peer,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)


def test_what_was_not_sent_is_not_there(archive: Archive, origin: Origin) -> None:
    body = media.mp4(15 << 20)  # more than the sockets hold
    large_prompt(origin, "p", body)
    with store() as port:
        done = archive.run(
            *("fetch", "p", "--s3", "s3://bucket/archive", "--s3-endpoint", f"http://127.0.0.1:{port}"),
            environ={
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_DEFAULT_REGION": "us-east-1",
                "MIRROR_S3_ADDRESSING": "path",
                "MIRROR_TRANSFER_ATTEMPTS": "1",
            },
        )
    assert done.code == 3, done.err
    assert "says it has what was not sent yet" in done.err
    told = json.loads(archive.files().get("p/manifest.json", b'{"files": []}'))
    assert [file["s3"] for file in told["files"] if file["s3"]] == []
