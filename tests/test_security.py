"""Where the mirror does not go, whom it does not tell, and what it never writes down."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from mirror import Manifest, Mirror, guard
from mirror.addresses import is_public
from mirror.errors import Refused
from mirror.urls import check_url
from mirror.urls import origin as origin_of
from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER, Reply
from tests.origin import Origin, answer, task

PICTURE = media.png(seed=1)

PRIVATE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost", "0.0.0.0",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "192.0.0.192",
    "224.0.0.1", "255.255.255.255", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
    "[::ffff:169.254.169.254]", "[2002:a9fe:a9fe::]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[fe80::1%25lo]",
    "127.0.0.1.", "0177.0.0.1", "0x7f.1", "127.0.1", "127。0。0。1", "１２７.0.0.1", "①②⑦.⓪.⓪.①", "ⓛocalhost",
]  # fmt: skip


PIECES_OF_URLS = (
    *(
        "http:",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "#",
        "?",
        "%40",
        "%2f",
        "%5c",
        "allowed.example",
        "127.0.0.1",
        "[",
        "]",
        "[::1]",
    ),
    *(
        "%25",
        "%00",
        "80",
        "0",
        "99",
        ".",
        "。",
        "．",
        "／",
        "＠",
        "：",
        "ⓐ",
        "é",
        "\u00ad",
        "\u200b",
        "\u2028",
        "\x85",
        "\xa0",
    ),
    *(";", "&", "=", "user", "xn--", "\t", "_", "-", "‥", "℀"),
)


@pytest.fixture
def elsewhere() -> Iterator[Origin]:
    """A second origin: another port is another origin."""
    with Origin() as running:
        yield running


def mirrored(archive: Archive, **settings: Any) -> Manifest:
    """The manifest of the prompt ``p`` after a run."""

    async def run() -> list[Manifest]:
        async with Mirror(archive.settings(**{"transfer_attempts": 1, **settings})) as mirror:
            return [manifest async for manifest in mirror.fetch(["p"])]

    [manifest] = asyncio.run(run())
    return manifest


def named(archive: Archive, *urls: str) -> None:
    """Have the prompt ``p`` name these URLs."""
    archive.origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))


def refusals(manifest: Manifest) -> list[str]:
    return [error.error for error in manifest.errors]


class TestPrivateAddresses:
    """``security.allow_private_addresses`` is not set."""

    @pytest.mark.parametrize("host", PRIVATE)
    def test_a_url(self, archive: Archive, origin: Origin, host: str) -> None:
        origin.add("/a.png", PICTURE)
        named(archive, f"http://{host}:{urlsplit(origin.url).port}/a.png")

        manifest = mirrored(archive, security_allow_private_addresses=False)

        assert refusals(manifest) == ["Refused"]
        assert manifest.errors[0].attempts == 1
        assert origin.media_requests == []

    @pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"])
    def test_a_redirect(self, archive: Archive, origin: Origin, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        # No test can have a public address, so this machine's own passes for one in a single spelling.
        monkeypatch.setattr(guard, "is_public", lambda text: text == "127.0.0.1" or is_public(text))
        target = f"http://{host}:{urlsplit(origin.url).port}/a.png"
        origin.add("/a.png", PICTURE)
        named(archive, origin.add("/film.png", PICTURE, fault=faults.redirect(target, times=FOREVER)))

        manifest = mirrored(archive, security_allow_private_addresses=False)

        assert refusals(manifest) == ["Refused"]
        assert [request.path for request in origin.media_requests] == ["/film.png"]

    @pytest.mark.parametrize(
        "host",
        [*PRIVATE, "localhost.", "a.localhost", "metadata.google.internal", "printer.local", "redis", "%6cocalhost"],
    )
    def test_a_url_behind_a_proxy(self, archive: Archive, origin: Origin, host: str) -> None:
        """The proxy looks names up, so it is the name that is judged, in a redirect as well."""
        api, private = "http://api.example", f"http://{host}/a.png"
        public = "http://media.example/film.png"
        location = private.encode().decode("latin-1")  # a header's bytes
        origin.add(public, PICTURE, fault=faults.redirect(location, times=FOREVER))
        images = [(None, private), (None, public)]
        origin.handle(f"{api}/getTaskInfo", lambda _: answer(task("p", images=images)))

        manifest = mirrored(
            archive, api_base_url=api, transfer_proxy=origin.url, security_allow_private_addresses=False
        )

        assert refusals(manifest) == ["Refused", "Refused"]
        assert [request.path for request in origin.media_requests] == [public]

    def test_the_api_may_have_one(self, archive: Archive, origin: Origin) -> None:
        origin.prompt("p", answer(task("p")))
        assert mirrored(archive, security_allow_private_addresses=False).state == "complete"


class TestAllowHosts:
    def test_a_host_that_is_named(self, archive: Archive, origin: Origin) -> None:
        named(archive, origin.add("/a.png", PICTURE))
        manifest = mirrored(archive, security_allow_hosts="media.example, 127.0.0.1")
        assert (manifest.state, archive.files()["p/a.png"]) == ("complete", PICTURE)

    def test_capitals_make_no_difference(self, archive: Archive, origin: Origin) -> None:
        named(archive, origin.add("/a.png", PICTURE).replace("127.0.0.1", "LocalHost"))
        assert mirrored(archive, security_allow_hosts="LOCALHOST").state == "complete"

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1.", "127.0.0.1.media.example", "xmedia.example"])
    def test_any_other(self, archive: Archive, origin: Origin, host: str) -> None:
        named(archive, origin.add("/a.png", PICTURE).replace("127.0.0.1", host))
        manifest = mirrored(archive, security_allow_hosts="media.example")
        assert refusals(manifest) == ["Refused"]
        assert origin.media_requests == []

    def test_a_redirect_to_any_other(self, archive: Archive, origin: Origin) -> None:
        target = origin.add("/a.png", PICTURE).replace("127.0.0.1", "localhost")
        named(archive, origin.add("/film.png", PICTURE, fault=faults.redirect(target, times=FOREVER)))
        manifest = mirrored(archive, security_allow_hosts="127.0.0.1")
        assert refusals(manifest) == ["Refused"]
        assert [request.path for request in origin.media_requests] == ["/film.png"]


class TestSchemes:
    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "ftp://media.example/a.png",
            "//media.example/a.png",
            "a.png",
            "javascript:alert(1)",
            "http://user:hunter2@media.example/a.png",
            "http:///a.png",
            "http://media.example:99999/a.png",
            "http://127.0.0.1:0/a.png",
            "http://[::1/a.png",
            "http://media.example/a.png\r\nAuthorization: x",
            "http://media.example\\@127.0.0.1/a.png",
        ],
    )
    def test_what_is_no_web_address_is_refused_and_the_rest_mirrored(
        self, archive: Archive, origin: Origin, url: str
    ) -> None:
        named(archive, url, origin.add("/a.png", PICTURE))

        manifest = mirrored(archive)

        assert refusals(manifest) == ["Refused"]
        assert archive.files()["p/a.png"] == PICTURE
        assert [request.path for request in origin.media_requests] == ["/a.png"]
        assert "hunter2" not in json.dumps([error.message for error in manifest.errors])

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from(PIECES_OF_URLS), min_size=1, max_size=8).map("".join))
    @example("h:0")
    def test_the_host_that_is_judged_is_the_host_that_is_gone_to(self, text: str) -> None:
        """The standard library reads the one, aiohttp's yarl the other: a difference would be a way around a check."""
        with contextlib.suppress(Refused, ValueError):
            check_url(f"http://{text}")
            url = URL(f"http://{text}", encoded=True)
            assert origin_of(f"http://{text}") == (url.scheme, (url.raw_host or "").lower(), url.port)

    def test_a_redirect_may_be_spelled_in_any_script(self, archive: Archive, origin: Origin) -> None:
        """Bytes of UTF-8 as they are, which a header may not hold and browsers take."""
        there = "/é中.png".encode().decode("latin-1")
        origin.add(there, PICTURE)
        named(archive, origin.add("/here.png", PICTURE, fault=faults.redirect(there, times=FOREVER)))
        assert mirrored(archive).state == "complete"
        assert [request.path for request in origin.media_requests] == ["/here.png", there]


