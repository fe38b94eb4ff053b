"""A new version is taken up with the next request; the one that runs ends with its own."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_preprocess import body_in_air, make_system
from torch import nn

from msklabel.errors import Conflict
from msklabel.imaging import Scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict import served
from msklabel.predict.selection import Selection, version_key
from msklabel.predict.served import ServedModel
from msklabel.system import System


class Slow(nn.Module):
    """Label 1 everywhere, and not before it may."""

    def __init__(self, began: threading.Event, go: threading.Event) -> None:
        super().__init__()
        self.began, self.go = began, go

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.began.set()
        assert self.go.wait(30)
        return torch.stack((-x[:, 0] - 9, x[:, 0] + 9, torch.full_like(x[:, 0], -9)), 1)


def with_versions(folder: Path, count: int) -> tuple[System, Versions]:
    """A system with some versions, the first of them in service."""
    system, versions = make_system(spacing_mm=[None, None, None]), Versions(folder)
    for _ in range(count):
        versions.add(system, [weights_of(build_network(system))], {})
    versions.publish("toy", "0001")
    return system, versions


def test_publishing_and_rolling_back_never_fail_a_running_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()
    monkeypatch.setattr("msklabel.predict.selection.loaded_network", lambda *_: Slow(began, go))
    system, versions = with_versions(tmp_path, 2)
    model = ServedModel(system, versions, "cpu")
    hu, _ = body_in_air((30, 28, 6))
    scan, answers = Scan(hu[None], np.eye(4)), []
    running = threading.Thread(target=lambda: answers.append(model(scan)))
    running.start()
    assert began.wait(30)
    versions.publish("toy", "0002")
    go.set()
    running.join(60)
    answers.append(model(scan))
    versions.roll_back("toy")
    answers.append(model(scan))
    assert [name for name, _ in answers] == ["0001", "0002", "0001"]
    assert all((result.labels.array == 1).any() for _, result in answers)


@pytest.mark.parametrize("room_for_two", [True, False])
def test_the_version_before_answers_while_the_new_one_is_loaded_where_both_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for_two: bool
) -> None:
    monkeypatch.setattr(served, "much_memory_left", lambda device: room_for_two)
    system, versions = with_versions(tmp_path, 3)
    began, go, asked = threading.Event(), threading.Event(), threading.Event()

    class Waiting(Selection):
        def __call__(self, *request: Any) -> tuple[str, Any]:
            if request[3] == version_key("0002"):
                began.set()
                assert go.wait(30)
            return super().__call__(*request)

    model = ServedModel(system, versions, "cpu", Waiting())
    scan, answers = Scan(body_in_air((30, 28, 6))[0][None], np.eye(4)), []
    model(scan)
    versions.publish("toy", "0002")
    loading = threading.Thread(target=model.load)
    loading.start()
    assert began.wait(30)
    assert model.version == "0002" and model.answering() == ("0001" if room_for_two else "0002")

    def ask() -> None:
        asked.set()
        answers.append(model(scan)[0])

    asking = threading.Thread(target=ask)
    asking.start()
    assert asked.wait(30)
    if room_for_two:
        asking.join(30)
        assert answers == ["0001"]
    versions.publish("toy", "0003")  # what is loaded is old before it is ready
    go.set()
    loading.join(30)
    asking.join(30)
    assert model(scan)[0] == model.answering() == "0003"


def test_a_version_that_cannot_be_loaded_is_not_hidden_by_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "much_memory_left", lambda device: True)
    system, versions = with_versions(tmp_path, 2)
    model, scan = ServedModel(system, versions, "cpu"), Scan(body_in_air((30, 28, 6))[0][None], np.eye(4))
    model(scan)
    for file in (tmp_path / "toy" / "0002").glob("*.safetensors"):
        file.write_bytes(b"")
    versions.publish("toy", "0002")
    for use in (model.load, lambda: model(scan)):
        with pytest.raises(Exception, match="0002"):
            use()
    assert model.answering() == "0002"


def test_a_version_is_loaded_ahead_once_and_where_there_is_memory_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, versions, plenty = make_system(), Versions(tmp_path), True
    model = ServedModel(system, versions, "cpu")
    monkeypatch.setattr(served, "much_memory_left", lambda device: plenty)

    def publish() -> None:
        versions.publish(system.name, versions.add(system, [weights_of(build_network(system))], {}).name)

    assert not model.behind
    publish()
    assert model.behind
    plenty = False
    assert not model.behind
    model.load()
    publish()
    assert model.behind, "it takes the place of the other one"
    model.load()
    assert not model.behind


def test_a_gpu_gets_its_memory_back_after_each_scan_and_each_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(served, "return_gpu_memory", given_back.append)
    system, versions = make_system(spacing_mm=[None, None, None]), Versions(tmp_path)
    model, scan = ServedModel(system, versions, "cpu"), Scan(body_in_air((30, 28, 6))[0][None], np.eye(4))
    with pytest.raises(Conflict):
        model(scan)
    versions.publish("toy", versions.add(system, [weights_of(build_network(system))], {}).name)
    model(scan)
    model.apply(lambda engine: engine(scan))
    assert given_back == ["cpu"] * 3
