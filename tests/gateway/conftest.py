"""What the tests of stores share."""

from pathlib import Path

import pytest

from tests.gateway.places import Place, PostgresPlace, SqlitePlace


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a store is: each test is done once for each kind."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "ww.db")
    return PostgresPlace(request.getfixturevalue("postgres"))
