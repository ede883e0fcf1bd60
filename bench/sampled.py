"""Runs ww and notes where its processor time goes: the pieces of a request, and the functions that cost most.

    python bench/sampled.py OUT gateway --http 127.0.0.1:0 ...       ww's own arguments; OUT is written when it ends
    python bench/sampled.py --runs OUT worker ...                    by the pieces of a run, not of a submission

Holds a timer on processor time, whose signal looks at the main thread's stack: that costs next to nothing, where a
tracing profiler doubles the time. What other threads use (the writer of the database) is counted while the main thread
polls. OUT is JSON: the looks by piece, and the most frequent functions.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

# Or as often as the kernel ticks, which may be every 4 ms.
_EVERY_S: Final = 0.001
_TOP: Final = 25
# By what a file's path ends with or holds, from the innermost frame outwards: the first that is known says the piece.
_PIECES: Final = (
    ("parse", ("ww/gateway/form.py", "formparsers.py", "python_multipart", "/tempfile.py")),
    ("validate", ("ww/gateway/request.py", "ww/gateway/modules.py", "ww/gateway/content.py", "ww/gateway/guest.py")),
    ("validate", ("ww/wasm_", "ww/component_", "ww/archive.py", "hashlib.py")),
    ("store", ("ww/gateway/store", "ww/gateway/scheduler.py", "ww/gateway/task.py", "ww/gateway/queue")),
    ("answer", ("ww/gateway/view.py", "ww/gateway/problem.py", "starlette/responses.py", "/json/")),
    ("server", ("uvicorn", "h11", "httptools", "ww/gateway/server.py", "asyncio/selector_events.py")),
    ("route", ("starlette", "ww/gateway/http.py", "ww/gateway/same_origin.py", "ww/gateway/authority.py")),
    ("other_threads", ("selectors.py",)),
)
# The same of a run's way through a gateway and a worker.
_PIECES_OF_RUNS: Final = (
    ("records", ("ww/records.py", "ww/results.py", "ww/outcome.py")),
    ("submit", ("ww/gateway/submit.py", "ww/gateway/request.py", "ww/gateway/guest.py", "ww/gateway/spec.py")),
    ("store", ("ww/gateway/store", "ww/gateway/writer.py", "ww/gateway/database.py", "ww/gateway/rows.py")),
    ("store", ("ww/gateway/segments.py", "ww/gateway/retention.py", "ww/gateway/housekeeping.py")),
    ("store", ("ww/gateway/inputs.py", "ww/gateway/content.py", "ww/gateway/upload.py", "ww/gateway/modules.py")),
    ("native", ("ww/gateway/native", "ww/gateway/tail.py")),
    ("http", ("uvicorn", "h11", "starlette", "python_multipart", "ww/gateway/http", "ww/gateway/server.py")),
    ("http", ("ww/gateway/posting.py", "ww/gateway/results.py", "ww/gateway/strict_json.py", "ww/gateway/batch.py")),
    ("http", ("ww/gateway/intake.py", "ww/gateway/form.py", "ww/gateway/message.py", "ww/gateway/view.py")),
    ("http", ("ww/gateway/streams.py", "ww/gateway/events.py", "ww/gateway/perimeter.py", "ww/gateway/access.py")),
    ("scheduler", ("ww/gateway/",)),
    ("rpc", ("ww/rpc/", "ww/net/", "ww/caps/", "asyncio/sslproto.py", "/ssl.py")),
    ("members", ("ww/discovery/", "ww/cluster/")),
    ("executor", ("ww/sandbox/",)),
    ("worker", ("ww/worker.py", "ww/running.py")),
    ("other_threads", ("selectors.py",)),
)


class Samples:
    """What was seen."""

    def __init__(self, pieces: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._pieces = pieces
        self.pieces: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self._known: dict[str, str] = {}

    def start(self, number: int, frame: FrameType | None) -> None:
        """Begin to look, from nothing: what came before is the start of the program, or another case."""
        self.pieces.clear()
        self.functions.clear()
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)

    def look(self, number: int, frame: FrameType | None) -> None:
        """Note where the main thread is."""
        if frame is not None:
            code = frame.f_code
            self.functions[f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_qualname}"] += 1
        while frame is not None:
            if piece := self._piece(frame.f_code.co_filename):
                self.pieces[piece] += 1
                return
            frame = frame.f_back
        self.pieces["loop"] += 1

    def _piece(self, path: str) -> str:
        if path not in self._known:
            self._known[path] = next(
                (piece for piece, parts in self._pieces if any(part in path for part in parts)), ""
            )
        return self._known[path]

    def shown(self) -> dict[str, Any]:
        """Say it in plain data."""
        return {"pieces": dict(self.pieces), "functions": self.functions.most_common(_TOP)}


def main() -> None:
    """Be ww until it ends, then say where the time went since the last SIGUSR1."""
    words = sys.argv[1:]
    of_runs = words[0] == "--runs"
    out, sys.argv = Path(words[of_runs]), ["ww", *words[of_runs + 1 :]]
    samples = Samples(_PIECES_OF_RUNS if of_runs else _PIECES)
    signal.signal(signal.SIGPROF, samples.look)
    signal.signal(signal.SIGUSR1, samples.start)
    from ww.__main__ import main

    try:
        main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(samples.shown()))


if __name__ == "__main__":
    main()
