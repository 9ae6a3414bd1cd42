"""HTTP/1.1 for GETs and PUTs, as fast as asyncio allows: ``head`` and ``chunks`` are pure, ``body`` takes in what
comes, ``connection`` is a socket with one exchange at a time on it, ``answer`` is what who asked has of it, ``pool``
keeps connections (RFC 9110, RFC 9112).

Why it is our own: docs/decisions/0015-carrier.md. What can go wrong with an exchange stands here, in our own terms;
texts of the other side are in none of them.
"""

from __future__ import annotations


class WireError(Exception):
    """An exchange that went wrong. Its text says why, without anything that the other side wrote."""


class CannotConnect(WireError):
    """No connection to this host and port, for the reason ``os_error``."""

    def __init__(self, host: str, port: int, os_error: OSError) -> None:
        super().__init__(host, port, os_error)
        self.host = host
        self.port = port
        self.os_error = os_error


class BadCertificate(WireError):
    """The host's certificate is not valid: ``reason`` is what TLS says of it."""

    def __init__(self, host: str, reason: Exception) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason


class ConnectTimeout(WireError):
    """Connecting, the TLS handshake included, took too long."""


class Stalled(WireError):
    """Nothing that counts came for too long."""


class Unsendable(WireError):
    """The request holds what no HTTP request may hold. Nothing was sent."""


class Unreadable(WireError):
    """What came is no answer of HTTP/1."""


class Broken(WireError):
    """The connection ended before there was an answer."""


class Stale(Broken):
    """The same, before a single byte came on a connection that was used before: it may be asked again."""


class CutShort(WireError):
    """The body ended before its end, or its framing makes no sense."""
