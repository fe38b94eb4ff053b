"""The databases that the store is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import store_samples
from postgres import Cluster, binaries


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that runs while the tests do."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here (Debian: apt-get install postgresql)")
    running = Cluster(programs)
    yield running
    running.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Let the store's tests run on each database; the URL, None for a file in the state folder."""
    url = request.getfixturevalue("cluster").new_database() if request.param == "postgresql" else None
    monkeypatch.setattr(store_samples, "DATABASE", url)
    return url
