"""Multipart uploads whose id never reached us, told from those of others.

S3 tells of an upload only its key, its id and when it was begun: nothing of ours can be written on one. So the ids that
stand there are noted before ours is begun, with the time by the store's clock. What is ours afterwards was not there
before, was begun in the minutes that a request can take, and has no parts, since nobody sends some to an id that
nobody knows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mirror.errors import MirrorError
from mirror.stores.s3.control import Control, needed, time_of
from mirror.stores.s3.errors import NoSuchKey, NoSuchUpload, NotSupported

_LONGEST = timedelta(minutes=15)
"""How long after it was meant to an upload can have been begun: all attempts, and all pauses between them."""


async def seen_before(control: Control, bucket: str, key: str) -> tuple[list[str] | None, datetime]:
    """The ids of all uploads to a key, None where the store does not tell; and the time, by its clock."""
    try:
        there, now = await _under_way(control, bucket, key)
    except MirrorError:  # whoever begins an upload now is told why that cannot be
        return None, datetime.now(UTC)
    return sorted(there), now


async def strays(control: Control, bucket: str, key: str, before: list[str] | None, meant: datetime) -> list[str]:
    """The ids of uploads to a key that are ours; or somebody's who began one in the same minutes, and sent no part yet.

    Those two cannot be told apart: the other starts over, and has lost nothing.
    """
    if before is None:
        return []
    try:
        there, _ = await _under_way(control, bucket, key)
    except NotSupported:
        return []
    new = [name for name, begun in there.items() if name not in before and begun <= meant + _LONGEST]
    return [name for name in new if await _is_empty(control, bucket, key, name)]


async def _under_way(control: Control, bucket: str, key: str) -> tuple[dict[str, datetime], datetime]:
    """When each upload to a key was begun, by its id; and what time it is, both by the store's clock."""
    found: dict[str, datetime] = {}
    now = datetime.now(UTC)
    async for answer in control.pages("ListMultipartUploads", Bucket=bucket, Prefix=key):
        now = time_of(answer)
        for upload in answer.get("Uploads", ()):
            fields = [needed(upload, name, "ListMultipartUploads") for name in ("Key", "UploadId", "Initiated")]
            if fields[0] == key:
                found[fields[1]] = fields[2]
    return found, now


async def _is_empty(control: Control, bucket: str, key: str, upload_id: str) -> bool:
    try:
        answer = await control.call("ListParts", Bucket=bucket, Key=key, UploadId=upload_id, MaxParts=1)
    except (NoSuchUpload, NoSuchKey):
        return False  # ended meanwhile
    return not answer.get("Parts")
