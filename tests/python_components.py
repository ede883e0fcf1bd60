"""A Python component for tests of the sandbox, built once a machine: componentize-py takes five seconds for it."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

_APP = Path(__file__).parent / "sandbox" / "python_guest" / "app.py"
_WORLD = Path(__file__).parent.parent / "ww" / "python" / "world.wit"


def kept_folder() -> Path:
    """Return the folder where what takes long to build is kept, for this user, from one run of tests to the next."""
    folder = Path(tempfile.gettempdir()) / f"ww-test-components-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@cache
def python_component() -> bytes:
    """Return the component of sandbox/python_guest; skip where componentize-py is not installed."""
    if importlib.util.find_spec("componentize_py") is None:
        pytest.skip("componentize-py is not installed")
    from importlib.metadata import version

    sources = [_APP.read_bytes(), _WORLD.read_bytes(), version("componentize-py").encode()]
    name = hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]
    folder = kept_folder()
    kept = folder / f"{name}.wasm"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            shutil.copy(_APP, work)
            out = Path(work) / "guest.wasm"
            arguments = ["-q", "-d", str(_WORLD), "-w", "guest", "componentize", "app", "-o", str(out)]
            subprocess.run(
                [Path(sys.executable).parent / "componentize-py", *arguments], cwd=work, check=True, timeout=120
            )
            out.replace(kept)
    return kept.read_bytes()
