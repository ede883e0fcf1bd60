"""Where ww keeps files on this machine, by the XDG base directory specification. Imports nothing of ww."""

import os
from pathlib import Path


def _xdg(variable: str, default: str) -> Path:
    # The specification: a relative path there is to be ignored.
    path = Path(os.environ.get(variable, ""))
    return (path if path.is_absolute() else Path.home() / default) / "ww"


def state_directory() -> Path:
    """Return where what must last is kept."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_directory() -> Path:
    """Return where what can be had again is kept."""
    return _xdg("XDG_CACHE_HOME", ".cache")
