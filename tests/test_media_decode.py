"""``mirror verify --decode``: what has its right bytes, and still shows nothing, or not all."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest
from msgspec.structs import replace

from mirror import load_settings
from mirror.checks import Checked, Expected
from mirror.custody import reading
from mirror.decoding import Decoding
from mirror.models import ManifestFile, Role
from mirror.places import Places
from mirror.repairs import Repair
from mirror.stores.local import LocalStore
from mirror.verification import Verify
from tests import media
from tests.conftest import Archive
from tests.helpers import mirrored
from tests.origin import Origin, answer, task
from tests.s3.bucket import Bucket
from tests.s3.proxy import FaultProxy
from tests.s3_runs_e2e import Ground
from tests.test_media_look import film, saved


@pytest.fixture
def ground(archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground.prepared(archive, bucket, proxy, monkeypatch)


def spoiled(body: bytes) -> bytes:
    """Zeros in the middle: the structure is whole, the data is not."""
    middle = len(body) // 2
    return body[:middle] + bytes(300) + body[middle + 300 :]


SOUND = {"a.png": media.png(), "b.jpg": saved("JPEG"), "c.webp": saved("WEBP", frames=3), "d.mp4": film()}
WEBP = saved("WEBP", lossless=True)
BROKEN = {
    "k.mp4": spoiled(film()),
    "l.png": spoiled(media.png(40, 40)),
    "m.webp": WEBP[:25] + b"\xff" * 40 + WEBP[65:],
}
OTHER = {"x.bin": media.blob(5000), "y.txt": b"words", "z.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}


def prompt(origin: Origin, files: dict[str, bytes]) -> None:
    urls = [origin.add(f"/p/{name}", body) for name, body in files.items()]
    origin.prompt("p", answer(task("p", images=[(None, url) for url in urls])))


def lines(out: str) -> dict[str, tuple[str, str]]:
    """What is wrong with each file, and the reason."""
    rows = [json.loads(line) for line in out.splitlines()]
    return {row["where"].rpartition("/")[2]: (row["flaw"], row["detail"]) for row in rows}


def test_what_is_sound_is_decoded(archive: Archive, origin: Origin) -> None:
    prompt(origin, {**SOUND, **OTHER})
    assert mirrored(archive, "p").code == 0
    done = archive.run("verify", "--decode")
    assert (done.code, done.out) == (0, "")
    assert "4 decoded, 3 of no format that can be decoded, nothing wrong" in done.err


def test_what_cannot_be_decoded_is_told_and_left_alone(archive: Archive, origin: Origin) -> None:
    prompt(origin, {**SOUND, **BROKEN})
    assert mirrored(archive, "p").code == 0
    (archive.root / "p" / "a.png").write_bytes(b"x" * len(SOUND["a.png"]))
    before = archive.files()
    assert archive.run("verify").code == 3

    done = archive.run("verify", "--decode", "--json")
    found = lines(done.out)
    assert done.code == 3
    assert {name: flaw for name, (flaw, _) in found.items()} == {
        "a.png": "damaged",
        **dict.fromkeys(BROKEN, "undecodable"),
    }
    assert all(detail.isprintable() and detail for _, detail in found.values())

    origin.clear()
    done = archive.run("verify", "--decode", "--repair")
    assert done.code == 3
    assert done.out.count("it is as it was mirrored") == 3
    assert "1 repaired" in done.err
    assert [request.path for request in origin.media_requests] == ["/p/a.png"]
    assert archive.files() == {**before, "p/a.png": SOUND["a.png"]}
    assert archive.run("verify").code == 0


def test_only_what_is_undecodable_needs_no_advice_to_repair(archive: Archive, origin: Origin) -> None:
    prompt(origin, BROKEN)
    assert mirrored(archive, "p").code == 0
    done = archive.run("verify", "--decode")
    assert (done.code, done.out.count("\tundecodable: ")) == (3, 3)
    assert "--repair" not in done.err


def test_in_a_bucket_the_same(ground: Ground) -> None:
    prompt(ground.origin, {**SOUND, **BROKEN, **OTHER})
    assert mirrored(ground.archive, "p", s3_only=True).code == 0
    done = ground.archive.run("verify", "--s3", "--decode", "--json")
    assert done.code == 3
    assert {name: flaw for name, (flaw, _) in lines(done.out).items()} == dict.fromkeys(BROKEN, "undecodable")
    assert "4 decoded, 3 of no format that can be decoded, 3 wrong" in done.err


@pytest.mark.parametrize(
    ("name", "flaw", "detail"),
    [
        ("is killed once", None, ""),
        ("is killed", "unreadable", "it could not be decoded here: the helper has crashed"),
        ("cannot here", "unreadable", "it could not be decoded here: no thread"),
        ("uses its time", "undecodable", "it takes more time than a helper may have"),
        ("says that it takes much", "undecodable", "it takes more memory than a helper may have"),
    ],
)
def test_a_helper_that_is_lost_says_nothing_against_a_file(
    store: LocalStore, name: str, flaw: str | None, detail: str
) -> None:
    file = ManifestFile(path=name, url="u", role=Role.ORIGIN, bytes=1, sha256=None)

    async def look() -> Checked:
        decoding = Decoding(Places(store, None, only_bucket=False), bucket=False, worker="tests.media_workers")
        try:
            expected = Expected(prompt_id="p", folder="p", file=file)
            return await decoding.look(expected, Checked(prompt_id="p", where=name))
        finally:
            await decoding.close()

    found = asyncio.run(look())
    assert (found.flaw, found.detail, found.intact) == (flaw, detail, flaw is not None)
    assert found.decoded is (True if flaw is None else None)


def test_what_could_not_be_decoded_here_is_not_repaired(archive: Archive, origin: Origin) -> None:
    """Its bytes are right: to mark it as lost, or to fetch it again, would be wrong."""
    prompt(origin, SOUND)
    assert mirrored(archive, "p").code == 0
    flawed = Checked(prompt_id="p", where="p/a.png", flaw="unreadable", detail="here not", intact=True)

    class Looked(Verify):
        async def on_disk(self, *_: object) -> AsyncGenerator[Checked, None]:
            yield flawed

    async def fetch(_: object) -> None:
        raise AssertionError

    async def repaired() -> list[Checked]:
        async with reading(load_settings(root=archive.root), lambda _: None) as (places, catalog):
            repair = Repair(Looked(places, catalog), catalog, fetch, bucket=False, disk_too=True)
            return [each async for each in repair.run()]

    assert asyncio.run(repaired()) == [replace(flawed, repaired=False, detail="here not; it is as it was mirrored")]


@pytest.mark.parametrize("limit", ["-n 12", "-v 150000", "-v 220000", "-v 250000", "-v 290000", "-v 900000"])
def test_a_machine_with_little_says_nothing_against_a_file(archive: Archive, origin: Origin, limit: str) -> None:
    prompt(origin, SOUND)
    assert mirrored(archive, "p").code == 0
    command = ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", sys.executable, "-m", "mirror", "verify", "--decode"]
    done = subprocess.run(command, env=archive.environment(), capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout + done.stderr
    if done.returncode == 1 and "mirror: " not in told:
        pytest.skip("not even a Python starts")
    for word in ("a bug in mirror", "never retrieved", "undecodable"):
        assert word not in told
    if done.returncode == -signal.SIGSEGV:
        pytest.skip("Python itself does not live with so little")
    assert done.returncode in (0, 3, 4)
    assert (done.returncode == 3) == ("unreadable: " in told)
    if limit == "-n 12":
        assert done.returncode == 4


def test_without_the_extra_it_says_what_to_install(archive: Archive, origin: Origin) -> None:
    prompt(origin, SOUND)
    assert mirrored(archive, "p").code == 0
    code = "import importlib.util as i; i.find_spec = lambda name: None; from mirror.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", "--decode", "--root", str(archive.root)]
    done = subprocess.run(command, env=archive.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert 'pip install "prompt-mirror[media]"' in done.stderr
