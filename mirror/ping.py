"""A monitor that is told when a run starts and how it ended, as healthchecks.io and its kin expect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from mirror.errors import ConfigError, ExitCode, MirrorError
from mirror.http import Http
from mirror.settings import Settings

_PATIENCE = 10.0
_PAUSE = 1.0
_PATIENCE_AFTER_SIGNAL = 1.0
_MOST_SENT = 10_000
_GOOD = (ExitCode.OK, ExitCode.PENDING)
_SIGNALS = (ExitCode.SIGINT, ExitCode.SIGTERM)


class PingError(MirrorError):
    """The monitor cannot be reached. Nothing but a warning comes of it."""


class Ping:
    """Calls ``[metrics] ping_url``: with ``/start``, then as it is for a success or with ``/fail``.

    ``rid``, a UUID, joins the two. The URL is a secret: messages name its host only. Nothing here raises, and nothing
    takes longer than two attempts of 10 s; after a signal, than one of 1 s.

    Raises:
        ConfigError: the URL has no host, or no sound port.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.metrics.ping_url
        self._run = str(uuid.uuid4())
        self._http = Http(settings, lambda _: None, kind="ping", unavailable=PingError, refused=PingError)
        self._starting: asyncio.Task[bool] | None = None
        try:
            parts = urlsplit(self._url)
            self._host = parts.hostname or ""
            sound = bool(self._host) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise ConfigError("[metrics] ping_url: expected http:// or https:// and a host, got another thing")

    def start(self) -> None:
        """Tell that a run starts, beside it: a monitor that is down holds nothing up."""
        self._starting = asyncio.create_task(self._tell("/start", b"", _PATIENCE, attempts=2))

    async def finish(self, summary: str, code: ExitCode) -> None:
        """Tell how the run ended. A signal that comes meanwhile leaves it one second more."""
        telling = asyncio.create_task(self._finish(summary, code))
        try:
            await asyncio.shield(telling)
        except asyncio.CancelledError:
            await asyncio.wait({telling}, timeout=_PATIENCE_AFTER_SIGNAL)
            telling.cancel()
            await asyncio.wait({telling})

    async def _finish(self, summary: str, code: ExitCode) -> None:
        hurried = code in _SIGNALS
        patience, attempts = (_PATIENCE_AFTER_SIGNAL, 1) if hurried else (_PATIENCE, 2)
        try:
            # What came after the end would say that the run goes on.
            if self._starting is not None and not self._starting.done():
                await asyncio.wait({self._starting}, timeout=0 if hurried else _PAUSE)
            await self._tell("" if code in _GOOD else "/fail", _cut(summary), patience, attempts)
        finally:
            if self._starting is not None:
                self._starting.cancel()
                await asyncio.wait({self._starting})
            await self._http.close()

    async def _tell(self, path: str, body: bytes, patience: float, attempts: int) -> bool:
        why = ""
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(_PAUSE)
            try:
                async with asyncio.timeout(patience):
                    status = await self._post(path, body)
                if 200 <= status < 300:
                    return True
                why = f"it answered HTTP {status}"
            except TimeoutError:
                why = f"no answer within {patience:g} s"
            except MirrorError as error:
                # Its message may show the URL; what it was translated from does not.
                why = "the connection failed" if self._shows_url(str(error)) else str(error)
        moment = {"/start": "the start", "/fail": "the failure"}.get(path, "the success")
        logging.getLogger("mirror").warning("ping: %s was not told of %s of this run: %s", self._host, moment, why)
        return False

    async def _post(self, path: str, body: bytes) -> int:
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        async with self._http.send("POST", self._address(path), headers, _once(body)) as response:
            with contextlib.suppress(MirrorError):
                await response.content.read(_MOST_SENT)
            return response.status

    def _address(self, path: str) -> str:
        parts = urlsplit(self._url)
        query = f"{parts.query}&rid={self._run}" if parts.query else f"rid={self._run}"
        return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, query, ""))

    def _shows_url(self, text: str) -> bool:
        parts = urlsplit(self._url)
        return any(secret in text for secret in (parts.path.strip("/"), parts.query, parts.password) if secret)


def secrets_of(ping_url: str) -> tuple[str, ...]:
    """What of a ping URL no log may show, whoever writes it: its path's parts and its query, where they are long."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(ping_url)
        return tuple(text for text in (*parts.path.split("/"), parts.query) if len(text) >= 8)
    return ()


def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_MOST_SENT].decode("utf-8", "ignore").encode()


async def _once(body: bytes) -> AsyncIterator[memoryview]:
    yield memoryview(body)
