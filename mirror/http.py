"""The guarded session: every request of this package goes through here.

Guarantees: http and https only; redirects are followed hop by hop, each checked; a guarded session connects to
public addresses only, and the address that is checked is the address connected to; no cookies, no netrc, no
decompression; a proxy only where one is configured.

A GET, or a PUT of what is here whole, that goes to its host directly travels on a carrier of our own, ``mirror.h1``;
one through a proxy, and any other request, on aiohttp, ``mirror.session``. Neither's exceptions leave this module:
``mirror.wire_errors`` says what they mean. Where a request may go, and how, ``mirror.routes`` says once for an origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import urljoin

from mirror import __version__
from mirror.errors import MirrorError
from mirror.events import Answered, Observer, RequestSent
from mirror.guard import public_socket
from mirror.h1.body import BATCH
from mirror.h1.head import request
from mirror.h1.loan import Loan
from mirror.h1.outgoing import Body
from mirror.h1.pool import Patience, Pool
from mirror.limits import open_files_cap
from mirror.routes import URL, Route, Routes
from mirror.settings import Settings
from mirror.trust import Trust
from mirror.urls import is_fit, is_signed, origin, shown
from mirror.wire_errors import Translator

if TYPE_CHECKING:
    import aiohttp

    from mirror.session import Session

T = TypeVar("T")

MOST_BUFFERED = 2 * BATCH
"""Bytes of a body that may be held before it is read, unless its reader asks for larger pieces. Behind a proxy aiohttp
may for a moment hold 256 KiB more, what asyncio read last."""

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def is_passing(status: int) -> bool:
    """True for a status that says "not now" rather than "not this": worth trying again."""
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


class Answer(Protocol):
    """The answer to a GET. Header names are compared without case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_length(self) -> int | None:
        """The body's bytes, if they are told."""

    batch: int
    """Bytes of a piece, if the body has so many to come: a reader may ask for more before it reads on."""

    async def read(self) -> bytes | memoryview:
        """The next piece of the body, which then belongs to the caller; b"" at its end.

        Raises:
            mirror.h1.CutShort: it ended before its end. Whoever lets that and others pass gets them translated.
        """

    def lend(self, least: int, most: int) -> Loan | None:
        """Let a thread read up to ``most`` bytes; None where fewer than ``least`` are to come, or none can."""

    def close(self) -> None:
        """Nothing more of it is wanted. Idempotent."""


async def read_most(answer: Answer, most: int) -> bytes:
    """The body up to its end, or to a little more than ``most`` bytes."""
    body = bytearray()
    while len(body) <= most and (piece := await answer.read()):
        body += piece
    return bytes(body)


