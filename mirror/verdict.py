"""What became of a prompt: from what was found and stored to state, manifest and exit code. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from mirror.errors import ApiError, BadParameter, ExitCode, NoData, StoreError
from mirror.manifests.document import compose, ordered, same_content, state_of, without_answer
from mirror.models import Answer, Asset, Failure, Manifest, ManifestFile, PromptId, PromptState
from mirror.plan import Plan
from mirror.times import now
from mirror.urls import redact


class Findings(Struct, frozen=True, kw_only=True):
    """What a visit knows at its end.

    ``entries`` are the files that are stored and there, ``lost`` those that were stored and are not, ``absent`` those
    that a destination lacks; ``failures`` are by file; ``child_failures`` what could not be
    asked; ``prior`` is the manifest that stands.
    """

    prompt_id: PromptId
    answer: Answer
    planned: Plan
    entries: Mapping[str, ManifestFile]
    lost: Mapping[str, ManifestFile]
    absent: frozenset[str] = frozenset()
    failures: Mapping[str, Failure]
    child_failures: tuple[Failure, ...]
    prior: Manifest | None
    secrets: tuple[str, ...]

    @property
    def missing(self) -> list[Asset]:
        """Files that the answer names and the archive does not have in every destination."""
        return [
            asset
            for asset in self.planned.assets
            if asset.identity not in self.entries or asset.identity in self.absent
        ]

    @property
    def losses(self) -> dict[str, Failure]:
        """Files that were mirrored and are nowhere now, whether the answer still names them or not."""
        named = {asset.identity for asset in self.planned.assets}
        return {
            which: msgspec.structs.replace(self.failures.get(which) or _lost(file, which in named), was=file)
            for which, file in self.lost.items()
        }


class Verdict(Struct, frozen=True, kw_only=True):
    """``write`` says whether the manifest differs from the one on disk; ``unfinished`` whether tasks are open."""

    state: PromptState
    manifest: Manifest
    code: ExitCode
    errors: tuple[Failure, ...] = ()
    note: str | None = None
    unfinished: bool = False
    write: bool = False


def conclude(found: Findings) -> Verdict:
    """The verdict on a prompt that the service told about."""
    unread = (*found.planned.failures, *found.child_failures)
    errors = (*(dict(found.failures) | found.losses).values(), *unread)
    state = state_of(found.answer.task, missing=bool(found.missing or found.lost or unread))
    if found.prior is not None and _service_changed_its_mind(found, state):
        note = f"the service says {state} now; what was mirrored stays"
        still = still_complete(found.prior, found.entries)
        return msgspec.structs.replace(still, note=note, unfinished=state is PromptState.PENDING)
    files = ordered(found.planned.assets, found.entries)
    manifest = compose(found.prompt_id, state, found.answer, files, errors, found.secrets)
    same = found.prior is not None and same_content(manifest, found.prior)
    return Verdict(
        state=state,
        manifest=found.prior if found.prior is not None and same else manifest,
        code=_code(state, failed=bool(errors), left_out=bool(found.missing)),
        errors=errors or _upstream_failure(found, state),
        unfinished=state is PromptState.PENDING or any(each.error != "Refused" for each in unread),
        write=not same,
    )


def _lost(file: ManifestFile, named: bool) -> Failure:
    what = "was mirrored and is not there any more" + ("" if named else "; the service names it no longer")
    return Failure(url=file.url, role=file.role, error="StoreUnavailable" if named else "Gone", message=what)


def still_complete(prior: Manifest, known: Mapping[str, ManifestFile]) -> Verdict:
    """The verdict on a complete prompt that stays so: its files as they are known now, and those stored since."""
    named = {
        file.url: msgspec.structs.replace(known.get(file.url, file), role=file.role, named_by=file.named_by)
        for file in prior.files
    }
    since = [file for which, file in known.items() if which not in named]
    manifest = msgspec.structs.replace(prior, files=(*named.values(), *since))
    same = manifest == prior
    return Verdict(
        state=prior.state,
        manifest=prior if same else msgspec.structs.replace(manifest, mirrored_at=now()),
        code=ExitCode.OK,
        write=not same,
    )


def unanswered(
    prompt_id: PromptId,
    error: ApiError | StoreError,
    prior: Manifest | None,
    url: str,
    *,
    whole: bool,
    unfinished: bool,
) -> Verdict:
    """The verdict on a prompt that the service denies, or could not be asked about.

    What was mirrored of it stays as it is. ``whole``: every file that was stored is there; ``unfinished``: it was
    before this visit.
    """
    failure = Failure(error=error.name, message=str(error), attempts=1)
    denied = isinstance(error, NoData | BadParameter)
    if prior is not None:
        there = denied and whole and prior.state is PromptState.COMPLETE
        return Verdict(
            state=prior.state,
            manifest=prior,
            code=ExitCode.OK if there else ExitCode.INCOMPLETE,
            errors=() if there else (failure,),
            note=f"{error.name}: {error}; what was mirrored stays",
            unfinished=prior.state is PromptState.PENDING or (unfinished and not denied),
        )
    state = PromptState.UNKNOWN if denied else PromptState.UNRESOLVED
    code = 900 if isinstance(error, NoData) else 800 if isinstance(error, BadParameter) else None
    return Verdict(
        state=state,
        manifest=without_answer(prompt_id, state, url, failure, code),
        code=ExitCode.INCOMPLETE,
        errors=(failure,),
        unfinished=not denied,
    )


def _service_changed_its_mind(found: Findings, state: PromptState) -> bool:
    """What was complete, and is all there, does not become less because the service says so.

    While a task of it runs again it is unfinished, so that it is asked about until that has ended.
    """
    was_whole = found.prior is not None and found.prior.state is PromptState.COMPLETE and not found.lost
    return was_whole and not found.missing and not found.failures and state is not PromptState.COMPLETE


def _upstream_failure(found: Findings, state: PromptState) -> tuple[Failure, ...]:
    """Why the service could not do what it was asked to. The manifest's ``task`` says it already."""
    if state is not PromptState.FAILED:
        return ()
    reasons = dict.fromkeys(member.reason for member in found.answer.task.family() if member.reason)
    told = redact("; ".join(reasons), found.secrets)[:500]
    return (Failure(error="TaskFailed", message=told or "failed upstream without a reason"),)


def _code(state: PromptState, *, failed: bool, left_out: bool) -> ExitCode:
    """``left_out``: files are missing. Without a failure that is because only one role was asked for."""
    if state is PromptState.COMPLETE:
        return ExitCode.OK
    if failed or state is PromptState.FAILED:
        return ExitCode.INCOMPLETE
    if state is PromptState.PENDING:
        return ExitCode.PENDING
    return ExitCode.OK if left_out else ExitCode.INCOMPLETE
