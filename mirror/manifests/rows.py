"""One row for each file of a manifest: the columns of every table that is exported, defined once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from mirror.models import Manifest, ManifestFile, Media, NamedBy


class Row(Struct, frozen=True, kw_only=True):
    """A file as a table tells of it, in the order of the columns. What is not known is null.

    ``path`` is relative to the root (or the bucket's prefix), ``name`` the manifest's ``path``. The manifest, and in it
    :class:`ManifestFile`, says what the others are. The first place that names the file stands in columns of its own
    (``named_by_prompt_id`` is the root's or a child's), all of them in ``named_by``. Times are in UTC, and null where
    the manifest has a text that is none.
    """

    prompt_id: str
    state: str
    mirrored_at: datetime | None
    path: str
    name: str
    role: str
    url: str
    bytes: int
    sha256: str | None
    content_type: str | None
    etag: str | None
    last_modified: datetime | None
    verified: tuple[str, ...]
    named_by_prompt_id: str | None
    task_id: int | None
    image_id: int | None
    field: str | None
    named_by_count: int
    named_by: tuple[NamedBy, ...]
    media_kind: str | None
    width: int | None
    height: int | None
    seconds: float | None
    frame_rate: float | None
    codec: str | None
    s3_bucket: str | None
    s3_key: str | None
    s3_etag: str | None
    s3_version_id: str | None
    s3_checksum_sha256: str | None
    s3_via: str | None


def rows_of(folder: str, manifest: Manifest) -> Iterator[Row]:
    """The rows of one prompt, in the order of its manifest."""
    mirrored_at = _moment(manifest.mirrored_at)
    for file in manifest.files:
        yield _row(folder, manifest, mirrored_at, file)


def _row(folder: str, manifest: Manifest, mirrored_at: datetime | None, file: ManifestFile) -> Row:
    named_by = tuple(map(_named_by, file.named_by))
    first = named_by[0] if named_by else None
    media, s3 = file.media or _NO_MEDIA, file.s3
    return Row(
        prompt_id=manifest.prompt_id,
        state=manifest.state.value,
        mirrored_at=mirrored_at,
        path=f"{folder}/{file.path}",
        name=file.path,
        role=file.role.value,
        url=file.url,
        bytes=file.bytes,
        sha256=file.sha256,
        content_type=file.content_type,
        etag=file.etag,
        last_modified=_moment(file.last_modified),
        verified=file.verified,
        named_by_prompt_id=first.prompt_id if first else None,
        task_id=first.task_id if first else None,
        image_id=first.image_id if first else None,
        field=first.field if first else None,
        named_by_count=len(named_by),
        named_by=named_by,
        media_kind=media.kind or None,
        width=_int64(media.width),
        height=_int64(media.height),
        seconds=media.seconds,
        frame_rate=media.frame_rate,
        codec=media.codec,
        s3_bucket=s3.bucket if s3 else None,
        s3_key=s3.key if s3 else None,
        s3_etag=s3.etag if s3 else None,
        s3_version_id=s3.version_id if s3 else None,
        s3_checksum_sha256=s3.checksum_sha256 if s3 else None,
        s3_via=s3.via if s3 else None,
    )


_NO_MEDIA = Media(kind="")


def _named_by(place: NamedBy) -> NamedBy:
    if _int64(place.task_id) == place.task_id and _int64(place.image_id) == place.image_id:
        return place
    told = {"task_id": _int64(place.task_id), "image_id": _int64(place.image_id)}
    return NamedBy(prompt_id=place.prompt_id, field=place.field, **told)


def _int64(number: int | None) -> int | None:
    """None for what no column can hold: it is none of ours."""
    return number if number is not None and -(2**63) <= number < 2**63 else None


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
