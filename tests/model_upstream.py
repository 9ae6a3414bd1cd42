"""What the service says and serves in the stateful model, and how it changes its mind."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests import faults, media
from tests.faults import Fault
from tests.helpers import sha256
from tests.origin import Origin, Reply, answer, task

QUEUED, RUNNING, DONE, FAILED = 10, 20, 30, 2
DENIALS = (800, 900)
DOWN = 503

PROMPTS = ("p", "q", "r")
NAMES = ("a.png", "b.png", "sub/a.png", "A.PNG", "c.mp4")
"""Of the files of one prompt: three of them get a name that another one has, the last one is large."""
SHARED = ("/shared/a.png", "/shared/s.png")
LARGE = (1 << 20) + 70_000


def paths_of(prompt_id: str) -> tuple[str, ...]:
    """The URL paths that a prompt may name."""
    return (*(f"/{prompt_id}/{name}" for name in NAMES), *SHARED)


@cache
def _body(path: str, version: int) -> bytes:
    seed = sum(path.encode()) * 10 + version
    return media.mp4(LARGE + version, seed) if path.endswith(".mp4") else media.png(seed=seed)


@cache
def _digest(path: str, version: int) -> str:
    return sha256(_body(path, version))


@dataclass
class Member:
    """A task of a family. ``images`` are pairs of thumbnail and original."""

    state: int = DONE
    images: list[tuple[str | None, str | None]] = field(default_factory=list)


class Upstream:
    """The truth about the service. Each change is put onto the origin at once."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.families: dict[str, list[Member]] = {}
        self.refusals: dict[str, int] = {}
        self.versions: dict[str, int] = {}
        self.gone: set[str] = set()
        self.signatures: dict[str, int] = {}
        self.ever: dict[str, bytes] = {}
        """All that was ever served, by digest."""

    def body(self, path: str) -> bytes:
        """What stands at a path, unless it is gone."""
        return _body(path, self.versions.get(path, 0))

    def serves(self, url: str) -> str | None:
        """The digest of what stands at an identity now."""
        path = url.removeprefix(self.origin.url)
        return None if path in self.gone else _digest(path, self.versions.get(path, 0))

    def was_served(self, content: bytes) -> bool:
        return sha256(content) in self.ever

    def was_promised(self, digest: str | None) -> bool:
        return digest in self.ever

    def wanted(self, prompt_id: str) -> dict[str, str]:
        """What the done tasks name: identity → role. What is named as both is an original."""
        found: dict[str, str] = {}
        for member in self.families[prompt_id]:
            for thumbnail, original in member.images if member.state == DONE else ():
                if thumbnail is not None:
                    found.setdefault(self.origin.url + thumbnail, "thumbnail")
                if original is not None:
                    found[self.origin.url + original] = "origin"
        return found

    def states(self, prompt_id: str) -> set[int]:
        return {member.state for member in self.families[prompt_id]}

    # Onto the origin ---------------------------------------------------------------------------

    def publish(self, broken: dict[str, Fault] | None = None) -> None:
        """Serve all of this; what is ``broken`` is served with that fault."""
        for path in {path for prompt_id in self.families for path in paths_of(prompt_id)}:
            fault = faults.status(404, times=faults.FOREVER) if path in self.gone else (broken or {}).get(path)
            self.origin.add(path, self.body(path), fault=fault)
            if path not in self.gone:
                self.ever[_digest(path, self.versions.get(path, 0))] = self.body(path)
        for prompt_id in self.families:
            self.origin.prompt(prompt_id, self._answer(prompt_id))

    def _answer(self, prompt_id: str) -> dict[str, Any] | Reply:
        refusal = self.refusals.get(prompt_id)
        if refusal == DOWN:
            return Reply(DOWN)
        if refusal is not None:
            return answer(None, refusal, "no")
        root, *children = self.families[prompt_id]
        told = [
            task(f"{prompt_id}-child{number}", child.state, self._signed(child))
            for number, child in enumerate(children, 1)
        ]
        return answer(task(prompt_id, root.state, self._signed(root), children=told))

    def _signed(self, member: Member) -> list[tuple[str | None, str | None]]:
        return [(self._url(thumbnail), self._url(original)) for thumbnail, original in member.images]

    def _url(self, path: str | None) -> str | None:
        if path is None:
            return None
        number = self.signatures.get(path)
        return self.origin.url + path + (f"?Signature=s{number}&Expires={number}" if number else "")
