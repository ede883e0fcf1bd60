"""Tabs and a Python worker share a batch, whichever way a tab goes in the middle of it."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import Chromium
from tests.browser.tabs import Tab, join, origin_of, results, worker_of
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway
from tests.guests import guest

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNS = 200


@pytest.fixture(scope="module")
def gateway(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway)
        yield gateway


def test_two_tabs_of_one_profile_and_a_python_worker_share_a_batch(chromium: Chromium, gateway: Gateway) -> None:
    with chromium.profile(origin_of(gateway)) as profile:
        tabs = [join(chromium, profile, gateway) for _ in range(2)]
        assert tabs[0].peer_id != tabs[1].peer_id, "each tab has a key of its own"
        share(gateway, tabs)


def test_two_tabs_of_different_profiles_and_a_python_worker_share_a_batch(chromium: Chromium, gateway: Gateway) -> None:
    with chromium.profile(origin_of(gateway)) as one, chromium.profile(origin_of(gateway)) as other:
        share(gateway, [join(chromium, profile, gateway) for profile in (one, other)])


def share(gateway: Gateway, tabs: list[Tab]) -> None:
    """Have a batch done, and see that everybody did some of it."""
    assert Counter(worker["kind"] for worker in gateway.workers()) == {"native": 1, "browser": 2}
    task = gateway.post(guest("spin"), input=4, repeats=RUNS)
    assert gateway.ended(task["id"], bound_s=40)["status"] == "succeeded"
    told = results(gateway, task["id"])
    assert [(each["run"], each["result"]) for each in told] == [(run, "4") for run in range(RUNS)]
    assert {each["worker"] for each in told} == {worker["peer"] for worker in gateway.workers()}
    assert {tab.peer_id for tab in tabs} < {each["worker"] for each in told}


def close(page: "Page") -> None:
    page.close()


def crash(page: "Page") -> None:
    with page.expect_event("crash"), contextlib.suppress(Exception):
        page.goto("chrome://crash")


def navigate(page: "Page") -> None:
    page.goto("about:blank")


@pytest.mark.parametrize("leave", [close, crash, navigate])
def test_nothing_is_lost_when_a_tab_goes_in_the_middle(
    chromium: Chromium, gateway: Gateway, leave: "Callable[[Page], Any]"
) -> None:
    with chromium.profile(origin_of(gateway)) as profile:
        tab = join(chromium, profile, gateway, slots=2)
        task = gateway.post(guest("spin"), input=4, repeats=RUNS)

        def is_in_the_middle() -> bool:
            now = gateway.task(task["id"])
            return any(each["worker"] == tab.peer_id for each in now["results"]) and now["status"] == "running"

        chromium.until(is_in_the_middle, "the tab has done some of it")
        leave(tab.page)
        chromium.until(lambda: worker_of(gateway, tab.peer_id) is None, "the tab is gone")
        left = gateway.task(task["id"])
        assert left["status"] == "running", "it went in the middle"
        assert gateway.ended(task["id"], bound_s=40)["status"] == "succeeded"
    told = results(gateway, task["id"])
    assert [(each["run"], each["result"]) for each in told] == [(run, "4") for run in range(RUNS)]
