"""Mirrors what a media service made for you: resumable, verified, with a manifest that can be trusted.

Example::

    from mirror import Mirror, load_settings

    async with Mirror(load_settings("mirror.toml", root="archive")) as m:
        async for manifest in m.fetch(["ef8ec19d6670c018814358a21a910090"]):
            print(manifest.prompt_id, manifest.state)

Names are imported when they are first used (PEP 562), so that ``import mirror`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.blocking import fetch as fetch
    from mirror.blocking import fetch_one as fetch_one
    from mirror.blocking import repair as repair
    from mirror.blocking import sync as sync
    from mirror.blocking import verify as verify
    from mirror.checks import Checked as Checked
    from mirror.client import Mirror as Mirror
    from mirror.config import load_settings as load_settings
    from mirror.engines.embedded import MirrorStage as MirrorStage
    from mirror.engines.embedded import mirror_partition as mirror_partition
    from mirror.errors import ExitCode as ExitCode
    from mirror.errors import MirrorError as MirrorError
    from mirror.events import Event as Event
    from mirror.events import Observer as Observer
    from mirror.models import Failure as Failure
    from mirror.models import Manifest as Manifest
    from mirror.models import ManifestFile as ManifestFile
    from mirror.models import PromptState as PromptState
    from mirror.models import Role as Role
    from mirror.observers.progress import Progress as Progress
    from mirror.sampling import Sample as Sample
    from mirror.settings import FetchOptions as FetchOptions
    from mirror.settings import Settings as Settings
    from mirror.settings import SyncOptions as SyncOptions

__version__ = "0.1.0"

_HOMES = {
    "Checked": "checks",
    "Event": "events",
    "ExitCode": "errors",
    "Failure": "models",
    "FetchOptions": "settings",
    "Manifest": "models",
    "ManifestFile": "models",
    "Mirror": "client",
    "MirrorError": "errors",
    "MirrorStage": "engines.embedded",
    "Observer": "events",
    "Progress": "observers.progress",
    "PromptState": "models",
    "Role": "models",
    "Sample": "sampling",
    "Settings": "settings",
    "SyncOptions": "settings",
    "fetch": "blocking",
    "fetch_one": "blocking",
    "load_settings": "config",
    "mirror_partition": "engines.embedded",
    "repair": "blocking",
    "sync": "blocking",
    "verify": "blocking",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


if not TYPE_CHECKING:  # else every name, misspelt ones too, would be there for type checkers

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'mirror' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"mirror.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
