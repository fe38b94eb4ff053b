"""Curves of trainings: TensorBoard files always, an MLflow store where one is named.

A run is begun with its first epoch: a training that ends before, and one that begins anew without a scan that cannot be
used, leave no empty one.
"""

from __future__ import annotations

import logging
import os
import time
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from msklabel.errors import UserError
from msklabel.learn.trainer import Report

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes down a training."""

    def epoch(self, fold: int, report: Report) -> None:
        """An epoch is done."""

    def close(self, facts: dict[str, Any]) -> None:
        """The training is done; facts about the version, or nothing where it was stopped."""


class TensorBoardTracker:
    """Writes ``<folder>``, which TensorBoard shows with ``tensorboard --logdir``.

    Args:
        folder: Of this training; one that goes on adds to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun: SummaryWriter | None = None

    def epoch(self, fold: int, report: Report) -> None:
        """See :class:`Tracker`."""
        for name, value in _numbers(report).items():
            self._writer.add_scalar(f"{name}/fold{fold}", value, report.epoch)
        self._writer.flush()

    def close(self, facts: dict[str, Any]) -> None:
        """See :class:`Tracker`."""
        for name, value in facts.items():
            self._writer.add_text(name, str(value))
        if self._begun:
            self._begun.close()

    @property
    def _writer(self) -> SummaryWriter:
        self._begun = self._begun or SummaryWriter(str(self._folder))
        return self._begun


class MlflowTracker:
    """Writes a run to an MLflow store. A store that fails later on costs the curves, never the training.

    Args:
        uri: Of the store.
        system: Becomes the experiment ``msklabel/<system>``.
        parameters: Of the training.

    Raises:
        UserError: If mlflow is not installed, or the store cannot be used.
    """

    def __init__(self, uri: str, system: str, parameters: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers how it is used
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise UserError("MLflow is asked for but not installed: pip install mlflow-skinny") from error
        self._failure = MlflowException
        name = f"msklabel/{system}"
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(name)
            self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        except MlflowException as error:
            raise UserError(f"the MLflow store {uri} cannot be used: {error}") from error
        self._parameters = parameters
        self._started_ms = time.time_ns() // 1_000_000
        self._begun = ""

    def epoch(self, fold: int, report: Report) -> None:
        """See :class:`Tracker`."""
        try:
            for name, value in _numbers(report).items():
                self._client.log_metric(self._run, f"{name}_fold{fold}", value, step=report.epoch)
        except self._failure as error:
            logger.warning("MLflow: %s", error)

    def close(self, facts: dict[str, Any]) -> None:
        """See :class:`Tracker`."""
        if not facts and not self._begun:
            return
        try:
            for name, value in facts.items():
                self._client.set_tag(self._run, name, str(value)[:500])
            self._client.set_terminated(self._run, "FINISHED" if facts else "KILLED")
        except self._failure as error:
            logger.warning("MLflow: %s", error)

    @property
    def _run(self) -> str:
        if not self._begun:
            self._begun = self._client.create_run(self._experiment, start_time=self._started_ms).info.run_id
            for key, value in self._parameters.items():
                self._client.log_param(self._begun, key, str(value)[:250])
        return self._begun


def trackers(folder: Path, mlflow: str | None, system: str, parameters: dict[str, Any]) -> list[Tracker]:
    """All that take down a training.

    Args:
        folder: For TensorBoard.
        mlflow: URI of an MLflow store; None for none.
        system: Name of the system.
        parameters: Of the training.
    """
    chosen: list[Tracker] = [TensorBoardTracker(folder)]
    if mlflow:
        chosen.append(MlflowTracker(mlflow, system, parameters))
    return chosen


def _numbers(report: Report) -> dict[str, float]:
    numbers = {"loss": report.loss, "validation_dice": report.validation_dice, "best_dice": report.best_dice}
    return {name: value for name, value in numbers.items() if isfinite(value)}
