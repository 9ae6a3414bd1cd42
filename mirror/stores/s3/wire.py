"""The hot calls: PutObject and UploadPart, and what is read back, over the same HTTP stack as the downloads.

A body that is here whole, in memory or in a file, is sent again as long as the store is busy; what the store answers is
compared with what was sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial

from msgspec import Struct

from mirror.errors import ChecksumMismatch, Denied, MirrorError
from mirror.events import BytesSent, Observer
from mirror.h1.outgoing import Body
from mirror.http import Answer, Http, read_most
from mirror.limits import Level, Levels
from mirror.settings import Settings
from mirror.stores.finished import Content, Finished
from mirror.stores.s3.checksums import contradicts
from mirror.stores.s3.control import Control
from mirror.stores.s3.errors import PreconditionFailed, Refusal, Unreachable, WrongRegion, code_in, error_of, region_in
from mirror.stores.s3.signing import EMPTY

_LONGEST_ERROR = 64 << 10


class Put(Struct, frozen=True, kw_only=True):
    """A body on its way: its digest (hex), and the headers that go with it, those for checking among them."""

    operation: str
    key: str
    query: str = ""
    body: Content
    size: int
    sha256: str
    headers: Mapping[str, str]


class Wire:
    """Signed requests to one bucket."""

    def __init__(self, settings: Settings, control: Control, observer: Observer, cap: int) -> None:
        self._settings = settings
        self._control = control
        self._observer = observer
        self._http = Http(settings, observer, kind="s3", unavailable=Unreachable, refused=Denied)
        self._levels = Levels(settings.transfer.concurrency, cap)

    async def close(self) -> None:
        await self._http.close()

    @property
    def is_direct(self) -> bool:
        """Whether a body may be a file."""
        return self._http.is_direct(self._control.address.base)

    @property
    def _level(self) -> Level:
        return self._levels.of(self._control.address.base)

    async def put(self, what: Put) -> Mapping[str, str]:
        """Send a body; the answer's headers, which do not contradict what was sent.

        Raises:
            PreconditionFailed, NoSuchUpload: as the store says.
            ChecksumMismatch: the store has other bytes than were sent; for good where a file was damaged before.
            StoreError: it cannot take them.
        """
        return await self._control.patiently(self._where(what.key), partial(self._put, what))

    async def _put(self, what: Put) -> Mapping[str, str]:
        try:
            return await self._put_in_turn(what)
        except MirrorError as error:
            # Nobody has looked at a file's bytes. Stores say in many ways that a body is not the one that was signed.
            if isinstance(what.body, Finished) and not isinstance(error, (Unreachable, PreconditionFailed)):
                await what.body.check()
            raise

    async def _put_in_turn(self, what: Put) -> Mapping[str, str]:
        level = self._level
        async with level.slot():
            try:
                answer = await self._put_once(what)
            except Unreachable:
                level.overloaded()
                raise
            level.moved(what.size)
            level.finished()
        wrong = contradicts(what.headers, answer)
        if wrong:
            raise ChecksumMismatch(f"{self._where(what.key)}: the store's {wrong} is not that of what was sent")
        return answer

    async def _put_once(self, what: Put) -> Mapping[str, str]:
        identity = await self._control.fresh_identity()
        url = self._control.address.url(what.key) + (f"?{what.query}" if what.query else "")
        signed = identity.headers("PUT", url, self._paying(what.headers), self._control.region, what.sha256)
        signed["Content-Length"] = str(what.size)
        gone = 0

        def sent(upto: int) -> None:
            nonlocal gone
            if upto > gone:
                self._observer(BytesSent(bytes=upto - gone))
            gone = upto

        async with self._http.put(url, signed, Body(what.body, what.size, sent)) as response:
            if response.status != 200:
                told = await read_most(response, _LONGEST_ERROR)
                raise self._refusal(what.operation, what.key, response, told)
            if gone < what.size:
                raise Unreachable(f"{self._where(what.key)}: the store says it has what was not sent yet")
            if "ETag" not in response.headers:
                raise Unreachable(f"{self._where(what.key)}: an answer without an ETag: is that a store?")
            return response.headers

    @contextlib.asynccontextmanager
    async def get(self, key: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Answer]:
        """An object's answer (200 or 206), its body not yet read. Not tried again: the caller knows how far it got.

        Raises:
            NoSuchKey, PreconditionFailed: as the store says.
            StoreError: it cannot be read.
        """
        identity = await self._control.fresh_identity()
        url = self._control.address.url(key)
        signed = identity.headers("GET", url, self._paying(headers or {}), self._control.region, EMPTY)
        async with self._http.get(url, signed, follow=False) as answer:
            if answer.status not in (200, 206):
                raise self._refusal("GetObject", key, answer, await read_most(answer, _LONGEST_ERROR))
            yield answer

    def _paying(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return {**headers, "x-amz-request-payer": "requester"} if self._settings.s3.request_payer else headers

    def _refusal(self, operation: str, key: str, response: Answer, body: bytes) -> Exception:
        refusal = Refusal(
            operation=operation,
            code=code_in(body),
            status=response.status,
            where=self._where(key),
            headers=dict(response.headers),
        )
        error = error_of(refusal, self._settings.s3)
        if isinstance(error, WrongRegion) and error.region is None:
            error.region = region_in(body)
        return error

    def _where(self, key: str) -> str:
        return f"s3://{self._control.bucket}/{key}"
