"""A small server on loopback that speaks the documented API and serves real media, with the faults of real life.

It stands in for both sides of the service: ``/getTaskInfo`` and the object storage that the answers point to.
PromptIds and media are the same in every start; the port and the token are new each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from types import TracebackType
from typing import ClassVar, Self

from aiohttp import web
from msgspec import Struct

from mirror.models import ApiCode, Json, PromptId, Span, TaskState

DOCUMENTED = PromptId("ef8ec19d6670c018814358a21a910090")
PICTURE = PromptId("66d684ad211e178eb6f727ed24a29fc5")
RUNNING = PromptId("0976bf09811e4bbb969c8c6d57296a79")
FAILED = PromptId("b398ddbfa781903b29f804a373bc63de")
BROKEN = PromptId("332d10a1f5ce72bdbf506e77db698575")

_LAST_MODIFIED = "Wed, 28 Jan 2026 10:03:40 GMT"
_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PIECE = 64 << 10
_TICK = 0.05


class DemoPrompt(Struct, frozen=True):
    """A root prompt that the origin knows, and what it is there to show."""

    prompt_id: PromptId
    about: str


class Served(Struct, frozen=True):
    """One media request that was answered: the bytes it was to get, and how many of them went out."""

    name: str
    status: int
    span: Span
    sent: int


class _File(Struct, frozen=True):
    name: str
    body: bytes
    headers: Mapping[str, str]


class DemoOrigin:
    """The origin, as an async context manager; it listens on 127.0.0.1 from entering to leaving.

    ``throttle`` slows the file called ``slow`` down to so many bytes a second, from the next piece on, so that a
    process can be stopped in the middle of it. The file called ``broken`` is cut once, half way.
    ``polls`` is how often the task that is still running says so before it is done.
    """

    slow: ClassVar[str] = "hills-dawn.mp4"
    broken: ClassVar[str] = "spiral.mp4"
    prompts: ClassVar[tuple[DemoPrompt, ...]] = (
        DemoPrompt(DOCUMENTED, "the documented example: two videos that share a thumbnail"),
        DemoPrompt(PICTURE, "a single picture, its integers sent as strings"),
        DemoPrompt(RUNNING, "still running: it finishes while it is polled"),
        DemoPrompt(FAILED, "failed upstream: there is nothing to fetch"),
        DemoPrompt(BROKEN, "a video whose connection breaks half way"),
    )

    def __init__(self, *, polls: int = 2) -> None:
        self.url = ""
        self.token = secrets.token_hex(16)
        self.throttle: int | None = None
        self.requests: Counter[str] = Counter(api=0, media=0)
        self.log: list[Served] = []
        self._running = polls
        self._cut = False
        self._files: dict[str, _File] = {}
        self._sent: Counter[str] = Counter()
        self._progress = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def bytes_sent(self) -> int:
        """Bytes of media bodies that went out, in all."""
        return self._sent.total()

    async def sent(self, name: str, at_least: int) -> None:
        """Waits until so many bytes of one file went out, all its requests taken together."""
        if name not in self._files:
            raise KeyError(name)
        async with self._progress:
            await self._progress.wait_for(lambda: self._sent[name] >= at_least)

    async def __aenter__(self) -> Self:
        self._files = _load()
        app = web.Application()
        app.router.add_get("/getTaskInfo", self._task_info)
        app.router.add_get("/media/{name}", self._media)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _task_info(self, request: web.Request) -> web.Response:
        """The documented endpoint: what is wrong is said in ``code``, under HTTP status 200."""
        self.requests["api"] += 1
        given = request.headers.get("Authorization", "").encode()
        if not secrets.compare_digest(given, self.token.encode()):
            return _answer(ApiCode.UNAUTHORIZED, "the token is not valid")
        prompt_id = request.query.get("promptId", "")
        if not re.fullmatch("[0-9a-f]{32}", prompt_id):
            return _answer(ApiCode.BAD_PARAMETER, "promptId must be 32 hex digits")
        running = self._running > 0
        if prompt_id == RUNNING:
            self._running -= 1
        data = _find(_tasks(f"{self.url}/media", running), prompt_id)
        if data is None:
            return _answer(ApiCode.NO_DATA, "no data")
        return _answer(ApiCode.SUCCESS, "SUCCESS", data)

    async def _media(self, request: web.Request) -> web.StreamResponse:
        """One file or a range of it, as S3 answers."""
        self.requests["media"] += 1
        headers = {"Server": "AmazonS3", "x-amz-request-id": secrets.token_hex(8).upper()}
        file = self._files.get(request.match_info["name"])
        if file is None:
            return _refusal(404, "NoSuchKey", headers)
        whole = Span(0, len(file.body))
        span = _asked(request.headers, file)
        if span is not None and not span.size:
            return _refusal(416, "InvalidRange", headers | {"Content-Range": f"bytes */{whole.size}"})
        response = web.StreamResponse(status=200 if span is None else 206, headers={**headers, **file.headers})
        if span is not None:
            response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{whole.size}"
        span = span or whole
        response.content_length = span.size
        await response.prepare(request)
        if request.method == "GET":
            await self._send(request, response, file, span)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, file: _File, span: Span) -> None:
        """Writes the body, or its part up to the break; then the connection is closed under the client."""
        stop, at = self._stop(file, span), span.start
        try:
            while at < stop:
                rate = self.throttle if file.name == self.slow else None
                piece = file.body[at : min(stop, at + (max(1, int(rate * _TICK)) if rate else _PIECE))]
                await response.write(piece)
                at += len(piece)
                await self._count(file.name, len(piece))
                if rate:
                    await asyncio.sleep(_TICK)
        except ConnectionError:
            return  # the client went away, which is what a stopped process does
        finally:
            self.log.append(Served(file.name, response.status, span, at - span.start))
        if stop < span.stop and request.transport is not None:
            request.transport.close()

    def _stop(self, file: _File, span: Span) -> int:
        """Where this body ends: the first one that would run across the middle of the broken file stops there."""
        middle = len(file.body) // 2
        if self._cut or file.name != self.broken or not span.start < middle < span.stop:
            return span.stop
        self._cut = True
        return middle

    async def _count(self, name: str, size: int) -> None:
        async with self._progress:
            self._sent[name] += size
            self._progress.notify_all()


def _load() -> dict[str, _File]:
    """The media by name, from wherever the package is installed; what does not change of their headers is made once."""
    files = {}
    for entry in resources.files("mirror.demo").joinpath("media").iterdir():
        kind = _TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is None:
            continue
        body = entry.read_bytes()
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        headers = {"Content-Type": kind, "ETag": f'"{etag}"'}
        headers |= {"Last-Modified": _LAST_MODIFIED, "Accept-Ranges": "bytes"}
        files[entry.name] = _File(entry.name, body, headers)
    return files


def _asked(headers: Mapping[str, str], file: _File) -> Span | None:
    """The bytes that ``Range`` asks for; none where the whole file is due, an empty span where there are no such bytes.

    As RFC 9110 says, a range is left aside if it cannot be read, and if ``If-Range`` names another version. Several
    ranges at once get the whole, as S3 does it.
    """
    found = _RANGE.fullmatch(headers.get("Range", ""))
    version = headers.get("If-Range", file.headers["ETag"])
    if found is None or version not in (file.headers["ETag"], file.headers["Last-Modified"]):
        return None
    size, (first, last) = len(file.body), found.groups()
    if not first:
        return Span(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return Span(min(int(first), size), min(int(last) + 1, size) if last else size)


def _refusal(status: int, code: str, headers: Mapping[str, str]) -> web.Response:
    """An error as S3 words it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=text, content_type="application/xml", headers=headers)


