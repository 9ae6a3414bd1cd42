"""Server-side copy: what stands in S3 already is copied there, and no byte of it passes through us.

The credentials are the user's, the URL is somebody else's. So a copy is made only from a bucket that ``s3.sources``
lists, or of an object that an anonymous HEAD shows: whoever wrote the URL could have read it without us.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mirror.download import read_head
from mirror.errors import (
    ChecksumMismatch,
    MirrorError,
    Obstructed,
    Refused,
    Severity,
    SourceError,
    StoreError,
    Unavailable,
)
from mirror.events import Noted, Observer
from mirror.h1.head import Headers
from mirror.http import Http
from mirror.media import why_not_media
from mirror.models import Receipt
from mirror.settings import Settings
from mirror.stores import Head, Target
from mirror.stores.s3.address import Located, address_of, locate
from mirror.stores.s3.checksums import hex_of, same_etag
from mirror.stores.s3.control import needed
from mirror.stores.s3.errors import NoSuchKey, NotSupported, PreconditionFailed
from mirror.stores.s3.objects import Described, Found, Objects, Prints
from mirror.stores.s3.peek import Peek
from mirror.times import from_http

MOST = 5 << 30
"""CopyObject takes no larger source (the S3 reference)."""


class Copier:
    """Copies within the store, where that is allowed. Remembers the buckets that refuse."""

    def __init__(self, settings: Settings, objects: Objects, observer: Observer) -> None:
        self._settings = settings
        self._objects = objects
        self._observer = observer
        # Only the store itself is asked, by an address that no answer names.
        self._http = Http(settings, observer, kind="s3", unavailable=Unavailable, refused=Refused)
        self._refused: set[str] = set()
        self._conditional = True

    async def close(self) -> None:
        await self._http.close()

    async def copy(self, url: str, target: Target, etag: str | None = None) -> Receipt | None:
        """The receipt of a copy; None where the bytes have to be brought another way.

        ``etag`` is the source's as it was when ``target.sha256`` was taken: another version is not copied then.
        """
        source = self._located(url)
        if source is None:
            return None
        try:
            head, url = await self._look(source)
            if head is None or not self._may_copy(head) or not _is_known_version(head, target, etag):
                return None
            if not target.known:  # what is cut off is refused by the other ways, which say why
                peek = Peek(self._objects.control, self._http, source, head, url)
                if await peek.finds_end_missing():
                    return None
            return await self._copy(source, head, target)
        except MirrorError as error:
            if not isinstance(error, NoSuchKey | PreconditionFailed | Obstructed | SourceError):
                self._refuse(source.bucket, error)
            return None

    def _located(self, url: str) -> Located | None:
        allowed = self._settings.security.allow_hosts
        if self._settings.s3.copy == "never" or (allowed and (urlsplit(url).hostname or "") not in allowed):
            return None
        settings = msgspec.structs.replace(self._settings.s3, region=self._objects.control.region)
        source = locate(url, settings)
        return source if source is not None and source.bucket not in self._refused else None

    def _may_copy(self, head: Head) -> bool:
        """Where a look at the bytes, or at their number, would refuse the file, the other ways say so."""
        limit = self._settings.transfer.max_file_size
        length = head.length or 0
        suspicious = why_not_media(b"<" if length else b"", head.content_type)
        return not suspicious and bool(head.etag) and length <= MOST and (not limit or length <= limit)

    def _refuse(self, bucket: str, error: MirrorError) -> None:
        self._refused.add(bucket)
        text = f"nothing more is copied from the bucket {bucket} in this run, its files come through here: {error.name}"
        self._observer(Noted(level="info", message=text))

    # The source --------------------------------------------------------------------------------

    async def _look(self, source: Located) -> tuple[Head | None, str]:
        """What the source is, and the URL by which anybody can read it ("": our credentials are needed).

        None where nobody has shown that we may read it for whoever wrote the URL.
        """
        if self._is_listed(source):
            return await self._look_as_ourselves(source), ""
        return await self._look_anonymously(source)

    def _is_listed(self, source: Located) -> bool:
        listed = [value.partition("/") for value in self._settings.s3.sources.values()]
        return any(
            source.bucket == bucket and (not prefix or source.key.startswith(f"{prefix.rstrip('/')}/"))
            for bucket, _, prefix in listed
        )

    async def _look_as_ourselves(self, source: Located) -> Head:
        answer = await self._objects.control.call(
            "HeadObject", Bucket=source.bucket, Key=source.key, ChecksumMode="ENABLED"
        )
        length = needed(answer, "ContentLength", "HeadObject")
        return read_head(answer["ResponseMetadata"]["HTTPHeaders"] | _named(answer), length)

    async def _look_anonymously(self, source: Located) -> tuple[Head | None, str]:
        """By the store's own address, over TLS where it is AWS: nobody in between can show us something else."""
        settings = self._settings.s3
        region = self._objects.control.region
        address = address_of(source.bucket, settings.endpoint_url, region, settings.addressing)
        headers = {"x-amz-checksum-mode": "ENABLED"}
        url = address.url(source.key)
        async with self._http.send("HEAD", url, headers) as response:
            told = response.headers.get("x-amz-bucket-region", "")
            if response.status != 301 or not re.fullmatch(r"[a-z0-9-]{1,40}", told) or settings.endpoint_url:
                return self._shown(response.status, response.headers, response.content_length), url
        url = address_of(source.bucket, "", told, settings.addressing).url(source.key)
        async with self._http.send("HEAD", url, headers) as response:
            return self._shown(response.status, response.headers, response.content_length), url

    def _shown(self, status: int, headers: Mapping[str, str], length: int | None) -> Head | None:
        told = Headers.in_lower_case(headers)
        return read_head(told, length) if status == 200 and length is not None else None

    # The copy ----------------------------------------------------------------------------------

    async def _copy(self, source: Located, head: Head, target: Target) -> Receipt | None:
        objects = self._objects
        described = Described(
            prompt_id=target.prompt_id,
            source=target.identity,
            source_etag=head.etag,
            content_type=head.content_type,
            sha256=target.sha256,
        )
        prints = Prints(size=head.length or 0, sha256=target.sha256 or head.checks.get("sha256"), etag=head.etag)
        for name in target.names:
            key = objects.key(target.folder, name)
            made = None
            found = await objects.find(key)
            if found is None:
                made = await self._make(key, source, head, described)
                found = await objects.find(key)
            if found is None:
                return None
            if _is_made(found, made) or await objects.same(key, found, prints):
                self._check(found, head, target)
                return self._receipt(name, key, found, head, target)
        raise Obstructed(f"{objects.where(objects.key(target.folder, target.names[0]))}: all its names are taken")

    async def _make(self, key: str, source: Located, head: Head, described: Described) -> dict[str, Any] | None:
        """The store's answer; None where something came to stand there: perhaps our own success, its answer lost."""
        objects = self._objects
        parameters: dict[str, Any] = objects.parameters(described)
        if objects.settings.checksum != "when_required":
            parameters["ChecksumAlgorithm"] = "SHA256"
        call = partial(
            objects.control.call,
            "CopyObject",
            Key=key,
            CopySource={"Bucket": source.bucket, "Key": source.key},
            CopySourceIfMatch=head.etag,
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",
            **parameters,
        )
        if not objects.settings.conditional_writes or not self._conditional:
            return await call()
        try:
            return await call(IfNoneMatch="*")
        except (PreconditionFailed, NotSupported):
            if await objects.find(key) is not None:
                return None
        # Some stores take the condition for one on the source, or do not know it here.
        answer = await call()
        self._conditional = False
        return answer

    def _check(self, found: Found, head: Head, target: Target) -> None:
        if found.size != head.length:
            raise ChecksumMismatch(f"the copy has {found.size} bytes, its source {head.length}")
        whole = hex_of(found.checksum_sha256)
        expected = {target.sha256, head.checks.get("sha256")} - {None}
        if whole and expected - {whole}:
            raise ChecksumMismatch("the copy's SHA-256 is not the one that was expected", severity=Severity.ITEM)

    def _receipt(self, name: str, key: str, found: Found, head: Head, target: Target) -> Receipt:
        whole = hex_of(found.checksum_sha256)
        checks = ["sha256"] if whole and head.checks.get("sha256") == whole else []
        return Receipt(
            path=name,
            bytes=found.size,
            sha256=whole or target.sha256,
            content_type=head.content_type,
            etag=head.etag,
            last_modified=from_http(head.last_modified),
            verified=("length", *checks),
            s3=found.as_object(self._objects.settings.bucket, key, "copy"),
        )

    # Within our own bucket ---------------------------------------------------------------------

    async def again(self, source_key: str, etag: str, sha256: str | None, target: Target) -> Receipt | None:
        """A copy of an object of ours for another prompt; None where it cannot be made."""
        ours = self._objects.settings.bucket
        found = await self._objects.find(source_key) if ours not in self._refused else None
        if found is None or not same_etag(found.etag, etag) or found.size > MOST:
            return None
        head = Head(length=found.size, etag=found.etag, content_type=found.content_type)
        wanted = Target(
            identity=target.identity,
            folder=target.folder,
            names=target.names,
            sha256=target.sha256 or sha256,
            prompt_id=target.prompt_id,
        )
        try:
            return await self._copy(Located(self._objects.settings.bucket, source_key), head, wanted)
        except NotSupported as error:
            self._refuse(ours, error)
            return None
        except MirrorError as error:
            if isinstance(error, StoreError) and error.severity is Severity.FATAL:
                raise
            return None


def _is_made(found: Found, answer: Mapping[str, Any] | None) -> bool:
    """Whether an object is what an answer says was made."""
    etag = (answer or {}).get("CopyObjectResult", {}).get("ETag")
    return answer is not None and (not etag or same_etag(found.etag, etag))


def _is_known_version(head: Head, target: Target, etag: str | None) -> bool:
    """Where the digest is known already, only the very version that it was taken of will do."""
    if target.sha256 is None or head.checks.get("sha256") == target.sha256:
        return True
    return etag is not None and head.etag is not None and same_etag(head.etag, etag)


def _named(answer: Mapping[str, Any]) -> dict[str, str]:
    """What a HEAD's answer has beside its headers, as those are named."""
    told = {"etag": answer.get("ETag"), "content-type": answer.get("ContentType")}
    return {name: value for name, value in told.items() if value}
