"""What each of several workers may use, so that all together stay within the settings."""

from __future__ import annotations

from msgspec.structs import replace

from mirror.settings import Settings


def share_of(settings: Settings, workers: int) -> Settings:
    """One worker's share of memory, bandwidth, connections to a host, and requests to the service.

    Memory is a machine's, so it is shared out among workers of one; whoever runs them elsewhere asks for more.
    """
    transfer, api = settings.transfer, settings.api
    return replace(
        settings,
        transfer=replace(
            transfer,
            memory=transfer.memory // workers,
            limit_rate=_part(transfer.limit_rate, workers),
            concurrency=_part(transfer.concurrency, workers),
        ),
        api=replace(api, requests_per_second=api.requests_per_second / workers),
    )


def _part(whole: int, workers: int) -> int:
    """At least one where there is anything: 0 stands for no limit."""
    return max(1, whole // workers) if whole else 0
