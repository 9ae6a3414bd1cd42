"""Connections of one purpose: made, kept for a while, and used again."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from aiohappyeyeballs import AddrInfoType, SocketFactoryType, start_connection

from mirror.h1 import BadCertificate, CannotConnect, ConnectTimeout, Stale
from mirror.h1.answer import Answer
from mirror.h1.body import BATCH
from mirror.h1.connection import Connection, Place
from mirror.h1.outgoing import Body
from mirror.h1.tls import Tls

_NAMES_LAST = 60.0
_MOST_NAMES = 1024
_NEXT_ADDRESS = 0.25
"""Seconds after which the next address of a host is tried beside the one before (RFC 8305)."""


class Patience(NamedTuple):
    """Seconds: until there is a connection, and without a byte (0 for any number of either); and how long a connection
    is kept for the next request. Most servers keep theirs longer.
    """

    connect: float
    stall: float
    idle: float = 15.0


class Pool:
    """``trust`` gives the context for TLS where it is needed; ``open_socket`` judges and opens each address. At most
    ``most_idle`` connections are kept, to whatever host: each of them is an open file.
    """

    def __init__(
        self,
        patience: Patience,
        trust: Callable[[], ssl.SSLContext],
        open_socket: SocketFactoryType | None = None,
        most_idle: int = 256,
    ) -> None:
        self.stall = patience.stall
        self.scratch = bytearray(BATCH)
        self._connect_timeout = patience.connect or None
        self._longest_idle = patience.idle
        self._most_idle = most_idle
        self._limit = patience.connect + patience.stall if patience.stall else 0.0
        self._trust = trust
        self._open_socket = open_socket
        self._names: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._lookups: dict[tuple[str, int], asyncio.Task[list[AddrInfoType]]] = {}
        self._open: set[Connection] = set()
        self._idle: dict[Place, list[Connection]] = {}
        self._oldest: dict[Connection, None] = {}  # of the idle ones, the one that has been so for longest first
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # to ask for it is a system call, in Python 3.11

    async def get(self, place: Place, request: bytes, body: Body | None = None) -> Answer:
        """Send a request, with a body if it has one, and wait for the head of its answer.

        On a connection that was used before and ended meanwhile it is sent once more (RFC 9112, section 9.3.1).

        Raises:
            CannotConnect, BadCertificate, ConnectTimeout: no connection.
            Broken, Stalled, Unreadable: no answer.
            UnicodeError: the host cannot be looked up.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        limit = now + self._limit if self._limit else 0.0
        used = self._used(place, now)
        if used is not None:
            try:
                return Answer(used, await used.ask(request, limit, body))
            except Stale:
                pass
        connection = await self._connect(place)
        return Answer(connection, await connection.ask(request, limit, body))

    async def close(self) -> None:
        """Close all connections, and wait until they are gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        lookups = [*self._lookups.values()]
        for lookup in lookups:
            lookup.cancel()
        if lookups:
            await asyncio.wait(lookups)
        if self._open:
            self._gone = asyncio.Event()
            for connection in [*self._open]:
                connection.abort()
            await self._gone.wait()

    # Connections that are kept -----------------------------------------------------------------

    def settle(self, connection: Connection) -> None:
        """Keep it for the next request."""
        self._idle.setdefault(connection.place, []).append(connection)
        self._oldest[connection] = None
        if len(self._oldest) > self._most_idle:
            oldest = next(iter(self._oldest))
            del self._oldest[oldest]
            oldest.abort()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._longest_idle, self._sweep)

    def lose(self, connection: Connection) -> None:
        """Its socket is gone."""
        self._open.discard(connection)
        self._oldest.pop(connection, None)
        idle = self._idle.get(connection.place)
        if idle is not None and connection in idle:
            idle.remove(connection)
        if self._gone is not None and not self._open:
            self._gone.set()

    def _used(self, place: Place, now: float) -> Connection | None:
        """The one that was used last."""
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            self._oldest.pop(connection, None)
            if connection.is_open and now - connection.idle_since < self._longest_idle and connection.is_quiet():
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = None
        oldest = loop.time() - self._longest_idle
        for place, idle in [*self._idle.items()]:
            for connection in idle:
                if connection.idle_since <= oldest:
                    connection.abort()
            self._idle[place] = [connection for connection in idle if connection.idle_since > oldest]
            if not self._idle[place]:
                del self._idle[place]
        kept = [connection.idle_since for idle in self._idle.values() for connection in idle]
        if kept:
            self._sweeper = loop.call_at(min(kept) + self._longest_idle, self._sweep)

    # New ones ----------------------------------------------------------------------------------

    async def _connect(self, place: Place) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._connected(place)
        except ssl.SSLCertVerificationError as error:
            raise BadCertificate(place.host, error) from error
        except TimeoutError as error:
            if error.errno is None:
                raise ConnectTimeout from None
            raise CannotConnect(place.host, place.port, error) from error
        except OSError as error:
            raise CannotConnect(place.host, place.port, error) from error

    async def _connected(self, place: Place) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._trust() if place.is_tls else None
        addresses = await self._addresses(place.host, place.port)
        connection = Connection(self, place)
        tls = Tls(connection, context, place.host.rstrip(".")) if context else None
        sock = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS, socket_factory=self._open_socket)
        if tls is None:
            await loop.create_connection(lambda: connection, sock=sock)
        else:
            await tls.open(sock)
        self._open.add(connection)
        return connection

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Where a host is, another of its addresses first each time."""
        if ":" in host or host.replace(".", "").isdigit():
            # An address, or what a resolver would take for one: where the socket is made it is judged as it is.
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        known = self._names.get((host, port))
        if known is not None and known[0] > asyncio.get_running_loop().time():
            found = known[1]
        else:
            found = await self._looked_up(host, port)
        addresses = [*found]
        found.append(found.pop(0))
        return addresses

    async def _looked_up(self, host: str, port: int) -> list[AddrInfoType]:
        """One question at a time about a name, whoever asks; who is cancelled takes nobody's answer away."""
        lookup = self._lookups.get((host, port))
        if lookup is None:
            lookup = self._lookups[host, port] = asyncio.create_task(self._look_up(host, port))
            lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(lookup)

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType]:
        loop = asyncio.get_running_loop()
        try:
            told = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        finally:
            del self._lookups[host, port]
        found: list[AddrInfoType] = [*told]
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        self._names[host, port] = (loop.time() + _NAMES_LAST, found)
        return found
