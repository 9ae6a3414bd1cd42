"""Where a file is said to be: hosts that are not there, TLS, and addresses that are kept away from."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import faults
from tests.drivers import DRIVERS
from tests.fault_table import RESUMED, Places, Row, Scene, Section, Table, cut_then
from tests.faults import FOREVER
from tests.origin import Origin
from tests.s3.tls import Certificate, certificate
from tests.test_faults_http import redirected
from tests.tls_front import TlsFront

NEVER: list[str] = []
TRUSTING = Scene("https://{good}", {"transfer_ca_file": "{ca_file}"})
IMPATIENT = {"transfer_connect_timeout": 4, "transfer_stall_timeout": 4}
GUARDED = Scene(
    "http://media.example",
    {
        "transfer_proxy": "http://{origin}",
        "api_base_url": "http://api.example",
        "security_allow_private_addresses": False,
    },
)
"""Behind a proxy that looks names up: without one, no test could have a public address."""

HOSTS = [
    Row("a name that does not resolve", (), NEVER, "Unavailable", at="http://nowhere.invalid", scene=TRUSTING),
    Row("a port where nobody listens", (), NEVER, "Unavailable", at="http://127.0.0.1:1", scene=TRUSTING),
    Row(
        "a host that does not accept", (), NEVER, "Unavailable", at="http://{deaf}", scene=TRUSTING, settings=IMPATIENT
    ),
]

TLS = [
    Row("a good certificate", scene=TRUSTING),
    Row("closed in the middle", cut_then(), ["whole", RESUMED], scene=TRUSTING),
    Row("an expired certificate", (), NEVER, "Unavailable", at="https://{expired}", scene=TRUSTING),
    Row("a certificate for another name", (), NEVER, "Unavailable", at="https://{misnamed}", scene=TRUSTING),
    Row("a certificate of an unknown authority", (), NEVER, "Unavailable", at="https://{unknown}", scene=TRUSTING),
    Row("plain HTTP on the TLS port", (), NEVER, "Unavailable", at="https://{origin}", scene=TRUSTING),
    Row("TLS on the plain port", (), NEVER, "Unavailable", at="http://{good}", scene=TRUSTING),
    Row("the handshake is cut off", (), NEVER, "Unavailable", at="https://{curt}", scene=TRUSTING),
    Row(
        "the handshake is never answered",
        (),
        NEVER,
        "Unavailable",
        at="https://{silent}",
        scene=TRUSTING,
        settings=IMPATIENT,
    ),
    Row("redirected from https to http", redirected(302, to="http://{host}"), scene=TRUSTING),
]

GUARD = [
    *(
        Row(f"a URL at `{host}`", (), NEVER, "Refused", at=f"http://{host}", scene=GUARDED)
        for host in ("169.254.169.254", "127.0.0.1:1", "10.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]")
    ),
    *(
        Row(
            f"a redirect to `{host}`",
            faults.redirect(f"http://{host}/", times=FOREVER),
            ["whole"],
            "Refused",
            scene=GUARDED,
        )
        for host in (
            "169.254.169.254",
            "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]",
            "metadata.google.internal",
            "127.0.0.1:1",
            "0x7f000001",
            "10.0.0.1",
            "localhost",
        )
    ),
    Row("a redirect to another public host", redirected(302, to="http://other.example"), scene=GUARDED),
]

SECTIONS = [
    Section("Hosts", HOSTS),
    Section("TLS", TLS),
    Section(
        "Private and metadata addresses",
        GUARD,
        "`security.allow_private_addresses` is off, as it is by default. The service, or a redirect of a public host, "
        "names an address inside the network that mirror runs in.",
    ),
]


@contextlib.contextmanager
def listening(*, answers: bool) -> Iterator[str]:
    """A port that takes connections and says nothing, or reads a little and closes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.recv(1)
                sock.close()

    thread = threading.Thread(target=accept, daemon=True)
    if answers:
        thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        if answers:
            thread.join()


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """A port whose queue is full: a further connection is neither taken nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def around(certificates: Mapping[str, Certificate], ca_file: Path) -> Places:
    @contextlib.contextmanager
    def places(origin: Origin) -> Iterator[Mapping[str, str]]:
        with contextlib.ExitStack() as stack:
            found = {name: stack.enter_context(TlsFront(origin, made)).place for name, made in certificates.items()}
            found["silent"] = stack.enter_context(listening(answers=False))
            found["curt"] = stack.enter_context(listening(answers=True))
            found["deaf"] = stack.enter_context(deaf())
            yield {**found, "ca_file": str(ca_file)}

    return places


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("places")
    certificates = {
        "good": certificate(folder / "good"),
        "expired": certificate(folder / "expired", age=2),
        "misnamed": certificate(folder / "misnamed", host="elsewhere.example", address="192.0.2.1"),
        "unknown": certificate(folder / "unknown"),
    }
    trusted = folder / "trusted.pem"
    trusted.write_bytes(b"".join(certificates[name].ca_file.read_bytes() for name in ("good", "expired", "misnamed")))
    return Table(SECTIONS, folder, around(certificates, trusted))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", [row for section in SECTIONS for row in section.rows], ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
