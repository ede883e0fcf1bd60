"""A node that another program keeps for itself: `python -m ww.cli.kept FOLDER COMMAND OPTIONS...`.

Holds how such a node begins and ends; what it is, COMMAND says, as for ww. It waits for a byte on stdin, with all that
it needs imported, so that one node is ready by the time that another is there. When stdin ends, the program has,
however it did: then this process ends at once, and takes FOLDER, its state, with it. Who keeps nodes so:
ww/jobs/embedded.py.
"""

import importlib
import os
import shutil
import signal
import sys
import threading
from typing import Final

_STDIN: Final = 0
# What another process writes while a folder is removed may be in the way once, and hardly twice.
_TRIES: Final = 3


def main(argv: list[str]) -> int:
    """Be the node that argv asks for."""
    # Whoever presses ctrl-C means the program, which says when it is done with this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, command, *options = argv
    begun = threading.Event()
    threading.Thread(target=_follow, args=(folder, begun), name="ww-kept", daemon=True).start()
    importlib.import_module(f"ww.cli.{command}")
    begun.wait()
    from ww.cli import main as run

    return run([command, *options])


def _follow(folder: str, begun: threading.Event) -> None:
    """Say when to begin, and end everything when the program has ended."""
    if os.read(_STDIN, 1):
        begun.set()
        while os.read(_STDIN, 1):
            pass
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
