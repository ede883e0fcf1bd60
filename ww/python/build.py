"""The component that Python functions run in: built once a machine by componentize-py, kept in the cache by version.

Holds how it is built and found. Must not know how it is run (ww.sandbox), nor who asks for it.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ww.directories import cache_directory
from ww.errors import StoreError, UsageError, WwError
from ww.python.guest.standard import LIST_BEGIN, LIST_END

_TOOL: Final = "componentize-py"
_TOOL_MODULE: Final = "componentize_py"
_TOOL_CALL: Final = f"import {_TOOL_MODULE}; {_TOOL_MODULE}.script()"
_MISSING: Final = "Python functions need componentize-py, which is not installed: pip install 'ww[python]'"
_APP: Final = "_ww_app"
_BUILD_S_MAX: Final = 600.0
# Of other versions, so that going back and forth between two does not build each time.
_KEPT: Final = 4
_HERE: Final = Path(__file__).parent
# What of ww is in the component, by the name that it has there. The rest of ww is not.
_FILES: Final = {
    f"{_APP}.py": "python/guest/app.py",
    "ww/__init__.py": "python/guest/package.py",
    "ww/errors.py": "errors.py",
    **{
        f"ww/python/{name}.py": f"python/{name}.py"
        for name in ("__init__", "exception", "failure", "outcome", "reader", "request", "tags", "values", "writer")
    },
    **{
        f"ww/python/guest/{name}.py": f"python/guest/{name}.py"
        for name in (
            *("__init__", "code", "imports", "loop", "nested", "placeholder", "report", "runtime", "shim"),
            *("standard", "surroundings"),
        )
    },
}  # fmt: skip
Say = Callable[[str], None]


class BuildFailed(WwError):
    """The component could not be built."""

    code = "build_failed"


@dataclass(frozen=True, slots=True)
class Built:
    """The component of this version of ww and of componentize-py."""

    path: Path
    """Where it is."""
    was_there: bool
    """Whether it was in the cache."""

    def modules(self) -> list[str]:
        """Return the names of the modules that can be imported in it."""
        return list(json.loads(self.path.with_suffix(".json").read_text()))


def component_path(cache: Path | None = None) -> Path:
    """Return the component, built now where it is not in the cache: some seconds, which a line on stderr tells of.

    cache: the cache's directory; $XDG_CACHE_HOME/ww if not given. Raises UsageError without componentize-py,
    BuildFailed, and StoreError where the cache cannot be written.
    """
    return build(cache, say=lambda line: print(f"ww: {line}", file=sys.stderr, flush=True)).path  # noqa: T201


def build(cache: Path | None = None, *, is_forced: bool = False, say: Say = lambda line: None) -> Built:
    """Build the component where it is not in the cache, or anyhow. say: is told before it takes time."""
    try:
        version = importlib.metadata.version(_TOOL)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(_MISSING) from None
    sources = {name: (_HERE.parent / file).read_bytes() for name, file in _FILES.items()}
    sources["world.wit"] = (_HERE / "world.wit").read_bytes()
    path = (cache or cache_directory()) / "python" / f"{_TOOL}-{version}-{_digest(sources)}.wasm"
    if not is_forced and _is_there(path):
        return Built(path, was_there=True)
    if importlib.util.find_spec(_TOOL_MODULE) is None:
        raise UsageError(_MISSING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if not is_forced and _is_there(path):  # another process was before us
                return Built(path, was_there=True)
            say("building the sandbox's Python, once (about 15 s)")
            _build(sources, path)
            _forget_others(path)
    except OSError as error:
        raise StoreError(f"the sandbox's Python cannot be kept in the cache: {error.strerror}") from None
    return Built(path, was_there=False)


def _digest(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        digest.update(b"%d %s %d " % (len(name), name.encode(), len(content)) + content)
    return digest.hexdigest()[:16]


def _is_there(path: Path) -> bool:
    return path.is_file() and path.with_suffix(".json").is_file()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: of two processes that build one waits for the other."""
    with (folder / "build.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(sources: dict[str, bytes], path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=path.parent) as name:
        folder = Path(name)
        for file, content in sources.items():
            to = folder / "app" / file
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
        # Nothing of this machine's packages: componentize-py takes them from the environment that it is told.
        (folder / "venv" / "site-packages").mkdir(parents=True)
        made = folder / "made.wasm"
        _run(folder, made)
        made.with_suffix(".json").write_text(json.dumps(_modules(made)))
        # The component last: what is there has its list.
        for suffix in (".json", ".wasm"):
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))


def _run(folder: Path, made: Path) -> None:
    words = [
        *(sys.executable, "-I", "-c", _TOOL_CALL, "--quiet"),
        *("--wit-path", "app/world.wit", "--world", "guest"),
        *("componentize", "--python-path", "app", "--output", made.name, _APP),
    ]
    environment = {
        "PATH": "/nonexistent",
        "HOME": str(folder),
        "VIRTUAL_ENV": str(folder / "venv"),
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "0",
    }
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, timeout=_BUILD_S_MAX, check=False, text=True,
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the sandbox's Python could not be built within {_BUILD_S_MAX:g} s") from None
    if done.returncode or not made.is_file():
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = lines[-1] if lines else f"{_TOOL} exited with {done.returncode}"
        raise BuildFailed(f"the sandbox's Python could not be built: {why.replace(str(folder), '.')[:300]}")


def _modules(made: Path) -> list[str]:
    """Return the list that the component has of its modules: it is in its memory, between marks."""
    content = made.read_bytes()
    begin = content.find(LIST_BEGIN + b"[")
    end = content.find(LIST_END, begin)
    try:
        return list(json.loads(content[begin + len(LIST_BEGIN) : end]))
    except ValueError:
        raise BuildFailed("the sandbox's Python was built without a list of its modules") from None


def _forget_others(path: Path) -> None:
    others = [file for file in path.parent.glob(f"{_TOOL}-*.wasm") if file != path]
    others.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    for file in others[_KEPT - 1 :]:
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
    for left in path.parent.glob("building-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
