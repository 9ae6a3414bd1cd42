"""What the visits of a run ask, and tell, of what was done: the catalog, or in a worker what stands for it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mirror.catalog import Done, FileRecord, PromptRecord
from mirror.models import ManifestFile, PromptId


class Ledger(Protocol):
    """:class:`mirror.catalog.Catalog` says what each of these does.

    A write stands in the catalog when it returns; but for a worker that nobody records for meanwhile, which notes
    files at its desk.
    """

    async def done(self, prompt_ids: Sequence[PromptId], only: str | None = None) -> list[Done]: ...

    async def records(self, prompt_ids: Sequence[PromptId]) -> dict[PromptId, PromptRecord]: ...

    async def stored_in(self, run: str, identities: Sequence[str]) -> dict[str, tuple[str, ManifestFile]]: ...

    async def claim(self, prompt_id: PromptId, run: str = "") -> PromptRecord: ...

    async def save_file(self, prompt_id: PromptId, record: FileRecord, run: str) -> None: ...

    async def save_prompt(self, record: PromptRecord, run: str) -> None: ...

    async def mark(self, prompt_ids: Sequence[PromptId], run: str) -> None: ...
