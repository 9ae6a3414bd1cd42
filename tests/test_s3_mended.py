"""What a store's sink mends by itself: credentials, clock and region; what somebody else ended; what was broken off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mirror.errors import Denied, Severity, StoreUnavailable
from mirror.manifests.document import encode
from mirror.models import Manifest, ManifestApi, Placed, PromptState, Receipt
from mirror.stores.s3.store import S3Store
from mirror.stores.s3.strays import seen_before, strays
from tests.helpers import sha256
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.faults import Fault
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3.seen import Seen
from tests.s3_runs_faults import TARGET, asked, in_store, is_there, on_ministack, store_file, stored
from tests.store_contract import LARGE, SMALL, bring, head_of, write
from tests.store_places import PART, credentials

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

by_either_way = pytest.mark.parametrize(
    ("operation", "body"), [("PutObject", SMALL), ("CreateMultipartUpload", LARGE)], ids=["aiohttp", "boto3"]
)


@pytest.fixture
def through(bucket: Bucket, proxy: FaultProxy) -> Bucket:
    return bucket.through(proxy)


def scope(seen: Seen) -> dict[str, str]:
    """Whose signature a request bears, and for which region."""
    key, _, region, *_ = seen.headers["authorization"].partition("Credential=")[2].partition(",")[0].split("/")
    return {"key": key, "region": region}


@on_ministack
class TestCredentialsThatRunOut:
    @by_either_way
    def test_they_are_loaded_anew(
        self, through: Bucket, proxy: FaultProxy, root: Path, operation: str, body: bytes
    ) -> None:
        proxy.fault(operation, faults.answer(400, "ExpiredToken"))
        second = through.server.user(EVERYTHING)

        async def act(store: S3Store) -> None:
            with credentials(replace(through, server=second)):  # whoever gives them has given others
                await store_file(store, TARGET, body)

        in_store(through, root, act)
        keys = [scope(seen)["key"] for seen in asked(proxy, operation)]
        assert keys == [through.server.access_key, second.access_key]
        assert is_there(through, body)

    @by_either_way
    def test_but_once(self, through: Bucket, proxy: FaultProxy, root: Path, operation: str, body: bytes) -> None:
        proxy.fault(operation, faults.answer(400, "ExpiredToken"), FOREVER)
        with pytest.raises(Denied, match="log in anew"):
            stored(through, root, body)
        assert proxy.count(operation) == 2
        assert through.keys() == []


@on_ministack
class TestClockThatIsWrong:
    @by_either_way
    def test_the_stores_clock_is_heeded(
        self, through: Bucket, proxy: FaultProxy, root: Path, operation: str, body: bytes
    ) -> None:
        there = datetime.now(UTC) + timedelta(minutes=10)  # what the real server still bears
        skewed = faults.answer(403, "RequestTimeTooSkewed", headers={"Date": format_datetime(there, usegmt=True)})
        proxy.fault(operation, skewed)
        stored(through, root, body)
        dates = (seen.headers["x-amz-date"] for seen in asked(proxy, operation))
        first, second = (datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for date in dates)
        assert timedelta(minutes=9) < second - first < timedelta(minutes=11)
        assert is_there(through, body)

    @pytest.mark.parametrize("date", ["", "yesterday", "now"])
    def test_where_it_tells_nothing_new_that_is_an_end(
        self, through: Bucket, proxy: FaultProxy, root: Path, date: str
    ) -> None:
        date = format_datetime(datetime.now(UTC), usegmt=True) if date == "now" else date
        headers = {"Date": date} if date else {}
        proxy.fault("PutObject", faults.answer(403, "RequestTimeTooSkewed", headers=headers), FOREVER)
        with pytest.raises(Denied, match="clock is wrong"):
            stored(through, root, SMALL)
        assert proxy.count("PutObject") == 1
        assert through.keys() == []

    @by_either_way
    def test_but_once(self, through: Bucket, proxy: FaultProxy, root: Path, operation: str, body: bytes) -> None:
        there = datetime.now(UTC) + timedelta(minutes=10)
        skewed = faults.answer(403, "RequestTimeTooSkewed", headers={"Date": format_datetime(there, usegmt=True)})
        proxy.fault(operation, skewed, FOREVER)
        with pytest.raises(Denied, match="clock is wrong"):
            stored(through, root, body)
        assert proxy.count(operation) == 2


class TestRegionThatIsWrong:
    """Both servers refuse what is signed for another region: MiniStack with a redirect, Swift in its answer's body."""

    def regions(self, proxy: FaultProxy) -> list[str]:
        """For which regions requests were signed, each time that it changed."""
        seen = [scope(seen)["region"] for seen in proxy.requests]
        return [region for number, region in enumerate(seen) if number == 0 or seen[number - 1] != region]

    def test_the_bucket_is_found_at_the_start(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        stored(through, root, SMALL, s3={"region": "eu-west-1"})
        assert self.regions(proxy) == ["eu-west-1", "us-east-1"]
        assert is_there(through, SMALL)

    @pytest.mark.parametrize("body", [SMALL, LARGE], ids=["by PutObject", "by HeadObject"])
    def test_it_is_found_when_it_is_first_written_to(
        self, through: Bucket, proxy: FaultProxy, root: Path, body: bytes
    ) -> None:
        proxy.fault("HeadBucket", faults.answer(200))  # as from a server that does not look so closely there
        stored(through, root, body, s3={"region": "eu-west-1"})
        assert self.regions(proxy) == ["eu-west-1", "us-east-1"]
        assert is_there(through, body)

    @on_ministack
    def test_a_bucket_of_another_region_is_found_without_a_setting(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        name = f"{bucket.name}-eu"
        where: Any = {"LocationConstraint": "eu-west-1"}
        bucket.server.client().create_bucket(Bucket=name, CreateBucketConfiguration=where)
        stored(replace(through, name=name), root, SMALL)
        assert self.regions(proxy) == ["us-east-1", "eu-west-1"]

    @on_ministack
    def test_a_redirect_to_nowhere_is_an_end(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        proxy.fault("PutObject", faults.answer(301, "PermanentRedirect"), FOREVER)
        with pytest.raises(Denied, match=r"set \[s3\] region"):
            stored(through, root, SMALL)
        assert proxy.count("PutObject") == 1

    @on_ministack
    def test_redirects_back_and_forth_are_an_end(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        there = {"x-amz-bucket-region": "eu-west-1"}
        proxy.fault("PutObject", faults.answer(301, "PermanentRedirect", headers=there))  # from here MiniStack goes on
        with pytest.raises(Denied, match=r"set \[s3\] region"):
            stored(through, root, SMALL)
        assert proxy.count("PutObject") == 2


@on_ministack
def test_a_bucket_that_is_not_there(bucket: Bucket, root: Path) -> None:
    with pytest.raises(Denied, match=r"there is no bucket nobody-made-it: create it, or check \[s3\] bucket"):
        stored(bucket, root, SMALL, s3={"bucket": "nobody-made-it"})


class TestEndedBySomebody:
    """Another client, or a lifecycle rule, aborts the multipart upload: it starts over."""

    @pytest.mark.parametrize("size", [PART + 1, len(LARGE)], ids=["before a part", "before its end"])
    def test_it_starts_over(self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, size: int) -> None:
        def abort() -> None:
            proxy.wait_for(lambda: any(seen.status == 200 for seen in asked(proxy, "UploadPart")))
            [upload] = bucket.uploads()
            named = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            bucket.server.client().abort_multipart_upload(Bucket=bucket.name, **named)

        async def act(store: S3Store) -> Receipt:
            sink = await store.sink(TARGET)
            await sink.begin(head_of(LARGE))
            await write(sink, LARGE[:size])
            await asyncio.to_thread(abort)
            receipt = await bring(sink, LARGE, head_of(LARGE))
            await sink.close()
            await store.settle(TARGET.identity)
            return receipt

        receipt = in_store(through, root, act)
        assert (receipt.path, receipt.sha256) == ("film.mp4", sha256(LARGE))
        assert proxy.count("CreateMultipartUpload") == 2
        assert is_there(bucket, LARGE)


@on_ministack
class TestUploadsOfOthers:
    """Another machine's upload to the very key, when our own has to be begun twice."""

    def test_one_that_was_there_before_stays(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        client = through.server.client()
        theirs = client.create_multipart_upload(Bucket=through.name, Key="p/film.mp4")["UploadId"]
        proxy.fault("CreateMultipartUpload", faults.answer(503, "SlowDown"))
        stored(through, root, LARGE)
        assert [upload["UploadId"] for upload in through.uploads()] == [theirs]

    def test_the_time_is_the_stores(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        there = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        listing = b"<R><IsTruncated>false</IsTruncated></R>"
        headers = {"Date": format_datetime(there, usegmt=True)}
        proxy.fault("ListMultipartUploads", faults.answer_with(200, listing, headers=headers))

        async def act(store: S3Store) -> tuple[list[str] | None, datetime]:
            return await seen_before(store.objects.control, through.name, "k")

        assert in_store(through, root, act) == ([], there)

    def test_where_the_store_does_not_list_them_nothing_is_known(
        self, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        client = through.server.client()
        client.create_multipart_upload(Bucket=through.name, Key="p/film.mp4")
        proxy.fault("ListMultipartUploads", faults.answer(403, "AccessDenied"), FOREVER)
        proxy.fault("CreateMultipartUpload", faults.answer(503, "SlowDown"))
        stored(through, root, LARGE)
        assert len(through.uploads()) == 1
        assert through.read("p/film.mp4") == {"p/film.mp4": LARGE}

    def test_one_with_parts_stays_and_ours_whose_answer_was_lost_goes(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path
    ) -> None:
        client = bucket.server.client()
        named: dict[str, Any] = {"Bucket": bucket.name, "Key": "p/film.mp4"}

        async def act(store: S3Store) -> None:
            storing = asyncio.create_task(store_file(store, TARGET, LARGE))
            await asyncio.to_thread(proxy.wait_for, lambda: len(asked(proxy, "CreateMultipartUpload")) == 1)
            theirs = await asyncio.to_thread(client.create_multipart_upload, **named)
            part = {"UploadId": theirs["UploadId"], "PartNumber": 1, "Body": SMALL}
            await asyncio.to_thread(client.upload_part, **named, **part)
            proxy.release()
            await storing
            assert [upload["UploadId"] for upload in bucket.uploads()] == [theirs["UploadId"]]

        proxy.fault("CreateMultipartUpload", replace(faults.forward_then_answer(500), held="answer"))
        in_store(through, root, act)
        assert proxy.count("AbortMultipartUpload") == 1


@on_ministack
class TestAnswersThatLackSomething:
    """A broken store, or something between that answers in its place: it is said, and nothing is built on it."""

    @pytest.mark.parametrize(
        ("operation", "body", "lacks"),
        [
            ("ListObjectsV2", b"<html><body>log in</body></html>", "IsTruncated"),
            ("ListObjectsV2", b"<R><IsTruncated>true</IsTruncated></R>", "NextContinuationToken"),
            ("ListMultipartUploads", b"<R><IsTruncated>true</IsTruncated></R>", "NextKeyMarker"),
            (
                "ListMultipartUploads",
                b"<R><IsTruncated>false</IsTruncated><Upload><Key>k</Key><UploadId>u</UploadId></Upload></R>",
                "Initiated",
            ),
            ("ListParts", b"<R><IsTruncated>true</IsTruncated></R>", "NextPartNumberMarker"),
        ],
    )
    def test_a_listing(
        self, through: Bucket, proxy: FaultProxy, root: Path, operation: str, body: bytes, lacks: str
    ) -> None:
        proxy.fault(operation, faults.answer_with(200, body), FOREVER)

        async def act(store: S3Store) -> None:
            if operation == "ListObjectsV2":
                _ = [page async for page in store.folders()]
            elif operation == "ListMultipartUploads":
                await strays(store.objects.control, through.name, "k", [], datetime.now(UTC))
            else:
                _ = [page async for page in store.objects.control.pages("ListParts", Key="k", UploadId="u")]

        with pytest.raises(StoreUnavailable, match=f"answer to {operation} has no {lacks}"):
            in_store(through, root, act)

    def test_a_listing_without_an_end(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        page = b"<R><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></R>"
        proxy.fault("ListObjectsV2", faults.answer_with(200, page), FOREVER)

        async def act(store: S3Store) -> None:
            async for _ in store.keys():
                pass

        with pytest.raises(StoreUnavailable, match="does not come to an end"):
            in_store(through, root, act)

    def test_an_object_without_a_length(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        def edit(headers: dict[str, str]) -> dict[str, str]:
            return {name: value for name, value in headers.items() if name.lower() != "content-length"}

        proxy.fault("HeadObject", faults.edit_response_headers(edit), FOREVER)
        with pytest.raises(StoreUnavailable, match="answer to HeadObject has no ContentLength"):
            stored(through, root, LARGE)


@on_ministack
class TestManifests:
    def content(self, *, version: int = 1) -> bytes:
        api = ManifestApi(url=f"http://api/{version}")
        return encode(Manifest(prompt_id="p", state=PromptState.COMPLETE, mirrored_at="2026", api=api))

    @pytest.mark.parametrize(
        "fault",
        [faults.forward_then_reset(), faults.forward_then_answer(500, "InternalError"), faults.answer(503, "SlowDown")],
        ids=["lost answer", "500 though it was done", "503"],
    )
    @pytest.mark.parametrize("first", [True, False], ids=["the first", "a later one"])
    def test_one_is_written(
        self, bucket: Bucket, through: Bucket, proxy: FaultProxy, root: Path, first: bool, fault: Fault
    ) -> None:
        async def act(store: S3Store) -> Placed | None:
            known = None if first else await store.write_manifest("p", self.content())
            proxy.fault("PutObject", fault)
            return await store.write_manifest("p", self.content(version=2), known)

        placed = in_store(through, root, act)
        assert placed is not None
        assert placed.etag == bucket.head("p/manifest.json")["ETag"]
        assert bucket.read() == {"p/manifest.json": self.content(version=2)}
        assert proxy.unused == 0

    @pytest.mark.parametrize(
        "fault",
        [faults.cut_answer(20), faults.reset_before(), faults.answer(503), faults.answer(500, "InternalError")],
        ids=["cut answer", "reset", "503", "500"],
    )
    def test_one_is_read(self, through: Bucket, proxy: FaultProxy, root: Path, fault: Fault) -> None:
        async def act(store: S3Store) -> list[bytes | None]:
            await store.write_manifest("p", self.content())
            proxy.fault("GetObject", fault)
            return [found.content if found else None for found in await store.read_manifests(["p", "q"])]

        assert sorted(in_store(through, root, act), key=bool) == [None, self.content()]
        assert proxy.unused == 0

    def test_one_that_others_write_all_the_time(self, through: Bucket, proxy: FaultProxy, root: Path) -> None:
        proxy.fault("PutObject", faults.answer(412, "PreconditionFailed"), FOREVER)
        through.put("p/manifest.json", self.content())

        async def act(store: S3Store) -> None:
            await store.write_manifest("p", self.content(version=2))

        with pytest.raises(StoreUnavailable, match="another run writes it too") as caught:
            in_store(through, root, act)
        assert caught.value.severity is Severity.ITEM
        assert through.read() == {"p/manifest.json": self.content()}
