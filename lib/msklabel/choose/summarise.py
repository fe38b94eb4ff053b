"""Predict a scan and judge the prediction in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from msklabel.choose.members import Embedding, dropout_on, mirrored
from msklabel.choose.reduce import Reducer, Sums
from msklabel.choose.summary import Slices, Summary, entry_step, pooled
from msklabel.imaging.scan import Scan
from msklabel.pipeline.preprocess import Prepared
from msklabel.predict.backends import TellsFeatures, half
from msklabel.predict.engine import Engine, Segmentation, Watch
from msklabel.predict.progress import Progress
from msklabel.predict.selection import site_of
from msklabel.system import ConfigError, System


class Summarise:
    """Segment scans with an engine, and say how sure it is of each.

    Members are the engine's networks (folds), what the system's ``choose`` section adds, and earlier versions.

    Args:
        engine: Predicts; its first member is a network, or tells its features.
        model_version: Name of the version that the engine holds.
        earlier: Networks of earlier versions, at most as many as the system asks for are used.

    Raises:
        ConfigError: If the system asks for dropout and its network has none.
    """

    def __init__(self, engine: Engine, model_version: str, earlier: Sequence[nn.Module] = ()) -> None:
        self.engine = engine
        self.model_version = model_version
        wanted = engine.system.choose
        first = engine.networks[0] if engine.networks else engine.forwards[0]
        assert isinstance(first, nn.Module | TellsFeatures)
        self._features_of = first
        self._others = [_in_half(engine, network) for network in earlier[: wanted.earlier_versions]]
        self.members = (
            *(f"network {number}" for number in range(len(engine.forwards))),
            *(f"flip {axis}" for axis in wanted.flip_axes for _ in engine.forwards),
            *(f"dropout {number}" for number in range(wanted.dropout_passes)),
            *(f"earlier {number}" for number in range(len(self._others))),
        )
        if wanted.dropout_passes:
            self._first = _in_half(engine, engine.networks[0])
            try:
                with dropout_on(engine.networks[0], 0):
                    pass
            except ValueError as error:
                raise ConfigError(f"{engine.system.name}: choose.dropout_passes: {error}") from error

    def __call__(self, scan: Scan, progress: Progress | None = None) -> tuple[Segmentation, Summary]:
        """Segment a scan with the plain prediction, and summarise all members.

        Args:
            scan: The scan.
            progress: Called with windows done and windows in all of the pass that runs; may wait, to let others first.

        Raises:
            UserError: If the scan does not fit the system.
        """
        reducer = Reducer(len(self.members))
        seen: list[Prepared] = []

        def watch(prepared: Prepared, scores: torch.Tensor) -> None:
            seen[:] = [prepared]
            reducer.add(scores)

        with Embedding(self._features_of) as embedding:
            segmentation = self.engine(scan, progress, watch)
        prepared = seen[0]
        self._ask_others(prepared, reducer.add, progress)
        return segmentation, summary_of(
            self.engine.system, scan, prepared, reducer.sums, self.members, self.model_version, embedding.vector
        )

    def _ask_others(self, prepared: Prepared, add: Callable[[torch.Tensor], None], progress: Progress | None) -> None:
        wanted = self.engine.system.choose
        for axis in wanted.flip_axes:
            self.engine.scores(mirrored(prepared, axis), progress, _flipped_back(add, axis))
        for number in range(wanted.dropout_passes):
            with dropout_on(self._first.networks[0], number):
                self._first.scores(prepared, progress, lambda _, scores: add(scores))
        for other in self._others:
            other.scores(prepared, progress, lambda _, scores: add(scores))


def _in_half(engine: Engine, network: nn.Module) -> Engine:
    """The same engine with another network, in half precision on a GPU."""
    forward = half(network, site_of(engine.system, engine.device))
    return Engine(engine.system, network, engine.device, [forward])


def _flipped_back(add: Callable[[torch.Tensor], None], axis: int) -> Watch:
    return lambda _, scores: add(scores.flip(axis + 1))


def summary_of(
    system: System,
    scan: Scan,
    prepared: Prepared,
    sums: Sums,
    members: tuple[str, ...],
    model_version: str,
    embedding: torch.Tensor,
) -> Summary:
    """Bring sums in voxels to cm2 and cm3, and their slices to a scan."""
    grid = prepared.grid
    x_mm, y_mm, z_mm = grid.steps_mm(scan.spacing_mm)
    voxel_cm2 = x_mm * y_mm / 100
    step = entry_step(system.classes - 1, sums.expected.shape[1])
    mean_map = sums.maps[-1].cpu().numpy()
    plane = prepared.sides.plane if prepared.sides else 0
    sides = [mean_map[:plane], mean_map[plane:]] if prepared.sides else [mean_map]
    counts = np.array([np.bincount(side.ravel(), minlength=system.classes)[1:] for side in sides])
    size, expected = counts.sum(axis=0), sums.expected.sum(axis=1)[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected_dice = np.where(size > 0, 2 * sums.right[1:] / (size + expected), np.nan)
        information = np.where(size > 0, sums.information[1:] / expected, np.nan)
    return Summary(
        model_version=model_version,
        members=members,
        uncertain_cm2=pooled(sums.uncertain[1:] * voxel_cm2, step),
        area_cm2=pooled(sums.expected[1:] * voxel_cm2, step),
        volume_cm3=counts * voxel_cm2 * (1.0 if system.dimensions == 2 and scan.shape[2] == 1 else z_mm / 10),
        agreement=sums.agreement,
        expected_dice=expected_dice,
        information=information if len(members) > 1 else np.full(system.classes - 1, np.nan),
        embedding=embedding.numpy(),
        slices=Slices(
            axis=grid.axes[2],
            flipped=grid.flipped[2],
            native=grid.oriented_shape[2],
            working=grid.working_shape[2],
            start=grid.crop[2].start,
            step=step,
            from_first=grid.along[2].from_first,
        ),
        finite=sums.finite,
    )
