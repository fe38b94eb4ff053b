"""How far a training is: a small file that clients are shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from msklabel.durable import replace_text
from msklabel.learn.record import read_json, rounded, to_json
from msklabel.learn.trainer import Report

logger = logging.getLogger(__name__)


class Progress:
    """Statistics of the running or the last training, as 3D Slicer's module shows them.

    Args:
        file: Where they are kept.
        system: Name of the system.
    """

    def __init__(self, file: Path, system: str) -> None:
        self._file = file
        self._system = system

    def read(self) -> dict[str, Any]:
        """What is known; empty before the first training."""
        return read_json(self._file)

    def begin(self, epochs: int) -> None:
        """A training starts."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self._file, to_json({"epoch": 0, "total_epochs": epochs}))

    def note(self, **facts: Any) -> None:
        """Add facts, such as the outcome."""
        replace_text(self._file, to_json({**self.read(), **facts}))

    def epoch(self, fold: int, report: Report) -> None:
        """An epoch is done: log it, and show it."""
        best = rounded(report.best_dice)
        logger.info(
            "%s: epoch %d of %d, loss %.4f, best validation Dice %s, %.0f s, %.0f s left",
            f"{self._system}, fold {fold}" if fold else self._system,
            report.epoch,
            report.epochs,
            report.loss,
            best,
            report.seconds,
            report.seconds_left,
        )
        self.note(
            fold=fold,
            epoch=report.epoch,
            total_epochs=report.epochs,
            total_time=str(round(report.seconds, 1)),
            seconds_left=round(report.seconds_left, 1),
            best_metric=best or 0.0,
            train={"loss": rounded(report.loss)},
            eval={"dice": rounded(report.validation_dice)},
        )
