"""How each origin is gone to: whether at all, to what host and port, and through which proxy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.addresses import names_private_place
from mirror.errors import ConfigError, MirrorError, Refused
from mirror.h1 import Unsendable
from mirror.h1.connection import Place
from mirror.h1.head import common_lines
from mirror.settings import Settings
from mirror.urls import check_url, origin, shown

URL = re.compile(r"([^:/?#]+://[^/?#]*)([^#]*)")
"""An origin, and what is asked of it."""

_MOST = 1024
_ASKED = ("http", "https", "all")


class Route(NamedTuple):
    """What is found out once of an origin that may be gone to: ``common`` is the same in each request to it."""

    place: Place
    common: bytes
    proxy: str | None


class Routes:
    """The routes of a session. ``known`` has those that were found, by origin as it stands in a URL."""

    def __init__(self, settings: Settings, common: Mapping[str, str], *, kind: str, refused: type[MirrorError]) -> None:
        self.known: dict[str, Route] = {}
        self.is_guarded = kind == "media" and not settings.security.allow_private_addresses
        """Only public addresses may be connected to; what a proxy's name leads to is the proxy's business."""
        self._hosts = tuple(host.lower() for host in settings.security.allow_hosts) if kind == "media" else ()
        self._common = common
        self._refused = refused
        self._proxy = _checked(settings.transfer.proxy, "transfer.proxy") if settings.transfer.proxy else ""
        self._proxies = {
            scheme: _checked(proxy, f"{scheme}_proxy") for scheme, proxy in _proxies().items() if scheme in _ASKED
        }

    def find(self, url: str) -> Route:
        """Check a URL, and find out how its origin is gone to.

        Raises:
            MirrorError: it is none that may be asked for, of the class ``refused``.
            Unsendable, UnicodeError: it cannot be.
        """
        try:
            check_url(url)
        except Refused as error:
            raise self._refused(str(error)) from None
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if self._hosts and host not in self._hosts:
            raise self._refused(f"{host} is not among security.allow_hosts: {shown(url)}")
        proxy = self._proxy_for(parts.scheme, parts.netloc)
        if proxy and self.is_guarded and names_private_place(host):
            raise self._refused(f"{shown(url)} is not a public address")
        if not host.isascii():
            host = host.encode("idna").decode()
        _, _, port = origin(url)
        place = Place(host, port, parts.scheme == "https")
        shown_host = f"[{host}]" if ":" in host else host
        if port != (443 if place.is_tls else 80):
            shown_host += f":{port}"
        found = Route(place, common_lines(shown_host, self._common), proxy)
        match = URL.match(url)
        if match is None:
            raise Unsendable
        if len(self.known) >= _MOST:
            self.known.clear()
        self.known[match[1]] = found
        return found

    def _proxy_for(self, scheme: str, netloc: str) -> str | None:
        if self._proxy:
            return self._proxy
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        if not proxy:
            return None
        from urllib.request import proxy_bypass  # noqa: PLC0415

        return None if proxy_bypass(netloc) else proxy


def _checked(proxy: str, name: str) -> str:
    """A proxy's URL, if it is one that can be gone through.

    Raises:
        ConfigError: it is not. The URL is not quoted: it may carry a password.
    """
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ConfigError(f"{name}: expected the URL of an HTTP proxy, such as http://proxy.example:3128")
    return url


def _proxies() -> dict[str, str]:
    """The environment's, by scheme. Without any the standard library's reader is not even imported."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    from urllib.request import getproxies_environment  # noqa: PLC0415

    return getproxies_environment()
