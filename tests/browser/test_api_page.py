"""The page that renders this gateway's OpenAPI document."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Chromium
from tests.browser.tabs import origin_of
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway

METHODS = {"get", "post", "delete", "put", "patch", "head"}


@pytest.fixture(scope="module")
def gateway(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.gateway()


def test_the_api_page_renders_every_operation(chromium: Chromium, gateway: Gateway) -> None:
    told: dict[str, Any] = gateway.client.get("/openapi.json").json()["paths"]
    wanted = {
        (method.upper(), path)
        for path, methods in told.items()
        for method in methods
        if method in {"get", "post", "delete", "put", "patch", "head"}
    }
    with chromium.profile(origin_of(gateway)) as profile:
        page = profile.open("/api")
        page.get_by_text("/tasks/{id}/results").first.wait_for()
        text = page.get_by_role("main").inner_text()
        missing = [
            f"{method} {path}"
            for method, path in sorted(wanted)
            if not re.search(rf"\b{method}\s+{re.escape(path)}(?![\w/{{])", text)
        ]
        assert missing == []
