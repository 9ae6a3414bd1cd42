"""One file from its URL into the store: resume, stream or segments, verify, commit.

What can go wrong with a file is a value (Failure); only what ends the run is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mirror import spans
from mirror.download import Body
from mirror.errors import (
    Changed,
    Gone,
    MirrorError,
    NotMedia,
    Refused,
    Severity,
    SourceError,
    TooLarge,
    Truncated,
    Unavailable,
    UrlExpired,
)
from mirror.events import FileSized, Noted, Observer
from mirror.lanes import Lanes, Request
from mirror.media import HEAD, why_not_media
from mirror.models import Asset, Failure, Outcome, PromptId, Receipt, Span
from mirror.retry import Patience
from mirror.segments import Segments
from mirror.settings import Settings
from mirror.stores import Head, Sink, Store, Target
from mirror.urls import shown

FreshUrl = Callable[[], Awaitable[str | None]]
"""Asks the API again for the URL of one file; None where it names none any more."""

_MOST_HELPERS = 7
_MOST_BARREN = 2
"""Requests for a part that bring nothing, one after the other, before the whole is asked for."""
_SMALLEST_SEGMENT = 256 << 10
_NOTHING = Segments([], 1)


class Transfer:
    """Fetches files, many at once."""

    def __init__(self, settings: Settings, lanes: Lanes, observer: Observer) -> None:
        self.settings = settings.transfer
        self.observer = observer
        self.lanes = lanes

    async def close(self) -> None:
        await self.lanes.close()

    async def fetch(self, store: Store, prompt_id: PromptId, asset: Asset, target: Target, fresh: FreshUrl) -> Outcome:
        """Bring one file into a store: durable under its final name when this returns a Receipt.

        Raises:
            MirrorError: a fatal one (the store cannot go on).
        """
        patience = Patience(self.settings.attempts, asset.identity, self.observer, prompt_id=prompt_id)
        try:
            sink = await store.sink(target)
            one = _One(self, prompt_id, asset, sink, fresh)
            return await closing(sink, patience.run(one.attempt, one.progress))
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            return Failure(
                error=error.name, message=str(error), url=asset.identity, role=asset.role, attempts=patience.tried
            )


async def closing(sink: Sink, work: Awaitable[Receipt]) -> Receipt:
    """Do some work and close the sink in every case; what goes wrong with that does not hide what went wrong before."""
    try:
        receipt = await work
    except BaseException:
        with contextlib.suppress(MirrorError):
            await sink.close()
        raise
    await sink.close()
    return receipt


@dataclass(frozen=True)
class _Shared:
    """One version of a file that the first stream and its helpers fetch together."""

    head: Head
    segments: Segments
    helpers: set[asyncio.Task[None]]

    def reach(self, stop: int | None, end: int) -> int | None:
        """How far the first stream may go that has bytes up to ``end``: on, until a helper has the next piece."""
        while stop is not None and end > stop and (further := self.segments.front(stop)) is not None:
            stop = further
        return stop


class _One:
    """One file on its way. Each attempt takes up what the sink holds."""

    def __init__(self, transfer: Transfer, prompt_id: PromptId, asset: Asset, sink: Sink, fresh: FreshUrl) -> None:
        self._settings = transfer.settings
        self._observer = transfer.observer
        self._lanes = transfer.lanes
        self._prompt_id = prompt_id
        self._asset = asset
        self._url = asset.url
        self._sink = sink
        self._fresh: FreshUrl | None = fresh
        self._told = False
        self._parts = True  # what is held is gone on with, until the server serves nothing but the whole
        self._asked_part = False
        self._barren = 0
        self._ranges: bool | None = None  # whether the server serves them: one helper finds out, the others wait

    def progress(self) -> int:
        """Bytes that are held."""
        return spans.size(self._sink.written())

    async def attempt(self) -> Receipt:
        """Fetch what is missing, and commit."""
        if self._sink.committed is not None:
            return self._sink.committed
        try:
            await self._receive()
            receipt = await self._sink.commit()
        except UrlExpired:
            if not await self._renew_url() and not self._asks_for_whole():
                raise
            return await self.attempt()
        except (Changed, TooLarge):
            await self._sink.abort()
            raise
        except MirrorError:
            await self._sink.pause()
            raise
        if self._sink.remark:
            told = f"{self._sink.remark}: {shown(self._url)}"
            self._observer(Noted(level="debug", message=told, prompt_id=self._prompt_id))
        return receipt

    async def _renew_url(self) -> bool:
        """Once: a signed URL that has run out is asked for again. False where that brings no other URL."""
        fresh, self._fresh = self._fresh, None
        url = await fresh() if fresh is not None else None
        if url is None or url == self._url:
            return False
        self._url = url
        return True

    async def _receive(self) -> None:
        """Requests, one after the other, until nothing is missing."""
        whole = False
        while not whole:
            head, span, held = self._sink.head, None, 0
            if head is not None:
                gaps, held = self._gaps(), self.progress()
                if not gaps:
                    return
                # Without a length nobody could tell the end of a part from the end of the file.
                if head.length is not None and head.validator.if_range and held and self._parts:
                    span = self._part(gaps[0], head)
            self._asked_part = span is not None
            try:
                whole = await self._request(span, head)
            except (Gone, Refused):
                if not self._asks_for_whole():
                    raise
            except Unavailable:
                self._barren = self._barren + 1 if span is not None and self.progress() == held else 0
                self._parts = self._parts and self._barren < _MOST_BARREN
                raise

    def _part(self, gap: Span, head: Head) -> Span:
        """What to ask for of a gap: what ends it need not be known; but what others may fetch is not sent twice."""
        size = self._segment_size(head)
        if gap.size >= 2 * size:
            return Span(gap.start, gap.start + size)
        return gap if gap.stop != head.length else Span(gap.start, -1)

    def _asks_for_whole(self) -> bool:
        """A part was refused, and that may be a server that serves no parts: the whole is asked for before the file
        is given up. False where it was the whole that was refused.
        """
        was_part, self._parts, self._asked_part = self._asked_part, False, False
        return was_part

    def _gaps(self) -> list[Span]:
        """What is missing of the version that the sink holds a part of; to the end (-1) where that is unknown."""
        head, held = self._sink.head, self._sink.written()
        if head is None or head.length is None:
            return [Span(spans.prefix(held), -1)]
        return spans.missing(held, head.length) if held else [Span(0, head.length)]

    async def _request(self, span: Span | None, known: Head | None) -> bool:
        """One request from the first gap on, with helpers. True if it brought the whole, or all that will ever come."""
        helpers: set[asyncio.Task[None]] = set()
        try:
            async with self._lanes.request(self._url, span, known) as request:
                head, got, segments = await self._stream(request, helpers)
            if segments.left:
                await self._help(segments.first, segments, head)
            if helpers:
                await asyncio.gather(*helpers)
        finally:
            if helpers:
                await _end(helpers)
        return head.length in (None, got)

    async def _begin(self, head: Head) -> None:
        self._check_size(head.length or 0)
        await self._sink.begin(head)

    def _check_size(self, size: int) -> None:
        limit = self._settings.max_file_size
        if limit and size > limit:
            raise TooLarge(f"over {limit} bytes (transfer.max_file_size): {shown(self._url)}")

    def _tell_size(self, head: Head, held: int) -> None:
        if not self._told and head.length is not None:
            self._told = True
            self._observer(FileSized(prompt_id=self._prompt_id, url=self._asset.identity, bytes=head.length, held=held))

    def _segment_size(self, head: Head) -> int:
        """The whole file is one segment unless it is large, and its versions can be told apart for certain."""
        size, length = self._settings.segment_size, head.length or 1
        in_parts = self._parts and self._ranges is not False and self._sink.segmented
        size = max(size, _SMALLEST_SEGMENT) if size and in_parts else 0
        strong = head.etag is not None and not head.etag.startswith("W/")
        return size if size and strong and length >= 2 * size else max(length, 1)

    async def _stream(self, request: Request, helpers: set[asyncio.Task[None]]) -> tuple[Head, int, Segments]:
        """Write a body until its end, or until a helper has what comes next.

        Returns the head of what is written, how many bytes of it this brought, and what nobody has taken yet.
        """
        body = request.body
        piece = await self._first(request)  # an error page costs nothing that is held
        if not body.partial:
            await self._begin(body.head)
        head = self._sink.head or body.head
        self._tell_size(head, self.progress() if body.partial else 0)
        if head.length == len(piece) and body.start == 0:  # it came whole: most small ones do
            await self._sink.write(0, piece)
            return head, len(piece), _NOTHING
        gaps = self._gaps() if head.length is not None else []
        segments = Segments(gaps, self._segment_size(head) if body.ranges else head.length or 1)
        shared = _Shared(head, segments, helpers)
        at, stop = body.start, segments.front(body.start)
        roomy = request.widen(head.length)
        while piece:
            stop = shared.reach(stop, at + len(piece))
            data = piece if stop is None else piece[: stop - at]
            at += await request.pour(self._sink, at, data, (stop or sys.maxsize) - at)
            if len(data) < len(piece):
                break
            self._check_size(at)
            if not roomy:
                await self._sink.flush()
            self._recruit(shared)
            # No piece is kept by name while the next one comes: of a thousand that is memory nobody has counted.
            piece = data = b""
            piece = await request.read()
        if stop is not None and at < stop:
            raise Truncated(f"the body ended at {at} of {head.length} bytes: {shown(self._url)}")
        return head, at - body.start, segments

    async def _first(self, request: Request) -> bytes | memoryview:
        """The body's first bytes, once they do not look like an error page."""
        piece = await request.read()
        if request.body.start > 0:
            return piece
        while len(piece) < HEAD and (more := await request.read()):
            piece = b"".join((piece, more))
        self._look(bytes(piece[:HEAD]), request.body)
        return piece

    def _look(self, head: bytes, body: Body) -> None:
        why = why_not_media(head, body.head.content_type)
        if why:
            raise NotMedia(f"{why}: {shown(self._url)}")

    def _recruit(self, shared: _Shared) -> None:
        """One more helper, if the host has an idle place that no other file waits for."""
        segments = shared.segments
        at_work = sum(not helper.done() for helper in shared.helpers)
        most = _MOST_HELPERS if self._ranges else 1
        if segments.shared and segments.left and at_work < most and self._lanes.level(self._url).idle:
            shared.helpers.add(asyncio.create_task(self._help(segments.back, segments, shared.head)))

    async def _help(self, take: Callable[[], Span | None], segments: Segments, head: Head) -> None:
        """Fetch segments while there are any. What fails is left to the next request: a helper ends no attempt."""
        while (piece := take()) is not None:
            at = piece.start
            try:
                async with self._lanes.request(self._url, piece, head) as request:
                    self._ranges = self._ranges is not False and request.body.start == at
                    while request.body.start == piece.start and at < piece.stop and (data := await request.read()):
                        data = data[: piece.stop - at]
                        await self._sink.write(at, data)
                        at += len(data)
            except SourceError:
                segments.stop_sharing()
            finally:
                if at < piece.stop:
                    segments.stop_sharing()
                    segments.give_back(Span(at, piece.stop))


async def _end(helpers: set[asyncio.Task[None]]) -> None:
    for helper in helpers:
        helper.cancel()
    await asyncio.wait(helpers)
