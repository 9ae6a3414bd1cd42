"""Compares what should be there with what is: all prompts or some, many files at once, each told as it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable, Iterator, Sequence
from functools import partial

from mirror.catalog import Catalog, PromptRecord, in_pages
from mirror.checks import BucketChecks, Checked, Checks, DiskChecks, Expected
from mirror.decoding import Decoding
from mirror.endings import ended
from mirror.errors import ConfigError
from mirror.manifests.document import decode_if_sound
from mirror.models import Manifest, ManifestFile, PromptId, PromptState
from mirror.places import Places
from mirror.sampling import Sample
from mirror.stores import MANIFEST

_PAGE = 100
_AT_ONCE = 16
_FILES_AT_ONCE = 64
_MOMENT = 0.2
"""Seconds between the end of a prompt's files and that of its row."""

Key = tuple[str, str | None]
"""A promptId and a file's identity; None for the manifest."""

Job = Callable[[], Awaitable[list[Checked]]]


class Verify:
    """What should be there is what the manifest says, and what the catalog says was stored once.

    ``deep`` reads every object of a bucket back; without it the store's own checksums are compared. With a ``sample``
    only its files are looked at, and only the manifests of their prompts. With ``decode`` what has its right bytes is
    decoded, too.
    """

    def __init__(
        self,
        places: Places,
        catalog: Catalog,
        *,
        deep: bool = False,
        sample: Sample | None = None,
        decode: bool = False,
    ) -> None:
        self._decode = decode
        self._decoding: Decoding | None = None
        self._places = places
        self._catalog = catalog
        self._deep = deep
        self._sample = sample

    async def on_disk(
        self, prompt_ids: Sequence[PromptId] = (), only: Container[Key] | None = None
    ) -> AsyncGenerator[Checked, None]:
        """Every file of these prompts (of all, without any), hashed, in the order in which they are done.

        What nobody names is told, too: in the folders of these prompts, and where all are looked at, folders that
        belong to none. With ``only`` nothing but these files is looked at.

        Raises:
            CatalogError, StoreError: nothing more can be checked.
            ConfigError: to decode needs what is not installed.
        """
        if self._decode:
            self._decoding = Decoding(self._places, bucket=False)
        checks = DiskChecks(self._places.disk)
        try:
            async with contextlib.aclosing(self._each(checks, prompt_ids, only)) as found:
                async for checked in found:
                    yield checked
        finally:
            checks.close()

    async def in_bucket(
        self, prompt_ids: Sequence[PromptId] = (), only: Container[Key] | None = None
    ) -> AsyncGenerator[Checked, None]:
        """The same of the bucket."""
        if self._places.bucket is None:
            raise ConfigError("no bucket is configured")
        await self._places.ready()
        if self._decode:
            self._decoding = Decoding(self._places, bucket=True)
        checks = BucketChecks(self._places, self._places.bucket, deep=self._deep)
        async with contextlib.aclosing(self._each(checks, prompt_ids, only)) as found:
            async for checked in found:
                yield checked

    async def _each(
        self, checks: Checks, prompt_ids: Sequence[PromptId], only: Container[Key] | None
    ) -> AsyncGenerator[Checked, None]:
        if self._sample is not None and only is None:
            self._sample.begin(await self._catalog.count_files(prompt_ids))
        jobs = self._jobs(checks, prompt_ids, only)
        try:
            async with contextlib.aclosing(jobs), contextlib.aclosing(_as_they_end(jobs)) as found:
                async for checked in found:
                    yield checked
        finally:
            if self._decoding is not None:
                await self._decoding.close()
                self._decoding = None
        if not prompt_ids and only is None and self._sample is None:
            async with contextlib.aclosing(self._strangers(checks)) as strange:
                async for checked in strange:
                    yield checked

    # What is to be looked at -------------------------------------------------------------------

    async def _jobs(
        self, checks: Checks, prompt_ids: Sequence[PromptId], only: Container[Key] | None
    ) -> AsyncGenerator[Job, None]:
        pages = in_pages(prompt_ids, _PAGE) if prompt_ids else self._catalog.prompt_ids(page=_PAGE)
        async with contextlib.aclosing(pages):
            async for page in pages:
                known = await self._catalog.records(page)
                for prompt_id in page:
                    if prompt_id not in known:
                        yield partial(_unknown, prompt_id)
                chosen = [
                    (known[prompt_id], wanted)
                    for prompt_id in page
                    if prompt_id in known and (wanted := self._choice(known[prompt_id], only)) is not None
                ]
                documents = await checks.read_manifests([record.folder for record, _ in chosen])
                batch: list[Expected] = []
                for (record, wanted), document in zip(chosen, documents, strict=True):
                    content = document.content if document is not None else None
                    subject = _Subject(record, content)
                    yield partial(self._still_known, partial(subject.look_at_manifest, checks))
                    if self._sample is None and only is None:
                        yield partial(self._unexpected, checks, subject)
                    for expected in subject.expected():
                        if wanted(expected.file.url):
                            if batch and _is_full([*batch, expected], checks.batch):
                                yield partial(self._still_known, partial(self._look, checks, batch))
                                batch = []
                            batch.append(expected)
                if batch:
                    yield partial(self._still_known, partial(self._look, checks, batch))

    async def _look(self, checks: Checks, batch: Sequence[Expected]) -> list[Checked]:
        found = await checks.look(batch)
        if self._decoding is None:
            return found
        looks = map(self._decoding.look, batch, found)
        return await asyncio.gather(*looks)

    def _choice(self, record: PromptRecord, only: Container[Key] | None) -> Callable[[str], bool] | None:
        """Which of a prompt's files to look at; None for a prompt with nothing to look at."""
        stored = [file.identity for file in record.files if file.entry is not None]
        if record.state in (PromptState.UNKNOWN, PromptState.UNRESOLVED) and not stored:
            return None
        if only is not None:
            return lambda identity: (record.prompt_id, identity) in only
        if self._sample is None:
            return lambda _: True
        taken = frozenset(identity for identity in stored if self._sample.takes_next())
        return taken.__contains__ if taken else None

    async def _still_known(self, look: Job) -> list[Checked]:
        """What was found; what is missing only if the catalog has not forgotten its prompt meanwhile.

        To forget is to delete the files and then the row: a run that is under way gets a moment for that.
        """
        found = await look()
        for pause in (0.0, _MOMENT):
            missing = {PromptId(each.prompt_id) for each in found if each.flaw == "missing"}
            if not missing or (pause and not self._places.disk.is_in_use()):
                break
            await asyncio.sleep(pause)
            known = await self._catalog.records(list(missing))
            found = [each for each in found if each.flaw != "missing" or each.prompt_id in known]
        return found

    # What nobody names -------------------------------------------------------------------------

    async def _unexpected(self, checks: Checks, subject: _Subject) -> list[Checked]:
        found = [name for name in await checks.names(subject.folder) if name not in subject.paths]
        if found:  # a run that is under way may have stored it this moment
            fresh = (await self._catalog.records([subject.prompt_id])).get(subject.prompt_id)
            late = _paths(fresh) if fresh is not None else set()
            found = [name for name in found if name not in late]
        return [
            Checked(prompt_id=subject.prompt_id, where=f"{subject.folder}/{name}", flaw="unexpected") for name in found
        ]

    async def _strangers(self, checks: Checks) -> AsyncGenerator[Checked, None]:
        """What stands under the root, or the prefix, and is no prompt's that the catalog knows."""
        async with contextlib.aclosing(checks.entries()) as pages:
            async for page in pages:
                records = await self._catalog.records_in(list({folder for folder, _, _ in page}))
                keys = {record.folder: _keys(record) for record in records}
                for folder, where, key in page:
                    if folder not in keys or (key and key not in keys[folder]):
                        owner = next((each.prompt_id for each in records if each.folder == folder), "")
                        yield Checked(prompt_id=owner, where=where, flaw="unexpected")


