"""A gallery from its first manifest to its page: data as manifests come in, the page last."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from mirror.gallery.compose import shown, thumbnails
from mirror.gallery.folder import Place, new_generation
from mirror.gallery.links import Links
from mirror.gallery.page import Page, assets, render
from mirror.gallery.pages import CARDS, DETAILS, name_of, script, sliced, text_of
from mirror.gallery.previews import Previews, key_of
from mirror.gallery.records import Card, Counts
from mirror.holdings import Absent, Holding, Holdings
from mirror.times import now


class Built(Struct, frozen=True, kw_only=True):
    """What was written: ``previews`` are shown, ``made`` of them are new; ``bare`` where none could be made at all."""

    prompts: int
    files: int
    previews: int
    made: int
    bare: bool


class Gallery:
    """One writing of a gallery. Until :meth:`write` has published its page, the one that is there stays as it is.

    ``absent`` is told of what cannot be shown.
    """

    def __init__(self, place: Place, holdings: Holdings, links: Links, absent: Callable[[Absent], None]) -> None:
        self._place = place
        self._holdings = holdings
        self._links = links
        self._absent = absent
        self._generation = new_generation()
        self._counts = Counts()
        self._cards: list[tuple[str, str, str]] = []
        self._details = 0
        self._lacks = False

    async def write(
        self,
        found: AsyncGenerator[Holding | Absent, None],
        title: str,
        more: Callable[[], Awaitable[list[Card]]],
        *,
        may_be_empty: bool,
    ) -> Built | None:
        """Write what is found; ``more`` gives cards of prompts that have no manifest.

        None where that is nothing, and something should be: the page that is there stays. Only where nothing that
        is there could not be shown, a page ``may_be_empty``.

        Raises:
            ConfigError, StoreError: as the place and what is read say.
        """
        try:
            there = await self._place.open()
            async with Previews(there, self._place.put) as previews, aclosing(found):
                await self._read(found, previews)
            known = {prompt_id for _, prompt_id, _ in self._cards}
            for card in await more():
                if card.id not in known:
                    self._add(card)
            if not self._cards and (self._lacks or not may_be_empty):
                return None
            await self._publish(title)
            await self._place.prune(self._generation, previews.used)
        finally:
            await self._place.close()
        counts = self._counts
        return Built(
            prompts=counts.prompts,
            files=counts.files,
            previews=len(previews.used),
            made=previews.made,
            bare=previews.is_off,
        )

    async def _read(self, found: AsyncGenerator[Holding | Absent, None], previews: Previews) -> None:
        batch: list[Holding] = []
        async for each in found:
            if isinstance(each, Absent):
                self._lacks = True
                self._absent(each)
                continue
            batch.append(each)
            if len(batch) == DETAILS:
                await self._page_of(batch, previews)
                batch = []
        if batch:
            await self._page_of(batch, previews)

    async def _page_of(self, batch: list[Holding], previews: Previews) -> None:
        """A page of details, and its cards."""
        wanted = {
            key_of(file): (file, partial(self._holdings.blocks, holding, file))
            for holding in batch
            for file in thumbnails(holding.manifest)
        }
        small = await previews.all_of(wanted)
        self._details += 1
        details = []
        for row, holding in enumerate(batch):
            link = partial(self._links.file, holding.folder)
            card, detail = shown(holding.manifest, link, self._links.manifest(holding.folder), small)
            details.append(text_of(detail))
            self._add(replace(card, page=self._details, row=row))
            self._counts.files += len(holding.manifest.files)
            self._counts.bytes += sum(file.bytes for file in holding.manifest.files)
        await self._data("detail", self._details, details)

    def _add(self, card: Card) -> None:
        counts = self._counts
        counts.prompts += 1
        _count(counts.states, card.state)
        if card.type is not None:
            _count(counts.types, str(card.type))
        self._cards.append((card.at, card.id, text_of(card)))

    async def _publish(self, title: str) -> None:
        self._cards.sort(key=lambda card: card[:2], reverse=True)
        pages = sliced([text for _, _, text in self._cards], CARDS)
        self._counts.pages = len(pages)
        for number, texts in enumerate(pages, 1):
            await self._data("cards", number, texts)
        await self._data("start", 0, [text_of(self._counts)])
        for name, content in assets().items():
            await self._place.put(f"{self._generation}/{name}", content)
        page = Page(title=title, generation=self._generation, written_at=now(), counts=self._counts)
        await self._place.publish(render(page))

    async def _data(self, kind: str, number: int, texts: Sequence[str]) -> None:
        await self._place.put(f"{self._generation}/{name_of(kind, number)}", script(kind, number, texts))


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
