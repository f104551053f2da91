"""Where the command begins: `featx`, and `python -m featx`."""

import signal
import sys


def run() -> None:
    """Run the command line; Ctrl-C in the first moments, while modules are imported, is no traceback either."""
    try:
        from featx.cli.streams import open_closed_streams, silent_stderr

        open_closed_streams()
        from featx.system import hide_with, raise_terminated

        signal.signal(signal.SIGTERM, raise_terminated)
        hide_with(silent_stderr)
        from featx.cli.main import main

        main(prog_name="featx")
    except KeyboardInterrupt as interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write("featx: stopped before anything was started.\n")
        sys.exit(130 if type(interrupt) is KeyboardInterrupt else 143)  # the other is `Terminated`


if __name__ == "__main__":
    run()
