"""Tabs of a real Chromium without a window: workers for benchmarks, and what pictures are taken of.

Holds finding and starting it. Must not know what is measured or shown.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

ROOT: Final = Path(__file__).resolve().parent.parent
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START_MS: Final = 30_000


class NoBrowserError(Exception):
    """What a tab needs is not there."""


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """Run Chromium; NoBrowserError says what it lacks."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise NoBrowserError(f"no Chromium on the PATH: none of {', '.join(_NAMES)}")
    if not (ROOT / "ww" / "web" / "worker.html").is_file():
        raise NoBrowserError("ww/web is not built: scripts/web")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowserError("playwright is not installed: scripts/setup browser") from error
    # Root in a container may lack what Chromium's own sandbox needs.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments, timeout=_START_MS)
        try:
            yield browser
        finally:
            browser.close()


def join(context: "BrowserContext", address: str, slots: int) -> None:
    """Open a tab of its own that joins the gateway whose HTTP is at address."""
    context.new_page().goto(f"http://{address}/worker#slots={slots}&autojoin")
