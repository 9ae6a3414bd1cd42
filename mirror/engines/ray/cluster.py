"""The cluster: found, joined, and left. What is no coroutine blocks."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
import threading
from typing import Any

from mirror.errors import ConfigError, StoreUnavailable
from mirror.sources.blocking import apart

_NO_RAY = "--engine ray needs Ray: pip install 'prompt-mirror[ray]'"

_NO_TEXT = (
    "Ray tells its cluster how a command was called, and cannot tell bytes that are no UTF-8: give such names in the "
    "environment (MIRROR_ARCHIVE_ROOT), or without --engine ray"
)

_joining = threading.Lock()

_PATIENCE = 30.0
"""Seconds that a cluster may take to be joined, or started."""

_MOMENT = 1.0
"""Seconds that a listener may take to hear of its end."""

_QUIET = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # its errors come to us
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # what is let go of when we have left must not join again
}
"""What Ray reads of the environment when it starts: its own log is in its session's folder, and not on our stderr."""


class Cluster:
    """The Ray cluster that this process is connected to. ``is_ours``: it was we who connected it."""

    def __init__(self, ray: Any, *, is_ours: bool) -> None:
        self.ray = ray
        self.is_ours = is_ours

    @property
    def cpus(self) -> int:
        """How many CPUs there are in all; at least one."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    @property
    def most_cpus(self) -> int:
        """How many the largest node has."""
        nodes = [node["Resources"].get("CPU", 1) for node in self.ray.nodes() if node["Alive"]]
        return max(1, *map(int, nodes))

    def hush(self, dataset: Any) -> Any:
        """The same dataset, which shows no bars and prints nothing."""
        context = dataset.context
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        return dataset

    def cancel(self, dataset: Any, has_ended: threading.Event) -> None:
        """End what is under way for a dataset. ``has_ended`` is set when whoever listens to it has heard of that.

        Nothing that is documented ends a dataset. Where Ray does not let us, in somebody else's connection, it ends
        after its first batch; in our own it ends when we leave.
        """
        executor = getattr(dataset, "_current_executor", None)
        if executor is not None:
            executor.shutdown(force=True)
        has_ended.wait(_MOMENT)

    def leave(self) -> None:
        """Let go of it, unless whoever uses us was there before."""
        if self.is_ours:
            self.ray.shutdown()


def require_ray() -> None:
    """Check what can be seen without the seconds that it takes to import Ray.

    Raises:
        ConfigError: it is not installed, or cannot work in a process that was called so.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(_NO_RAY)
    try:
        " ".join(sys.orig_argv).encode()
    except UnicodeEncodeError:
        raise ConfigError(_NO_TEXT) from None


async def joined(patience: float = _PATIENCE) -> Cluster:
    """The cluster that ``RAY_ADDRESS`` names or this machine is a part of; else one is started here.

    Where this process is connected already, that stays as it is. Ray itself may take minutes to see that nobody
    answers, and cannot be stopped: nobody waits for it longer than ``patience`` says, not even the end of the process.

    Raises:
        ConfigError: Ray is not installed.
        StoreUnavailable: the cluster cannot be reached.
    """
    is_given_up = threading.Event()
    try:
        async with asyncio.timeout(patience):
            return await apart(lambda: _join(is_given_up))
    except TimeoutError:
        address = os.environ.get("RAY_ADDRESS")
        where = f"at RAY_ADDRESS={address}" if address else "on this machine"
        told = f"no Ray cluster {where} could be joined within {patience:g} s"
        raise StoreUnavailable(f"{told}: see that it runs (ray status) and can be reached from here") from None
    finally:
        is_given_up.set()


def _join(is_given_up: threading.Event) -> Cluster:
    with _joining:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray  # noqa: PLC0415
            import ray.data  # noqa: PLC0415
        except ImportError:
            raise ConfigError(_NO_RAY) from None
        if ray.is_initialized():
            return Cluster(ray, is_ours=False)
        if is_given_up.is_set():
            raise StoreUnavailable("nobody waits for Ray any more")
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        except UnicodeEncodeError:
            raise ConfigError(_NO_TEXT) from None
        except Exception as error:  # noqa: BLE001  none of its own errors is documented
            raise StoreUnavailable(f"no Ray cluster can be reached or started: {first_line(error)}") from None
        cluster = Cluster(ray, is_ours=True)
        if is_given_up.is_set():
            cluster.leave()
        return cluster


def first_line(error: BaseException) -> str:
    """As much of what Ray says as fits into a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
