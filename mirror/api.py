"""Asks the service about a prompt: GET task_path?promptId=… with the token (the getTaskInfo page)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from mirror.answers import Envelope, read_answer, read_envelope
from mirror.errors import ApiUnavailable, BadAnswer, BadParameter, NoData, Unauthorized
from mirror.events import Observer
from mirror.http import Http, is_passing
from mirror.limits import Level, Rate
from mirror.models import MAX_PROMPT_ID, Answer, ApiCode, PromptId
from mirror.retry import Patience, parse_retry_after
from mirror.settings import Settings
from mirror.urls import redact

if TYPE_CHECKING:
    import aiohttp

_LARGE = 1 << 20
"""Bytes: answers over this are read one at a time, so that many large ones do not add up in memory."""


class Api:
    """The service. One instance for a run; it paces and bounds its own requests."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings.api
        self._attempts = settings.transfer.attempts
        self._observer = observer
        self._http = Http(settings, observer, kind="api", unavailable=ApiUnavailable, refused=BadAnswer)
        self._rate = Rate(settings.api.requests_per_second)
        self._level = Level(8, 64)
        self._large = asyncio.Lock()
        self._answered = False
        self.url = settings.api.base_url.rstrip("/") + "/" + settings.api.task_path.lstrip("/")

    async def close(self) -> None:
        await self._http.close()

    async def task_info(self, prompt_id: PromptId) -> Answer:
        """What the service says of a prompt now; transient errors are tried again first.

        Raises:
            BadParameter: the promptId cannot be one (nothing was asked), or code 800.
            NoData: code 900.
            BadAnswer: an answer that cannot be read, or of an unlisted code.
            ApiUnavailable: no answer after all attempts.
            Unauthorized: the token is rejected (fatal; HTTP 403 only while nothing has succeeded yet).
        """
        check_prompt_id(prompt_id)
        patience = Patience(self._attempts, prompt_id, self._observer)
        return await patience.run(lambda: self._ask(prompt_id))

    async def _ask(self, prompt_id: PromptId) -> Answer:
        await self._rate.take()
        async with self._level.slot():
            try:
                envelope = await self._get(prompt_id)
                self._raise_for_code(envelope, prompt_id)
            except ApiUnavailable:
                self._level.overloaded()
                raise
        self._level.finished()
        self._answered = True
        return read_answer(envelope, prompt_id, self.url)

    async def _get(self, prompt_id: PromptId) -> Envelope:
        scheme = self._settings.auth_scheme
        token = self._settings.token
        headers = {"Authorization": f"{scheme} {token}" if scheme else token, "Accept": "application/json"}
        url = f"{self.url}?promptId={quote(prompt_id, safe='')}"
        seconds = self._settings.timeout or None
        try:
            async with asyncio.timeout(seconds), self._http.get(url, headers, same_origin=True) as response:
                self._raise_for_status(response.status, response.headers.get("Retry-After"))
                return await self._read(response.content)
        except TimeoutError:
            raise ApiUnavailable(f"the API did not answer within {seconds:g} s") from None

    async def _read(self, content: aiohttp.StreamReader) -> Envelope:
        body = bytearray()
        async with contextlib.AsyncExitStack() as gate:
            while block := await content.read(_LARGE):
                if len(body) <= _LARGE < len(body) + len(block):
                    await gate.enter_async_context(self._large)
                body += block
                if len(body) > self._settings.max_answer:
                    raise BadAnswer(f"the answer is larger than api.max_answer ({self._settings.max_answer} bytes)")
            return read_envelope(bytes(body))

    def _raise_for_status(self, status: int, retry_after: str | None) -> None:
        if status == 401 or (status == 403 and not self._answered):
            raise Unauthorized(f"the API rejects the token (HTTP {status}): check api.token or api.token_file")
        if is_passing(status):
            raise ApiUnavailable(f"the API answered HTTP {status}", retry_after=parse_retry_after(retry_after))
        if status == 404:
            raise BadAnswer(f"the API answered HTTP 404 at {self.url}: check api.base_url and api.task_path")
        if status != 200:
            raise BadAnswer(f"the API answered HTTP {status}")

    def _raise_for_code(self, envelope: Envelope, prompt_id: PromptId) -> None:
        code = envelope.code
        msg = redact(envelope.msg, (self._settings.token,))[:500]
        if code == ApiCode.SUCCESS:
            return
        if code == ApiCode.UNAUTHORIZED or (code == ApiCode.FORBIDDEN and not self._answered):
            raise Unauthorized(f"the API rejects the token (code {code}, {msg!r}): check api.token or api.token_file")
        if code == ApiCode.FAULT:
            raise ApiUnavailable(f"the API has a fault (code 510, {msg!r})")
        if code == ApiCode.BAD_PARAMETER:
            raise BadParameter(f"the API takes {prompt_id!r} for no promptId (code 800, {msg!r})")
        if code == ApiCode.NO_DATA:
            raise NoData(f"the API knows no prompt {prompt_id!r} (code 900, {msg!r})")
        raise BadAnswer(f"the API answered code {code} ({msg!r})")


def check_prompt_id(prompt_id: str) -> None:
    """Refuse, without asking, what cannot be a promptId.

    Raises:
        BadParameter: it is empty, too long, or has control characters.
    """
    if not prompt_id.strip():
        raise BadParameter("a promptId is empty")
    if len(prompt_id) > MAX_PROMPT_ID:
        raise BadParameter(f"a promptId of {len(prompt_id)} characters is too long (at most {MAX_PROMPT_ID})")
    if not prompt_id.isprintable():
        raise BadParameter(f"the promptId {prompt_id!r} has control characters")
