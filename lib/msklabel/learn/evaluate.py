"""Dice of a segmenter on labelled cases, on each scan's own grid, where the labels speak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.annotated import Annotated
from msklabel.imaging.scan import Scan
from msklabel.learn.annotation import UNKNOWN, known_classes
from msklabel.learn.cases import Case, Unusable, blamed_on
from msklabel.pipeline.one_ahead import one_ahead
from msklabel.predict.engine import Segmentation, dice
from msklabel.system import System

CaseDice = dict[str, dict[str, float]]


class Segmenter(Protocol):
    """What can be measured: a trained model, or a method without training."""

    system: System

    def __call__(self, scan: Scan) -> Segmentation:
        """Segment a scan."""


def case_dice(segmenter: Segmenter, cases: Sequence[Case]) -> CaseDice:
    """Dice for each case and label name, see :func:`each_dice`."""
    return {case.id: row for case, row in each_dice(segmenter, cases)}


def each_dice(segmenter: Segmenter, cases: Sequence[Case]) -> Iterator[tuple[Case, dict[str, float]]]:
    """Dice of each label name, case by case, the next one read while one is segmented.

    NaN where neither truth nor prediction has the label, and for a label that was not looked for.

    Raises:
        Unusable: If one of them cannot be read or segmented.
    """
    read = one_ahead(lambda case: case.read(segmenter.system), cases)
    for case, pair in zip(cases, read, strict=True):
        scan, truth = pair.result()
        with blamed_on(case):
            predicted = segmenter(scan).labels.array
        yield case, label_dice(segmenter.system, predicted, truth, case.annotated)


def usable_dice(segmenter: Segmenter, cases: Sequence[Case]) -> tuple[CaseDice, list[Unusable]]:
    """Dice on the cases that can be read and segmented, and what is wrong with each of the others."""
    dices: CaseDice = {}
    wrong: list[Unusable] = []
    waiting = list(cases)
    while waiting:
        try:
            for case, row in each_dice(segmenter, waiting):
                dices[case.id] = row
            break
        except Unusable as error:
            wrong.append(error)
            waiting = [case for case in waiting if case.id not in dices and case.id != error.case.id]
    return dices, wrong


def label_dice(
    system: System, predicted: NDArray[np.uint8], truth: NDArray[np.uint8], annotated: Annotated
) -> dict[str, float]:
    """Dice of each label where the truth is known.

    Args:
        system: The system.
        predicted: Shape (X, Y, Z).
        truth: The same shape; ``UNKNOWN`` where nothing is known.
        annotated: Names the classes that were looked for.
    """
    seen = truth != UNKNOWN
    if not seen.all():
        predicted, truth = predicted[seen], truth[seen]
    known = known_classes(system, annotated)
    return {name: dice(predicted, truth, i) if known[i] else float("nan") for name, i in system.label_indices.items()}


def label_means(dices: CaseDice) -> dict[str, float]:
    """Mean over cases for each label, absent ones left out; NaN where it is nowhere."""
    names = next(iter(dices.values()), {})
    columns = {name: [row[name] for row in dices.values() if not np.isnan(row[name])] for name in names}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in columns.items()}


def mean_dice(dices: CaseDice) -> float:
    """Mean over labels of their means over cases; NaN without any."""
    values = [value for value in label_means(dices).values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")
