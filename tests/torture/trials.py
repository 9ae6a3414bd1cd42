"""The shim, the processes it is loaded into, and the faults that are tried with it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

SOURCE = Path(__file__).with_name("shim.c")

ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "EMFILE", "EROFS")} | {
    "short": 0,  # a read or a write that does half of it
    "full": errno.ENOSPC,  # the write that fills the disk is short, and then nothing goes
}


@dataclass(frozen=True)
class Call:
    """A call of a run: the nth of its name at a path, and a bit set of what it does."""

    name: str
    path: str
    nth: int
    does: int

    @property
    def kind(self) -> tuple[str, str]:
        """The call and the kind of its path: which prompt, and which hash, does not matter."""
        path = re.sub(r"[0-9a-f]{32}", "*", self.path)
        return self.name, re.sub(r"^p\d", "p", path)


@dataclass(frozen=True)
class Fault:
    """A call that is to fail: once, or it and what follows."""

    call: Call
    error: str
    sticky: bool

    def __str__(self) -> str:
        often = "from there on" if self.sticky else "once"
        return f"{self.error} {often} at {self.call.name} #{self.call.nth} of {self.call.path}"


@dataclass(frozen=True)
class Ended:
    """A command that has ended. ``hit`` says how many of its calls were made to fail."""

    code: int
    out: str
    err: str
    calls: list[Call] = field(default_factory=list)
    hit: int = 0


class Shim:
    """The library, compiled; raises CalledProcessError where it cannot be."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shim.so"
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        told = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self.path), str(SOURCE), "-ldl"]
        subprocess.run(told, check=True, capture_output=True, text=True)
        self._library = ctypes.CDLL(str(self.path))

    def faults(self, call: Call) -> list[Fault]:
        """Every way in which a call can fail on a real disk."""
        return [
            Fault(call, error, sticky)
            for error, number in ERRORS.items()
            if self._library.torture_hits(number, call.does)
            if error != "full" or self._library.torture_writes(call.does)
            for sticky in ((True,) if error == "full" else (False, True))
        ]

    def sample(self, calls: Sequence[Call], luck: random.Random) -> list[Fault]:
        """For each kind of call one fault."""
        kinds: dict[tuple[str, str], list[Call]] = {}
        for call in calls:
            kinds.setdefault(call.kind, []).append(call)
        return [luck.choice(faults) for _, each in sorted(kinds.items()) if (faults := self.faults(luck.choice(each)))]


class Server:
    """A process that has mirror imported, and runs it with a fault."""

    def __init__(self, shim: Shim, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        environ = os.environ | {"LD_PRELOAD": str(shim.path), "TORTURE_SHIM": str(shim.path)}
        told = [sys.executable, "-m", "tests.torture.server"]
        top = Path(__file__).parents[2]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(told, env=environ, cwd=top, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def run(
        self, arguments: Sequence[str], environ: Mapping[str, str], root: Path, fault: Fault | None = None
    ) -> Ended:
        """Run a command to its end, with what it does below the root counted, and a fault there."""
        out, err, log = (self._folder / name for name in ("out", "err", "log"))
        log.unlink(missing_ok=True)
        order = {
            "arguments": arguments,
            "environ": dict(environ),
            "out": str(out),
            "err": str(err),
            "log": str(log),
            "below": str(root),
            "call": fault.call.name if fault else "",
            "path": fault.call.path if fault else "",
            "nth": fault.call.nth if fault else 0,
            "error": ERRORS[fault.error] if fault else 0,
            "sticky": fault.sticky if fault else False,
            "full": fault is not None and fault.error == "full",
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        calls, hit = _read(log)
        return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"), calls, hit)


def _read(log: Path) -> tuple[list[Call], int]:
    calls: list[Call] = []
    hit = 0
    seen: dict[tuple[str, str], int] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        name, path, does, verdict = line.split("\t")
        seen[name, path] = seen.get((name, path), 0) + 1
        calls.append(Call(name, path, seen[name, path], int(does)))
        hit += verdict != "0"
    return calls, hit
