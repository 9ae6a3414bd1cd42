"""A monitor is told of the start and the end of a run, and can do nothing to it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest

from mirror import Settings
from mirror.config import load
from mirror.errors import ConfigError, ExitCode
from mirror.ping import Ping
from tests import faults, media
from tests.conftest import Archive, Done
from tests.faults import Request
from tests.helpers import done_prompt, large_prompt, picture, running
from tests.origin import FOREVER, Answer, Origin, answer, task

CHECK = "/0f6c8a1e-5b1d-4b0c-9d3f-2a7e6c5b4d3a"


@pytest.fixture
def monitor() -> Iterator[Origin]:
    with Origin() as server:
        for path in (CHECK, f"{CHECK}/start", f"{CHECK}/fail"):
            server.add(path, b"OK")
        yield server


def when_told(monitor: Origin, *paths: str, then: Answer) -> Callable[[int], Answer]:
    """An answer of the service that comes when these calls have been answered: a run tells of its start beside it."""

    def wait(_number: int) -> Answer:
        monitor.wait_for(
            lambda: told(monitor) == [*paths] and all(request.ended is not None for request in monitor.requests)
        )
        return then

    return wait


def told(monitor: Origin) -> list[str]:
    """What was called, without the check's own path."""
    return [request.path.removeprefix(CHECK) for request in monitor.requests]


def run(archive: Archive, monitor: Origin, *arguments: str) -> Done:
    return archive.run("fetch", *arguments, environ={"MIRROR_METRICS_PING_URL": monitor.url + CHECK})


def rid(request: Request) -> str:
    [found] = parse_qs(request.query)["rid"]
    return found


