"""The live page as a person uses it: by pointer, by keyboard alone, on a phone, in the dark, with a token."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Chromium, Profile
from tests.browser.tabs import origin_of
from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway
from tests.guests import ROOT, guest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HASH = ROOT / "wasm" / "hash" / "hash.wasm"
MANY = 100_000
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def gateway(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway)
        yield gateway


@pytest.fixture
def profile(chromium: Chromium, gateway: Gateway) -> Iterator[Profile]:
    with chromium.profile(origin_of(gateway)) as profile:
        yield profile


def row(page: "Page", table: str, name: str) -> "Locator":
    """Return the row of a table whose head has that in its name."""
    rows = page.get_by_role("table", name=table).get_by_role("row")
    return rows.filter(has=page.get_by_role("rowheader", name=name))


def ended_with(page: "Page", run: str, *texts: str) -> None:
    """Wait until the result of a run is there and says that."""
    line = row(page, "Results by run number", run)
    for text in texts:
        line.filter(has_text=text).wait_for()


def task_of(page: "Page") -> str:
    return page.url.partition("#task=")[2]


def test_a_module_that_is_chosen_becomes_a_task_and_its_output_is_read(profile: Profile, gateway: Gateway) -> None:
    page = profile.open("/")
    page.get_by_role("button", name="Submit a task").click()
    form = page.get_by_role("dialog", name="Submit a task")
    form.get_by_label("Module").set_input_files(ROOT / "wasm" / "echo" / "echo.wasm")
    form.get_by_text("a WASI command").wait_for()
    form.get_by_label("Arguments").fill("hello\nżółw 🐢")
    form.get_by_label("Environment").fill("EXIT=3")
    form.get_by_label("Standard input").fill("and <b>this</b>")
    form.get_by_role("button", name="Submit").click()
    ended_with(page, "0", "failed", "exit 3", "hello żółw 🐢")
    row(page, "Results by run number", "0").get_by_role("link").click()
    result = page.get_by_role("dialog", name="Run 0")
    result.get_by_label("stdout", exact=True).wait_for()
    assert result.get_by_label("stdout", exact=True).inner_text() == "hello żółw 🐢\nand <b>this</b>"
    assert result.get_by_label("stderr", exact=True).inner_text() == "EXIT=3\n"
    page.keyboard.press("Escape")
    result.wait_for(state="detached")
    page.get_by_role("link", name="All tasks").click()
    row(page, "Tasks, newest first", "echo").filter(has_text="failed").wait_for()


def test_a_module_that_is_dropped_becomes_a_task(profile: Profile) -> None:
    page = profile.open("/")
    content = base64.b64encode(HASH.read_bytes()).decode()
    dropped = page.evaluate_handle(
        """(content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const dropped = new DataTransfer();
          dropped.items.add(new File([bytes], "hash.wasm", {type: "application/wasm"}));
          return dropped;
        }""",
        content,
    )
    for name in ("dragenter", "dragover", "drop"):
        page.dispatch_event("main", name, {"dataTransfer": dropped})
    form = page.get_by_role("dialog", name="Submit a task")
    form.get_by_text("functions to call").wait_for()
    form.get_by_label("Input", exact=True).fill("0")
    form.get_by_label("Difficulty").fill("3")
    form.get_by_label("Repeats").fill("3")
    form.get_by_role("button", name="Submit").click()
    for run in range(3):
        ended_with(page, str(run), "succeeded", "2832")


def test_what_is_refused_is_said_beside_its_field(profile: Profile) -> None:
    profile.expect(r"status of 422")  # a browser reports what its page was refused
    page = profile.open("/")
    page.get_by_role("button", name="Submit a task").click()
    form = page.get_by_role("dialog", name="Submit a task")
    form.get_by_label("Module").set_input_files(ROOT / "README.md")
    form.get_by_text("WebAssembly").first.wait_for()
    assert form.get_by_role("button", name="Submit").is_disabled()
    form.get_by_label("Module").set_input_files(HASH)
    form.get_by_text("functions to call").wait_for()
    form.get_by_label("Repeats").fill("many")
    form.get_by_role("button", name="Submit").click()
    form.locator("[aria-invalid=true]").wait_for()
    assert form.locator("[aria-invalid=true]").input_value() == "many"


def test_a_task_is_submitted_watched_and_cancelled_by_keyboard_alone(profile: Profile, gateway: Gateway) -> None:
    page = profile.open("/")
    page.get_by_text("live", exact=True).wait_for()

    def to(*names: str) -> None:
        """Go on by Tab until what has the focus is called one of that."""
        for _ in range(60):
            page.keyboard.press("Tab")
            if focused(page) in names:
                return
        raise AssertionError(f"Tab leads to none of {names}")

    to("Skip to the content")
    page.keyboard.press("Enter")
    to("Submit a task")
    with page.expect_event("filechooser") as choosing:
        page.keyboard.press("Enter")
        page.get_by_role("dialog", name="Submit a task").wait_for()
        if focused(page) != "Module":
            to("Module")
        page.keyboard.press("Enter")
    choosing.value.set_files(ROOT / "wasm" / "spin" / "spin.wasm")
    page.get_by_text("functions to call").wait_for()
    to("Input")
    page.keyboard.type("0")
    to("Difficulty")
    page.keyboard.type("0")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel task").wait_for()
    id = task_of(page)
    to("Cancel task")
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Cancel this task?").wait_for()
    to("Cancel the task")
    page.keyboard.press("Enter")
    assert gateway.ended(id)["status"] == "cancelled"
    page.locator("header").get_by_text("cancelled", exact=True).wait_for()


def focused(page: "Page") -> str:
    """Return how what has the focus is called, as its label or text says."""
    return str(
        page.evaluate(
            """() => {
              const at = document.activeElement;
              return at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent ?? at.textContent;
            }"""
        )
    )


def test_a_task_is_cancelled_from_its_page(profile: Profile, gateway: Gateway) -> None:
    task = gateway.post(guest("spin"), input=0, repeats=5)
    page = profile.open(f"/#task={task['id']}")
    page.get_by_role("button", name="Cancel task").click()
    page.get_by_role("button", name="Keep it").click()
    assert gateway.task(task["id"])["finished_at"] is None, "asked first"
    page.get_by_role("button", name="Cancel task").click()
    page.get_by_role("button", name="Cancel the task").click()
    assert gateway.ended(task["id"])["status"] == "cancelled"
    page.locator("header").get_by_text("cancelled", exact=True).wait_for()
    assert page.get_by_role("button", name="Cancel task").count() == 0


def test_tabs_that_nobody_sees_leave_connections_to_others(
    chromium: Chromium, profile: Profile, gateway: Gateway
) -> None:
    task = gateway.post(guest("noop"), start=3600)
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    pages = []
    # Two streams each; a browser has six connections.
    for _ in range(4):
        page = profile.open(f"/#task={task['id']}")
        page.get_by_role("list", name="Runs by state").get_by_text("scheduled 1").wait_for()
        page.evaluate(hide, True)
        pages.append(page)
    gateway.client.delete(f"/tasks/{task['id']}")
    pages[0].evaluate(hide, False)
    pages[0].get_by_role("list", name="Runs by state").get_by_text("cancelled 1").wait_for()


def test_a_grid_whose_cells_are_several_runs_counts_runs(profile: Profile, gateway: Gateway) -> None:
    task = gateway.post(guest("noop"), repeats=2 * MANY + 1, start=3600)
    page = profile.open(f"/#task={task['id']}")
    page.get_by_role("application", name=re.compile(r"A cell stands for 3 runs")).wait_for()
    page.get_by_role("list", name="Runs by state").get_by_text(re.compile(r"scheduled 200.001$")).wait_for()
    gateway.client.delete(f"/tasks/{task['id']}")
    page.get_by_role("list", name="Runs by state").get_by_text(re.compile(r"cancelled 200.001$")).wait_for()


def test_a_grid_of_100_000_runs_is_drawn_and_follows(chromium: Chromium, profile: Profile, gateway: Gateway) -> None:
    task = gateway.post(guest("noop"), repeats=MANY)
    page = profile.open(f"/#task={task['id']}")
    view = page.get_by_role("application", name=re.compile(r"100.000 runs"))
    view.wait_for()

    def succeeded() -> int:
        found = re.search(r"(\d+) succeeded", view.get_attribute("aria-label") or "")
        return int(found[1]) if found else 0

    first = chromium.until(succeeded, "some have succeeded")
    chromium.until(lambda: succeeded() > first, "more have")
    assert gateway.ended(task["id"], bound_s=40)["status"] == "succeeded"
    chromium.until(lambda: succeeded() == MANY, "the last state is shown")
    page.locator("header").get_by_text("succeeded", exact=True).wait_for()
    # Drawn, each run its cell, in the colour of what succeeded.
    colours = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas");
          const [red, green, blue] = canvas.getContext("2d").getImageData(0, 0, 1, 1).data;
          return [[red, green, blue], getComputedStyle(canvas).getPropertyValue("--cell-succeeded")];
        }"""
    )
    assert "#" + bytes(colours[0]).hex() == colours[1].strip()
    # Read by keyboard, to the last.
    view.press("End")
    page.get_by_text(re.compile(r"Run 99.999: succeeded")).first.wait_for()
    view.press("Enter")
    page.get_by_role("dialog", name=re.compile(r"Run 99.999")).get_by_text("succeeded").wait_for()