class _Subject:
    """A prompt: what its manifest and the catalog say that should be there."""

    def __init__(self, record: PromptRecord, content: bytes | None) -> None:
        self.prompt_id = record.prompt_id
        self.folder = record.folder
        self._record = record
        self._content = content
        self._manifest = decode_if_sound(content, record.prompt_id)

    async def look_at_manifest(self, checks: Checks) -> list[Checked]:
        where = f"{self.folder}/{MANIFEST}"
        if self._content is None:
            return [Checked(prompt_id=self.prompt_id, where=where, flaw="missing")]
        flaw = "it cannot be read" if self._manifest is None else self._contradiction(self._manifest)
        if flaw:
            return [Checked(prompt_id=self.prompt_id, where=where, flaw="damaged", detail=flaw)]
        return [await checks.look_at_manifest(self.prompt_id, self.folder, self._content)]

    def _contradiction(self, manifest: Manifest) -> str:
        """The catalog remembers what was written: one flipped digit of a digest leaves a sound manifest."""
        known = self._known()
        for file in manifest.files:
            ours = known.get(file.url)
            if ours is not None and (ours.path, ours.bytes, ours.sha256) != (file.path, file.bytes, file.sha256):
                return f"it says other of {file.path} than the catalog"
        told = self._named().keys() | self._told_lost()
        for which, file in self._record.stored().items():
            if which not in told:
                return f"it does not name {file.path}, which the catalog knows"
        if self._record.state is PromptState.COMPLETE and manifest.state is not PromptState.COMPLETE:
            return f"it says {manifest.state}, and the catalog complete"
        return ""

    def _known(self) -> dict[str, ManifestFile]:
        return {file.identity: file.entry for file in self._record.files if file.entry is not None}

    def expected(self) -> Iterator[Expected]:
        """Every file that was stored once: what the catalog knows of it counts, if it knows any."""
        known, named = self._known(), self._named()
        failed = {file.identity for file in self._record.files if file.failure is not None}
        lost = (failed | self._told_lost()) - named.keys()
        for which, file in (named | known).items():
            yield Expected(prompt_id=self.prompt_id, folder=self.folder, file=file, unnamed=which in lost)

    def _named(self) -> dict[str, ManifestFile]:
        return {file.url: file for file in self._manifest.files} if self._manifest is not None else {}

    def _told_lost(self) -> set[str]:
        """Files of which the manifest itself says that they were mirrored and are lost."""
        errors = self._manifest.errors if self._manifest is not None else ()
        return {error.was.url for error in errors if error.was}

    @property
    def paths(self) -> set[str]:
        """The names that are ours in its folder."""
        return _paths(self._record) | {file.path for file in self._named().values()}


