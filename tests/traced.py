"""A command under strace, and from its system calls at every moment: what is durable, and what only the kernel has.

The model is what POSIX promises and no more: a file's bytes are durable once a sync of the file began after they were
written and has ended; a name is durable once a sync of its folder began after it was made and has ended, and the
folder's own name is. What stood there before counts as not synced, unless it is told of.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_CALLS = (
    "open,openat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,mkdir,mkdirat,ftruncate,copy_file_range"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))$")
_RESULT = re.compile(r"\) += (-?\d+)")
_FD = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def why_not() -> str:
    """Why nothing can be traced here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else ""


def command(trace: Path, *arguments: str, slow: bool = False) -> list[str]:
    """The command line that writes a trace of another; ``slow``: a folder's sync begins half a second late."""
    what = ["-e", f"trace={_CALLS}", "-e", "signal=none", *(["-e", "inject=fsync:delay_enter=500000"] if slow else [])]
    return ["strace", "-f", "-y", "-s", "65536", *what, "-o", str(trace), *arguments]


def kill(strace: subprocess.Popen[str]) -> None:
    """SIGKILL to what is traced; strace ends with it."""
    for pid in Path(f"/proc/{strace.pid}/task/{strace.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    strace.wait(60)


@dataclass(frozen=True)
class Call:
    """A call at its beginning or, where ``result`` is one, at its end."""

    name: str
    arguments: str
    result: int | None

    @property
    def file(self) -> str:
        """The path behind the descriptor that is its first argument."""
        found = _FD.match(self.arguments)
        return found[1] if found else ""

    @property
    def paths(self) -> list[str]:
        """The paths it names, absolute."""
        found, folder = [], ""
        for part in re.finditer(rf"{_FD.pattern}|{_TEXT.pattern}|AT_FDCWD<([^>]*)>", self.arguments):
            if part[2] is not None:
                found.append(part[2] if part[2].startswith("/") else f"{folder}/{part[2]}")
            else:
                folder = part[1] or part[3]
        return found


def calls(trace: Path) -> Iterator[Call]:
    """Each call twice, at its beginning and at its end, in the order in which they happened."""
    begun: dict[str, tuple[str, str]] = {}
    with trace.open(encoding="latin-1") as lines:
        for line in lines:
            found = _LINE.match(line)
            if not found:
                continue
            thread, resumed, rest, name, arguments = found.groups()
            if resumed:
                name, arguments = begun.pop(thread)
                arguments += rest
            else:
                yield Call(name, arguments, None)
                if arguments.endswith("<unfinished ...>"):
                    begun[thread] = name, arguments.removesuffix("<unfinished ...>")
                    continue
            result = _RESULT.search(arguments)
            yield Call(name, arguments, int(result[1]) if result else -1)


class Durability:
    """What is durable below a folder, call by call. ``there`` are the paths below it that stood there, synced."""

    def __init__(self, below: Path, there: Sequence[Path] = ()) -> None:
        self._below = str(below)
        self._clock = 0
        self._written: dict[str, int] = {}  # when a file's content was last changed
        self._named: dict[str, int] = {str(path): 0 for path in there}  # when a name was made
        self._synced: dict[str, int] = {
            str(path): 0 for path in (below, *there)
        }  # of a file or a folder: everything until then is durable
        self._syncing: dict[str, list[int]] = {}

    def see(self, call: Call) -> None:
        self._clock += 1
        act = {
            "write": self._see_write,
            "writev": self._see_write,
            "pwrite64": self._see_write,
            "pwritev": self._see_write,
            "pwritev2": self._see_write,
            "ftruncate": self._see_write,
            "copy_file_range": self._see_copy,
            "fsync": self._see_sync,
            "fdatasync": self._see_sync,
            "sync": self._see_sync,
            "open": self._see_open,
            "openat": self._see_open,
            "mkdir": self._see_new,
            "mkdirat": self._see_new,
            "rename": self._see_rename,
            "renameat": self._see_rename,
            "renameat2": self._see_rename,
            "link": self._see_link,
            "linkat": self._see_link,
        }.get(call.name)
        if act is not None:
            act(call)

    def end(self) -> None:
        """The process is gone, and with it the syncs that were under way."""
        self._syncing.clear()

    def _see_write(self, call: Call) -> None:
        self._written[call.file] = self._clock

    def _see_copy(self, call: Call) -> None:
        self._written[_FD.findall(call.arguments)[1]] = self._clock

    def _see_sync(self, call: Call) -> None:
        begun = self._syncing.setdefault(call.file, [])
        if call.result is None:
            begun.append(self._clock)
        elif begun:
            since = begun.pop(0)
            if call.result == 0:
                self._synced[call.file] = max(since, self._synced_at(call.file))

    def _synced_at(self, path: str) -> int:
        """Everything of this file or folder until then is durable. A `sync` is of all there is, its path is empty."""
        return max(self._synced.get(path, -1), self._synced.get("", -1))

    def _see_open(self, call: Call) -> None:
        if call.result is not None and call.result >= 0 and "O_CREAT" in call.arguments:
            [path] = call.paths
            self._named.setdefault(path, self._clock)
            if "O_TRUNC" in call.arguments:
                self._written[path] = self._clock

    def _see_new(self, call: Call) -> None:
        if call.result == 0:
            self._named[call.paths[0]] = self._clock

    def _see_rename(self, call: Call) -> None:
        if call.result == 0:
            source, target = call.paths
            self._move(source, target)
            self._named.pop(source, None)

    def _see_link(self, call: Call) -> None:
        if call.result == 0:
            source, target = call.paths
            self._move(source, target)

    def _move(self, source: str, target: str) -> None:
        """What is known of a file's content goes with it."""
        self._named[target] = self._clock
        for known in (self._written, self._synced):
            known.pop(target, None)
            if source in known:
                known[target] = known[source]

    # What is so now

    def has_content(self, path: Path | str) -> bool:
        """Whether all that was written to a file is durable."""
        synced = self._synced_at(str(path))
        return synced >= 0 and self._written.get(str(path), 0) <= synced

    def has_name(self, path: Path | str) -> bool:
        """Whether a path would be found after a power cut: its name, and those of all folders above it."""
        path = str(path)
        if path == self._below:
            return True
        folder = path.rpartition("/")[0]
        made = self._named.get(path)
        synced = self._synced_at(folder)
        is_durable = made == 0 or (synced >= 0 and (made or 0) <= synced)
        return is_durable and self.has_name(folder)

    def has(self, path: Path | str) -> bool:
        return self.has_content(path) and self.has_name(path)


def texts(call: Call) -> Iterator[str]:
    """The strings among a call's arguments, escapes left as they are."""
    return (found[1] for found in _TEXT.finditer(call.arguments))
