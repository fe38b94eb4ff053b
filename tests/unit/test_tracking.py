"""Trainings are taken down where TensorBoard finds them, and clients are told how long it still takes."""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.telemetry.utils import is_telemetry_disabled
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msklabel.errors import UserError
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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of an MLflow store."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def runs(store: str, system: str) -> list[Run]:
    """The runs of a system's trainings, oldest first."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(f"msklabel/{system}")
    return client.search_runs([experiment.experiment_id], order_by=["start_time"]) if experiment else []


def test_mlflow_gets_a_run_with_parameters_curves_and_what_became_of_it(tmp_path: Path, store: str) -> None:
    for facts in ({"version": "0001"}, {}):
        tracker = trackers(tmp_path, store, "toy", {"epochs": 4})[1]
        for report in REPORTS:
            tracker.epoch(0, report)
        tracker.close(facts)
    first, second = runs(store, "toy")
    assert first.data.params == {"epochs": "4"} and first.data.tags["version"] == "0001"
    losses = MlflowClient(store).get_metric_history(first.info.run_id, "loss_fold0")
    assert [(one.step, one.value) for one in losses] == [(1, 0.9), (2, 0.5)]
    assert (first.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert first.info.start_time < first.info.end_time
    assert is_telemetry_disabled()


def test_a_training_that_ends_before_its_first_epoch_leaves_no_run(tmp_path: Path, store: str) -> None:
    for tracker in trackers(tmp_path, store, "early", {"epochs": 4}):
        tracker.close({})
    assert not list(tmp_path.iterdir()) and runs(store, "early") == []


def test_a_store_that_cannot_be_used_and_a_missing_mlflow_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="the MLflow store nowhere://x cannot be used"):
        trackers(tmp_path, "nowhere://x", "toy", {})
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match="MLflow is asked for but not installed: pip install mlflow-skinny"):
        trackers(tmp_path, "nowhere://x", "toy", {})
