"""A prompt's whole family: the answer, with done children that carry no pictures asked for by their own promptId."""

from __future__ import annotations

import asyncio

import msgspec

from mirror.api import Api
from mirror.errors import ApiError, Severity
from mirror.models import Answer, Failure, PromptId, Task, TaskState

_GENERATIONS = 8
"""How deep children of children are asked for."""

_AT_ONCE = 64


class Resolver:
    """Asks about one root prompt. No child's id is asked for twice, whatever the answers claim."""

    def __init__(self, api: Api, prompt_id: PromptId) -> None:
        self._api = api
        self._prompt_id = prompt_id
        self._children: dict[PromptId, Task] = {}
        self._visited = {prompt_id}
        self.failures: list[Failure] = []

    async def ask(self) -> Answer:
        """The answer, its task completed by what the children's own answers say.

        Raises:
            ApiError: about the root prompt; what goes wrong with a child is in ``failures``.
        """
        answer = await self._api.task_info(self._prompt_id)
        self.failures = []
        for _ in range(_GENERATIONS):
            task = self._completed(answer.task)
            unknown = self._bare_children(task)
            if not unknown:
                break
            for start in range(0, len(unknown), _AT_ONCE):
                await self._ask_children(unknown[start : start + _AT_ONCE])
        return msgspec.structs.replace(answer, task=self._completed(answer.task))

    def _bare_children(self, task: Task) -> list[PromptId]:
        found = dict.fromkeys(
            member.prompt_id
            for member in task.family()[1:]
            if member.state is TaskState.DONE and not member.images and member.prompt_id
        )
        return [prompt_id for prompt_id in found if prompt_id not in self._visited]

    async def _ask_children(self, prompt_ids: list[PromptId]) -> None:
        self._visited.update(prompt_ids)
        answers = await asyncio.gather(*(self._ask_child(prompt_id) for prompt_id in prompt_ids))
        self._children.update({answer.task.prompt_id: answer.task for answer in answers if answer is not None})

    async def _ask_child(self, prompt_id: PromptId) -> Answer | None:
        try:
            return await self._api.task_info(prompt_id)
        except ApiError as error:
            if error.severity is Severity.FATAL:
                raise
            # It may be asked again in a later poll: a child that cannot be read keeps its prompt from completeness.
            self._visited.discard(prompt_id)
            self.failures.append(Failure(error=error.name, message=f"child {prompt_id}: {error}"))
            return None

    def _completed(self, task: Task, above: frozenset[PromptId] = frozenset()) -> Task:
        own = self._children.get(task.prompt_id) if task.prompt_id not in above else None
        if own is not None and not task.images:
            task = msgspec.structs.replace(
                own,
                task_id=task.task_id if task.task_id is not None else own.task_id,
                thumbnail=task.thumbnail or own.thumbnail,
                flaws=(*task.flaws, *own.flaws),
            )
        if not task.children:
            return task
        path = above | {task.prompt_id}
        return msgspec.structs.replace(
            task,
            children=tuple(self._completed(child, path) for child in task.children if child.prompt_id not in path),
        )
