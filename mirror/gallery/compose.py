"""From a manifest to what the page is told of it. Pure."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mirror.answers import read_task
from mirror.gallery.previews import Preview, key_of
from mirror.gallery.records import Card, Detail, FileDetail, Group, Item, Tile, Wrong
from mirror.models import Failure, Manifest, ManifestFile, NamedBy, PromptId, Role, Task, TaskState
from mirror.times import parse_moment, rfc3339

TILES = 4
"""So many pictures are on a card."""

_NAMES = 500
_CHILDREN = 1000
"""So many file names, and ids of children, of a prompt are searched."""
_LONGEST = 400
"""Characters of a reason on a card."""
_SEARCHED = 2000
"""Characters of a prompt's own texts in the search, and of its reasons."""
_EXACT = 2**53
"""A script counts no further than to here without a fault."""
_MILLISECONDS = 1e11
"""A time above this is in milliseconds."""
_TYPES = ("jpg", "jpeg", "png", "webp", "gif", "avif", "bmp", "tif", "tiff", "mp4", "m4v", "webm", "mov", "ogv", "mkv")
"""Endings of names that may be opened by a click: a browser takes them for nothing that could run."""
_TOLD_ELSEWHERE = frozenset(
    ("taskId", "promptId", "taskType", "thumbFileUrl", "state", "reason", "imageList", "taskList", "createdAt")
)


Link = Callable[[ManifestFile], str]
"""Where a file is, relative to the page; empty where it cannot be linked."""


def shown(manifest: Manifest, link: Link, to_manifest: str, previews: Mapping[str, Preview]) -> tuple[Card, Detail]:
    """A prompt's card, without its place among the details, and its details."""
    task = read_task(manifest.task, PromptId(manifest.prompt_id)) if manifest.task is not None else None
    files = tuple(_file(file, link, previews) for file in manifest.files)
    groups = tuple(_groups(manifest, task))
    facts = tuple(_facts(manifest.task or {}))
    detail = Detail(
        id=manifest.prompt_id,
        state=manifest.state.value,
        at=_mademoment(manifest),
        mirrored_at=_moment(manifest.mirrored_at),
        manifest=to_manifest,
        api=" ".join(filter(None, [manifest.api.url, str(manifest.api.code or ""), manifest.api.msg])),
        facts=facts,
        groups=groups,
        files=files,
        errors=tuple(map(_wrong, manifest.errors)),
    )
    return _card(detail, previews, manifest), detail


def thumbnails(manifest: Manifest) -> Iterator[ManifestFile]:
    """Those files of a prompt that previews are made of."""
    for file in manifest.files:
        if file.role is Role.THUMBNAIL and kind_of(file) != "video":
            yield file


def kind_of(file: ManifestFile) -> str:
    """``image``, ``video``, or nothing where nobody can tell: from what was found in it, its type, its name."""
    for told in (file.media.kind if file.media else "", file.content_type, mimetypes.guess_type(file.path)[0]):
        kind = (told or "").partition("/")[0].strip().lower()
        if kind in ("image", "video"):
            return kind
    return ""


# The card ----------------------------------------------------------------------------------------


def _card(detail: Detail, previews: Mapping[str, Preview], manifest: Manifest) -> Card:
    sizes = {preview.name: preview for preview in previews.values()}
    tiles: list[Tile] = []
    kinds: list[str] = []
    failed = 0
    for group in detail.groups:
        kinds += [detail.files[item.file].kind for item in group.items]
        tiles += [_tile(detail, item, sizes) for item in group.items]
        failed += group.state == "failed"
        if not group.items and group.state != "done" and len(detail.groups) > 1 and group is not detail.groups[0]:
            tiles.append(Tile(state=group.state))
    reasons = _reasons(detail)
    reason = next(iter(reasons), "")[:_LONGEST]
    texts = [value for _, value in detail.facts if not _is_number(value)]
    others = [each for each in reasons if each != reason]
    return Card(
        id=detail.id,
        state=detail.state,
        at=detail.at,
        type=next((group.type for group in detail.groups if group.type is not None), None),
        tiles=tuple(tiles[:TILES]),
        items=len(tiles),
        pictures=sum(kind != "video" for kind in kinds),
        videos=kinds.count("video"),
        failures=failed + len(detail.errors),
        reason=reason,
        children=tuple(group.id for group in detail.groups[1:] if group.id)[:_CHILDREN],
        names=tuple(file.path for file in manifest.files[:_NAMES]),
        text=" ".join(" ".join(each)[:_SEARCHED] for each in (texts, others) if each),
    )


