"""`python -m ww` and the command `ww`."""

import signal
import sys


def main() -> int:
    """Run ww. While it is still being imported there is nothing to tidy up, and ctrl-C just ends it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ww.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
