"""Whom TLS trusts: the authorities of the system, and beside them those of ``transfer.ca_file``."""

from __future__ import annotations

import ssl

from mirror.errors import ConfigError


class Trust:
    """``ca_file`` is looked at at once, so that what is wrong with it is told before anything is done.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, ca_file: str) -> None:
        self.ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        if ca_file:
            _add_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file)

    def context(self) -> ssl.SSLContext:
        """Made when it is needed first: to read the system's authorities takes longer than many a run."""
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
            self._context.options |= ssl.OP_NO_RENEGOTIATION  # no handshake comes between a request and its answer
            if self.ca_file:
                _add_authorities(self._context, self.ca_file)
        return self._context


def _add_authorities(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[transfer] ca_file: {ca_file} cannot be used: {error}") from None
