"""Where the command begins: `featx`, and `python -m featx`."""

import signal
import sys

from featx.interrupts import Terminated, ignore_interrupts, raise_terminated


def run() -> None:
    """Run the command line; Ctrl-C in the first moments, while modules are imported, is no traceback either."""
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        from featx.cli import main

        main(prog_name="featx")
    except KeyboardInterrupt as interrupt:
        ignore_interrupts()
        sys.stderr.write("featx: stopped; nothing was begun.\n")
        sys.exit(143 if isinstance(interrupt, Terminated) else 130)


if __name__ == "__main__":
    run()
