"""A machine on which public addresses and a name server are ours: run by `tests/test_rebinding.py` in namespaces.

`unshare -rmn python -m tests.rebinding` has a network of its own, where its loopback takes on any address, and files
in /etc of its own, by which the C library's resolver asks a server that answers as the script says. Nothing of mirror
is touched: the command line runs as anywhere. Prints what came of each row as JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import struct
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests import faults, media
from tests.conftest import Archive
from tests.faults import FOREVER
from tests.origin import Origin, answer, task

PUBLIC, CLOSED, PUBLIC_6 = "93.184.215.14", "93.184.215.15", "2606:2800:21f:cb07::1"
PRIVATE = ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "fd00::1")
PORT = 8080


@dataclass(frozen=True)
class Row:
    """What the name server answers, question by question (the last answer again and again), and what comes of it.

    `runs` are the outcomes (regular expressions) of as many runs, each for another file.
    """

    what: str
    answers: Sequence[Sequence[str]]
    runs: Sequence[str]
    redirect: bool = False


ROWS = [
    Row("a public address", [[PUBLIC]], ["complete"]),
    *(Row(f"{address}", [[address]], ["Refused"]) for address in PRIVATE),
    Row("a mapped one", [["::ffff:127.0.0.1"]], ["Refused"]),
    Row("one by NAT64", [["64:ff9b::7f00:1"]], ["Refused"]),
    Row("public, then private", [[PUBLIC], ["127.0.0.1"]], ["complete", "Refused"]),
    Row("public, then private of the other family", [[PUBLIC], ["::1"]], ["complete", "Refused"]),
    Row("private, then public", [["127.0.0.1"], [PUBLIC]], ["Refused", "complete"]),
    Row("nobody listens, and a private one beside it", [[CLOSED, "127.0.0.1"]], ["Refused|Unavailable"]),
    Row("a private one, and nobody listens", [["10.0.0.1", CLOSED]], ["Refused|Unavailable"]),
    Row(
        "nobody listens, and private ones of both families",
        [[CLOSED, "10.0.0.1", "::1", "fd00::1"]],
        ["Refused|Unavailable"],
    ),
    Row("public, and a private one beside it", [[PUBLIC, "127.0.0.1", "::1"]], ["complete"]),
    Row("a redirect from a public one", [["127.0.0.1"]], ["Refused"], redirect=True),
    Row("a redirect to a public one", [[PUBLIC]], ["complete"], redirect=True),
    Row(
        "a redirect to a name that was public", [[PUBLIC], ["169.254.169.254"]], ["complete", "Refused"], redirect=True
    ),
]


def name_of(row: int) -> str:
    return f"row{row}.example.com"


# The machine


def take_on(address: str) -> None:
    """Have the loopback interface answer to an address."""
    if ip_address(address).version == 6:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            packed = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, address), 128, socket.if_nametoindex("lo"))
            fcntl.ioctl(sock, 0x8916, packed)  # SIOCSIFADDR
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        label = f"lo:{ip_address(address).packed.hex()[:8]}".encode()
        packed = struct.pack("16sH2s4s8s", label, socket.AF_INET, b"", socket.inet_aton(address), b"")
        fcntl.ioctl(sock, 0x8916, packed)


def bring_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 0x41, b""))  # SIOCSIFFLAGS: up, running
    for address in (PUBLIC, CLOSED, PUBLIC_6, *PRIVATE):
        if address not in ("127.0.0.1", "::1"):
            take_on(address)


def use_own_resolver(folder: Path) -> None:
    for name, content in {
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:30 attempts:2\n",
        "hosts": "127.0.0.1 localhost\n",
        "nsswitch.conf": "hosts: files dns\n",
    }.items():
        (folder / name).write_text(content)
        subprocess.run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)


class NameServer:
    """Answers questions for addresses, each name by its script; for both families from the same step of it."""

    def __init__(self, script: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._script = script
        self._asked: Counter[tuple[str, int]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode())
            at += size + 1
        asked = question[12 : at + 5]
        (kind,) = struct.unpack(">H", question[at + 1 : at + 3])
        steps = self._script.get(".".join(labels).lower(), [[]])
        number = self._asked[".".join(labels), kind]
        self._asked[".".join(labels), kind] += 1
        version = {1: 4, 28: 6}.get(kind)
        found = [ip_address(each) for each in steps[min(number, len(steps) - 1)]]
        packed = [each.packed for each in found if each.version == version]
        head = question[:2] + struct.pack(">HHHHH", 0x8580, 1, len(packed), 0, 0)
        return head + asked + b"".join(struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(each)) + each for each in packed)


class Canary:
    """Listens where nobody may connect to, and counts who does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections = 0
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, PORT), family=family)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self.connections += 1
            sock.close()


# The rows


def outcome(archive: Archive, prompt_id: str) -> str:
    manifest = archive.manifest(prompt_id)
    return "/".join(error["error"] for error in manifest["errors"]) or str(manifest["state"])


def prepare(number: int, row: Row, run: int, api: Origin, public: Origin) -> str:
    """A prompt with one file at the row's name, or with one that redirects there; its promptId."""
    path = f"/{number}/{run}.png"
    public.add(path, media.png(seed=number))
    url = there = f"http://{name_of(number)}:{PORT}{path}"
    if row.redirect:
        public.add(f"/away{path}", b"", fault=faults.redirect(there, times=FOREVER))
        url = f"http://{PUBLIC}:{PORT}/away{path}"
    return api.prompt(f"p{number}-{run}", answer(task(f"p{number}-{run}", images=[(None, url)])))


def run_rows(archive: Archive, public: Origin) -> list[list[str]]:
    """What came of each run of each row. Every run is a process of its own, which asks the name server anew."""
    archive.environ["MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES"] = "false"
    archive.environ["MIRROR_TRANSFER_ATTEMPTS"] = "2"
    outcomes: list[list[str]] = [[] for _ in ROWS]
    for run in range(max(len(row.runs) for row in ROWS)):
        ids = {n: prepare(n, row, run, archive.origin, public) for n, row in enumerate(ROWS) if run < len(row.runs)}
        done = archive.run("fetch", *ids.values())
        if done.code != 3:
            raise RuntimeError(done.err)
        for number, prompt_id in ids.items():
            outcomes[number].append(outcome(archive, prompt_id))
    return outcomes


def main() -> None:
    bring_up()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        use_own_resolver(folder)
        NameServer({name_of(number): row.answers for number, row in enumerate(ROWS)})
        canaries = [Canary(address) for address in PRIVATE]
        public = stack.enter_context(Origin(address=(PUBLIC, PORT)))
        api = stack.enter_context(Origin())
        found = {
            "outcomes": run_rows(Archive(folder / "archive", api), public),
            "connections": {canary.address: canary.connections for canary in canaries},
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
