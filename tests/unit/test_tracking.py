"""Trainings are taken down where TensorBoard finds them, and clients are told how long it still takes."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msklabel.learn.progress import Progress
from msklabel.learn.tracking import trackers
from msklabel.learn.trainer import Report

REPORTS = [Report(1, 4, 0.9, float("nan"), float("nan"), 10.0), Report(2, 4, 0.5, 0.7, 0.7, 20.0)]


def test_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    (tracker,) = trackers(tmp_path, None, "toy", {})
    for report in REPORTS:
        tracker.epoch(0, report)
    tracker.close({"version": "0001"})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, round(e.value, 3)) for e in found.Scalars("loss/fold0")] == [(1, 0.9), (2, 0.5)]
    assert [(e.step, round(e.value, 3)) for e in found.Scalars("validation_dice/fold0")] == [(2, 0.7)]
    assert "version/text_summary" in found.Tags()["tensors"]


def test_clients_see_epochs_the_best_metric_and_the_time_left(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "toy" / "training.json", "toy")
    assert progress.read() == {}
    progress.begin(4)
    assert progress.read() == {"epoch": 0, "total_epochs": 4}
    progress.epoch(0, REPORTS[1])
    stats = progress.read()
    assert (stats["epoch"], stats["total_epochs"], stats["best_metric"]) == (2, 4, 0.7)
    assert stats["total_time"] == "20.0"
    assert stats["seconds_left"] == pytest.approx(20.0)


class Store:
    """What is asked of an MLflow store."""

    def __init__(self, tracking_uri: str) -> None:
        self.runs: list[dict[str, Any]] = []

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, start_time: int) -> Any:
        self.runs.append({"experiment": experiment, "params": {}, "loss": [], "tags": {}, "status": "RUNNING"})
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs))))

    def log_param(self, run: str, key: str, value: str) -> None:
        self.runs[int(run) - 1]["params"][key] = value

    def log_metric(self, run: str, key: str, value: float, step: int) -> None:
        if key == "loss_fold0":
            self.runs[int(run) - 1]["loss"].append((step, value))

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[int(run) - 1]["tags"][key] = value

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[int(run) - 1]["status"] = status


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Stands for MLflow, which need not be installed."""
    kept = Store("")
    mlflow, exceptions = ModuleType("mlflow"), ModuleType("mlflow.exceptions")
    mlflow.MlflowClient = lambda tracking_uri: kept  # type: ignore[attr-defined]
    exceptions.MlflowException = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    return kept


def test_mlflow_gets_a_run_with_parameters_curves_and_what_became_of_it(tmp_path: Path, store: Store) -> None:
    for facts in ({"version": "0001"}, {}):
        tracker = trackers(tmp_path, "http://mlflow", "toy", {"epochs": 4})[1]
        for report in REPORTS:
            tracker.epoch(0, report)
        tracker.close(facts)
    first, second = store.runs
    assert first["experiment"] == "msklabel/toy" and first["params"] == {"epochs": "4"}
    assert first["loss"] == [(1, 0.9), (2, 0.5)] and first["tags"] == {"version": "0001"}
    assert (first["status"], second["status"]) == ("FINISHED", "KILLED")


def test_a_training_that_ends_before_its_first_epoch_leaves_no_run(tmp_path: Path, store: Store) -> None:
    for tracker in trackers(tmp_path, "http://mlflow", "toy", {"epochs": 4}):
        tracker.close({})
    assert not list(tmp_path.iterdir()) and not store.runs