def _answer(code: ApiCode, msg: str, data: Json | None = None) -> web.Response:
    return web.json_response({"code": int(code), "msg": msg, "data": data})


def _find(tasks: list[Json], prompt_id: str) -> Json | None:
    """The task of that id: children can be asked for by their own."""
    family = [member for task in tasks for member in (task, *(task.get("taskList") or ()))]
    return next((task for task in family if task["promptId"] == prompt_id), None)


def _tasks(media: str, running: bool) -> list[Json]:
    """What the API has to tell, each root prompt once, in the shapes that are met in practice."""
    return [
        _documented(media),
        _picture(media),
        _in_progress(media, running),
        _task(FAILED, 449, 3, TaskState.FAILED, [], reason="No face was found in the picture") | {"taskList": []},
        _task(BROKEN, 1051, 7, TaskState.DONE, [_image(media, 964, 1051, "spiral.png", "spiral.mp4")]),
    ]


def _documented(media: str) -> Json:
    """The example of the API's page: a root and a child share a task number, and each file is named repeatedly."""
    dawn = _image(media, 957, 1043, "hills.png", "hills-dawn.mp4")
    dusk = _image(media, 956, 1044, "hills.png", "hills-dusk.mp4")
    children = [
        _task("0fdd439fe1a94c8aa3ddaca3cdf50fe5", 1043, 7, TaskState.DONE, [dawn]),
        _task("5a6ec746cfaf424da38350a323d0fb52", 1044, 7, TaskState.DONE, [dusk]),
    ]
    return _task(DOCUMENTED, 1043, 7, TaskState.DONE, [dawn, dusk]) | {"taskList": children}


def _picture(media: str) -> Json:
    """A picture without children, as sibling services answer: some integers are strings."""
    image = _image(media, "211", "443", "sea-small.webp", "sea.jpg")
    return _task(PICTURE, "443", 5, TaskState.DONE, [image]) | {"taskList": None}


def _in_progress(media: str, running: bool) -> Json:
    """One child done and one in the queue; a few polls later both are done."""
    planet = _image(media, 961, 1047, "planet-small.png", "planet.webp")
    weave = [] if running else [_image(media, 962, 1048, "weave-small.webp", "weave.png")]
    children = [
        _task("ffaa53ea42c00156aba5a9ba08cd06c6", 1047, 6, TaskState.DONE, [planet]),
        _task("de4a98886dc48418ab88d1036dbb3548", 1048, 6, TaskState.QUEUED if running else TaskState.DONE, weave),
    ]
    state = TaskState.RUNNING if running else TaskState.DONE
    return _task(RUNNING, 1047, 6, state, [planet, *weave]) | {"taskList": children}


def _task(
    prompt_id: str, task_id: int | str, kind: int, state: TaskState, images: list[Json], reason: str = ""
) -> Json:
    return {
        "taskId": task_id,
        "promptId": prompt_id,
        "taskType": kind,
        "thumbFileUrl": images[0]["path"] if images else "",
        "state": int(state),
        "reason": reason,
        "imageList": images,
    }


def _image(media: str, image_id: int | str, task_id: int | str, thumbnail: str, origin: str) -> Json:
    return {"id": image_id, "taskId": task_id, "path": f"{media}/{thumbnail}", "origin": f"{media}/{origin}"}
