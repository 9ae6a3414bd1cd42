"""What each of several workers may use, so that all together stay within the settings."""

from __future__ import annotations

from msgspec.structs import replace

from mirror.settings import Settings


def share_of(settings: Settings, workers: int, *, on_machine: int | None = None) -> Settings:
    """One worker's share of memory, bandwidth, connections to a host, and requests to the service.

    Memory is a machine's: it is shared out among those workers that are on one, all of them where nothing is said.
    """
    transfer, api = settings.transfer, settings.api
    return replace(
        settings,
        transfer=replace(
            transfer,
            memory=transfer.memory // (on_machine or workers),
            limit_rate=_part(transfer.limit_rate, workers),
            concurrency=_part(transfer.concurrency, workers),
        ),
        api=replace(api, requests_per_second=api.requests_per_second / workers),
    )


def _part(whole: int, workers: int) -> int:
    """At least one where there is anything: 0 stands for no limit."""
    return max(1, whole // workers) if whole else 0
