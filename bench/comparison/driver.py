"""Measures one system in a process of its own, which ends with it.

    python -m bench.comparison.driver SYSTEM JSON        JSON: {"cases": [...], "sizes": {...}, "round": N}

Prints one JSON line a case, as soon as it is known. What cannot be measured is one line with "error".
"""

import importlib
import json
import os
import sys
from typing import Final

from bench.comparison.cases import Sizes, measure, one_line, warm_up

# Where each is made; imported when it is needed, since a process holds one system alone.
SYSTEMS: Final = {
    "ww-native": ("ours", "native"),
    "ww-http": ("ours", "http"),
    "ww-http-plain": ("ours", "plain_http"),
    "ray": ("peers", "ray"),
    "dask": ("peers", "dask"),
    "celery": ("peers", "celery"),
    "processpool": ("peers", "pool"),
    "processpool-chunked": ("peers", "chunked_pool"),
}


def main(name: str, asked: str) -> int:
    """Measure the cases that are asked for."""
    given = json.loads(asked)
    sizes = Sizes(**given["sizes"])
    # What a library prints is no line of ours.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**row: object) -> None:
        print(json.dumps({"system": name, "round": given["round"]} | row), file=lines)

    try:
        module, made = SYSTEMS[name]
        with getattr(importlib.import_module(f"bench.comparison.{module}"), made)() as system:
            warm_up(system, given["cases"], sizes)
            for case in given["cases"]:
                say(case=case, **measure(system, case, sizes))
    except ModuleNotFoundError as error:
        say(error=f"{error.name} is not installed: scripts/setup bench")
        return 1
    except Exception as error:
        say(error=one_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
