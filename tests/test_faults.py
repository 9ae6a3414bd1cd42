"""Faults that take more than one file, one answer or one origin: expired URLs, pooled connections, slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from mirror import Manifest, Mirror
from mirror.events import Observer
from tests import faults, media
from tests.conftest import Archive
from tests.drivers import DRIVERS, Job, Release
from tests.fault_table import BODY, CUT, RESUMED, cut_then, described
from tests.faults import FOREVER, Fault
from tests.origin import Origin, answer, task
from tests.test_clock import LIBRARIES

SIGNED = "/media/film.mp4?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature="
PATIENT = {"transfer_connect_timeout": 60, "transfer_stall_timeout": 60, "api_timeout": 60}
"""Nothing here waits for an end of patience, and a machine may be busy."""


@pytest.fixture
def elsewhere() -> Iterator[Origin]:
    """A second origin: another port is another host as far as credentials go."""
    with Origin() as running:
        yield running


def mirrored(archive: Archive, *observers: Observer, **settings: Any) -> Manifest:
    """The manifest of the prompt ``p`` after a run."""

    async def run() -> list[Manifest]:
        given = {"transfer_attempts": 3, **PATIENT, **settings}
        async with Mirror(archive.settings(**given), observers=observers) as mirror:
            return [manifest async for manifest in mirror.fetch(["p"])]

    [manifest] = asyncio.run(run())
    return manifest


def fetched(archive: Archive, driver: str, **settings: Any) -> Any:
    """The manifest of the prompt ``p`` as JSON, after a run through the Python API or the command line."""
    given = {"transfer_attempts": 3, **PATIENT, **settings}
    return DRIVERS[driver](Job(archive, ["p"], given, {})).manifests["p"]


both = pytest.mark.parametrize("driver", DRIVERS)


def film(url: str) -> dict[str, Any]:
    """The answer whose one file is at ``url``."""
    return answer(task("p", images=[(None, url)]))


class TestExpiredUrl:
    """403 means that a signed URL has run out: the service is asked for a fresh one, once."""

    @both
    def test_a_fresh_url_is_fetched(self, archive: Archive, origin: Origin, driver: str) -> None:
        old = origin.add(SIGNED + "old", BODY, fault=faults.status(403, times=FOREVER))
        new = origin.add(SIGNED + "new", BODY)
        origin.prompt("p", [film(old), film(new)])

        manifest = fetched(archive, driver)

        assert (manifest["state"], manifest["errors"]) == ("complete", [])
        assert archive.files()["p/film.mp4"] == BODY
        assert [request.target for request in origin.media_requests] == [SIGNED + "old", SIGNED + "new"]
        assert len(origin.api_requests) == 2
        origin.clear()
        assert fetched(archive, driver)["state"] == "complete"
        assert origin.requests == []

    def test_what_came_before_is_kept(self, archive: Archive, origin: Origin) -> None:
        fault = [faults.close_after(CUT, hold=True), faults.status(403, times=FOREVER)]
        old = origin.add(SIGNED + "old", BODY, fault=fault)
        new = origin.add(SIGNED + "new", BODY)
        origin.prompt("p", [film(old), film(new)])

        manifest = mirrored(archive, Release(origin, [SIGNED + "old"], CUT))

        assert manifest.state == "complete"
        assert archive.files()["p/film.mp4"] == BODY
        assert [(request.target, described(request)) for request in origin.media_requests] == [
            (SIGNED + "old", "whole"),
            (SIGNED + "old", RESUMED),
            (SIGNED + "new", RESUMED),
        ]

    @pytest.mark.parametrize("second", [film("http://127.0.0.1:1/another.mp4"), answer(None, 900, "no data")])
    def test_the_service_names_it_no_more(self, archive: Archive, origin: Origin, second: dict[str, Any]) -> None:
        old = origin.add(SIGNED + "old", BODY, fault=faults.status(403, times=FOREVER))
        origin.prompt("p", [film(old), second])

        manifest = mirrored(archive)

        assert manifest.state == "partial"
        assert [error.error for error in manifest.errors] == ["UrlExpired"]
        assert (len(origin.media_requests), len(origin.api_requests)) == (1, 2)

    def test_a_fresh_url_that_is_refused_too_ends_it(self, archive: Archive, origin: Origin) -> None:
        urls = [origin.add(f"{SIGNED}{number}", BODY, fault=faults.status(403, times=FOREVER)) for number in range(5)]
        origin.prompt("p", [film(url) for url in urls])

        manifest = mirrored(archive)

        assert [error.error for error in manifest.errors] == ["UrlExpired"]
        assert (len(origin.media_requests), len(origin.api_requests)) == (2, 2)


class TestConnections:
    @both
    def test_the_pool_forgets_what_was_closed(self, archive: Archive, origin: Origin, driver: str) -> None:
        kinds = [faults.close_idle(), faults.close_on_reuse(), faults.chunked(), faults.close_on_reuse()]
        bodies = {f"{number}.png": media.png(seed=number) for number in range(8)}
        urls = [
            origin.add(f"/media/{name}", body, fault=kinds[number % 4])
            for number, (name, body) in enumerate(bodies.items())
        ]
        origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))

        manifest = fetched(archive, driver, transfer_concurrency=1)

        assert (manifest["state"], manifest["errors"]) == ("complete", [])
        assert {name: archive.files()[f"p/{name}"] for name in bodies} == bodies
        answered = [request.path for request in origin.media_requests if request.status]
        assert sorted(answered) == sorted(f"/media/{name}" for name in bodies)
        reused = len(answered) - len({request.connection for request in origin.media_requests if request.status})
        assert reused >= 2

    @both
    def test_what_a_body_has_too_much_harms_no_other_file(self, archive: Archive, origin: Origin, driver: str) -> None:
        """The next request on that connection gets it in place of an answer."""
        told, other = media.png(seed=1), media.png(seed=2)
        long = told + media.blob(len(told))
        urls = [
            origin.add("/media/long.png", long, fault=faults.rest_on_reuse(len(told), times=FOREVER)),
            origin.add("/media/other.png", other),
        ]
        origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))

        manifest = fetched(archive, driver, transfer_concurrency=1)

        assert (manifest["state"], manifest["errors"]) == ("complete", [])
        files = archive.files()
        assert (files["p/long.png"], files["p/other.png"]) == (told, other), "the length that is stated counts"
        assert [request.path for request in origin.media_requests if request.status == 0] == ["/media/other.png"]

    @both
    def test_a_reader_that_is_throttled_gets_all_bytes(self, archive: Archive, origin: Origin, driver: str) -> None:
        """aiohttp #13348: a body whose reader pauses must not be taken for one that was cut."""
        kinds = [faults.behave(), faults.close_idle(), faults.chunked(), faults.no_length()]
        bodies = {f"{kind}.mp4": media.mp4(2 << 20, seed=number) for number, kind in enumerate(kinds)}
        urls = [
            origin.add(f"/media/{name}", body, fault=kind)
            for kind, (name, body) in zip(kinds, bodies.items(), strict=True)
        ]
        origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))

        manifest = fetched(archive, driver, transfer_limit_rate=8 << 20)

        assert (manifest["state"], manifest["errors"]) == ("complete", [])
        assert {name: archive.files()[f"p/{name}"] for name in bodies} == bodies
        assert sorted(request.path for request in origin.media_requests) == sorted(f"/media/{name}" for name in bodies)

    @pytest.mark.skipif(not LIBRARIES, reason="Debian's faketime is not installed")
    def test_a_byte_a_second(self, archive: Archive, origin: Origin) -> None:
        """The process's clocks run at twenty times their speed, so that a minute is three seconds."""
        origin.prompt("p", film(origin.add("/media/film.mp4", BODY, fault=faults.trickle(20))))
        patience = {f"MIRROR_{name}_TIMEOUT": "1h" for name in ("API", "TRANSFER_CONNECT", "TRANSFER_STALL")}
        clock = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": "+0 x20"}

        done = archive.run("fetch", "p", "-v", environ={**clock, **patience})

        assert "slower than transfer.min_rate" in done.err
        assert (done.code, archive.files()["p/film.mp4"]) == (0, BODY)
        assert [described(request) for request in origin.media_requests] == ["whole", "whole"], "too little to keep"