class Http:
    """A session for one purpose. ``unavailable`` and ``refused`` are the error classes of its caller's floor."""

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        *,
        kind: str,
        unavailable: type[MirrorError],
        refused: type[MirrorError],
    ) -> None:
        self._transfer = transfer = settings.transfer
        self._observer = observer
        self._kind = kind
        self._refused = refused
        self._translator = Translator(unavailable, refused, transfer)
        self._trust = Trust(transfer.ca_file)
        self._common = {
            "User-Agent": transfer.user_agent or f"mirror/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        self._routes = Routes(settings, self._common, kind=kind, refused=refused)
        self._known = self._routes.known
        self._guard = public_socket if self._routes.is_guarded else None
        patience = Patience(transfer.connect_timeout, transfer.stall_timeout)
        self._pool = Pool(patience, self._trust.context, self._guard, open_files_cap())
        self._direct: Session | None = None
        self._proxied: Session | None = None

    async def close(self) -> None:
        """Close all connections."""
        async with contextlib.AsyncExitStack() as closing:  # each, even where one is cancelled
            for session in (self._direct, self._proxied):
                if session is not None:
                    closing.push_async_callback(session.close)
            closing.push_async_callback(self._pool.close)

    def get(
        self, url: str, headers: Mapping[str, str], *, same_origin: bool = False, follow: bool = True
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """The answer to a GET, redirects followed unless ``follow`` says otherwise, its body not yet read.

        ``same_origin`` refuses a redirect to another origin: for requests that carry a credential.

        Raises:
            MirrorError: of this session's two classes, translated from whatever went wrong, also inside the block.
        """
        return _Asked(self, url, headers, _as_it_is, same_origin=same_origin, follow=follow)

    def get_as(
        self, url: str, headers: Mapping[str, str], judge: Callable[[Answer], T]
    ) -> contextlib.AbstractAsyncContextManager[T]:
        """As :meth:`get`: what ``judge`` makes of the answer, or the error that it raises."""
        return _Asked(self, url, headers, judge)

    def put(self, url: str, headers: Mapping[str, str], body: Body) -> contextlib.AbstractAsyncContextManager[Answer]:
        """The answer to a PUT of what is here whole, redirects not followed. ``headers`` tell the body's length.

        The other side may take its time as long as it takes something.

        Raises:
            MirrorError: as :meth:`get`.
        """
        return _Asked(self, url, headers, _as_it_is, body=body, follow=False)

    def is_direct(self, url: str) -> bool:
        """Whether a request goes to its host without a proxy: only then its body may be a file.

        Raises:
            MirrorError: it may not go there at all.
        """
        try:
            return self._route(url)[0].proxy is None
        except Exception as error:
            self.reraise(error, url)
            raise

    @contextlib.asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterable[memoryview] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to any request, redirects not followed. How long a body may take is the caller's to say.

        Raises:
            MirrorError: as :meth:`get`.
        """
        try:
            response = await self._send(url, headers, self._routes.find(url).proxy, method=method, body=body)
            try:
                yield response
            finally:
                response.close()
        except Exception as error:
            self.reraise(error, url)
            raise

    def reraise(self, error: Exception, url: str) -> None:
        """Raise what an error means to the caller, if it is one of a request's."""
        for session in (self._direct, self._proxied):
            if session is not None:
                error = session.wire_error(error) or error
        self._translator.reraise(error, url)

    # One GET -----------------------------------------------------------------------------------

    async def follow(self, answer: Answer, url: str, headers: Mapping[str, str], *, same_origin: bool) -> Answer:
        """From a redirect to the answer that no redirect leads away from. Raises what :meth:`reraise` translates."""
        same_origin = same_origin or self._kind == "s3"  # a store's redirect leads nowhere else
        start, seen = url, {url}
        while answer.status in _REDIRECTS and (location := answer.headers.get("Location")):
            answer.close()
            url = self._joined(url, location)
            if same_origin and origin(url) != origin(start):
                raise self._refused(f"{shown(start)} redirects to another origin, {shown(url)}: not followed")
            if url in seen or len(seen) > MAX_REDIRECTS:
                raise self._refused(f"{shown(start)} redirects in a loop or too often")
            seen.add(url)
            if is_signed(url):
                # One header more than was signed, and the store refuses.
                headers = {name: value for name, value in headers.items() if not name.startswith("x-amz-")}
            answer = await self.ask(url, headers)
        return answer

    def _joined(self, url: str, location: str) -> str:
        try:
            # Bytes that are no UTF-8 are surrogates, which no URL can hold.
            target = urljoin(url, location.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            origin(target)
        except ValueError:
            raise self._refused(f"{shown(url)} redirects to what is no URL: {shown(location)}") from None
        return target

    async def ask(self, url: str, headers: Mapping[str, str], body: Body | None = None) -> Answer:
        """The answer to one GET, or with a body to one PUT. Raises what :meth:`reraise` translates."""
        route, target = self._route(url)
        if route.proxy is not None:
            return await self._relayed(url, headers, route.proxy, body)
        sent = request(target, route.common, headers, method="GET" if body is None else "PUT")
        self._observer(RequestSent(kind=self._kind))
        began = time.monotonic()
        answer = await self._pool.get(route.place, sent, body)
        self._observer(Answered(kind=self._kind, seconds=time.monotonic() - began, status=answer.status))
        return answer

    def _route(self, url: str) -> tuple[Route, str]:
        """How its origin is gone to, and what is asked of that."""
        parts = URL.match(url)
        route = self._known.get(parts[1]) if parts is not None and is_fit(url) else None
        if route is None:
            route = self._routes.find(url)
        assert parts is not None
        return route, parts[2] if parts[2].startswith("/") else f"/{parts[2]}"

    # By aiohttp --------------------------------------------------------------------------------

    async def _send(
        self,
        url: str,
        headers: Mapping[str, str],
        proxy: str | None,
        method: str = "GET",
        body: AsyncIterable[memoryview] | None = None,
    ) -> aiohttp.ClientResponse:
        session = self._session(proxied=proxy is not None)
        self._observer(RequestSent(kind=self._kind))
        # aiohttp's own timeout starts anew with each byte: headers that trickle would hold a place for ever.
        patience = self._transfer.connect_timeout + self._transfer.stall_timeout
        sent = time.monotonic()
        async with asyncio.timeout(patience or None if body is None else None):
            response = await session.request(method, url, headers, body, proxy)
        self._observer(Answered(kind=self._kind, seconds=time.monotonic() - sent, status=response.status))
        return response

    async def _relayed(self, url: str, headers: Mapping[str, str], proxy: str, body: Body | None) -> Answer:
        from mirror.session import Relayed, trickled  # noqa: PLC0415 - only a proxy pays for the import

        if body is None:
            return Relayed(await self._send(url, headers, proxy))
        stall = self._transfer.stall_timeout or None
        async with asyncio.timeout(stall) as timer:
            return Relayed(await self._send(url, headers, proxy, "PUT", trickled(body, timer, stall)))

    def _session(self, *, proxied: bool) -> Session:
        made = self._proxied if proxied else self._direct
        if made is None:
            from mirror.session import Session  # noqa: PLC0415 - aiohttp takes its time

            context = self._trust.context() if self._trust.ca_file else True
            made = Session(self._transfer, self._common, context, None if proxied else self._guard)
            if proxied:
                self._proxied = made
            else:
                self._direct = made
        return made


def _as_it_is(answer: Answer) -> Answer:
    return answer


class _Asked(Generic[T]):
    """A request's block: opens with the answer, closes it at the end, and translates errors on the way.

    A class, since a generator costs more than all that is done here.
    """

    __slots__ = ("_answer", "_body", "_follow", "_headers", "_http", "_judge", "_same_origin", "_url")

    def __init__(
        self,
        http: Http,
        url: str,
        headers: Mapping[str, str],
        judge: Callable[[Answer], T],
        *,
        body: Body | None = None,
        same_origin: bool = False,
        follow: bool = True,
    ) -> None:
        self._http = http
        self._url = url
        self._headers = headers
        self._judge = judge
        self._body = body
        self._same_origin = same_origin
        self._follow = follow
        self._answer: Answer | None = None

    async def __aenter__(self) -> T:
        http, url = self._http, self._url
        try:
            self._answer = answer = await http.ask(url, self._headers, self._body)
            if answer.status in _REDIRECTS and self._follow:
                self._answer = answer = await http.follow(answer, url, self._headers, same_origin=self._same_origin)
            return self._judge(answer)
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._answer is not None:
            self._answer.close()
        if isinstance(error, Exception):
            self._http.reraise(error, self._url)
