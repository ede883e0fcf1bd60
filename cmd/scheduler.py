"""ww from a checkout: `python cmd/scheduler.py --gateway` and `python cmd/scheduler.py --dial PEER_ID`.

A launcher and nothing else: `--gateway` (or `--gateway true`) stands for `ww gateway`, anything else for `ww worker`.
This folder must never get an __init__.py: it would shadow the standard library's cmd and break pdb.
"""

import os
import sys
from pathlib import Path

# The checkout comes instead of this folder, so that ww is found uninstalled.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ww.cli import main  # noqa: E402

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")


def _truth(text: str, name: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        print(f"scheduler.py: {name} {text[:40]!r}: expected true or false", file=sys.stderr)
        raise SystemExit(2)
    return text.lower() in _TRUE


def subcommand(argv: list[str], environment: dict[str, str]) -> list[str]:
    """Return argv of ww for argv of this launcher."""
    rest = []
    said = environment.get("WW_GATEWAY") or "false"
    # An address there tells `ww run` and its like which gateway to ask, and not this launcher what to be.
    is_gateway = "://" not in said and _truth(said, "WW_GATEWAY")
    words = iter(argv)
    pending = next(words, None)
    while pending is not None:
        word, pending = pending, next(words, None)
        flag, equals, value = word.partition("=")
        if flag != "--gateway":
            rest.append(word)
            continue
        if not equals:
            value = "true"
            if pending is not None and pending.lower() in _TRUE + _FALSE:
                value, pending = pending, next(words, None)
        is_gateway = _truth(value, "--gateway")
    return ["gateway" if is_gateway else "worker", *rest]


if __name__ == "__main__":
    sys.exit(main(subcommand(sys.argv[1:], dict(os.environ))))
