"""What a run and its visits share, and what they hand on."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mirror.api import Api
from mirror.delivery import Delivery
from mirror.errors import BadParameter, ExitCode
from mirror.events import Observer
from mirror.facts import Facts
from mirror.inflight import Elsewhere, Inflight, Visited
from mirror.ledger import Ledger
from mirror.limits import Level
from mirror.manifests.document import without_answer
from mirror.models import Asset, Failure, Manifest, PromptId, PromptState
from mirror.places import Places
from mirror.resolve import Resolver
from mirror.settings import FetchOptions

FIRST_POLL = 2.0
LONGEST_POLL = 60.0

_RECENT = 16_384
"""Files, by identity, that are remembered."""


class Recent:
    """The files that a run has stored last: so that the catalog is asked only about those that it may know.

    ``count`` is how many were stored in all.
    """

    def __init__(self) -> None:
        self.count = 0
        self._numbers: dict[str, int] = {}

    def add(self, identity: str) -> None:
        """A file stands in the catalog now."""
        self.count += 1
        self._numbers.pop(identity, None)
        self._numbers[identity] = self.count
        if len(self._numbers) > _RECENT:
            del self._numbers[next(iter(self._numbers))]

    def may_have(self, identity: str, seen: int) -> bool:
        """Whether a file may have been stored after the first ``seen`` were; False for certain."""
        return self._numbers.get(identity, 0) > seen or self.count - seen > _RECENT


@dataclass(frozen=True)
class Run:
    """What all visits of a run work with. ``inflight`` are the files that one of them fetches right now.

    ``repair`` limits the run to these files of these prompts, by identity: nothing else is fetched.
    """

    run_id: str
    options: FetchOptions
    api: Api
    places: Places
    ledger: Ledger
    delivery: Delivery
    facts: Facts
    observer: Observer
    secrets: tuple[str, ...]
    slots: Level
    inflight: Inflight = field(default_factory=Inflight)
    visited: Visited = field(default_factory=Visited)
    recent: Recent = field(default_factory=Recent)
    repair: Mapping[PromptId, frozenset[str]] | None = None

    def may_fetch(self, prompt_id: PromptId, identity: str) -> bool:
        """Whether a file is one that this run is for."""
        return self.repair is None or identity in self.repair.get(prompt_id, frozenset())

    async def stored_elsewhere(self, identities: list[str]) -> dict[str, Elsewhere]:
        """Which of these files this run has stored already: for each, a folder and the file's entry."""
        asked = [identity for identity in identities if self.recent.may_have(identity, 0)]
        return await self.ledger.stored_in(self.run_id, asked) if asked else {}


@dataclass
class Case:
    """A prompt that is being dealt with, between its visits too: small, since very many may wait.

    ``failures`` are the files that failed: they are not tried again at each poll, but in the next run. ``bytes_before``
    were there when the first visit came.
    """

    prompt_id: PromptId
    deadline: float
    interval: float = FIRST_POLL
    failures: dict[str, Failure] = field(default_factory=dict)
    resolver: Resolver | None = None
    bytes_before: int | None = None

    def next_poll(self) -> float | None:
        """Seconds until the service is asked again, growing; None when patience is at its end."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return None
        seconds = min(self.interval * random.uniform(0.8, 1.2), left)  # noqa: S311  # nosec B311 # when to poll is no secret
        self.interval = min(self.interval * 1.5, LONGEST_POLL)
        return seconds


@dataclass(frozen=True)
class Result:
    """What became of a prompt in this run.

    ``planned`` is filled by a dry run only; ``skipped`` says that all was there before, so that nothing was done.
    """

    prompt_id: PromptId
    state: PromptState
    code: ExitCode
    manifest: Manifest | None = None
    planned: tuple[Asset, ...] = ()
    skipped: bool = False


Emit = Callable[[Result], Awaitable[None]]
"""Hands a result on; waits where its reader is slow."""


def refused(raw: str, error: BadParameter, url: str) -> Result:
    """The result for what cannot be a promptId: nothing was asked, and nothing is recorded."""
    failure = Failure(error=error.name, message=str(error))
    text = raw.encode("utf-8", "backslashreplace").decode()
    shown = text if len(text) <= 80 else text[:80] + "…"
    manifest = without_answer(shown, PromptState.UNKNOWN, url, failure)
    return Result(PromptId(shown), PromptState.UNKNOWN, ExitCode.INCOMPLETE, manifest)