class TestWhatIsTold:
    def test_a_success(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        done = run(archive, monitor, "p")

        assert (done.code, told(monitor)) == (0, ["/start", ""])
        start, end = monitor.requests
        assert rid(start) == rid(end) == str(uuid.UUID(rid(end)))
        assert (start.body, start.method, end.method) == (b"", "POST", "POST")
        assert end.body.decode() in done.err
        assert "1: 1 complete" in end.body.decode()
        assert done.summary["requests"] == 2, "the monitor's are not counted"

    def test_each_run_has_an_id_of_its_own(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        for _ in range(2):
            run(archive, monitor, "p")
        assert len({rid(request) for request in monitor.requests}) == 2

    def test_what_waits_upstream_is_a_success(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        origin.prompt("p", answer(task("p", state=10)))
        assert (run(archive, monitor, "p").code, told(monitor)) == (5, ["/start", ""])

    def test_a_failure(self, archive: Archive, monitor: Origin) -> None:
        done = run(archive, monitor, "unknown")
        assert (done.code, told(monitor)) == (3, ["/start", "/fail"])
        assert b"exit code   3" in monitor.requests[1].body

    def test_a_fatal_error(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        origin.authorization = "another"
        done = run(archive, monitor, "p")
        assert (done.code, told(monitor)) == (4, ["/start", "/fail"])
        assert b"the API rejects the token" in monitor.requests[1].body

    def test_a_summary_that_cannot_be_written(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        environ = {"MIRROR_METRICS_PING_URL": monitor.url + CHECK}
        with running(archive, "fetch", "p", "--summary", "/dev/full", environ=environ) as process:
            assert process.wait(60) == 4
        assert told(monitor) == ["/start", "/fail"]

    @pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal(self, archive: Archive, origin: Origin, monitor: Origin, sig: signal.Signals, code: int) -> None:
        large_prompt(origin, "p", media.mp4(1 << 20), faults.hold_after(1000))
        with running(archive, "fetch", "p", environ={"MIRROR_METRICS_PING_URL": monitor.url + CHECK}) as process:
            origin.wait_bytes("/p/", 1000)
            monitor.wait_for(lambda: told(monitor) == ["/start"])
            process.send_signal(sig)
            assert process.wait(60) == code
        monitor.wait_for(lambda: told(monitor) == ["/start", "/fail"])  # the run waits a second for it, if need be

    def test_a_query_that_is_there_stays(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        environ = {"MIRROR_METRICS_PING_URL": f"{monitor.url}{CHECK}/?create=1&a=%2F#top"}
        assert archive.run("fetch", "p", environ=environ).code == 0
        start, end = monitor.requests
        assert (start.path, end.path) == (f"{CHECK}/start", CHECK)
        assert start.query == end.query == f"create=1&a=%2F&rid={rid(start)}"

    def test_the_body_is_bounded(self, archive: Archive, monitor: Origin) -> None:
        ping = Ping(archive.settings(metrics_ping_url=monitor.url + CHECK))
        asyncio.run(ping.finish("x" + "ü" * 10_000, ExitCode.OK))
        [end] = monitor.requests
        assert end.body.decode() == "x" + "ü" * 4999

    def test_a_signal_just_before_the_end_is_told(self, archive: Archive, monitor: Origin) -> None:
        async def run() -> None:
            ping = Ping(archive.settings(metrics_ping_url=monitor.url + CHECK))
            telling = asyncio.create_task(ping.finish("all done", ExitCode.OK))
            await asyncio.sleep(0)
            telling.cancel()
            await telling

        asyncio.run(run())
        monitor.wait_for(lambda: told(monitor) == [""])

    def test_a_dry_run_tells_nothing(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        assert (run(archive, monitor, "p", "--dry-run").code, told(monitor)) == (0, [])

    def test_no_token_goes_there(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        echo = f"token {origin.token} https://h/x?X-Amz-Signature=signature-5678"
        origin.prompt("p", answer(task("p", state=2, reason=echo), msg=echo))
        origin.prompt("q", answer(None, 401, echo))
        run(archive, monitor, "p", "q")
        assert told(monitor) == ["/start", "/fail"]
        for request in monitor.requests:
            assert origin.token not in repr(request)
            assert "signature-5678" not in repr(request)
            assert "authorization" not in request.headers


class TestAMonitorThatFails:
    def test_it_is_tried_again_once(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        monitor.add(CHECK, b"OK", fault=faults.status(503))
        done = run(archive, monitor, "p")
        assert (done.code, told(monitor), "ping" in done.err) == (0, ["/start", "", ""], False)

    @pytest.mark.parametrize(
        ("fault", "why"),
        [
            (faults.status(404, times=FOREVER), "it answered HTTP 404"),
            (faults.redirect("/other", times=FOREVER), "it answered HTTP 302"),
            (faults.hang_up(times=FOREVER), "the connection failed"),
        ],
    )
    def test_what_is_wrong_is_a_warning(
        self, archive: Archive, origin: Origin, monitor: Origin, fault: faults.Fault, why: str
    ) -> None:
        url, _ = picture(origin, "/one.png")
        done_task = answer(task("p", images=[(None, url)]))
        origin.prompt("p", when_told(monitor, "/start", "/start", then=done_task))
        for path in (CHECK, f"{CHECK}/start"):
            monitor.add(path, b"OK", fault=fault)
        done = run(archive, monitor, "p", "-v")
        assert (done.code, told(monitor)) == (0, ["/start", "/start", "", ""])
        warnings = re.findall(r"warning  (ping.*)", done.err)
        assert warnings == [
            f"ping: 127.0.0.1 was not told of the {which} of this run: {why}" for which in ("start", "success")
        ]
        assert CHECK.strip("/") not in done.err

    def test_nobody_listens(self, archive: Archive, origin: Origin) -> None:
        done_prompt(origin, "p", "one.png")
        with socket.socket() as taken:  # bound and not listening: nor can anybody else
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}{CHECK}?key=verysecret"
            done = archive.run("fetch", "p", "-v", environ={"MIRROR_METRICS_PING_URL": url})
        assert (done.code, done.err.count("cannot connect to 127.0.0.1")) == (0, 2)
        assert CHECK.strip("/") not in done.err
        assert "verysecret" not in done.err

    def test_one_that_never_answers_cannot_hold_up_a_stop(
        self, archive: Archive, origin: Origin, monitor: Origin
    ) -> None:
        for path in (CHECK, f"{CHECK}/start", f"{CHECK}/fail"):
            monitor.add(path, b"OK", fault=faults.never_answers(times=FOREVER))
        large_prompt(origin, "p", media.mp4(1 << 20), faults.hold_after(1000))
        with running(archive, "fetch", "p", environ={"MIRROR_METRICS_PING_URL": monitor.url + CHECK}) as process:
            origin.wait_bytes("/p/", 1000)
            monitor.wait_for(lambda: told(monitor) == ["/start"])
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=18)  # a run that was not told to stop would try for 21 s
        assert process.returncode == 143
        monitor.wait_for(lambda: told(monitor) == ["/start", "/fail"])
        assert "not told of the failure of this run: no answer within 1 s" in err

    def test_a_signal_while_the_end_is_told(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        monitor.add(CHECK, b"OK", fault=faults.never_answers(times=FOREVER))
        done_prompt(origin, "p", "one.png")
        with running(archive, "fetch", "p", environ={"MIRROR_METRICS_PING_URL": monitor.url + CHECK}) as process:
            monitor.wait_for(lambda: told(monitor) == ["/start", ""])
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=18)  # it would try for 21 s
        assert (process.returncode, "Traceback" in err) == (0, False), "the run had ended"


class TestTheUrl:
    @pytest.mark.parametrize(
        "url", ["http://:80/x", "http://h:0/secret-path", "http://h:99999/secret-path", "http://[/"]
    )
    def test_one_that_cannot_be(self, url: str) -> None:
        settings = load(None, {"metrics_ping_url": url}, environ={}).settings
        with pytest.raises(ConfigError, match="ping_url: expected http") as caught:
            Ping(settings)
        assert "secret" not in str(caught.value)

    def test_it_is_shown_nowhere(self, archive: Archive) -> None:
        secret = "0f6c8a1e-secret"
        for url in (f"ftp://h/{secret}", f"http://h/ {secret}"):
            done = archive.run("fetch", "p", environ={"MIRROR_METRICS_PING_URL": url})
            assert (done.code, secret in done.err) == (2, False)
        assert secret not in repr(archive.settings(metrics_ping_url=f"https://h/{secret}"))
        assert isinstance(archive.settings(), Settings)

    def test_a_log_that_repeats_it_does_not_show_it(self, archive: Archive, origin: Origin, monitor: Origin) -> None:
        url = monitor.url + CHECK
        origin.prompt("p", answer(task("p", state=2, reason=f"see {url}")))
        done = run(archive, monitor, "p", "--log-format", "json", "-v")
        assert CHECK.strip("/") not in "".join(
            line for line in done.err.splitlines() if "summary" not in json.loads(line)
        )