class TestToken:
    @pytest.mark.parametrize("scheme", ["", "Bearer"])
    def test_no_media_host_gets_it(
        self,
        archive: Archive,
        origin: Origin,
        elsewhere: Origin,
        scheme: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Not the API's own host either, nor a redirect's target, nor on another try; and no password of a netrc."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password mine\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        origin.authorization = f"{scheme} {origin.token}".strip()
        redirect = faults.redirect(elsewhere.add("/there.png", PICTURE), times=FOREVER)
        urls = [
            origin.add("/getTaskInfo/a.png", PICTURE),
            origin.add("/redirected.png", b"", fault=redirect),
            origin.add("/later.png", PICTURE, fault=faults.status(503, retry_after=0)),
            origin.add("/expired.png", PICTURE, fault=faults.status(403, times=FOREVER)),
            elsewhere.add("/b.png", PICTURE),
        ]
        cookie = {"Set-Cookie": "session=secret; Path=/", "Content-Type": "application/json"}
        told = answer(task("p", images=[(None, url) for url in urls]))
        origin.prompt("p", Reply(200, cookie, json.dumps(told).encode()))

        manifest = mirrored(archive, api_auth_scheme=scheme, transfer_attempts=2)

        assert refusals(manifest) == ["UrlExpired"]
        assert all(request.headers["authorization"] == origin.authorization for request in origin.api_requests)
        sent = [*origin.media_requests, *elsewhere.requests]
        assert {request.path for request in sent} == {urlsplit(url).path for url in urls} | {"/there.png"}
        for request in [*sent, *origin.api_requests]:
            assert "cookie" not in request.headers
        for request in sent:
            assert "authorization" not in request.headers
            assert origin.token not in repr(request)

    def test_an_answer_that_repeats_it_tells_it_to_nobody(self, archive: Archive, origin: Origin) -> None:
        token = origin.token
        urls = [f"{origin.url}/{token}/a.png", f"{origin.url}/{token}.png", f"{origin.url}/b.png?auth={token}"]
        origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))

        done = archive.run("fetch", "p", "-v", "--json")

        assert done.code == 3
        assert len(origin.media_requests) == len(urls)
        assert token not in repr(origin.media_requests) + done.out + done.err + archive.run("status", "--failed").out
        assert [str(path) for path in archive.root.rglob("*") if token in str(path)] == []
        written = [path for path in archive.root.rglob("*") if path.is_file()]
        assert [path for path in written if token.encode() in path.read_bytes()] == []

    def test_it_does_not_cross_a_redirect_to_another_origin(
        self, archive: Archive, origin: Origin, elsewhere: Origin
    ) -> None:
        origin.prompt("p", Reply(302, {"Location": f"{elsewhere.url}/getTaskInfo?promptId=p"}))
        elsewhere.prompt("p", answer(task("p")))

        manifest = mirrored(archive)

        assert manifest.state == "unresolved"
        assert refusals(manifest) == ["BadAnswer"]
        assert elsewhere.requests == []

    @pytest.mark.parametrize(
        "location", ["http://[::1/", "http://127.0.0.1:99999/", "/a b", "http://me:hunter2@{host}/", "file:///a", ""]
    )
    def test_a_redirect_to_nowhere_is_one_prompts_trouble(
        self, archive: Archive, origin: Origin, location: str
    ) -> None:
        origin.prompt("p", Reply(302, {"Location": location.format(host=urlsplit(origin.url).netloc)}))

        manifest = mirrored(archive)

        assert (manifest.state, refusals(manifest)) == ("unresolved", ["BadAnswer"])
        assert "hunter2" not in manifest.errors[0].message

    def test_a_redirect_at_the_same_origin_is_followed_with_it(self, archive: Archive, origin: Origin) -> None:
        origin.prompt("p", Reply(307, {"Location": "/v2/task"}))
        origin.handle("/v2/task", lambda _: answer(task("p")))
        assert mirrored(archive).state == "complete"

    def test_it_and_signatures_are_never_written_down(self, archive: Archive, origin: Origin) -> None:
        """Neither in a file of the archive, nor on stdout or stderr, however much the service repeats them."""
        signature = "X-Amz-Credential=credential-1234&X-Amz-Signature=signature-5678"
        whole = origin.add(f"/whole.png?{signature}", PICTURE)
        gone = origin.add(f"/gone.png?{signature}", PICTURE, fault=faults.status(404, times=FOREVER))
        lost = f"/lost.png?{signature}"
        redirect = origin.add("/moved.png", PICTURE, fault=faults.redirect(lost, times=FOREVER))
        echo = f"token {origin.token}"
        garbled = [
            origin.add(f"/garbled{number}.png", PICTURE, fault=faults.redirect(lost + tail, times=FOREVER))
            for number, tail in enumerate(("\0", "&" + 40_000 * "x"))
        ]
        images = [(whole, gone), (None, redirect), *((None, url) for url in garbled)]
        told = task("p", images=images, reason=echo, note={origin.token: [echo, whole]})
        origin.prompt("p", answer(told, msg=echo))
        origin.prompt("q", answer(None, 800, f"no {echo} and no {whole}"))
        origin.prompt("r", Reply(200, {"X-Garbled": echo + "\0"}))

        done = archive.run("fetch", "p", "q", "r", "-v", "--json")

        assert done.code == 3
        assert [line["state"] for line in sorted(done.lines, key=lambda line: str(line["prompt_id"]))] == [
            "partial",
            "unknown",
            "unresolved",
        ]
        told_to_us = {"stdout": done.out.encode(), "stderr": done.err.encode()}
        told_to_us |= {str(path): path.read_bytes() for path in archive.root.rglob("*") if path.is_file()}
        for secret in (origin.token, "credential-1234", "signature-5678"):
            assert [name for name, content in told_to_us.items() if secret.encode() in content] == []
