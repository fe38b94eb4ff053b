"""Overlap of two label maps: one table of who says what where, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_SLAB_VOXELS = 4_000_000  # counted at a time, so that the codes of a large scan need little memory


@dataclass(frozen=True)
class Counts:
    """Voxels of one structure in two label maps.

    Attributes:
        true_positive: In both.
        false_positive: In the prediction only.
        false_negative: In the truth only.
        true_negative: In neither.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def truth(self) -> int:
        """Voxels in the truth."""
        return self.true_positive + self.false_negative

    @property
    def predicted(self) -> int:
        """Voxels in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def state(self) -> str:
        """``both``, ``missed`` (truth only), ``false_alarm`` (prediction only) or ``absent`` (neither)."""
        if self.truth:
            return "both" if self.predicted else "missed"
        return "false_alarm" if self.predicted else "absent"

    @property
    def dice(self) -> float:
        """2 |A ∩ B| / (|A| + |B|) (Imani et al. 2025, 2.4.3; Huysmans et al. 2023, 2.4); NaN where absent from both.

        Kim et al. 2024 print FP twice in the denominator; with the F1 score that their text names, this is meant.
        """
        return _ratio(2 * self.true_positive, self.truth + self.predicted)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN) (Imani et al. 2025, 2.4.3); NaN where the truth has none."""
        return _ratio(self.true_positive, self.truth)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP) over all voxels of the grid, or of its side (Imani et al. 2025, 2.4.3)."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def ravd_percent(self) -> float:
        """(Vp - Vt) / Vt x 100, signed as in Kim et al. 2024, equation 4; NaN where the truth has none."""
        return 100 * _ratio(self.predicted - self.truth, self.truth)


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the voxels with each pair of values.

    Args:
        truth: Label map, any shape; values below `classes`.
        predicted: The same shape.
        classes: Number of values, background included.

    Returns:
        Shape (classes, classes): rows are the truth, columns the prediction.

    Raises:
        ValueError: If the shapes differ or a value is too large.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"label maps of one shape expected, got {truth.shape} and {predicted.shape}")
    if truth.size and max(int(truth.max()), int(predicted.max())) >= classes:
        raise ValueError(f"label values must be below {classes}")
    total = np.zeros(classes * classes, np.int64)
    order: Literal["C", "F"] = "F" if truth.strides[0] < truth.strides[-1] else "C"
    first, second = truth.ravel(order), predicted.ravel(order)  # no copy where both lie so in memory
    for start in range(0, first.size, _SLAB_VOXELS):
        codes = first[start : start + _SLAB_VOXELS].astype(np.intp)
        codes *= classes
        codes += second[start : start + _SLAB_VOXELS]
        total += np.bincount(codes, minlength=classes * classes)
    return total.reshape(classes, classes)


def counts_of(table: NDArray[np.int64], indices: Iterable[int]) -> Counts:
    """Counts of the union of some labels, from :func:`confusion`'s table."""
    member = np.zeros(len(table), bool)
    member[list(indices)] = True
    inside = int(table[np.ix_(member, member)].sum())
    truth, predicted = int(table[member].sum()), int(table[:, member].sum())
    return Counts(inside, predicted - inside, truth - inside, int(table.sum()) - truth - predicted + inside)


def generalised_dice(table: NDArray[np.int64]) -> float:
    """Overlap of all labels at once: 2 Σ |A ∩ B| / Σ (|A| + |B|), every voxel weighing the same.

    Crum et al. 2006 (doi:10.1109/TMI.2006.880587) with uniform weights, which Huysmans et al. 2023 report for each
    image. NaN where both label maps are empty.
    """
    return _ratio(2 * int(np.trace(table) - table[0, 0]), int(table[1:].sum() + table[:, 1:].sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
