"""What a visit would do, without doing it: for ``--dry-run``. The API is asked; nothing is written."""

from __future__ import annotations

from mirror.errors import ApiError, BadParameter, ExitCode, NoData, Severity
from mirror.events import FilePlanned, PromptFinished, PromptStarted
from mirror.manifests.document import compose, ordered, state_of, without_answer
from mirror.models import Failure, PromptId, PromptState
from mirror.plan import plan
from mirror.resolve import Resolver
from mirror.run import Result, Run


async def preview(run: Run, prompt_id: PromptId) -> Result:
    """Ask about a prompt and say which of its files would be fetched.

    Raises:
        MirrorError: a fatal one.
    """
    run.observer(PromptStarted(prompt_id=prompt_id))
    record = await run.ledger.claim(prompt_id, run.run_id)
    resolver = Resolver(run.api, prompt_id)
    try:
        answer = await resolver.ask()
    except ApiError as error:
        if error.severity is Severity.FATAL:
            raise
        state = PromptState.UNKNOWN if isinstance(error, NoData | BadParameter) else PromptState.UNRESOLVED
        failure = Failure(error=error.name, message=str(error))
        result = Result(prompt_id, state, ExitCode.INCOMPLETE, without_answer(prompt_id, state, run.api.url, failure))
        _tell(run, result, (failure,), 0)
        return result
    stored = record.stored()
    places = run.places
    [where] = await places.look([record.wanted()])
    entries = {which: file for which, file in stored.items() if places.complete(where, file.path)}
    planned = plan(answer.task, {which: file.path for which, file in stored.items()})
    only = run.options.only
    missing = [asset for asset in planned.assets if asset.identity not in entries]
    wanted = tuple(asset for asset in missing if only is None or asset.role == only)
    for asset in wanted:
        run.observer(FilePlanned(prompt_id=prompt_id, url=asset.identity, role=asset.role))
    errors = (*planned.failures, *resolver.failures)
    state = state_of(answer.task, missing=bool(missing or errors))
    manifest = compose(prompt_id, state, answer, ordered(planned.assets, entries), errors, run.secrets)
    code = ExitCode.INCOMPLETE if errors or state is PromptState.FAILED else ExitCode.OK
    if state is PromptState.PENDING and not errors:
        code = ExitCode.PENDING
    result = Result(prompt_id, state, code, manifest, wanted)
    _tell(run, result, errors, sum(file.bytes for file in entries.values()))
    return result


def _tell(run: Run, result: Result, errors: tuple[Failure, ...], reused: int) -> None:
    assert result.manifest is not None
    run.observer(
        PromptFinished(
            prompt_id=result.prompt_id,
            state=result.state,
            ok=result.code is ExitCode.OK,
            files=len(result.manifest.files),
            bytes_reused=reused,
            errors=errors,
        )
    )