class TestStates:
    @both
    def test_a_state_that_goes_back_takes_nothing_with_it(self, archive: Archive, origin: Origin, driver: str) -> None:
        urls = [origin.add(f"/{number}.png", media.png(seed=number)) for number in range(2)]

        def family(*states: int) -> dict[str, Any]:
            named = zip(states, urls, strict=True)
            return answer(task("p", children=[task(f"c{url[-5]}", state, [(None, url)]) for state, url in named]))

        origin.prompt("p", [family(30, 20), family(10, 30), answer(None, 900, "no data"), family(30, 30)])

        states = [fetched(archive, driver)["state"] for _ in range(3)]

        assert states == ["pending"] * 3
        assert archive.files().keys() == {"p/0.png", "p/1.png", "p/manifest.json"}
        origin.clear()
        assert fetched(archive, driver)["state"] == "complete"
        assert origin.media_requests == []


class TestRedirects:
    def test_what_is_resumed_is_asked_for_at_the_first_url(
        self, archive: Archive, origin: Origin, elsewhere: Origin
    ) -> None:
        there = elsewhere.add("/real.mp4", BODY, fault=cut_then())
        here = origin.add("/media/film.mp4", b"", fault=faults.redirect(there, times=FOREVER))
        origin.prompt("p", film(here))

        manifest = mirrored(archive, Release(elsewhere, ["/real.mp4"], CUT))

        assert manifest.state == "complete"
        assert archive.files()["p/film.mp4"] == BODY  # named by the URL that the service gave
        assert [described(request) for request in origin.media_requests] == ["whole", RESUMED]
        assert [described(request) for request in elsewhere.media_requests] == ["whole", RESUMED]

    def test_the_target_may_fail_like_any_url(self, archive: Archive, origin: Origin, elsewhere: Origin) -> None:
        here = origin.add("/media/film.mp4", b"", fault=faults.redirect(elsewhere.url + "/no.mp4", times=FOREVER))
        origin.prompt("p", film(here))

        manifest = mirrored(archive)

        assert [error.error for error in manifest.errors] == ["Gone"]


class TestSignedRequests:
    """An ``x-amz-*`` header that the signature does not cover makes S3 refuse the request."""

    ASKED = "x-amz-checksum-mode"

    def headers(self, archive: Archive, url: str) -> list[bool]:
        """Fetch a file; for each media request whether it asked for checksums."""
        archive.origin.prompt("p", film(url))
        assert mirrored(archive).state == "complete"
        return [self.ASKED in request.headers for request in archive.origin.media_requests]

    def test_checksums_are_asked_for(self, archive: Archive, origin: Origin) -> None:
        assert self.headers(archive, origin.add("/media/film.mp4", BODY)) == [True]

    def test_but_not_of_a_signed_url(self, archive: Archive, origin: Origin) -> None:
        assert self.headers(archive, origin.add(SIGNED + "new", BODY)) == [False]

    def test_nor_where_a_redirect_leads_to_one(self, archive: Archive, origin: Origin) -> None:
        signed = origin.add("/signed.mp4?X-Amz-Signature=abc", BODY)
        assert self.headers(archive, origin.add("/media/film.mp4", b"", fault=to(signed))) == [True, False]


def to(url: str) -> Fault:
    return faults.redirect(url, times=FOREVER)