def _reasons(detail: Detail) -> list[str]:
    """Each once: of what failed first, of what is done or under way last."""
    told = sorted((group for group in detail.groups if group.reason), key=lambda group: group.state in _NOT_WRONG)
    split = sum(group.state not in _NOT_WRONG for group in told)
    wrong = [error.message for error in detail.errors]
    spoken = [group.reason for group in told]
    return list(dict.fromkeys([*spoken[:split], *wrong, *spoken[split:]]))


def _tile(detail: Detail, item: Item, sizes: Mapping[str, Preview]) -> Tile:
    file = detail.files[item.file]
    thumb = detail.files[item.thumb] if item.thumb is not None else None
    small = next((each.small for each in (thumb, file) if each is not None and each.small), "")
    preview = sizes.get(small)
    src = small or (thumb.src if thumb is not None and thumb.kind != "video" else "")
    if not src and file.kind == "image" and (file.role == "thumbnail" or thumb is None):
        src = file.src
    width, height = file.width, file.height
    if not (width and height) and preview is not None:
        width, height = preview.width, preview.height
    video = file.src if file.kind == "video" else ""
    return Tile(src=src, width=width, height=height, video=video, seconds=file.seconds)


# The details -------------------------------------------------------------------------------------


def _file(file: ManifestFile, link: Link, previews: Mapping[str, Preview]) -> FileDetail:
    media = file.media
    src = link(file)
    preview = previews.get(key_of(file)) if file.role is Role.THUMBNAIL else None
    return FileDetail(
        path=file.path,
        role=file.role.value,
        bytes=file.bytes,
        kind=kind_of(file),
        src=src,
        opens=bool(src) and _opens(file),
        small=preview.name if preview is not None else "",
        width=_side(media.width if media else None),
        height=_side(media.height if media else None),
        seconds=media.seconds or 0.0 if media else 0.0,
        frame_rate=media.frame_rate or 0.0 if media else 0.0,
        codec=media.codec or "" if media else "",
        sha256=file.sha256 or "",
        content_type=file.content_type or "",
        etag=file.etag or "",
        last_modified=_moment(file.last_modified),
        url=file.url,
        named_by=tuple(dict.fromkeys(map(_named, file.named_by))),
        verified=file.verified,
        s3=msgspec.to_builtins(file.s3) if file.s3 is not None else None,
    )


def _opens(file: ManifestFile) -> bool:
    """A page or an SVG that an origin sent would run as one of the place that the gallery stands in."""
    ending = file.path.rpartition(".")[2].lower()
    kind = (file.content_type or "image/").partition(";")[0].strip().lower()
    is_media = kind.startswith(("image/", "video/")) or kind in ("application/octet-stream", "binary/octet-stream")
    return ending in _TYPES and is_media and "svg" not in kind


def _groups(manifest: Manifest, task: Task | None) -> Iterator[Group]:
    """The prompt, then its children. A file is shown once: with the first child that names it, else with the prompt."""
    family = task.family() if task is not None else [Task(prompt_id=PromptId(manifest.prompt_id))]
    root, *children = family
    by_id = {str(member.prompt_id): number for number, member in reversed(list(enumerate(children)))}
    held: list[list[Item]] = [[] for _ in family]
    for item in _items(manifest.files):
        places = [by_id[each.prompt_id] + 1 for each in manifest.files[item.file].named_by if each.prompt_id in by_id]
        held[min(places, default=0)].append(item)
    for member, items in zip(family, held, strict=True):
        state = _STATES[member.state]
        if member is root and task is None:
            state = manifest.state.value
        yield Group(
            id=member.prompt_id,
            state=state,
            task_id=_exact(member.task_id),
            type=_exact(member.task_type),
            reason=member.reason,
            items=tuple(items),
        )


