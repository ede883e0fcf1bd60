"""Pictures of the pages: of a gateway with a Python worker and a tab, both at work on tasks of several kinds.

    scripts/screenshots [DIRECTORY]

Each is taken when its page shows what it is to show; where it does not, that is said and none is written. Holds which
pictures there are. Must not know how the pages are made.
"""

import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.cluster import Client, form, gateway, processes  # noqa: E402
from bench.tab import NoBrowserError, chromium, join  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE: Final = {"width": 1280, "height": 960}
FLAT: Final = {"width": 1280, "height": 700}
BOUND_S: Final = 60.0
WATCHED_S: Final = 60
"""So long something goes on before the charts are worth a picture."""
SWEEP_RUNS: Final = 4000
LARGEST_BYTES: Final = 300_000
"""What is in a repository is there for ever."""


class PictureError(Exception):
    """There is nothing to take a picture of."""


def guest(name: str) -> bytes:
    return (ROOT / "wasm" / name / f"{name}.wasm").read_bytes()


def post(client: Client, of: str, /, **fields: Any) -> str:
    return str(client.request("POST", "/tasks", *form(guest(of), **fields))["id"])


def wait(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > end:
            raise PictureError(f"not within {BOUND_S:g} s: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def cluster(browser: "Browser") -> Iterator[Client]:
    """Run a gateway with a worker in Python and one in a tab."""
    # Whoever else is on this machine is not in the picture.
    alone = ("--discover", f"/ip4/239.255.88.22/udp/{random.randrange(20_000, 60_000)}/multicast")
    with processes() as started, gateway(started, *alone) as client:
        peer = client.request("GET", "/healthz")["peer"]
        more = ("--slots", "2", "--meta", "room=office", *alone)
        started.start("worker", "--dial", peer, *more, ready="(joined) gateway")
        join(browser.new_context(), client.address, 2)
        wait(lambda: len(client.request("GET", "/workers")) == 2, "a Python worker and a tab have joined")
        yield client


def work(client: Client) -> str:
    """Give it tasks that end in several ways, and return the id of a batch that is under way for long."""
    sweep = post_sweep(client)
    post(client, "echo", name="greeting", args="hello", stdin="from stdin", description="A WASI command")
    post(client, "echo", name="exit", env="EXIT=3", description="A command that fails")
    post(client, "spin", name="loop", input=0, duration=2, description="An infinite loop, stopped at its deadline")
    post(client, "hash", name="puzzle", input=0, difficulty=3, repeats=200, description="Hash puzzle")
    for second in range(WATCHED_S):
        if second % 12 == 0:
            number = second // 12 + 1
            post(client, "noop", name=f"burst {number}", repeats=1000 * number, description="Many short runs")
        time.sleep(1)
        client.request("GET", "/healthz")  # a connection that says nothing for long is closed
    return sweep


def post_sweep(client: Client) -> str:
    """Submit a batch in which some runs never end by themselves."""
    module = client.request("POST", "/modules", guest("spin"), "application/wasm")["module"]
    about = {"name": "sweep", "description": "A parameter sweep, 30 runs a second", "delay": 1 / 30, "duration": 0.5}
    runs = [{"input": 0 if run % 97 == 60 else 5 + run % 15} for run in range(SWEEP_RUNS)]
    body = json.dumps({"parent": about | {"module": module}, "tasks": runs}).encode()
    return str(client.request("POST", "/tasks", body, "application/json")["id"])


def photograph(page: "Page", path: Path) -> None:
    page.evaluate("document.activeElement.blur()")
    picture = page.screenshot(path=path, animations="disabled", caret="hide")
    if len(picture) > LARGEST_BYTES:
        raise PictureError(f"{path.name} has {len(picture):,} bytes, at most {LARGEST_BYTES:,} were expected")
    print(f"{path.name}: {len(picture):,} bytes")


def photograph_all(browser: "Browser", client: Client, folder: Path) -> None:
    """Take all pictures into a folder."""
    origin = f"http://{client.address}"
    sweep = work(client)
    for name, scheme in (("live", "light"), ("live-dark", "dark")):
        page = browser.new_context(color_scheme=scheme, viewport=WIDE).new_page()
        page.goto(origin)
        page.get_by_role("table", name="Workers").get_by_text("browser").first.wait_for()
        page.wait_for_timeout(3000)  # what is shown as it comes, not as it was at first
        photograph(page, folder / f"{name}.png")
    page = browser.new_context(viewport=WIDE).new_page()
    page.goto(f"{origin}/#task={sweep}")
    page.get_by_role("application", name="runs").wait_for()
    page.wait_for_timeout(1500)
    photograph(page, folder / "batch.png")
    page = browser.new_context(viewport=FLAT).new_page()
    page.goto(f"{origin}/worker#slots=2&autojoin")
    page.get_by_text("joined").first.wait_for()
    page.wait_for_timeout(8000)
    photograph(page, folder / "worker.png")


def main(folder: Path) -> int:
    """Take them, and put them where they belong when all are there."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="ww-screenshots-") as taken,
            chromium() as browser,
            cluster(browser) as client,
        ):
            photograph_all(browser, client, Path(taken))
            folder.mkdir(parents=True, exist_ok=True)
            for picture in Path(taken).iterdir():
                (folder / picture.name).write_bytes(picture.read_bytes())
    except (NoBrowserError, PictureError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"))
