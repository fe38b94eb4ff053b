"""Many annotators at once: few choices and few submissions at a time, so that who only reads does not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from store_samples import scan

from msklabel.app import MskLabelApp
from msklabel.catalogue import app_folder
from msklabel.errors import UserError
from msklabel.serve.application import create_app
from msklabel.serve.settings import ServeSettings

ANNOTATORS = 8


class Counted:
    """Takes a while, and counts how many are at it at once."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self.gate = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, *_: Any, **__: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(20)
        with self._lock:
            self.now -= 1
        raise UserError("counted")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MskLabelApp, TestClient]]:
    folder = tmp_path_factory.mktemp("crowd")
    scan(folder / "studies" / "scan1.nii.gz")
    app = MskLabelApp(str(app_folder()), str(folder / "studies"), {"state": str(folder / "state")})
    with TestClient(create_app(app, ServeSettings()), base_url="http://127.0.0.1") as client:
        yield app, client


def next_scan(client: TestClient) -> int:
    return client.post("/activelearning/first", json={}).status_code


def submit(client: TestClient) -> int:
    return client.put("/datastore/label?image=scan1", files={"label": ("a.nii.gz", b"x")}).status_code


@pytest.mark.parametrize(("owner", "name", "ask"), [("app", "next_sample", next_scan), ("store", "submit", submit)])
def test_few_at_a_time(
    site: tuple[MskLabelApp, TestClient],
    monkeypatch: pytest.MonkeyPatch,
    owner: str,
    name: str,
    ask: Callable[[TestClient], int],
) -> None:
    app, client = site
    counted = Counted()
    monkeypatch.setattr(app if owner == "app" else app.datastore(), name, counted)
    with ThreadPoolExecutor(ANNOTATORS) as pool:
        asked = [pool.submit(ask, client) for _ in range(ANNOTATORS)]
        try:
            end = time.monotonic() + 20
            while counted.now < 2:
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(0.5)
            assert counted.now == 2
            assert client.get("/info/").status_code == 200, "reading is not held up"
        finally:
            counted.gate.set()
        assert [one.result() for one in asked] == [400] * ANNOTATORS
    assert counted.most == 2