_NOT_WRONG = frozenset(("done", "queued", "running"))
_STATES = {
    TaskState.OTHER: "unknown",
    TaskState.FAILED: "failed",
    TaskState.QUEUED: "queued",
    TaskState.RUNNING: "running",
    TaskState.DONE: "done",
}


def _items(files: Sequence[ManifestFile]) -> Iterator[Item]:
    """Originals with their thumbnails, in the manifest's order; then the thumbnails that stand for none."""
    small = [(number, file) for number, file in enumerate(files) if file.role is Role.THUMBNAIL]
    by_place = {_place(each, "path"): number for number, file in small for each in file.named_by}
    by_place.pop(None, None)
    by_task = {each.prompt_id: number for number, file in small for each in file.named_by}
    used = set()
    for number, file in enumerate(files):
        if file.role is Role.ORIGIN:
            found = [by_place[place] for each in file.named_by if (place := _place(each, "origin")) in by_place]
            found += [by_task[each.prompt_id] for each in file.named_by if each.prompt_id in by_task]
            used.update(found[:1])
            yield Item(file=number, thumb=found[0] if found else None)
    for number, file in small:
        is_cover = bool(used) and all(each.field == "thumbFileUrl" for each in file.named_by)
        if number not in used and not is_cover:
            yield Item(file=number, thumb=number)


def _place(named: NamedBy, field: str) -> tuple[str, int | None, int | None] | None:
    return (named.prompt_id, named.task_id, named.image_id) if named.field == field else None


def _named(named: NamedBy) -> str:
    task = f" task {named.task_id}" if named.task_id is not None else ""
    image = f" image {named.image_id}" if named.image_id is not None else ""
    return f"{named.prompt_id}{task}{image}: {named.field}"


def _wrong(failure: Failure) -> Wrong:
    was = failure.was if isinstance(failure.was, ManifestFile) else None
    return Wrong(
        error=failure.error,
        message=failure.message,
        url=failure.url or "",
        role=failure.role.value if failure.role is not None else "",
        attempts=failure.attempts,
        was=f"{was.path}, SHA-256 {was.sha256}" if was is not None else "",
    )


def _facts(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the answer tells beyond what is documented, and is no list."""
    for name, value in task.items():
        if name not in _TOLD_ELSEWHERE and isinstance(value, str | int | float) and value != "":
            yield name, str(value)


# Values that others wrote --------------------------------------------------------------------------


def _mademoment(manifest: Manifest) -> str:
    """When the prompt was made: as the service says, else by its oldest original, else when it was mirrored."""
    created = (manifest.task or {}).get("createdAt")
    if isinstance(created, int | float | str) and _is_number(created):
        seconds = float(created)
        told = moment(seconds / 1000 if seconds > _MILLISECONDS else seconds)
    else:
        told = _moment(created)
    ages = [_moment(file.last_modified) for file in manifest.files if file.role is Role.ORIGIN]
    return told or min(filter(None, ages), default="") or _moment(manifest.mirrored_at)


def _moment(text: object) -> str:
    try:
        return moment(parse_moment(text)) if isinstance(text, str) else ""
    except ValueError:
        return ""


def moment(seconds: float | None) -> str:
    """Unix seconds in RFC 3339; nothing where there are none, or no year has them."""
    try:
        return "" if seconds is None else rfc3339(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return ""


def _is_number(value: str | float) -> bool:
    try:
        return not isinstance(value, bool) and 0 < float(value) < 1e15
    except (ValueError, OverflowError):  # no number; an integer of hundreds of digits
        return False


def _exact(number: int | None) -> int | str | None:
    """A number as it was told: as text, where a script would round it."""
    return number if number is None or abs(number) < _EXACT else str(number)


def _side(pixels: int | None) -> int:
    return pixels if pixels is not None and 0 < pixels < 1_000_000 else 0
