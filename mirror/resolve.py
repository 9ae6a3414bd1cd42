"""A prompt's whole family: the answer, with done children that name no files asked for by their own promptId."""

from __future__ import annotations

import asyncio
from collections.abc import Container

import msgspec

from mirror.api import Api
from mirror.errors import ApiError, BadAnswer, Severity
from mirror.models import Answer, Failure, PromptId, Task, TaskState

_GENERATIONS = 8
"""How deep children of children are asked for."""

_MOST = 20_000
"""How many of a family are asked for: each answer may name as many more."""

_AT_ONCE = 64


class Resolver:
    """Asks about one root prompt, as often as it is polled.

    No child's id is asked for twice in one asking, and one that has ended never again, whatever the answers claim.
    """

    def __init__(self, api: Api, prompt_id: PromptId) -> None:
        self._api = api
        self._prompt_id = prompt_id
        self._ended: dict[PromptId, Task] = {}
        self.failures: list[Failure] = []

    async def ask(self) -> Answer:
        """The answer, its task completed by what the children's own answers say.

        Raises:
            ApiError: about the root prompt; what goes wrong with a child is in ``failures``.
        """
        answer = await self._api.task_info(self._prompt_id)
        self.failures = []
        children = dict(self._ended)
        visited = {self._prompt_id, *children}
        task = _completed(answer.task, children)
        for _ in range(_GENERATIONS):
            bare = _bare_children(task, visited)[: _MOST - len(visited)]
            if not bare:
                break
            visited.update(bare)
            children.update(await self._ask_children(bare))
            task = _completed(answer.task, children)
        if left := len(_bare_children(task, visited)):
            told = f"{left} children were not asked about: more than {_GENERATIONS} generations, or {_MOST} in all"
            self.failures.append(Failure(error=BadAnswer.__name__, message=told))
        self._ended = {prompt_id: child for prompt_id, child in children.items() if child.state.ended}
        return msgspec.structs.replace(answer, task=task)

    async def _ask_children(self, prompt_ids: list[PromptId]) -> dict[PromptId, Task]:
        found: dict[PromptId, Task] = {}
        for start in range(0, len(prompt_ids), _AT_ONCE):
            batch = prompt_ids[start : start + _AT_ONCE]
            tasks = await asyncio.gather(*(self._ask_child(prompt_id) for prompt_id in batch))
            found |= {prompt_id: task for prompt_id, task in zip(batch, tasks, strict=True) if task is not None}
        return found

    async def _ask_child(self, prompt_id: PromptId) -> Task | None:
        try:
            return (await self._api.task_info(prompt_id)).task
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            # A child that cannot be read keeps its prompt from completeness.
            self.failures.append(Failure(error=error.name, message=f"child {prompt_id}: {error}"))
            return None


def _names_files(task: Task) -> bool:
    return any(image.path or image.origin for image in task.images)


def _bare_children(task: Task, visited: Container[PromptId]) -> list[PromptId]:
    """The ids of done children that name no files, each once, without those that were asked for."""
    bare = (
        member.prompt_id
        for member in task.family()[1:]
        if member.state is TaskState.DONE and member.prompt_id and not _names_files(member)
    )
    return [prompt_id for prompt_id in dict.fromkeys(bare) if prompt_id not in visited]


def _completed(task: Task, children: dict[PromptId, Task]) -> Task:
    """The task with each child's own answer in the place where its id stands first. Nothing is left out."""
    unused = dict(children)

    def complete(task: Task, *, root: bool = False) -> Task:
        own = None if root or _names_files(task) else unused.pop(task.prompt_id, None)
        if own is not None:
            task = msgspec.structs.replace(
                own,
                task_id=task.task_id if task.task_id is not None else own.task_id,
                thumbnail=task.thumbnail or own.thumbnail,
                children=(*task.children, *own.children),
                flaws=(*task.flaws, *own.flaws),
            )
        if not task.children:
            return task
        return msgspec.structs.replace(task, children=tuple(complete(child) for child in task.children))

    return complete(task, root=True)
