"""What an error of the wire means to whoever asked, as an error of theirs."""

from __future__ import annotations

from typing import NamedTuple

from mirror.errors import MirrorError, Severity
from mirror.guard import AddressRefusedError
from mirror.h1 import BadCertificate, CannotConnect, ConnectTimeout, Stalled, Unreadable, Unsendable, WireError
from mirror.settings import TransferSettings
from mirror.urls import shown


class Translator(NamedTuple):
    """``unavailable`` is for what may go well another time, ``refused`` for what is not even tried."""

    unavailable: type[MirrorError]
    refused: type[MirrorError]
    transfer: TransferSettings

    def reraise(self, error: Exception, url: str) -> None:
        """Raise what an error means to the caller, if it is one of a request's."""
        match error:
            case BadCertificate() | CannotConnect() | ConnectTimeout():
                raise self._unreached(error, url) from error
            case Unsendable() | UnicodeError():
                raise self.refused(f"is not a URL that can be asked for: {shown(url)}") from error
            case TimeoutError() | Stalled():
                patience = self.transfer.stall_timeout
                raise self.unavailable(f"no byte came for {patience:g} s: {shown(url)}") from None
            case Unreadable():
                raise self.unavailable(f"not an HTTP answer that can be read: {shown(url)}") from None
            case WireError() | OSError():
                raise self.unavailable(f"the connection broke ({_reason(error)}): {shown(url)}") from None

    def _unreached(self, error: BadCertificate | CannotConnect | ConnectTimeout, url: str) -> MirrorError:
        match error:
            case BadCertificate():
                # Not in this run, but a certificate is renewed: the file is not refused for good.
                reason = f"the certificate of {error.host} is not valid: {error.reason}"
                message = f"{reason} (transfer.ca_file adds authorities of your own)"
                return self.unavailable(message, severity=Severity.ITEM)
            case CannotConnect(os_error=AddressRefusedError() as refusal):
                return self.refused(f"{refusal}: {shown(url)}")
            case CannotConnect():
                reason = _reason(error.os_error)
                return self.unavailable(f"cannot connect to {error.host}:{error.port}: {reason}")
            case ConnectTimeout():
                return self.unavailable(f"no connection within {self.transfer.connect_timeout:g} s: {shown(url)}")


def _reason(error: BaseException) -> str:
    """What went wrong, without any text that the other side wrote."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, WireError) and str(error) else type(error).__name__
