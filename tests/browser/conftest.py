"""What the tests in a browser share: Chromium, a cluster of real processes, and a profile that must stay clean."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, running_chromium, why_not
from tests.e2e.leftovers import CleanCluster, clean_cluster_in


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Chromium; of a module and not of the session, since playwright keeps an event loop in the thread meanwhile."""
    if reason := why_not():
        pytest.skip(reason)
    with running_chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture
def cluster(chromium: Chromium, tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster
