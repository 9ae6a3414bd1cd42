"""From a task to the distinct files it names: pure.

A file is planned once, however often it is named; the plan says everywhere it was named. Names are stable: one that
was published before stays, and what comes later gives way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from mirror import names
from mirror.answers import MOST_FLAWS
from mirror.errors import Refused
from mirror.models import Asset, Failure, NamedBy, Role, Task, TaskState
from mirror.urls import check_url, identity, shown


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be had, and what of the answer can never be."""

    assets: tuple[Asset, ...]
    failures: tuple[Failure, ...]


def plan(task: Task, published: Mapping[str, str] | None = None) -> Plan:
    """The files that the done tasks of a family name.

    ``published`` maps the identities of files that have a name already to that name.
    """
    found: dict[str, _Found] = {}
    refused: dict[str, Failure] = {}
    flaws: list[str] = []
    for member in task.family():
        flaws += [f"{_label(member)}: {flaw}" for flaw in member.flaws]
        if member.state is not TaskState.DONE:
            continue
        for url, role, named_by in _mentions(member):
            which = identity(url)
            known = found.get(which)
            if known is None:
                try:
                    check_url(url)
                except Refused as error:
                    refused[which] = Failure(error=error.name, message=str(error), url=which, role=role)
                    continue
                found[which] = _Found(url, role, [named_by])
            else:
                known.named_by.append(named_by)
                known.role = max(known.role, role, key=_RANK.index)
    # A bad URL is no loss where a good one names the same file.
    failures = [failure for which, failure in refused.items() if which not in found]
    if len(flaws) > MOST_FLAWS:
        flaws = [*flaws[:MOST_FLAWS], f"{len(flaws) - MOST_FLAWS} more of this kind"]
    failures = [*(Failure(error="BadAnswer", message=flaw) for flaw in flaws), *failures]
    return Plan(assets=tuple(_named(found, published or {})), failures=tuple(failures))


_RANK = (Role.THUMBNAIL, Role.ORIGIN)
"""A file that is named as both is an original."""


class _Found:
    def __init__(self, url: str, role: Role, named_by: list[NamedBy]) -> None:
        self.url = url
        self.role = role
        self.named_by = named_by


def _mentions(task: Task) -> Iterator[tuple[str, Role, NamedBy]]:
    if task.thumbnail:
        yield task.thumbnail, Role.THUMBNAIL, _place(task, None, "thumbFileUrl", task.task_id)
    for image in task.images:
        task_id = image.task_id if image.task_id is not None else task.task_id
        if image.path:
            yield image.path, Role.THUMBNAIL, _place(task, image.id, "path", task_id)
        if image.origin:
            yield image.origin, Role.ORIGIN, _place(task, image.id, "origin", task_id)


def _place(task: Task, image_id: int | None, field: str, task_id: int | None) -> NamedBy:
    return NamedBy(prompt_id=task.prompt_id, task_id=task_id, image_id=image_id, field=field)


def _named(found: Mapping[str, _Found], published: Mapping[str, str]) -> Iterator[Asset]:
    taken = {names.key(name) for name in published.values()}
    for which, item in found.items():
        name = published.get(which)
        if name is None:
            name = names.from_url(item.url)
            key = names.key(name)
            if key in taken or names.is_reserved(name):
                name = next(free for free in names.candidates(name, which) if names.key(free) not in taken)
                key = names.key(name)
            taken.add(key)
        yield Asset(identity=which, url=item.url, role=item.role, name=name, named_by=tuple(item.named_by))


def _label(task: Task) -> str:
    return shown(f"task {task.prompt_id or task.task_id or 'without an id'}")
