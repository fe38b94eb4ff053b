"""Servers that the tests of this folder share; each starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Site, start


@pytest.fixture(scope="session")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that lets everybody on this machine in."""
    site = start(tmp_path_factory.mktemp("open"), max_upload_bytes=8 << 20)
    yield site
    site.stop()


@pytest.fixture(scope="session")
def token_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that asks for a token."""
    site = start(tmp_path_factory.mktemp("token"), tokens=True)
    yield site
    site.stop()


@pytest.fixture(scope="module", params=["open", "token"])
def fresh_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of the module's own, without and with sign-in."""
    site = start(tmp_path_factory.mktemp(request.param), tokens=request.param == "token")
    yield site
    site.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a client keeps its files."""
    path = tmp_path / "client"
    path.mkdir()
    return path
