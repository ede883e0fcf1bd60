"""The most frequent words of the text files in a directory: a job for each file, and a bar that shows how far it is.

    python examples/wordcount.py [DIRECTORY] [PATTERN]

The files are read here: a job sees nothing of this machine but what it is given. Needs nothing that runs: where no
gateway is named or found, it has a small cluster of its own.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import ww


@ww.job
def count_words(text: str) -> dict[str, int]:
    """Return how often each word occurs."""
    return dict(Counter(re.findall(r"[^\W\d_]+", text.lower())))


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    paths = sorted(directory.rglob(sys.argv[2] if len(sys.argv) > 2 else "*.md"))
    total: Counter[str] = Counter()
    for future in ww.progress([count_words.remote_async(path.read_text(errors="replace")) for path in paths]):
        total.update(future.result())
    print(f"{total.total():,} words in {len(paths)} files, {len(total):,} of them different")
    for word, count in total.most_common(10):
        print(f"{count:7,} {word}")
