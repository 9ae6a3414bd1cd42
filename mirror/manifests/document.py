"""manifest.json: composed from an answer and the files that are stored, written as text, read back and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mirror import names
from mirror.answers import is_too_deep
from mirror.errors import StoreUnavailable
from mirror.models import (
    MAX_PROMPT_ID,
    Answer,
    Asset,
    Failure,
    Manifest,
    ManifestApi,
    ManifestFile,
    PromptId,
    PromptState,
    Receipt,
    S3Object,
    Task,
    TaskState,
)
from mirror.times import now
from mirror.urls import redact

VERSION = 1


def state_of(task: Task, *, missing: bool) -> PromptState:
    """A prompt's state. ``missing``: a file of a done task is not in its destination, or nobody can tell."""
    states = {member.state for member in task.family()}
    if not all(state.ended for state in states):
        return PromptState.PENDING
    if missing:
        return PromptState.PARTIAL
    return PromptState.FAILED if states == {TaskState.FAILED} else PromptState.COMPLETE


def compose(
    prompt_id: PromptId,
    state: PromptState,
    answer: Answer,
    files: Iterable[ManifestFile],
    errors: Iterable[Failure] = (),
    secrets: tuple[str, ...] = (),
) -> Manifest:
    """The manifest of a prompt as it stands."""
    return Manifest(
        version=VERSION,
        prompt_id=prompt_id,
        state=state,
        mirrored_at=now(),
        api=ManifestApi(url=redact(answer.url), code=answer.code, msg=redact(answer.msg, secrets)),
        task=redacted(answer.data, secrets),
        files=tuple(files),
        errors=tuple(errors),
    )


def without_answer(prompt_id: str, state: PromptState, url: str, error: Failure, code: int | None = None) -> Manifest:
    """What ``--json`` says of a prompt that nothing is known of. It is never written to disk."""
    return Manifest(
        prompt_id=prompt_id,
        state=state,
        mirrored_at=now(),
        api=ManifestApi(url=redact(url), code=code),
        errors=(error,),
    )


def entry(asset: Asset, receipt: Receipt) -> ManifestFile:
    """What the manifest says of a stored file."""
    return ManifestFile(
        path=receipt.path,
        role=asset.role,
        url=asset.identity,
        bytes=receipt.bytes,
        sha256=receipt.sha256,
        content_type=receipt.content_type,
        etag=receipt.etag,
        last_modified=receipt.last_modified,
        named_by=asset.named_by,
        verified=receipt.verified,
        media=receipt.media,
        s3=receipt.s3,
    )


def receipt(file: ManifestFile, *, path: str, s3: S3Object | None) -> Receipt:
    """The other way round, for a file whose bytes stand somewhere else, or again."""
    told = {name: getattr(file, name) for name in Receipt.__struct_fields__}
    return Receipt(**(told | {"path": path, "s3": s3}))


def redacted(value: Any, secrets: tuple[str, ...] = ()) -> Any:
    """JSON with the values of signature parameters replaced, and nothing else changed."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {redact(key, secrets): redacted(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner, secrets) for inner in value]
    return value


def encode(manifest: Manifest) -> bytes:
    """The file's bytes: indented JSON, UTF-8, a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def encode_line(manifest: Manifest) -> bytes:
    """One line of JSON, for ``--json``."""
    return msgspec.json.encode(manifest) + b"\n"


def decode(content: bytes) -> Manifest:
    """Read a manifest back, and do not trust it: its paths must be names that we could have given.

    Raises:
        StoreUnavailable: it is no manifest that this version can read.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreUnavailable(f"not a manifest: {error}") from None
    if manifest.version < 1:
        raise StoreUnavailable(f"not a manifest: there is none of version {manifest.version}")
    if manifest.version > VERSION:
        raise StoreUnavailable(f"a manifest of version {manifest.version}: written by a newer mirror")
    if not 0 < len(manifest.prompt_id) <= MAX_PROMPT_ID or re.search(r"[\x00-\x1f\x7f]", manifest.prompt_id):
        raise StoreUnavailable(f"not a manifest: {manifest.prompt_id[:80]!r} is no promptId")
    if manifest.state in (PromptState.UNKNOWN, PromptState.UNRESOLVED):
        raise StoreUnavailable(f"not a manifest: none is written of a prompt that is {manifest.state}")
    if is_too_deep(manifest.task):
        raise StoreUnavailable("not a manifest: its task is nested too deep")
    lost = [error.was for error in manifest.errors if isinstance(error.was, ManifestFile)]
    for file in (*manifest.files, *lost):
        if not file.path or names.safe(file.path) != file.path or names.is_reserved(file.path):
            raise StoreUnavailable(f"a manifest that names a path outside its folder: {file.path[:80]!r}")
    return manifest


def decode_if_sound(content: bytes | None, prompt_id: str | None = None) -> Manifest | None:
    """A manifest read back, of this prompt if one is given; None where there is none, or none that can be trusted."""
    try:
        manifest = decode(content) if content is not None else None
    except StoreUnavailable:
        return None
    return manifest if manifest is not None and prompt_id in (None, manifest.prompt_id) else None


def same_content(one: Manifest, other: Manifest) -> bool:
    """True where two manifests say the same of the prompt, whenever they were written."""
    return msgspec.structs.replace(one, mirrored_at="") == msgspec.structs.replace(other, mirrored_at="")


def says_more(one: Manifest, other: Manifest) -> bool:
    """True where a manifest names every file that another one of the same prompt does, with the same bytes."""
    named = {file.url: (file.bytes, file.sha256) for file in one.files}
    return one.prompt_id == other.prompt_id and all(
        named.get(file.url) == (file.bytes, file.sha256) for file in other.files
    )


def ordered(assets: Iterable[Asset], entries: Mapping[str, ManifestFile]) -> list[ManifestFile]:
    """The stored files: first those the answer names, as it orders them, then those it names no more."""
    current = {
        asset.identity: msgspec.structs.replace(entries[asset.identity], role=asset.role, named_by=asset.named_by)
        for asset in assets
        if asset.identity in entries
    }
    gone = [file for which, file in sorted(entries.items()) if which not in current]
    return [*current.values(), *gone]
