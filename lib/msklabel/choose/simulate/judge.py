"""What a model says of the cases of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msklabel.choose.members import Embedding, mirrored
from msklabel.choose.reduce import Reducer, probabilities_of
from msklabel.choose.scores import entropy
from msklabel.choose.simulate.scans import Case
from msklabel.choose.summarise import summary_of
from msklabel.choose.summary import Summary
from msklabel.imaging.scan import Scan
from msklabel.networks import Weights, loaded_network
from msklabel.predict.engine import Engine, dice
from msklabel.system import System


@dataclass(frozen=True)
class Judged:
    """A model's word on one case; slices are those of the working crop.

    Attributes:
        summary: As the server keeps it.
        entropy: Shape (Z,): mean predictive entropy of each slice, background and all.
        information: Shape (Z,): mean mutual information (BALD) of each slice.
        area: Shape (labels, Z): voxels predicted.
        variance: Mean variance of the members over the whole crop, as MONAI Label's epistemic scoring takes it.
    """

    summary: Summary
    entropy: NDArray[np.float64]
    information: NDArray[np.float64]
    area: NDArray[np.int64]
    variance: float


class Judge:
    """The members of a simulation: the last snapshots of a training, and the last one mirrored.

    Args:
        system: The system.
        snapshots: Weights, the last ones last.
    """

    def __init__(self, system: System, snapshots: Sequence[Weights]) -> None:
        self.system = system
        self.engines = [Engine(system, loaded_network(system, weights)) for weights in reversed(snapshots)]

    def __call__(self, case: Case) -> Judged:
        """Ask all members."""
        prepared, first = case.prepared, self.engines[0]
        with Embedding(first.networks[0]) as embedding:
            scores = [first.scores(prepared)]
        scores += [first.scores(mirrored(prepared, axis)).flip(axis + 1) for axis in self.system.choose.flip_axes]
        scores += [engine.scores(prepared) for engine in self.engines[1:]]
        reducer = Reducer(len(scores))
        for member in scores:
            reducer.add(member)
        native = Scan(np.zeros((1, *prepared.grid.native_shape), np.float32), _affine(case))
        members = tuple(f"member {number}" for number in range(len(scores)))
        summary = summary_of(self.system, native, prepared, reducer.sums, members, "", embedding.vector)
        p = torch.stack([probabilities_of(member) for member in scores])
        mean = p.mean(0)
        own = torch.stack([entropy(member) for member in p]).mean(0)
        whole = entropy(mean)
        predicted = mean.argmax(0).numpy()
        labels = range(1, self.system.classes)
        return Judged(
            summary=summary,
            entropy=whole.mean((0, 1)).double().numpy(),
            information=(whole - own).mean((0, 1)).double().numpy(),
            area=np.array([(predicted == label).sum(axis=(0, 1)) for label in labels]),
            variance=float(p.sub_(mean).square_().sum(0).mean()) / max(1, len(scores) - 1),
        )

    def dice(self, cases: Sequence[Case]) -> dict[str, float]:
        """Mean Dice of each label over the cases that have it, by the plain prediction of the last snapshot."""
        rows = []
        for case in cases:
            predicted = self.engines[0].scores(case.prepared).argmax(0).to(torch.uint8).numpy()
            truth = case.labels
            present = np.isin(np.arange(1, self.system.classes), truth)
            rows.append([dice(predicted, truth, i) if has else np.nan for i, has in enumerate(present, 1)])
        table = np.array(rows)
        means = [float(np.nanmean(column)) if not np.isnan(column).all() else float("nan") for column in table.T]
        return dict(zip(self.system.labels, means, strict=True))


class JudgedOnDemand(Sequence[Judged]):
    """A model's word on each case; formed when it is first looked at, as not every strategy looks."""

    def __init__(self, judge: Judge, cases: Sequence[Case]) -> None:
        self._judge, self._cases = judge, cases
        self._known: dict[int, Judged] = {}

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if place not in self._known:
            self._known[place] = self._judge(self._cases[place])
        return self._known[place]


def _affine(case: Case) -> NDArray[np.float64]:
    """The spacing of the scan as stored on the diagonal; where it lies does not matter here."""
    grid = case.prepared.grid
    steps = [0.0, 0.0, 0.0]
    for axis, step, along in zip(grid.axes, case.spacing_mm, grid.along, strict=True):
        steps[axis] = step / along.step
    return np.diag([*steps, 1.0])
