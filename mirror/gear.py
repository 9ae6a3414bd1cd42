"""What runs work with: the service, the destinations, and the ways to them. A process that mirrors has one of it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping

from mirror.api import Api
from mirror.delivery import Delivery
from mirror.events import Observer
from mirror.facts import Facts
from mirror.inflight import Inflight, Visited
from mirror.ledger import Ledger
from mirror.limits import Level, shared_out
from mirror.models import PromptId
from mirror.places import open_places
from mirror.run import Run
from mirror.settings import FetchOptions, Settings
from mirror.stores.desks import Desk

_SHORTEST_SECRET = 8
"""A shorter token is no secret worth looking for in texts: it would be found in half of all words."""


class Gear:
    """Made within the event loop it works on. ``desk`` is the worker's where several share the root."""

    def __init__(
        self, settings: Settings, observer: Observer, *, desk: Desk | None = None, inflight: Inflight | None = None
    ):
        self._observer = observer
        token = settings.api.token
        self._secrets = (token,) if len(token) >= _SHORTEST_SECRET else ()
        self._inflight = inflight or Inflight()
        self._visited = Visited()
        self.api = Api(settings, observer)
        memory = shared_out(settings.transfer.memory, bucket=bool(settings.s3.bucket))
        self.places = open_places(settings, observer, desk)
        self._delivery = Delivery(settings, self.places, memory, observer)
        self._facts = Facts(self.places, observer)

    @property
    def visits(self) -> int:
        """How many prompts may be visited at once."""
        return max(16, self._delivery.cap)

    def new_run(
        self,
        options: FetchOptions,
        ledger: Ledger,
        *,
        run_id: str = "",
        repair: Mapping[PromptId, frozenset[str]] | None = None,
    ) -> Run:
        """A run, with an id of its own unless it is a part of one."""
        return Run(
            run_id=run_id or secrets.token_hex(8),
            options=options,
            api=self.api,
            places=self.places,
            ledger=ledger,
            delivery=self._delivery,
            facts=self._facts,
            observer=self._observer,
            secrets=self._secrets,
            slots=Level.fixed(2 * self._delivery.cap),
            inflight=self._inflight,
            visited=self._visited,
            repair=repair,
        )

    def pace(self, bytes_a_second: float, requests_a_second: float) -> None:
        """Limits from now on, of media and of requests to the service; 0 is none."""
        self._delivery.pace(bytes_a_second)
        self.api.rate.set(requests_a_second)

    async def rest(self) -> None:
        """Close what works with the network and with helpers; the destinations stay open."""
        async with contextlib.AsyncExitStack() as closing:  # each, even where one is cancelled
            for close in (self._facts.close, self._delivery.close, self.api.close):
                closing.push_async_callback(close)

    async def close(self) -> None:
        """Close the destinations, at the very end."""
        await self.places.close()
