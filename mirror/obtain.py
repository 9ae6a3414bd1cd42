"""One prompt's files, each to every place that lacks it, and into the catalog when it is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from mirror import names
from mirror.catalog import FileRecord
from mirror.delivery import OnDisk
from mirror.events import FileFailed, FilePlaced, FileStored
from mirror.inflight import Elsewhere, Fetched
from mirror.manifests.document import entry
from mirror.models import Asset, Failure, ManifestFile, Outcome, PromptId, Receipt
from mirror.run import Run
from mirror.stock import Stock
from mirror.stores import Store, Target

_OF_ONE_PLACE = frozenset({"ChecksumMismatch", "Obstructed", "StoreUnavailable"})
"""Failures of a file that say nothing about the same file for another prompt."""

_NOT_THAT_OBJECT = frozenset({"Gone", "Changed", "ChecksumMismatch", "NotMedia"})
"""What a restore fails with where the bucket has something else, or nothing."""


class Obtain:
    """``fresh_url`` asks the service for a file's URL again; until ``asked`` is set, no origin is gone to."""

    def __init__(
        self,
        run: Run,
        prompt_id: PromptId,
        folder: str,
        stock: Stock,
        failures: dict[str, Failure],
        fresh_url: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._run = run
        self._places = run.places
        self._id = prompt_id
        self._folder = folder
        self._stock = stock
        self._fresh_url = fresh_url
        self.failures = failures
        self.asked = False
        self._not_restored: set[str] = set()

    async def obtain(self, asset: Asset, elsewhere: Elsewhere | None) -> None:
        """Store one file and record it; the same file for several prompts is fetched by one of them."""
        inflight = self._run.inflight
        while not (turn := await inflight.enter(asset.identity)).mine:
            failed = turn.failed if self.asked else None
            if failed is not None and failed[0] == asset.url and failed[1].error not in _OF_ONE_PLACE:
                await self._failed(asset, msgspec.structs.replace(failed[1], role=asset.role))
                return
            elsewhere = turn.elsewhere or (await self._run.stored_elsewhere([asset.identity])).get(asset.identity)
            if elsewhere is not None and await self._share(asset, elsewhere):
                return
        ended: Fetched = None
        try:
            failure = await self._deliver(asset, turn.elsewhere or elsewhere)
            if failure is not None:
                ended = (asset.url, failure)
                await self._failed(asset, failure)
        finally:
            inflight.leave(asset.identity, ended)

    async def _share(self, asset: Asset, elsewhere: Elsewhere) -> bool:
        """Take over what another prompt has on disk now: of thousands that waited for it, all at once.

        True if that is all there is to do. Into a bucket they go one by one: there the file may have to be sent.
        """
        if self._places.wants_bucket or not self._stock.lacks_disk(asset.identity):
            return False
        receipt = await self._adopt(self._places.disk, elsewhere, self._target(asset))
        if receipt is None:
            return False
        await self._is_on_disk(asset, receipt, reused=True)
        return True

    async def _deliver(self, asset: Asset, elsewhere: Elsewhere | None) -> Failure | None:
        """To the disk, then to the bucket, as far as it is not there yet; each is recorded when it is done."""
        if not self.asked:
            await self._find_again(asset)
        if self._stock.lacks_disk(asset.identity):
            outcome = await self._to_disk(asset, elsewhere)
            if not isinstance(outcome, Receipt):
                return outcome
        if self._stock.lacks_bucket(asset.identity):
            outcome = await self._to_bucket(asset, elsewhere)
            if isinstance(outcome, Failure):
                return outcome
        return None

    async def _find_again(self, asset: Asset) -> None:
        """What was stored once may stand where it was: put back by hand, or out of reach for a while."""
        which, bucket = asset.identity, self._places.bucket
        if self._stock.lacks_disk(which):
            receipt = await self._places.disk.find_again(self._target(asset), self._stock.known[which])
            if receipt is not None:
                await self._is_on_disk(asset, receipt, reused=True)
        if bucket is not None and not self._stock.is_anywhere(which):
            receipt = await bucket.find_again(self._target_in_bucket(asset), self._stock.known[which])
            if receipt is not None:
                await self._is_in_bucket(asset, receipt, reused=True)

    async def _to_disk(self, asset: Asset, elsewhere: Elsewhere | None) -> Outcome | None:
        """What failed may succeed when the service was asked: until then it is None."""
        target, which = self._target(asset), asset.identity
        delivery = self._run.delivery
        outcome: Outcome | None = None
        if elsewhere is not None:
            outcome = await self._adopt(self._places.disk, elsewhere, target)
        reused = outcome is not None
        if which in self._stock.in_bucket and which not in self._not_restored:
            outcome = outcome or await delivery.restore(self._id, asset, target, self._stock.known[which])
            if isinstance(outcome, Failure):
                self._not_restored.add(which)
                if outcome.error in _NOT_THAT_OBJECT:
                    self._stock.in_bucket.discard(which)  # the bucket has lost it
        if not isinstance(outcome, Receipt) and self.asked:
            outcome = await delivery.to_disk(self._id, asset, target, partial(self._fresh_url, which))
        if isinstance(outcome, Receipt):
            await self._is_on_disk(asset, outcome, reused=reused)
        return outcome if self.asked or isinstance(outcome, Receipt) else None

    async def _is_on_disk(self, asset: Asset, receipt: Receipt, *, reused: bool) -> None:
        which = asset.identity
        s3 = self._stock.known[which].s3 if which in self._stock.in_bucket else None
        if s3 is not receipt.s3:
            receipt = msgspec.structs.replace(receipt, s3=s3)
        await self._record_file(asset, entry(asset, receipt), self._places.disk)
        self._stock.on_disk.add(which)
        if not reused:
            self._stock.new.add(which)
        self._tell_stored(asset, receipt, reused=reused)

    async def _to_bucket(self, asset: Asset, elsewhere: Elsewhere | None) -> Outcome | None:
        """As :meth:`_to_disk`."""
        bucket = self._places.bucket
        assert bucket is not None
        which = asset.identity
        here = None
        if which in self._stock.on_disk:
            here = OnDisk(self._stock.known[which], is_new=which in self._stock.new)
        elif not self.asked:
            return None
        target = self._target_in_bucket(asset)
        receipt = await self._adopt(bucket, elsewhere, target)
        if receipt is not None:
            outcome: Outcome = receipt
        else:
            fresh = partial(self._fresh_url, which)
            outcome = await self._run.delivery.to_bucket(self._id, asset, target, fresh, here)
        if isinstance(outcome, Receipt):
            await self._is_in_bucket(asset, outcome, reused=receipt is not None)
        return outcome

    async def _is_in_bucket(self, asset: Asset, receipt: Receipt, *, reused: bool) -> None:
        which, bucket, s3 = asset.identity, self._places.bucket, receipt.s3
        assert bucket is not None
        assert s3 is not None
        facts = self._stock.known[which] if which in self._stock.on_disk else entry(asset, receipt)
        await self._record_file(asset, msgspec.structs.replace(facts, s3=s3), bucket)
        self._stock.in_bucket.add(which)
        self._run.observer(FilePlaced(prompt_id=self._id, url=which, key=s3.key, bytes=receipt.bytes, via=s3.via))
        if not self._places.wants_disk:
            self._tell_stored(asset, receipt, reused=reused)

    def _target(self, asset: Asset) -> Target:
        """Where it goes on disk. What was mirrored before goes where it was, and no other bytes."""
        known = self._stock.known.get(asset.identity)
        if known is None:
            return self._target_for(asset, names.Choice(asset.name, asset.name, asset.identity), None)
        return self._target_for(asset, (known.path,), known)

    def _target_in_bucket(self, asset: Asset) -> Target:
        """The same path there, or one beside it where another object has that."""
        known = self._stock.known.get(asset.identity)
        first = known.path if known is not None else asset.name
        choice = names.Choice(first, asset.name, asset.identity)
        return self._target_for(asset, choice, known)

    def _target_for(self, asset: Asset, choice: Sequence[str], known: ManifestFile | None) -> Target:
        return Target(
            identity=asset.identity,
            folder=self._folder,
            names=choice,
            sha256=known.sha256 if known is not None else None,
            known=known is not None,
            prompt_id=self._id,
        )

    async def _adopt(self, store: Store, elsewhere: Elsewhere | None, target: Target) -> Receipt | None:
        """A file that this run has stored for another prompt."""
        if elsewhere is None or target.sha256 not in (None, elsewhere[1].sha256) or elsewhere[0] == target.folder:
            return None
        return await store.adopt(elsewhere, target)

    async def _record_file(self, asset: Asset, file: ManifestFile, store: Store) -> None:
        """The row, then what the store kept to find the file again after a crash goes."""
        record = FileRecord(identity=asset.identity, role=asset.role, entry=file)
        await self._run.ledger.save_file(self._id, record, self._run.run_id)
        self._run.recent.add(asset.identity)
        await store.settle(asset.identity)
        self._stock.known[asset.identity] = file

    def _tell_stored(self, asset: Asset, receipt: Receipt, *, reused: bool) -> None:
        self._run.observer(
            FileStored(prompt_id=self._id, url=asset.identity, path=receipt.path, bytes=receipt.bytes, reused=reused)
        )

    async def _failed(self, asset: Asset, failure: Failure) -> None:
        if not self._stock.is_there(asset.identity):  # else its row stays: it is on disk, and only the bucket lacks it
            lost = self._stock.known.get(asset.identity)
            record = FileRecord(identity=asset.identity, role=asset.role, entry=lost, failure=failure)
            await self._run.ledger.save_file(self._id, record, self._run.run_id)
        self.failures[asset.identity] = failure
        self._run.observer(FileFailed(prompt_id=self._id, failure=failure))
