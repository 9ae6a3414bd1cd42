"""What must come of a command, from what the service says and what the archive held before: the contract as functions.

Where a run may or may not have got a file (its transfer was broken on purpose, or half of it was here already), what
stands afterwards decides, and the rest is held to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mirror import ManifestFile
from tests.model_archive import MANIFEST, Row, Seen, Thing
from tests.model_upstream import DENIALS, DONE, FAILED, Upstream

OK, INCOMPLETE, STOPPED, PENDING = 0, 3, 4, 5

Flaw = tuple[str, str, str]
"""A promptId, where, and what is wrong."""


@dataclass(frozen=True)
class Order:
    """A fetch. ``broken`` are the identities of files whose transfer goes wrong once."""

    refresh: bool = False
    only: str | None = None
    as_json: bool = False
    broken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Expected:
    """Of one prompt after a fetch. ``named`` is what the manifest names; None: the manifest stays as it was.

    ``runs_again``: it is complete, and the service has not ended it, so the next fetch asks again.
    """

    state: str
    code: int
    asks: bool = True
    runs_again: bool = False
    named: frozenset[str] | None = None


def worst(codes: list[int]) -> int:
    """The exit code of several prompts together."""
    return next((code for code in (INCOMPLETE, PENDING) if code in codes), OK)


def fetched(prompt_id: str, upstream: Upstream, before: Seen, after: Seen, order: Order) -> Expected:
    """What a fetch makes of a prompt."""
    row = before.row(prompt_id)
    if row is not None and _is_skipped(prompt_id, row, before, order):
        return Expected(row.state, OK, asks=False)
    known = row.entries if row is not None else {}
    failed = row.failed if row is not None else frozenset()
    there = {which for which, file in known.items() if which not in failed and before.has(prompt_id, file)}
    prior = before.manifests.get(prompt_id)
    refusal = upstream.refusals.get(prompt_id)
    if refusal is not None:
        denied = refusal in DENIALS
        if prior is None:
            return Expected("unknown" if denied else "unresolved", INCOMPLETE)
        fine = denied and prior.state == "complete" and there == known.keys()
        return Expected(str(prior.state), OK if fine else INCOMPLETE)

    wanted = upstream.wanted(prompt_id)
    tried = {which for which, role in wanted.items() if which not in there and order.only in (None, role)}
    unsure = order.broken | before.journaled
    got = {which for which in tried - unsure if can_be_had(prompt_id, which, upstream, before)}
    now = after.promised(prompt_id)
    got |= {which for which in tried & unsure if which in now and after.has_whole(prompt_id, now[which])}
    there |= got
    lost, missing = known.keys() - there, wanted.keys() - there
    states = upstream.states(prompt_id)
    if not states <= {DONE, FAILED}:
        state = "pending"
    elif missing or lost:
        state = "partial"
    else:
        state = "failed" if states == {FAILED} else "complete"
    if prior is not None and prior.state == "complete" and not lost and not missing and state != "complete":
        same = {file.url for file in prior.files} == there and prompt_id not in before.liars
        runs_again = state == "pending"
        return Expected("complete", OK, runs_again=runs_again, named=None if same else frozenset(there))
    if before.things.get(f"{prompt_id}/{MANIFEST}") == Thing():  # a folder stands there: it cannot be written
        return Expected("unresolved", INCOMPLETE)
    return Expected(
        state, _code(state, failed=bool(tried - got or lost), left_out=bool(missing)), named=frozenset(there)
    )


def _code(state: str, *, failed: bool, left_out: bool) -> int:
    if state == "complete":
        return OK
    if failed or state == "failed":
        return INCOMPLETE
    return PENDING if state == "pending" else OK if left_out else INCOMPLETE


def _is_skipped(prompt_id: str, row: Row, before: Seen, order: Order) -> bool:
    """Whether nothing is left to do: then nobody is asked."""
    states = ("complete",) if order.only is None else ("complete", "partial")
    stored = row.entries.keys() - row.failed
    return (
        not order.refresh
        and not row.unfinished
        and row.state in states
        and all(which in stored for which, role in row.listed.items() if order.only in (None, role))
        and all(before.has(prompt_id, row.entries[which]) for which in stored)
        and (prompt_id in before.manifests if order.as_json else before.stands(f"{prompt_id}/{MANIFEST}"))
    )


def can_be_had(prompt_id: str, which: str, upstream: Upstream, before: Seen) -> bool:
    """Whether a file's origin serves it, with the bytes that were mirrored once, and nothing stands in its way."""
    row = before.row(prompt_id)
    known = row.entries.get(which) if row is not None else None
    now = upstream.serves(which)
    if known is None:
        return now is not None
    return now == known.sha256 and before.at(prompt_id, known) != Thing()


# verify --------------------------------------------------------------------------------------------


def flaws(seen: Seen) -> set[Flaw]:
    """All that ``mirror verify`` must tell, and nothing else."""
    rows = seen.rows or {}
    found = {flaw for prompt_id, row in rows.items() for flaw in _flaws_of(prompt_id, row, seen)}
    folders = {path for path, thing in seen.things.items() if "/" not in path and thing == Thing()}
    return found | {("", f"{folder}/", "unexpected") for folder in folders - rows.keys()}


def _flaws_of(prompt_id: str, row: Row, seen: Seen) -> Iterator[Flaw]:
    if row.state in ("unknown", "unresolved") and not row.entries:
        return
    manifest = seen.manifests.get(prompt_id)
    named = {file.url: file for file in manifest.files} if manifest is not None else {}
    lost = row.failed | ({error.was.url for error in manifest.errors if error.was} if manifest is not None else set())
    for which, file in (named | row.entries).items():
        flaw = flaw_of(seen.at(prompt_id, file), file)
        if flaw is None and which in lost and which not in named:
            flaw = "missing"  # it is there again, and the manifest does not name it
        if flaw is not None:
            yield prompt_id, f"{prompt_id}/{file.path}", flaw
    where = f"{prompt_id}/{MANIFEST}"
    if not seen.stands(where):
        yield prompt_id, where, "missing"
    elif manifest is None or prompt_id in seen.liars:
        yield prompt_id, where, "damaged"
    ours = {where, *(f"{prompt_id}/{file.path}" for file in (*named.values(), *row.entries.values()))}
    for path in seen.things.keys() - ours:
        if path.startswith(f"{prompt_id}/") and path.count("/") == 1:
            yield prompt_id, path, "unexpected"


def flaw_of(thing: Thing | None, file: ManifestFile) -> str | None:
    """What is wrong with what stands under a file's name."""
    if thing is None:
        return "missing"
    if thing.target is not None:
        return "unreadable"
    return None if thing.holds(file) else "damaged"


def is_repaired(flaw: Flaw, upstream: Upstream, before: Seen) -> bool | None:
    """Whether ``verify --repair`` puts this right; None where both may be."""
    prompt_id, where, _ = flaw
    answered = prompt_id not in upstream.refusals
    name = where.partition("/")[2]
    if name == MANIFEST:
        if prompt_id in before.liars and not answered:
            return None  # the catalog may know enough
        return answered and before.things.get(where) != Thing()
    row = (before.rows or {})[prompt_id]
    manifest = before.manifests.get(prompt_id)
    files = ({file.url: file for file in manifest.files} if manifest is not None else {}) | row.entries
    which, file = next((which, file) for which, file in files.items() if file.path == name)
    if before.has_whole(prompt_id, file) or which in before.journaled:
        return None
    return answered and which in upstream.wanted(prompt_id) and can_be_had(prompt_id, which, upstream, before)
