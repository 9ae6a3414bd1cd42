"""A file that is on disk goes to a store that looks at what it gets without anybody looking at it here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mirror import Mirror
from mirror.errors import ChecksumMismatch, Severity
from mirror.models import ManifestFile, Receipt
from mirror.stores import Head, Target
from mirror.stores.finished import Finished
from mirror.stores.local import LocalStore
from mirror.stores.s3.sink import ObjectSink
from mirror.stores.s3.store import S3Store
from tests import media
from tests.conftest import Archive
from tests.helpers import large_prompt, mirrored
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault, answer, answer_with, corrupt_upload, edit_response_headers
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3.seen import Seen
from tests.s3.tls import certificate
from tests.s3_runs_e2e import Ground
from tests.store_contract import bring, entry_of, head_of
from tests.store_places import MIB, credentials, settings_for

BODY = bytes(range(256)) * (12 << 10)  # 3 MiB
TARGET = Target(identity="http://o/film", folder="p", names=("film.mp4", "film-1.mp4"), prompt_id="p")
on_ministack = pytest.mark.parametrize("bucket", ["ministack"], indirect=True)

NO_CHECKSUM = Fault()  # the store itself tells none


class Uploader:
    """A root with files, and a store that they go to."""

    def __init__(self, local: LocalStore, store: S3Store) -> None:
        self.local = local
        self.store = store

    async def keep(self, body: bytes = BODY, name: str = "film.mp4") -> ManifestFile:
        """A file of a prompt on disk, as the manifest has it."""
        target = msgspec.structs.replace(TARGET, names=(name,), identity=f"http://o/{name}")
        sink = await self.local.sink(target)
        receipt = await bring(sink, body, head_of(body))
        await sink.close()
        return entry_of(receipt, target)

    async def keep_damaged(self) -> ManifestFile:
        """The same, whose bytes the disk has lost since."""
        film = await self.keep()
        (self.local.root / TARGET.folder / film.path).write_bytes(bytes(len(BODY)))
        return film

    async def attest(self) -> None:
        """The store is known to look at what it gets: it has told so once."""
        await self.post(await self.keep(b"x" * 100_000, "first.mp4"))
        assert self.store.objects.attests

    async def post(self, file: ManifestFile, *, is_new: bool = True) -> Receipt | None:
        """None where it did not go from the disk to the socket; it is written then, as any other."""
        target = msgspec.structs.replace(TARGET, names=(file.path, "other.mp4"), identity=file.url, sha256=file.sha256)
        head = Head(length=file.bytes, etag=file.etag, content_type=file.content_type)
        with contextlib.closing(await self.local.opened("p", file, is_new=is_new)) as there:
            sink = await self.store.sink(target, via="upload")
            try:
                return await self._post(sink, head, file, there)
            finally:
                await sink.close()

    async def _post(self, sink: ObjectSink, head: Head, file: ManifestFile, there: Finished) -> Receipt | None:
        posted = await sink.post(head, file.sha256, there)
        if posted is None:
            await bring(sink, b"".join([block async for block in there.blocks()]), head)
        return posted


def uploading(
    bucket: Bucket,
    root: Path,
    act: Callable[[Uploader], Awaitable[None]],
    s3: dict[str, Any] | None = None,
    **transfer: Any,
) -> None:
    settings = settings_for(root, bucket, s3, attempts=3, **transfer)

    async def run() -> None:
        local = LocalStore(settings)
        local.open()
        store = S3Store(settings, local.disk, lambda _: None, 32 * MIB)
        try:
            async with asyncio.timeout(180):
                await store.open()
                await act(Uploader(local, store))
        finally:
            await store.close()
            local.close()

    with credentials(bucket):
        asyncio.run(run())


def puts(proxy: FaultProxy, name: str) -> int:
    return Counter(seen.key for seen in proxy.requests if seen.operation == "PutObject")[f"p/{name}"]


def look(proxy: FaultProxy) -> None:
    """From here on the store tells the checksum of what it got, as S3 itself does. (This one compares it only.)"""
    told: dict[str, str] = {}

    def is_put(seen: Seen) -> bool:
        if seen.operation == "PutObject":  # another request may come in before this one's answer
            told["x-amz-checksum-sha256"] = seen.headers.get("x-amz-checksum-sha256", "")
        return seen.operation == "PutObject"

    proxy.fault(is_put, edit_response_headers(lambda headers: {**headers, **told}), FOREVER)


def of_film(fault: Fault, proxy: FaultProxy, times: int = 1) -> None:
    proxy.fault(lambda seen: seen.operation == "PutObject" and seen.key == "p/film.mp4", fault, times)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@on_ministack
def test_what_is_posted_is_there_and_its_receipt_says_what_one_of_written_bytes_would(
    bucket: Bucket, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tls: bool
) -> None:
    async def act(uploader: Uploader) -> None:
        first = await uploader.keep(BODY, "written.mp4")
        assert await uploader.post(first) is None, "before its first answer nobody knows whether the store looks"
        film = await uploader.keep()
        posted = await uploader.post(film)
        assert posted is not None
        assert (posted.path, posted.bytes, posted.verified) == ("film.mp4", len(BODY), ("length",))
        assert posted.sha256 == hashlib.sha256(BODY).hexdigest() == film.sha256
        assert (posted.etag, posted.content_type) == (film.etag, film.content_type)
        assert posted.s3 is not None
        assert (posted.s3.key, posted.s3.via) == ("p/film.mp4", "upload")
        assert posted.s3.checksum_sha256 is not None

    ours = certificate(tmp_path_factory.mktemp("tls")) if tls else None
    trust: dict[str, Any] = {"ca_file": str(ours.ca_file)} if ours else {}
    with FaultProxy(bucket.server.endpoint, certificate=ours) as proxy:
        look(proxy)
        uploading(bucket.through(proxy), tmp_path, act, **trust)
    assert bucket.read() == {"p/written.mp4": BODY, "p/film.mp4": BODY}
    posted, written = bucket.head("p/film.mp4"), bucket.head("p/written.mp4")
    for told in (posted, written):
        told.pop("LastModified")
        told["Metadata"].pop("source-url")
    assert posted == written


@pytest.mark.parametrize(
    ("size", "s3"),
    [(64 << 10, {}), (33 << 20, {}), (MIB, {"checksum": "crc64nvme"}), (MIB, {"checksum": "when_required"})],
    ids=["tiny", "more than one request", "another checksum", "no checksum"],
)
@on_ministack
def test_what_cannot_be_posted_is_written(bucket: Bucket, tmp_path: Path, size: int, s3: dict[str, Any]) -> None:
    body = (BODY * 11)[:size]

    async def act(uploader: Uploader) -> None:
        uploader.store.objects.attests = True
        assert await uploader.post(await uploader.keep(body)) is None

    uploading(bucket, tmp_path, act, s3)
    assert bucket.read() == {"p/film.mp4": body}


@on_ministack
def test_through_a_proxy_it_is_written(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    """What goes to a proxy goes by a carrier that takes no files."""

    async def act(uploader: Uploader) -> None:
        for number in range(2):
            assert await uploader.post(await uploader.keep(BODY[number:], f"{number}.mp4")) is None
        assert uploader.store.objects.attests, "it would go from the disk otherwise"

    look(proxy)
    uploading(bucket, tmp_path, act, proxy=proxy.endpoint)
    assert [puts(proxy, f"{number}.mp4") for number in range(2)] == [1, 1]
    assert bucket.read() == {f"p/{number}.mp4": BODY[number:] for number in range(2)}


@pytest.mark.parametrize("damage", ["other bytes", "shorter"])
@on_ministack
def test_a_damaged_file_is_told_of_at_once_and_is_not_there(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, damage: str
) -> None:
    """The store refuses it; we look whose fault that is before it is sent again."""

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep()
        path = tmp_path / "p" / "film.mp4"
        path.write_bytes(BODY[:-1] + b"!" if damage == "other bytes" else BODY[:-1])
        with pytest.raises(ChecksumMismatch, match=r"p/film\.mp4 on disk is not what was mirrored") as caught:
            await uploader.post(film)
        assert caught.value.severity is Severity.ITEM

    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert puts(proxy, "film.mp4") == 1
    assert bucket.keys() == ["p/first.mp4"]


@pytest.mark.parametrize(
    "fault",
    [corrupt_upload(2 * MIB), answer(503, "SlowDown"), answer(400, "BadDigest")],
    ids=["other bytes", "busy", "a refusal for nothing"],
)
@on_ministack
def test_what_the_way_did_to_a_sound_file_is_mended_by_another_try(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        assert await uploader.post(await uploader.keep()) is not None

    of_film(fault, proxy)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert puts(proxy, "film.mp4") == 2
    assert bucket.read("p/film") == {"p/film.mp4": BODY}


@on_ministack
def test_a_store_that_looks_no_more_is_sent_nothing_unseen(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    """What went to it is looked at here then, and the next file before it goes."""

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep()
        posted = await uploader.post(film)
        assert posted is not None
        assert posted.s3 is not None
        assert posted.s3.checksum_sha256 is None
        assert await uploader.post(await uploader.keep(BODY, "next.mp4")) is None

    of_film(NO_CHECKSUM, proxy)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert bucket.read("p/film") == {"p/film.mp4": BODY}


@on_ministack
def test_a_damaged_file_that_a_store_took_unseen_is_taken_out_again(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep_damaged()
        bucket.put("p/film.mp4", bytes(len(BODY)))  # what such a store has then
        with pytest.raises(ChecksumMismatch, match="on disk is not what was mirrored"):
            await uploader.post(film)

    of_film(answer_with(200, b"", headers={"ETag": '"0"'}), proxy)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert bucket.keys() == ["p/first.mp4"]


@pytest.mark.parametrize("conditional", [True, False])
@on_ministack
def test_what_stood_there_is_not_taken_out_for_a_damaged_file(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, conditional: bool
) -> None:
    """Not by a store that looks at its conditions first, and tells no checksums of what stands there."""
    bucket.put("p/film.mp4", BODY)

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep_damaged()
        posted = await uploader.post(film)
        assert posted is not None
        assert posted.s3 is not None
        assert posted.s3.checksum_sha256 is None

    def is_head(seen: Seen) -> bool:
        return seen.operation == "HeadObject"

    untold = edit_response_headers(
        lambda headers: {
            name: value for name, value in headers.items() if not name.lower().startswith("x-amz-checksum")
        }
    )
    proxy.fault(is_head, untold, FOREVER)
    proxy.fault("GetObjectAttributes", answer(501, "NotImplemented"), FOREVER)
    if conditional:
        of_film(answer(412, "PreconditionFailed"), proxy)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act, {"conditional_writes": conditional})
    assert bucket.read("p/film") == {"p/film.mp4": BODY}


@on_ministack
def test_what_an_earlier_run_stored_is_looked_at_first(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    """A store that repeats what it was told, and looks at nothing, does not get what a disk made of it."""

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        assert await uploader.post(await uploader.keep(BODY, "sound.mp4"), is_new=False) is not None
        film = await uploader.keep_damaged()
        with pytest.raises(ChecksumMismatch, match="on disk is not what was mirrored"):
            await uploader.post(film, is_new=False)

    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert puts(proxy, "film.mp4") == 0
    assert bucket.read("p/sound") == {"p/sound.mp4": BODY}


@pytest.mark.parametrize(
    "said", [answer(403, "SignatureDoesNotMatch"), answer(400, "InvalidRequest")], ids=["403", "400"]
)
@on_ministack
def test_a_damaged_file_is_a_damaged_file_however_the_store_says_it(
    bucket: Bucket, proxy: FaultProxy, tmp_path: Path, said: Fault
) -> None:
    """And ends no run: nobody's credentials are wrong."""

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep_damaged()
        with pytest.raises(ChecksumMismatch, match="on disk is not what was mirrored"):
            await uploader.post(film)

    of_film(said, proxy)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)


