"""Down the service's history, newest first, to what the catalog knows: each page goes into the catalog as it is read.

The watermark moves only at the end of a walk that reached the old one: until then the next walk starts at the top
again, so a crash in the middle leaves no gap.

Where a history ends is believed, not known: a sick service may show nothing for a while. So a walk that stops at the
watermark looks at the history's end as well, and goes on down where there is more than the catalog has heard of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

from mirror.api import Api, check_prompt_id
from mirror.catalog import Catalog
from mirror.errors import ApiError, BadParameter, Severity
from mirror.events import Noted, Observer
from mirror.models import Covered, HistoryPage, Listed
from mirror.settings import ApiSettings

_REPEATS = 2
"""So many times the page before, and the history has ended: a service may ignore ``page``, or stay at its last."""

_BARREN = 50
"""So many pages in a row with nothing that the walk had not seen, and it is given up: it goes round in a circle."""

_LOOKS = 32
"""So many pages at most are asked for to find a history's end. It is halved: 2 ** 32 pages would do with as many."""


class Walk:
    """One walk. ``since`` (Unix seconds) is where it ends, whatever is known, and what is older is not taken in.

    Every row of a page that was read goes in, except older ones than ``since``. Where the service's order is not newest
    first the walk goes to the end, and no watermark is kept.
    """

    def __init__(
        self, api: Api, catalog: Catalog, settings: ApiSettings, observer: Observer, *, name: str, since: float | None
    ) -> None:
        self._api = api
        self._catalog = catalog
        self._settings = settings
        self._observer = observer
        self._name = name
        self._target = -math.inf if since is None else since
        self._known: Covered | None = None
        self._newest: float | None = None
        self._oldest = math.inf
        self._last: HistoryPage = HistoryPage()
        self._ordered = True
        self._is_sure = True
        self._repeats = self._barren = 0
        self._size = 1
        self._pages = self._new = 0

    async def run(self, on_page: Callable[[], None]) -> None:
        """Until the watermark, ``since`` or the end. ``on_page`` is called when a page is in the catalog.

        Raises:
            ApiError: the history cannot be read. What was read of it stays in the catalog.
            CatalogError: the catalog cannot be written.
        """
        url = self._api.history_url
        self._known = await self._catalog.covered(url)
        low: float | None = None
        number = self._settings.history_first_page
        while low is None:
            page = await self._api.history(number)
            if page.is_empty and self._known_below() is None:
                number, page = await self._beyond(number)
            await self._take_in(page, number)
            on_page()
            low = self._reached(page)
            self._last = page
            if low is not None and await self._goes_on_below(low, number):
                low = None
            number += 1
        stretch = self._covered(max(low, self._target))
        if stretch is not None:
            await self._catalog.cover(url, stretch)
        self._note("info", f"the history was read; pages: {self._pages}, new prompts: {self._new}")

    async def _beyond(self, number: int) -> tuple[int, HistoryPage]:
        """An empty page is the end if nothing is behind it, either; else it is asked for again, then passed over."""
        behind = await self._api.history(number + 1)
        if behind.is_empty:
            return number, behind
        again = await self._api.history(number)
        if not again.is_empty:
            return number, again
        self._is_sure = False
        self._note(
            "warning", f"page {number} of the history is empty, and there are further ones: it is read again next time"
        )
        return number + 1, behind

    async def _goes_on_below(self, low: float, number: int) -> bool:
        """Whether the walk stops at a stretch whose end is none. Then that is taken back, for a crash's sake, too."""
        known = self._known_below()
        if known is None or self._last.is_empty or low == -math.inf or not await self._has_news(number):
            return False
        self._note("warning", "the history goes on below what was taken for its end: it is read to the end again")
        self._known = Covered(floor=known.top, top=known.top)
        await self._catalog.cover(self._api.history_url, self._known)
        return True

    async def _has_news(self, low: int) -> bool:
        """Whether the history's last page, below page ``low``, has a row that the catalog never heard of.

        It is looked for where all that was heard of ends. What the service has deleted since moves it up from there.
        """
        high: int | None = None
        last = self._last
        at = max(low + 1, self._settings.history_first_page + await self._catalog.heard_of() // self._size)
        for _ in range(_LOOKS):
            try:
                page = await self._api.history(at)
            except ApiError as error:
                if error.severity is Severity.FATAL:
                    raise
                self._note("info", f"the history's end could not be looked at: {error}")
                return False
            if await self._catalog.is_news([row.prompt_id for row in page.rows if self._is_wanted(row, at)]):
                return True
            if page.is_empty:
                at, high = (at - 1 if high is None else (low + at) // 2), at
            elif page == last or len(page.rows) + len(page.flaws) < self._size:
                return False
            else:
                low, last = at, page
                at = at + 1 if high is None else (at + high) // 2
            if at == low:
                return False
        return False

    async def _take_in(self, page: HistoryPage, number: int) -> None:
        for flaw in page.flaws:
            self._note("warning", f"page {number} of the history: {flaw}")
        seen, new = await self._catalog.enlist([row for row in page.rows if self._is_wanted(row, number)], self._name)
        self._pages += not page.is_empty
        self._new += new
        self._size = max(self._size, len(page.rows))
        self._barren = 0 if seen else self._barren + 1
        self._repeats = self._repeats + 1 if page.rows and page == self._last else 0
        dates = _dates(page)
        if not dates:
            return
        if self._newest is None:
            # A date in the future would hide, in the next walk, what is created until then.
            self._newest = min(max(dates), time.time())
        self._oldest = min(self._oldest, *dates)
        if self._ordered and not self._is_in_order(page, dates):
            self._ordered = False
            self._note("warning", "the history is not newest first: all of it is read each time")

    def _is_in_order(self, page: HistoryPage, dates: list[float]) -> bool:
        """Whether nothing stands further from its place than the overlap makes up for."""
        if dates[0] < dates[-1]:
            return False
        before = _dates(self._last)[-1:]
        if self._last.rows and page.rows[0] in self._last.rows:
            before = []  # rows came in at the top meanwhile, and moved these down
        inside = [*before, *dates]
        return all(later - earlier <= self._settings.history_overlap for earlier, later in pairwise(inside))

    def _known_below(self) -> Covered | None:
        """The stretch that the walk has come down to, from which on the catalog has everything, to the end.

        Who gives ``since`` doubts that: there is none then.
        """
        known = self._known
        if known is None or known.floor is not None or self._target > -math.inf:
            return None
        return known if self._ordered and self._oldest <= known.top else None

    def _is_wanted(self, row: Listed, number: int) -> bool:
        try:
            check_prompt_id(row.prompt_id)
        except BadParameter as error:
            self._note("warning", f"page {number} of the history: {error}")
            return False
        return row.created_at is None or row.created_at >= self._target

    def _reached(self, page: HistoryPage) -> float | None:
        """Down to which creation time everything was read; None while there is more to read."""
        if page.is_empty:
            return -math.inf if self._known_below() is None else self._oldest
        if self._repeats >= _REPEATS or self._barren >= _BARREN:
            # The same page from the first on is no history that was read; nor is one that goes round.
            self._is_sure = self._is_sure and self._repeats >= _REPEATS and self._pages > _REPEATS + 1
            return -math.inf
        dates = _dates(page)
        if not self._ordered or len(dates) < len(page.rows) or not dates:
            return None
        top = max(dates)
        if top < self._target:
            return self._target
        known = self._known_below()
        overlapped = -math.inf if known is None else known.top - self._settings.history_overlap
        return overlapped if top < overlapped else None

    def _covered(self, low: float) -> Covered | None:
        """The stretch that stands in the catalog now; None where it cannot be told, or has a gap."""
        if self._newest is None or not self._ordered or not self._is_sure:
            return None
        known = self._known
        if known is None:
            floor, top = low, self._newest
        elif low <= known.top:
            floor = min(low, -math.inf if known.floor is None else known.floor)
            top = max(self._newest, known.top)
        else:
            return None
        return Covered(floor=None if floor == -math.inf else floor, top=top)

    def _note(self, level: str, message: str) -> None:
        self._observer(Noted(level=level, message=message))


def _dates(page: HistoryPage) -> list[float]:
    return [row.created_at for row in page.rows if row.created_at is not None]
