"""Verify, and bring back what is missing or damaged: those files only, and only with the bytes that were mirrored.

What is flawed is marked in the catalog first, as stored once and lost: its digest is not forgotten, and whatever comes
of the repair, a later verify tells of it. Then the ordinary run goes over its prompts, restricted to these files. In
the end they are looked at once more; nobody's word is taken for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from mirror.catalog import Catalog, FileRecord, PromptRecord
from mirror.checks import Checked
from mirror.models import Failure, PromptId
from mirror.verification import Key, Verify

_TOGETHER = 100
"""Flawed files that are repaired in one go."""

_ERRORS = {"missing": "StoreUnavailable", "damaged": "ChecksumMismatch", "unreadable": "StoreUnavailable"}

Fetch = Callable[[Mapping[PromptId, frozenset[str]]], Awaitable[None]]
"""Runs over these prompts, and fetches these of their files and no others."""


class Repair:
    """Works on the disk, or with ``bucket`` on the bucket; ``disk_too`` says that files belong on the disk as well."""

    def __init__(self, verify: Verify, catalog: Catalog, fetch: Fetch, *, bucket: bool, disk_too: bool) -> None:
        self._look = verify.in_bucket if bucket else verify.on_disk
        self._catalog = catalog
        self._fetch = fetch
        self._bucket = bucket
        self._disk_too = disk_too

    async def run(self, prompt_ids: Sequence[PromptId] = ()) -> AsyncGenerator[Checked, None]:
        """What verify finds; where that is a flaw, after its repair was tried: ``repaired`` says how that went.

        Raises:
            MirrorError: a fatal one (the token is rejected, the disk is full).
        """
        flawed: list[Checked] = []
        async with contextlib.aclosing(self._look(prompt_ids)) as found:
            async for checked in found:
                if not checked.is_wrong:
                    yield checked
                    continue
                if checked.intact:  # the same bytes would come again
                    yield replace(checked, repaired=False, detail=f"{checked.detail}; it is as it was mirrored")
                    continue
                flawed.append(checked)
                if len(flawed) >= _TOGETHER:
                    for mended in await self._mend(flawed):
                        yield mended
                    flawed = []
        if flawed:
            for mended in await self._mend(flawed):
                yield mended

    async def _mend(self, flawed: Sequence[Checked]) -> list[Checked]:
        ids = list(dict.fromkeys(PromptId(checked.prompt_id) for checked in flawed))
        records = await self._catalog.records(ids)
        lost = [checked for checked in flawed if not self._may_be_there(checked)]
        for checked in lost:
            record = records.get(PromptId(checked.prompt_id))
            if record is not None:
                await self._mark(record, checked)
        await self._fetch(
            {
                prompt_id: frozenset(
                    checked.file.url for checked in lost if checked.prompt_id == prompt_id and checked.file is not None
                )
                for prompt_id in records
            }
        )
        return await self._judge(flawed, list(records))

    def _may_be_there(self, checked: Checked) -> bool:
        """An object that the store does not show for a while, or not before it is restored, is not lost by that."""
        return self._bucket and checked.flaw == "unreadable"

    async def _mark(self, record: PromptRecord, checked: Checked) -> None:
        """The catalog stops saying that it is there, and does not forget what it was."""
        if checked.again and not self._bucket:
            return  # the run finds it as we did
        if checked.file is None:
            if self._bucket and record.placed is not None:
                gone = replace(record, placed=replace(record.placed, current=False), files=())
                await self._catalog.save_prompt(gone, record.run or "")
            return
        known = {file.identity: file for file in record.files}.get(checked.file.url)
        entry = known.entry if known is not None and known.entry is not None else checked.file
        failure: Failure | None = Failure(
            url=entry.url,
            role=entry.role,
            error=_ERRORS[checked.flaw or "missing"],
            message=f"{checked.where}: {checked.flaw}" + (f": {checked.detail}" if checked.detail else ""),
        )
        if self._bucket and not checked.again:
            entry = replace(entry, s3=None)
            if self._disk_too:  # it is for the disk's own verify to say whether it is there
                failure = known.failure if known is not None else None
        elif checked.again:
            failure = None
        row = FileRecord(identity=entry.url, role=entry.role, entry=entry, failure=failure)
        await self._catalog.save_file(record.prompt_id, row, record.run or "")

    async def _judge(self, flawed: Sequence[Checked], ids: Sequence[PromptId]) -> list[Checked]:
        after: dict[Key, Checked] = {}
        if ids:
            async with contextlib.aclosing(self._look(ids, {_key(checked) for checked in flawed})) as found:
                async for checked in found:
                    after[_key(checked)] = checked
        records = await self._catalog.records(ids)
        judged = []
        for checked in flawed:
            now = after.get(_key(checked))
            if now is not None and now.flaw is None:
                judged.append(replace(checked, repaired=True))
            else:
                record = records.get(PromptId(checked.prompt_id))
                why = _reason(record, now or checked) if record is not None else ""
                detail = "; ".join(filter(None, [checked.detail, f"not repaired{f': {why}' if why else ''}"]))
                judged.append(replace(checked, repaired=False, detail=detail))
        return judged


def _key(checked: Checked) -> Key:
    return checked.prompt_id, checked.file.url if checked.file is not None else None


def _reason(record: PromptRecord, checked: Checked) -> str:
    """Why a repair came to nothing: what the run says of the file, else of its prompt."""
    which = checked.file.url if checked.file is not None else None
    own = next((file.failure for file in record.files if file.identity == which), None)
    if own is not None and own.attempts:
        return f"{own.error}: {own.message}"
    of_files = {(file.failure.error, file.failure.message) for file in record.files if file.failure is not None}
    if record.error and (record.error, record.message) not in of_files:
        return f"{record.error}: {record.message}"
    return "" if own is None else "the service names it no more"