@on_ministack
def test_what_may_not_be_taken_out_is_named(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.keep_damaged()
        with pytest.raises(ChecksumMismatch, match=rf"s3://{bucket.name}/p/film\.mp4, which may not be deleted"):
            await uploader.post(film)

    of_film(answer_with(200, b"", headers={"ETag": '"0"'}), proxy)
    proxy.fault("DeleteObject", answer(403, "AccessDenied"), FOREVER)
    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)


@on_ministack
def test_nothing_is_overwritten(bucket: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    """It goes beside another object; where its own bytes stand already, that is it."""
    bucket.put("p/film.mp4", b"somebody else's")
    bucket.put("p/same.mp4", BODY)

    async def act(uploader: Uploader) -> None:
        await uploader.attest()
        film = await uploader.post(await uploader.keep())
        same = await uploader.post(await uploader.keep(BODY, "same.mp4"))
        assert film is not None
        assert same is not None
        assert (film.path, same.path) == ("other.mp4", "same.mp4")

    look(proxy)
    uploading(bucket.through(proxy), tmp_path, act)
    assert bucket.read("p/film") == {"p/film.mp4": b"somebody else's"}
    assert bucket.read("p/other") == {"p/other.mp4": BODY}


def test_stores_that_tell_no_checksum_get_it_whole(bucket: Bucket, tmp_path: Path) -> None:

    async def act(uploader: Uploader) -> None:
        for number in range(3):
            assert await uploader.post(await uploader.keep(BODY[number:], f"{number}.mp4")) is None

    uploading(bucket, tmp_path, act)
    assert bucket.read() == {f"p/{number}.mp4": BODY[number:] for number in range(3)}


@on_ministack
def test_a_bucket_that_comes_later_does_not_get_what_the_disk_has_damaged(
    archive: Archive, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: the damaged file is not even sent; in the run that fetched them nobody would have looked."""
    look(proxy)
    ground = Ground.prepared(archive, bucket, proxy, monkeypatch)
    bodies = {name: media.mp4(MIB, seed=seed) for seed, name in enumerate("abcdef")}
    for name, body in bodies.items():
        large_prompt(ground.origin, name, body)
    assert mirrored(archive, *bodies, s3_bucket="").code == 0
    (archive.root / "f" / "large.mp4").write_bytes(bytes(MIB))

    async def run() -> list[str]:
        """One after the other, so that the store is known to look when the last one comes."""
        async with Mirror(archive.settings()) as mirror:
            return [manifest.state for name in bodies async for manifest in mirror.fetch([name])]

    assert asyncio.run(run()) == [*["complete"] * 5, "partial"]
    assert ground.media() == {f"{name}/large.mp4": bodies[name] for name in "abcde"}
    assert "f/large.mp4" not in {seen.key for seen in proxy.requests if seen.operation == "PutObject"}
