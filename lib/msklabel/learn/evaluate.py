"""Dice of a network on labelled cases, on each scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from msklabel.learn.samples import Case
from msklabel.predict.engine import Engine, dice

CaseDice = dict[str, dict[str, float]]


def case_dice(engine: Engine, cases: Sequence[Case], progress: Callable[[int, int], None] | None = None) -> CaseDice:
    """Dice for each case and label name; NaN where neither truth nor prediction has the label."""
    result: CaseDice = {}
    for done, case in enumerate(cases, 1):
        scan, truth = case.load()
        predicted = engine(scan).labels.array
        result[case.id] = {name: dice(predicted, truth, i) for name, i in engine.system.label_indices.items()}
        if progress:
            progress(done, len(cases))
    return result


def label_means(dices: CaseDice) -> dict[str, float]:
    """Mean over cases for each label, absent ones left out; NaN where it is nowhere."""
    names = next(iter(dices.values()), {})
    columns = {name: [row[name] for row in dices.values() if not np.isnan(row[name])] for name in names}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in columns.items()}


def mean_dice(dices: CaseDice) -> float:
    """Mean over labels of their means over cases; NaN without any."""
    values = [value for value in label_means(dices).values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")
