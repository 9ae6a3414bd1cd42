"""What a process may have that reads what strangers wrote: little memory, few files, none to write, no secret."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping

_OPEN_FILES = 64
_WITH_PARENT = 1
"""PR_SET_PDEATHSIG."""
_NO_NEW_RIGHTS = 38
"""PR_SET_NO_NEW_PRIVS."""

_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "VIRTUAL_ENV")
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", *_PYTHON)


def environ_without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What such a process sees of an environment: neither a token nor a credential."""
    return {name: environ[name] for name in _KEPT if name in environ}


def confine(parent: int, memory: int) -> bool:
    """Called in the process itself, before it reads anything: ``memory`` bytes, and an end with its parent's.

    Where a system has no such limit, there is none. False where there was one already that leaves less memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to deal with
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - whoever starts such a process needs none

        control = ctypes.CDLL(None).prctl
        control(_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        control(_NO_NEW_RIGHTS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    limits = {"RLIMIT_AS": memory, "RLIMIT_NOFILE": _OPEN_FILES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # one that is lower already stays
            resource.setrlimit(getattr(resource, name), (limit, limit))
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    return allowed == resource.RLIM_INFINITY or allowed >= memory


def allow(seconds: float) -> None:
    """So much more processor time, from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
