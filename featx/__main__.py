"""Where the command begins: `featx`, and `python -m featx`."""

import sys


def run() -> None:
    """Run the command line; Ctrl-C in the first moments, while modules are imported, is no traceback either."""
    try:
        from featx.cli import main

        main(prog_name="featx")
    except KeyboardInterrupt:
        sys.stderr.write("featx: stopped.\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
