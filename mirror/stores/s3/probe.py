"""What a bucket and our credentials can do, tried on one small object of our own: for ``mirror doctor``."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator

from msgspec import Struct

from mirror.errors import ChecksumMismatch, MirrorError
from mirror.stores.s3.checksums import base64_of
from mirror.stores.s3.control import needed
from mirror.stores.s3.errors import NotSupported, PreconditionFailed
from mirror.stores.s3.objects import Objects, Prints
from mirror.stores.s3.wire import Put

_BODY = b"mirror doctor"
_SHA256 = hashlib.sha256(_BODY).hexdigest()


class Tried(Struct, frozen=True, kw_only=True):
    """What was tried and what came of it; ``error`` where a run would fail, ``warning`` where it would go on."""

    subject: str
    message: str
    error: MirrorError | None = None
    warning: bool = False


class Probe:
    """The probes of one bucket; what they write they remove again, if they may."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._key = objects.key(".mirror", f"doctor-{secrets.token_hex(4)}")

    async def run(self) -> AsyncIterator[Tried]:
        """One after the other; the first that shows that nothing can be written is the last."""
        for probe in (self._write, self._read, self._conditions, self._checksums, self._multipart):
            try:
                yield await probe()
            except MirrorError as error:
                yield Tried(subject="bucket", message=str(error), error=error)
                break
        tried = await self._remove()
        if tried is not None:
            yield tried

    async def _write(self) -> Tried:
        await self._objects.put(self._key, [_BODY], len(_BODY), _SHA256, {"Content-Type": "text/plain"})
        return Tried(subject="bucket", message="can be written to")

    async def _read(self) -> Tried:
        found = await self._objects.find(self._key)
        same = found is not None and await self._objects.same(self._key, found, Prints(size=len(_BODY), sha256=_SHA256))
        if not same:
            raise ChecksumMismatch(f"{self._objects.where(self._key)}: what was written is not what is there")
        told = found is not None and (found.checksum_sha256 or found.checksum_crc64nvme)
        how = "tells its checksums" if told else "tells no checksums: mirror verify --s3 compares ETags, --deep reads"
        return Tried(subject="bucket", message=f"can be read, {how}")

    async def _conditions(self) -> Tried:
        if not self._objects.settings.conditional_writes:
            return Tried(subject="bucket", message="conditional writes are switched off in the configuration")
        condition = {"If-None-Match": "*"}
        try:
            await self._objects.put(self._key, [_BODY], len(_BODY), _SHA256, condition)
        except PreconditionFailed:
            return Tried(subject="bucket", message="refuses to overwrite (If-None-Match)")
        except NotSupported:
            pass
        told = "does not know If-None-Match: set [s3] conditional_writes = false"
        return Tried(subject="bucket", message=told, warning=True)

    async def _checksums(self) -> Tried:
        """A body with another one's checksum must be refused."""
        policy = self._objects.settings.checksum
        other = hashlib.sha256(b"something else").hexdigest()
        headers = {
            "sha256": {"x-amz-checksum-sha256": base64_of(other)},
            "crc64nvme": {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
            "when_required": {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
        }[policy]
        put = Put(operation="PutObject", key=self._key, body=[_BODY], size=len(_BODY), sha256=_SHA256, headers=headers)
        try:
            await self._objects.wire.put(put)
        except ChecksumMismatch:
            return Tried(subject="bucket", message=f"checks what it gets (checksum = {policy!r})")
        except MirrorError as error:
            return Tried(subject="bucket", message=f"refuses a wrong checksum, in its own way: {error}", warning=True)
        told = (
            f"does not check {policy}: set [s3] checksum = 'when_required'"
            if policy != "when_required"
            else ("does not check Content-MD5: only signatures and lengths protect what is sent")
        )
        return Tried(subject="bucket", message=told, warning=True)

    async def _multipart(self) -> Tried:
        control = self._objects.control
        begun = await control.call("CreateMultipartUpload", Key=self._key)
        named = {"Key": self._key, "UploadId": needed(begun, "UploadId", "CreateMultipartUpload")}
        try:
            await control.call("ListParts", **named)
            await control.call("ListMultipartUploads", Prefix=self._key)
        finally:
            await control.call("AbortMultipartUpload", **named)
        return Tried(subject="bucket", message="takes multipart uploads")

    async def _remove(self) -> Tried | None:
        with contextlib.suppress(MirrorError):
            await self._objects.control.call("DeleteObject", Key=self._key)
            return None
        where = self._objects.where(self._key)
        return Tried(subject="bucket", message=f"{where} stays: there is no right to delete it", warning=True)