def test_workers_members_and_charts_are_shown_and_follow(chromium: Chromium, cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    first = cluster.worker(gateway, "--meta", "room=attic")
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open("/")
        workers = page.get_by_role("table", name="Workers")
        workers.get_by_text("room=attic").wait_for()
        second = cluster.worker(gateway)
        workers.get_by_title(second.peer_id).wait_for()
        page.get_by_role("table", name="Members").get_by_title(second.peer_id).wait_for()
        cluster.lose(first)
        workers.get_by_title(first.peer_id).wait_for(state="detached")
        gateway.post(guest("noop"), repeats=500)
        row(page, "Tasks, newest first", "").filter(has_text="succeeded").filter(has_text="500 / 500").wait_for()


@pytest.mark.parametrize("path", ["/", "/#task=", "/worker", "/api"])
def test_nothing_is_wider_than_a_phone(chromium: Chromium, gateway: Gateway, path: str) -> None:
    if path.endswith("="):
        task = gateway.post(guest("echo"), args=["x" * 300], description="d" * 300, repeats=200)
        gateway.ended(task["id"])
        path += task["id"]
    with chromium.profile(origin_of(gateway), **PHONE) as profile:
        page = profile.open(path)
        page.get_by_role("main").get_by_role("heading").first.wait_for()
        page.wait_for_load_state("load")
        widest = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widest[0] <= widest[1] == 390


@pytest.mark.parametrize("path", ["/", "/worker", "/api"])
def test_dark_is_dark_and_light_is_light(chromium: Chromium, gateway: Gateway, path: str) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        with chromium.profile(origin_of(gateway), color_scheme=scheme) as profile:
            page = profile.open(path)
            colours = page.evaluate(
                """() => {
                  const style = getComputedStyle(document.body);
                  const shade = getComputedStyle(document.documentElement);
                  return [style.color, style.backgroundColor, shade.backgroundColor];
                }"""
            )
            text, *grounds = (re.findall(r"[\d.]+", colour) for colour in colours)
            ground = next(each for each in grounds if len(each) == 3 or float(each[3]) > 0)
            brightness[scheme] = [sum(map(float, each[:3])) / 3 for each in (text, ground)]
    assert brightness["light"][0] < 80 < 200 < brightness["light"][1]
    assert brightness["dark"][1] < 80 < 160 < brightness["dark"][0]


def test_where_a_token_is_asked_for_the_page_asks_once_and_keeps_it(
    chromium: Chromium, cluster: CleanCluster, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    made = cluster.program("token", "create", "alice", "--file", str(tokens))
    secret = made.stdout_line()
    assert made.wait() == 0
    gateway = cluster.gateway("--token-file", str(tokens))
    with chromium.profile(origin_of(gateway)) as profile:
        profile.expect(r"status of 401")
        page = profile.open("/")
        dialog = page.get_by_role("dialog", name="Token")
        dialog.get_by_label("Token").fill("ww_wrong")
        page.keyboard.press("Enter")
        dialog.get_by_text("not known").wait_for()
        dialog.get_by_label("Token").fill(secret)
        page.keyboard.press("Enter")
        page.get_by_text("live", exact=True).wait_for()
        page.reload()
        page.get_by_text("live", exact=True).wait_for()
        assert page.get_by_role("dialog").count() == 0
        assert secret not in page.url
        assert page.evaluate("Object.values(localStorage).join()").find(secret) < 0, "it is gone with the tab"
