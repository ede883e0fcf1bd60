"""What axe-core finds wrong with the pages for those who do not see them, see little, or use no pointer: nothing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import Chromium, Profile
from tests.browser.tabs import origin_of
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway
from tests.guests import ROOT, guest

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: scripts/web")


@pytest.fixture(scope="module")
def gateway(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway)
        yield gateway


def violations(page: "Page") -> list[str]:
    """Return what the rules find, each in a line: the rule, what to do, and where."""
    page.evaluate(AXE.read_text())  # as the debugger does, which the page's policy lets
    told: Any = page.evaluate("() => axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    assert len(told["passes"]) > 5, "the rules were run"
    return [
        f"{found['id']} ({found['help']}): {node['target']} {' '.join(node['failureSummary'].split())}"
        for found in told["violations"]
        for node in found["nodes"]
    ]


@pytest.fixture(params=["light", "dark"])
def profile(request: pytest.FixtureRequest, chromium: Chromium, gateway: Gateway) -> Iterator[Profile]:
    # Without motion: what fades in has no contrast yet.
    with chromium.profile(origin_of(gateway), color_scheme=request.param, reduced_motion="reduce") as profile:
        yield profile


def test_the_live_page_is_for_everybody(profile: Profile, gateway: Gateway) -> None:
    ended = gateway.post(guest("hash"), input=0, difficulty=1, repeats=3, name="short", description="of three runs")
    gateway.ended(ended["id"])
    page = profile.open("/")
    page.get_by_role("table", name="Tasks, newest first").get_by_text("short").first.wait_for()
    page.get_by_role("table", name="Workers").get_by_role("rowheader").first.wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Submit a task").click()
    form = page.get_by_role("dialog", name="Submit a task")
    form.get_by_label("Module").set_input_files(ROOT / "wasm" / "hash" / "hash.wasm")
    form.get_by_text("functions to call").wait_for()
    form.get_by_text("Where and how it runs").click()
    assert violations(page) == []


def test_a_task_and_a_result_are_for_everybody(profile: Profile, gateway: Gateway) -> None:
    task = gateway.post(guest("echo"), args=["hello"], env=["EXIT=3"], repeats=200, description="fails")
    gateway.ended(task["id"])
    page = profile.open(f"/#task={task['id']}")
    page.get_by_role("table", name="Results by run number").get_by_role("rowheader").first.wait_for()
    page.get_by_role("application").wait_for()
    assert violations(page) == []
    page.get_by_role("table", name="Results by run number").get_by_role("link").first.click()
    page.get_by_role("dialog").get_by_label("stdout", exact=True).wait_for()
    assert violations(page) == []


def test_the_worker_page_is_for_everybody(profile: Profile, gateway: Gateway) -> None:
    page = profile.open("/worker")
    page.get_by_role("button", name="Join").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Join").click()
    page.get_by_text("joined", exact=True).wait_for()
    page.get_by_role("table", name="Slots").get_by_role("rowheader").first.wait_for()
    assert violations(page) == []


def test_the_api_page_is_for_everybody(profile: Profile) -> None:
    page = profile.open("/api")
    page.get_by_role("button", name="Open all").click()
    page.get_by_role("heading", name="Parameters").first.wait_for()
    assert violations(page) == []
