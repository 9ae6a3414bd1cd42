"""``python -m mirror``, and the console script."""

import gc
import os
import signal


def main() -> None:
    """Run the command line. An interrupt before it has begun ends silently: there is nothing to put away yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    gc.disable()  # until a command is imported: that stays, and to look for rings in it takes a sixth of the time
    from mirror.cli import main as command_line  # noqa: PLC0415

    try:
        command_line()
    finally:  # whatever is left goes with the process: Python need not look for rings in it twice
        gc.disable()
        gc.freeze()


if __name__ == "__main__":
    main()