def _paths(record: PromptRecord) -> set[str]:
    return {MANIFEST} | {file.entry.path for file in record.files if file.entry is not None}


def _keys(record: PromptRecord) -> set[str]:
    objects = [file.entry.s3 for file in record.files if file.entry is not None]
    return {each.key for each in (record.placed, *objects) if each is not None}


async def _unknown(prompt_id: PromptId) -> list[Checked]:
    told = "the catalog does not know this prompt"
    return [Checked(prompt_id=prompt_id, where=f"{prompt_id}/{MANIFEST}", flaw="missing", detail=told)]


def _is_full(batch: Sequence[Expected], limit: int) -> bool:
    return len(batch) >= _FILES_AT_ONCE or sum(expected.file.bytes for expected in batch) >= limit


async def _as_they_end(jobs: AsyncGenerator[Job, None]) -> AsyncGenerator[Checked, None]:
    """What the jobs find, as soon as each has ended; so many at once and no more are begun."""
    under_way: set[asyncio.Task[list[Checked]]] = set()
    try:
        async for job in jobs:
            task = asyncio.ensure_future(job())
            task.add_done_callback(_heard)
            under_way.add(task)
            while len(under_way) >= _AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for checked in _found_by(done):
                    yield checked
        while under_way:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for checked in _found_by(done):
                yield checked
    finally:
        for task in under_way:
            task.cancel()
        await ended(under_way)


def _heard(task: asyncio.Task[list[Checked]]) -> None:
    """After the first error nobody looks at those of the others: asyncio need not tell of them."""
    if not task.cancelled():
        task.exception()


def _found_by(tasks: Iterable[asyncio.Task[list[Checked]]]) -> list[Checked]:
    return [checked for task in tasks for checked in task.result()]
