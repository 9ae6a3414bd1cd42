"""The carrier as the program uses it: over TLS, and without aiohttp where no proxy asks for that."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.h1 import BadCertificate, CannotConnect
from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import Origin
from tests.s3.tls import Certificate, certificate
from tests.wire import Peer, carrying, fetched, serving

BODY = bytes(range(256)) * 5_000


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


async def script(peer: Peer) -> None:
    """Answers for as long as it is asked."""
    while True:
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)


def test_over_tls(local: Certificate) -> None:
    async def main() -> None:
        trusting = ssl.create_default_context(cafile=local.ca_file)
        async with serving(script, local.server_context()) as server, carrying(trust=lambda: trusting) as pool:
            for _ in range(2):
                assert await fetched(pool, server.place("localhost", tls=True)) == BODY
            assert server.connections == 1
            with pytest.raises(CannotConnect):
                await fetched(pool, server.place()._replace(port=1, is_tls=True))

    asyncio.run(main(), debug=True)


def test_an_authority_that_nobody_knows(local: Certificate) -> None:
    async def main() -> None:
        async with serving(script, local.server_context()) as server, carrying() as pool:
            with pytest.raises(BadCertificate, match="localhost"):
                await fetched(pool, server.place("localhost", tls=True))

    asyncio.run(main())


def test_no_tls_at_all() -> None:
    async def main() -> None:
        async with serving(lambda peer: peer.send(b"HTTP/1.0 400 no\r\n\r\n")) as server, carrying() as pool:
            with pytest.raises(CannotConnect):
                await fetched(pool, server.place(tls=True))

    asyncio.run(main())


@pytest.mark.parametrize("proxied", [False, True])
def test_a_fetch_imports_aiohttp_for_a_proxy_only(archive: Archive, origin: Origin, proxied: bool) -> None:
    done_prompt(origin, "p", "a.png")
    code = (
        "import sys; from mirror.cli import run; code = run(sys.argv[1:]); "
        "print('aiohttp' in sys.modules, 'urllib.request' in sys.modules); sys.exit(code)"
    )
    environ = {**archive.environment(), **({"http_proxy": origin.url} if proxied else {})}
    command = [sys.executable, "-c", code, "fetch", "p", "-q", "--root", str(archive.root)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split()[-2:] == [str(proxied)] * 2, done.stderr
    assert done.returncode == 0
    assert Path(archive.root, "p", "a.png").is_file()
