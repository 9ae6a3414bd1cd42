"""From manifests back to the catalog: for a prompt that the catalog does not know, or for all of them."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from mirror import names
from mirror.answers import read_task
from mirror.catalog import FileRecord, PromptRecord
from mirror.manifests.document import decode_if_sound
from mirror.models import Manifest, ManifestFile, PromptId, PromptState, TaskState
from mirror.plan import plan
from mirror.stores import Document
from mirror.urls import origin, redact


def record_from(document: Document, folder: str, prompt_id: PromptId | None = None) -> PromptRecord | None:
    """What a manifest says of its prompt; None where it cannot be read, or stands in no folder of that prompt.

    A copy of a manifest somewhere else must not take its prompt there.
    """
    manifest = decode_if_sound(document.content, prompt_id)
    if manifest is None or not names.may_be_folder(folder, manifest.prompt_id):
        return None
    files = files_from(manifest, folder)
    return PromptRecord(
        prompt_id=PromptId(manifest.prompt_id),
        folder=folder,
        state=manifest.state,
        unfinished=_is_unfinished(manifest, {file.identity for file in files}),
        placed=document.placed,
        files=files,
    )


def files_from(manifest: Manifest, folder: str) -> tuple[FileRecord, ...]:
    """What a manifest says of its files: those that it names, and those that failed or were lost."""
    files = [_in_own_folder(file, folder) for file in manifest.files]
    stored = {file.url: FileRecord(identity=file.url, role=file.role, entry=file) for file in files}
    failed = {
        error.url: FileRecord(
            identity=error.url, role=error.role, entry=error.was or None, failure=replace(error, was=UNSET)
        )
        for error in manifest.errors
        if error.url and error.role and error.url not in stored
    }
    return (*stored.values(), *failed.values())


def other_service(document: Document, url: str) -> str | None:
    """The URL of the service that a manifest is of, where scheme, host or port are others than this one's."""
    manifest = decode_if_sound(document.content)
    if manifest is None:
        return None
    try:
        is_other = origin(manifest.api.url) != origin(url)
    except ValueError:  # it says something that is no URL
        is_other = True
    return redact(manifest.api.url) if is_other else None


def _in_own_folder(file: ManifestFile, folder: str) -> ManifestFile:
    """An object in another prompt's folder is that prompt's, whatever this manifest says: it is not ours to delete."""
    is_own = file.s3 is None or file.s3.key.split("/")[-2:-1] == [folder]
    return file if is_own else replace(file, s3=None)


def _is_unfinished(manifest: Manifest, known: set[str]) -> bool:
    """True unless the manifest alone proves that nothing beside its own files and errors is open."""
    if manifest.state in (PromptState.COMPLETE, PromptState.FAILED):
        return False
    if manifest.task is None or any(error.url is None for error in manifest.errors):
        return True
    task = read_task(manifest.task, PromptId(manifest.prompt_id))
    if any(member.state not in (TaskState.DONE, TaskState.FAILED) for member in task.family()):
        return True
    return any(asset.identity not in known for asset in plan(task).assets)
