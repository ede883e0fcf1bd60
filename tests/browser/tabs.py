"""Workers in tabs: opened as a person does, known to the gateway by their peer id, and told apart from other kinds."""

from typing import TYPE_CHECKING, Any

from tests.browser.chromium import Chromium, Profile
from tests.e2e.processes import Gateway

if TYPE_CHECKING:
    from playwright.sync_api import Page


class Tab:
    """A page that has joined a gateway."""

    def __init__(self, page: "Page", peer_id: str) -> None:
        self.page = page
        self.peer_id = peer_id


def origin_of(gateway: Gateway) -> str:
    return f"http://{gateway.http}"


def worker_of(gateway: Gateway, peer_id: str) -> Any:
    """Return what the gateway says of that worker; None when it is not there."""
    return next((worker for worker in gateway.workers() if worker["peer"] == peer_id), None)


def join(chromium: Chromium, profile: Profile, gateway: Gateway, *, slots: int = 1, more: str = "") -> Tab:
    """Open a tab that joins by itself; it is the only worker to join meanwhile."""
    before = {worker["peer"] for worker in gateway.workers()}
    page = profile.open(f"/worker#slots={slots}&autojoin{more}")

    def joined() -> list[str]:
        return [worker["peer"] for worker in gateway.workers() if worker["peer"] not in before]

    (peer_id,) = chromium.until(joined, "a tab joins")
    return Tab(page, peer_id)


def results(gateway: Gateway, id: str) -> list[Any]:
    """Return the results of a task that ended, by run."""
    told: list[Any] = []
    while page := gateway.client.get(
        f"/tasks/{id}/runs", params={"limit": 1000, "after": len(told) - 1} if told else {"limit": 1000}
    ).json():
        told += page
    return told
