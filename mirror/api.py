"""Asks the service: about a prompt (GET task_path?promptId=…, the getTaskInfo page), and for the history of all
prompts (POST history_path, the newImageHistory page).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from mirror.answers import Envelope, read_answer, read_envelope, read_history
from mirror.errors import ApiUnavailable, BadAnswer, BadParameter, NoData, Unauthorized
from mirror.events import Observer
from mirror.http import Http, is_passing
from mirror.limits import Level, Rate
from mirror.models import MAX_PROMPT_ID, Answer, ApiCode, HistoryPage, PromptId
from mirror.retry import Patience, parse_retry_after
from mirror.settings import Settings
from mirror.urls import REDACTED, redact

_TELLING = 8
"""Characters that a token has at least, so that where they stand in an answer they are it."""

_LARGE = 1 << 20
"""Bytes: answers over this are read one at a time, so that many large ones do not add up in memory."""


class _Question(Struct, frozen=True, kw_only=True):
    """A request; ``about`` is how messages call its subject."""

    url: str
    about: str
    post: bool = False
    content_type: str = ""
    body: bytes = b""


class Api:
    """The service. One instance for a run; it paces and bounds its own requests."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings.api
        self._attempts = settings.transfer.attempts
        self._observer = observer
        self._http = Http(settings, observer, kind="api", unavailable=ApiUnavailable, refused=BadAnswer)
        self.rate = Rate(settings.api.requests_per_second)
        self._level = Level(8, 64)
        self._large = asyncio.Lock()
        self.has_answered = False
        """The token is good: a 403 concerns one prompt only. Who knows that from elsewhere says so."""
        base = settings.api.base_url.rstrip("/") + "/"
        self.url = base + settings.api.task_path.lstrip("/")
        self.history_url = base + settings.api.history_path.lstrip("/")

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
        question = _Question(url=f"{self.url}?promptId={quote(prompt_id, safe='')}", about=repr(prompt_id))

        async def ask() -> Answer:
            return read_answer(await self._ask(question), prompt_id, self.url)

        return await Patience(self._attempts, prompt_id, self._observer, prompt_id=prompt_id).run(ask)

    async def history(self, page: int) -> HistoryPage:
        """One page of the history, newest first as far as the service keeps its word; empty past the end.

        Raises:
            BadAnswer: the page is refused, or cannot be read.
            ApiUnavailable, Unauthorized: as :meth:`task_info`.
        """
        question = self._question(page)
        patience = Patience(self._attempts, self.history_url, self._observer)
        try:
            return read_history(await patience.run(partial(self._ask, question)))
        except NoData:
            return HistoryPage()
        except BadParameter as error:
            hint = "check api.history_body, api.history_page_size and api.history_first_page"
            raise BadAnswer(f"the API refuses {question.about} ({error}): {hint}") from None

    def _question(self, page: int) -> _Question:
        asked = {"page": page, "pageSize": self._settings.history_page_size}
        about = f"page {page} of the history"
        match self._settings.history_body:
            case "json":
                kind, body = "application/json", msgspec.json.encode(asked)
            case "form":
                kind, body = "application/x-www-form-urlencoded", urlencode(asked).encode()
            case "query":
                return _Question(url=f"{self.history_url}?{urlencode(asked)}", about=about, post=True)
        return _Question(url=self.history_url, about=about, post=True, content_type=kind, body=body)

    async def _ask(self, question: _Question) -> Envelope:
        await self.rate.take()
        async with self._level.slot():
            try:
                envelope = await self._send(question)
                self._raise_for_code(envelope, question.about)
            except ApiUnavailable:
                self._level.overloaded()
                raise
        self._level.finished()
        self.has_answered = True
        return envelope

    async def _send(self, question: _Question) -> Envelope:
        scheme = self._settings.auth_scheme
        token = self._settings.token
        headers = {"Authorization": f"{scheme} {token}" if scheme else token, "Accept": "application/json"}
        seconds = self._settings.timeout or None
        try:
            async with asyncio.timeout(seconds):
                return await (self._post if question.post else self._get)(question, headers)
        except TimeoutError:
            raise ApiUnavailable(f"the API did not answer within {seconds:g} s") from None

    async def _get(self, question: _Question, headers: Mapping[str, str]) -> Envelope:
        async with self._http.get(question.url, headers, same_origin=True) as answer:
            self._raise_for_status(answer.status, answer.headers.get("Retry-After"), question)
            return await self._read(answer.read, lenient=False)

    async def _post(self, question: _Question, headers: Mapping[str, str]) -> Envelope:
        headers = {**headers, "Content-Length": str(len(question.body))}
        if question.content_type:
            headers["Content-Type"] = question.content_type
        async with self._http.send("POST", question.url, headers, _once(question.body)) as response:
            self._raise_for_status(response.status, response.headers.get("Retry-After"), question)
            return await self._read(response.content.readany, lenient=True)

    async def _read(self, read: Callable[[], Awaitable[bytes | memoryview]], *, lenient: bool) -> Envelope:
        body = bytearray()
        async with contextlib.AsyncExitStack() as gate:
            while block := await read():
                if len(body) <= _LARGE < len(body) + len(block):
                    await gate.enter_async_context(self._large)
                body += block
                if len(body) > self._settings.max_answer:
                    raise BadAnswer(f"the answer is larger than api.max_answer ({self._settings.max_answer} bytes)")
            return read_envelope(self._without_token(bytes(body)), lenient=lenient)

    def _without_token(self, body: bytes) -> bytes:
        """An answer that repeats the token: it must get neither into a file's name nor to a media host."""
        token = self._settings.token.encode()
        return body.replace(token, REDACTED.encode()) if len(token) >= _TELLING else body

    def _raise_for_status(self, status: int, retry_after: str | None, question: _Question) -> None:
        if status == 401 or (status == 403 and not self.has_answered):
            raise Unauthorized(f"the API rejects the token (HTTP {status}): check api.token or api.token_file")
        if is_passing(status):
            raise ApiUnavailable(f"the API answered HTTP {status}", retry_after=parse_retry_after(retry_after))
        if status == 404:
            where, key = (self.history_url, "history_path") if question.post else (self.url, "task_path")
            raise BadAnswer(f"the API answered HTTP 404 at {where}: check api.base_url and api.{key}")
        if status != 200:
            raise BadAnswer(f"the API answered HTTP {status}")

    def _raise_for_code(self, envelope: Envelope, about: str) -> None:
        code = envelope.code
        msg = redact(envelope.msg, (self._settings.token,))[:500]
        if code == ApiCode.SUCCESS:
            return
        if code == ApiCode.UNAUTHORIZED or (code == ApiCode.FORBIDDEN and not self.has_answered):
            raise Unauthorized(f"the API rejects the token (code {code}, {msg!r}): check api.token or api.token_file")
        if code == ApiCode.FAULT:
            raise ApiUnavailable(f"the API has a fault (code 510, {msg!r})")
        if code == ApiCode.BAD_PARAMETER:
            raise BadParameter(f"the API takes {about} for no promptId (code 800, {msg!r})")
        if code == ApiCode.NO_DATA:
            raise NoData(f"the API knows no prompt {about} (code 900, {msg!r})")
        raise BadAnswer(f"the API answered code {code} ({msg!r})")


async def _once(body: bytes) -> AsyncIterator[memoryview]:
    if body:
        yield memoryview(body)


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
