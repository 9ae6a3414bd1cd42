"""Runs the command line again and again, each time in a process forked from this one, which has all of it imported.

Reads an order a line, as JSON, and answers each with the process's exit code. Started with the shim preloaded.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import sys
from typing import Any

from mirror.cli import main

COMMANDS = ("fetch", "sync", "verify", "rebuild", "forget", "cleanup", "status")
LONGEST = 180.0
"""Seconds after which a command hangs: it is ended, and its stderr shows where it stood."""


def serve() -> None:
    for module in (*(f"mirror.cli.{command}" for command in COMMANDS), "mirror.stores.s3.store", "mirror.demo.origin"):
        importlib.import_module(module)
    shim = ctypes.CDLL(os.environ.pop("TORTURE_SHIM"))
    os.environ.pop("LD_PRELOAD")
    gc.freeze()  # else each process would look at all of it, and have its own copy by that
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run(order, shim)
        _, status = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


def run(order: dict[str, Any], shim: ctypes.CDLL) -> None:
    """Be the command; never returns."""
    os.environ.clear()
    os.environ.update(order["environ"])
    for fd, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, fd)
        os.close(opened)
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    told = [text.encode() for text in (order["below"], order["log"], order["call"], order["path"])]
    shim.torture_arm(*told, order["nth"], order["error"], order["sticky"], order["full"])
    main(order["arguments"])
    sys.exit(1)  # main() has ended the process


if __name__ == "__main__":
    serve()
