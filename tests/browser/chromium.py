"""Chromium for tests, driven by playwright: one process for a module's tests, a fresh profile for each.

Whatever a page throws, reports as an error, is refused by its Content-Security-Policy or asks of another origin fails
the test that opened it, unless that said that it expects it. Nothing here knows what the pages show.
"""

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.e2e.processes import BOUND_S, is_running, wait_until
from tests.guests import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The system's sandbox needs what root in a container may not have; and nothing is reached by a name or a proxy.
ARGUMENTS = [
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
# What a policy refuses is told to the console, but for what is refused in silence.
TELL_VIOLATIONS = """
  addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy: ${event.effectiveDirective} refused ${event.blockedURI}`));
"""


def executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def why_not() -> str:
    """Return why no page can be tested here; empty when it can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: scripts/setup browser"
    if executable() is None:
        return f"no Chromium on the PATH: none of {', '.join(NAMES)}"
    if not (ROOT / "ww" / "web" / "worker.html").is_file():
        return "ww/web is not built: scripts/web"
    return ""


class Profile:
    """Pages that share cookies and storage, as windows of one user do, and everything that went wrong in them."""

    def __init__(self, browser: "Browser", origin: str, **settings: Any) -> None:
        self._origin = origin
        self._expected: list[re.Pattern[str]] = []
        self._problems: list[str] = []
        self.requests: list[str] = []
        """The addresses of what was asked for, in order."""
        self.context = browser.new_context(base_url=origin, **settings)
        self.context.set_default_timeout(BOUND_S * 1000)
        self.context.add_init_script(TELL_VIOLATIONS)
        self.context.on("request", self._see)
        self.context.on("console", lambda said: said.type == "error" and self._problems.append(f"console: {said.text}"))
        self.context.on("weberror", lambda thrown: self._problems.append(f"thrown: {thrown.error}"))

    def _see(self, request: "Request") -> None:
        self.requests.append(request.url)
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and f"{address.scheme}://{address.netloc}" != self._origin:
            self._problems.append(f"foreign request: {request.url}")

    def open(self, path: str) -> "Page":
        """Open a page of the gateway in a window of its own."""
        page = self.context.new_page()
        page.goto(path)
        return page

    def expect(self, pattern: str) -> None:
        """Let problems that match pattern be none."""
        self._expected.append(re.compile(pattern))

    @property
    def problems(self) -> list[str]:
        return [text for text in self._problems if not any(each.search(text) for each in self._expected)]


class Chromium:
    """A running Chromium without a window."""

    def __init__(self, browser: "Browser") -> None:
        self.browser = browser
        self._session = browser.new_browser_cdp_session()

    @contextlib.contextmanager
    def profile(self, origin: str, **settings: Any) -> Iterator[Profile]:
        """Give a fresh profile for pages of that origin; fail when something went wrong in them unexpectedly."""
        profile = Profile(self.browser, origin, **settings)
        try:
            yield profile
            self.until(lambda: True)
        finally:
            profile.context.close()
        assert not profile.problems, "\n".join(profile.problems)

    def until(self, condition: Callable[[], Any], what: str = "", bound_s: float = BOUND_S) -> Any:
        """Return what condition returns once that is true; meanwhile what happens in pages is heard."""
        end = time.monotonic() + bound_s
        while True:
            self._session.send("Browser.getVersion")
            if value := condition():
                return value
            assert time.monotonic() < end, f"not within {bound_s} s: {what or condition}"
            time.sleep(0.02)

    def processes(self, kind: str = "") -> list[int]:
        """Return its processes, or those of one kind: pages live in those of kind renderer."""
        told = self._session.send("SystemInfo.getProcessInfo")["processInfo"]
        return [process["id"] for process in told if kind in ("", process["type"])]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop every page, workers and all, without telling it: as a machine does that sleeps."""
        pids = self.processes("renderer")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def running_chromium(directory: Path) -> Iterator[Chromium]:
    """Run Chromium, and leave no process of it behind."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=ARGUMENTS, downloads_path=directory, timeout=BOUND_S * 1000
        )
        try:
            chromium = Chromium(browser)
            yield chromium
            processes = chromium.processes()
        finally:
            browser.close()
    wait_until(lambda: not any(is_running(pid) for pid in processes), "Chromium's processes are gone")
