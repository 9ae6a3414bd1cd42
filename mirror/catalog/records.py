"""What the catalog knows of a prompt and of its files."""

from __future__ import annotations

from msgspec import Struct

from mirror.models import Failure, ManifestFile, Placed, PromptId, PromptState, Role
from mirror.stores import Wanted


class FileRecord(Struct, frozen=True, kw_only=True):
    """A file of a prompt: stored (``entry``), failed (``failure``), or only known to be wanted (neither).

    With both it was stored once, is no longer there, and could not be fetched again: its digest is not forgotten.
    """

    identity: str
    role: Role
    entry: ManifestFile | None = None
    failure: Failure | None = None


class Done(Struct, frozen=True, kw_only=True):
    """A prompt of which all that is wanted is stored, as its record says; where it is to be looked for."""

    prompt_id: PromptId
    state: PromptState
    run: str | None
    wanted: Wanted


class PromptRecord(Struct, frozen=True, kw_only=True):
    """What is known of a prompt.

    ``unfinished`` says that more than its files is open: a task that has not ended, or an answer that could not be
    read whole. ``run`` is the run that dealt with it last; ``placed`` is where its manifest stands in a bucket;
    ``given_up`` is since when ``sync`` leaves it alone, unfinished as it is; times are Unix seconds.
    """

    prompt_id: PromptId
    folder: str
    state: PromptState = PromptState.UNRESOLVED
    unfinished: bool = True
    error: str | None = None
    message: str | None = None
    note: str | None = None
    tries: int = 0
    last_tried: float | None = None
    run: str | None = None
    placed: Placed | None = None
    given_up: float | None = None
    files: tuple[FileRecord, ...] = ()

    @property
    def is_only_listed(self) -> bool:
        """Whether all that is known of it is that the history named it."""
        return self.state is PromptState.UNRESOLVED and not self.tries and not self.files

    def stored(self) -> dict[str, ManifestFile]:
        """The entries of the files that are stored, by identity."""
        return {file.identity: file.entry for file in self.files if file.entry is not None and file.failure is None}

    def wanted(self) -> Wanted:
        """What of it should be in a store."""
        return Wanted(folder=self.folder, files=tuple(self.stored().values()), manifest=self.placed)

    def done(self, only: str | None) -> Done | None:
        """The record of what is complete, as far as files of the role ``only`` go; None where something is not."""
        states = (PromptState.COMPLETE,) if only is None else (PromptState.COMPLETE, PromptState.PARTIAL)
        if self.unfinished or self.state not in states:
            return None
        if any(file.entry is None or file.failure is not None for file in self.files if only in (None, file.role)):
            return None
        return Done(prompt_id=self.prompt_id, state=self.state, run=self.run, wanted=self.wanted())


class Claimed(Struct, frozen=True, kw_only=True, tag="claim"):
    """A run tries a prompt, which is unfinished until its result is saved."""

    prompt_id: PromptId
    run: str


class FileSaved(Struct, frozen=True, kw_only=True, tag="file"):
    """What became of one file, in a run."""

    prompt_id: PromptId
    record: FileRecord
    run: str


class PromptSaved(Struct, frozen=True, kw_only=True, tag="prompt"):
    """What became of a prompt, in a run; with those of its files that the record has."""

    record: PromptRecord
    run: str


class Marked(Struct, frozen=True, kw_only=True, tag="mark"):
    """A run has found these prompts complete."""

    prompt_ids: list[PromptId]
    run: str


Write = Claimed | FileSaved | PromptSaved | Marked
"""What a run tells the catalog: values, so that a worker elsewhere can hand them on."""
