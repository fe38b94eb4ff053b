"""Trainings are taken down where TensorBoard finds them, and clients are told how long it still takes."""

from pathlib import Path

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
