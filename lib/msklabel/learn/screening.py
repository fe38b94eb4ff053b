"""Look at a label before it is learned from: is it likely a slip of the annotator, rather than of the model?

A label is compared with what a trusted segmenter makes of the scan (the version in service, or the draft without
training where that is better). Disagreement alone proves nothing: the scans on which the model fails are those worth
learning from. So a label is held back only

- if its agreement (mean Dice over labels) falls well below what the segmenter reaches on the validation cases, **and**
  a simple slip explains it: mirrored, shifted, with labels exchanged, or half undrawn, it would agree much better;
- or if it falls below half of what is usual, whatever the reason.

A label that is held back is flagged with the reason, kept, and used once a reviewer accepts it. Any other label with
little agreement is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from msklabel.imaging.annotated import Annotated
from msklabel.learn.annotation import UNKNOWN
from msklabel.learn.evaluate import CaseDice, label_dice
from msklabel.system import System

LEAST_TRUSTED_DICE = 0.6
_LEAST_DROP_DICE = 0.08
_SPREADS = 4.0
_EXPLAINED_SHARE = 0.5
_DIRECTIONS = ("left and right", "front and back", "top and bottom")


@dataclass(frozen=True)
class Usual:
    """How well a segmenter agrees with labels that are believed.

    Attributes:
        dice: Median over cases of the mean Dice over labels.
        spread: Of these, the median absolute deviation times 1.4826 (a standard deviation, if normal).
    """

    dice: float
    spread: float

    @property
    def trusted(self) -> bool:
        """Whether the segmenter is good enough to doubt a label by."""
        return self.dice >= LEAST_TRUSTED_DICE

    @property
    def suspicious_below(self) -> float:
        """Agreement from which on a label is looked at more closely."""
        return self.dice - max(_LEAST_DROP_DICE, _SPREADS * self.spread)


@dataclass(frozen=True)
class Finding:
    """What was found about a label.

    Attributes:
        held: Whether it is held back from training and validation.
        agreement: Mean Dice over labels with the segmenter.
        reason: A sentence for the reviewer; empty where there is nothing to say.
    """

    held: bool
    agreement: float
    reason: str = ""


def usual_agreement(dices: CaseDice) -> Usual | None:
    """What is usual of a segmenter, by its Dice on validation cases; None without any."""
    means = [agreement for row in dices.values() if not np.isnan(agreement := _mean(row))]
    if not means:
        return None
    middle = float(np.median(means))
    return Usual(middle, 1.4826 * float(np.median(np.abs(np.array(means) - middle))))


def assess(
    system: System,
    labels: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    annotated: Annotated,
    usual: Usual,
    axes: tuple[int, int, int] = (0, 1, 2),
) -> Finding:
    """Assess one label.

    Args:
        system: The system.
        labels: Shape (X, Y, Z); ``UNKNOWN`` where nothing is known.
        predicted: What the segmenter makes of the scan, the same shape.
        annotated: What the label speaks of.
        usual: How well the segmenter agrees with labels in general.
        axes: Array axis that runs along left-right, front-back and bottom-top.
    """
    agreement = _agreement(system, labels, predicted, annotated)
    if np.isnan(agreement) or agreement >= usual.suspicious_below:
        return Finding(False, agreement)
    below = f"agreement {agreement:.2f} where {usual.dice:.2f} is usual"
    enough = agreement + _EXPLAINED_SHARE * (usual.dice - agreement)
    tried = [(_agreement(system, other, predicted, annotated), what) for what, other in _slips(labels, predicted, axes)]
    best, what = max(tried, default=(0.0, ""))
    if best >= enough:
        return Finding(True, agreement, f"{below}; {what} it would be {best:.2f}")
    if agreement < usual.dice / 2:
        return Finding(True, agreement, f"{below}; no simple slip explains it")
    return Finding(False, agreement, f"{below}; used all the same, for the model may be wrong")


def _slips(
    labels: NDArray[np.uint8], predicted: NDArray[np.uint8], axes: tuple[int, int, int]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each slip undone: what it would be without it."""
    for axis, direction in zip(axes, _DIRECTIONS, strict=True):
        yield f"with {direction} exchanged", np.flip(labels, axis)
    yield "shifted onto the body", _shifted(labels, predicted)
    yield "with labels exchanged", _renamed(labels, predicted)
    yield "over the drawn half alone", _drawn_only(labels)


def _shifted(labels: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Move a label so that its middle lies on the prediction's; what moves in from outside is unknown."""
    known = labels != UNKNOWN
    drawn, expected = known & (labels > 0), known & (predicted > 0)
    if not drawn.any() or not expected.any():
        return labels
    middles = [np.array(ndimage.center_of_mass(mask)) for mask in (drawn, expected)]
    offset = np.rint(middles[1] - middles[0]).astype(int)
    return ndimage.shift(labels, offset, order=0, mode="constant", cval=UNKNOWN)


def _renamed(labels: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give each drawn label the name that overlaps best, each name once."""
    known = labels != UNKNOWN
    drawn = [int(index) for index in np.unique(labels[known]) if index]
    size = max(int(labels[known].max(initial=0)), int(predicted.max(initial=0))) + 1
    counts = np.bincount(labels[known].astype(int) * size + predicted[known], minlength=size * size)
    table = counts.reshape(size, size)
    overlap = 2 * table / np.maximum(table.sum(1, keepdims=True) + table.sum(0, keepdims=True), 1)
    rows, columns = linear_sum_assignment(-overlap[np.ix_(drawn, range(1, size))])
    names = np.arange(256, dtype=np.uint8)
    names[[drawn[row] for row in rows]] = columns + 1
    return names[labels]


def _drawn_only(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave out what lies outside the box around all that is drawn."""
    boxes = ndimage.find_objects(((labels > 0) & (labels != UNKNOWN)).astype(np.uint8))
    result = np.full_like(labels, UNKNOWN)
    if boxes:
        result[boxes[0]] = labels[boxes[0]]
    return result


def _agreement(system: System, labels: NDArray[np.uint8], predicted: NDArray[np.uint8], annotated: Annotated) -> float:
    return _mean(label_dice(system, predicted, labels, annotated))


def _mean(row: dict[str, float]) -> float:
    values = [value for value in row.values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")
