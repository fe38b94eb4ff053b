"""Two versions of a system side by side, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from msklabel.errors import Conflict
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import CaseDice, mean_dice
from msklabel.learn.gate import compare
from msklabel.learn.record import rounded


def side_by_side(
    a: CaseDice, b: CaseDice, names: tuple[str, str], validation: Sequence[Case], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Compare the Dice of two versions on the frozen cases.

    Args:
        a: Dice of the first, on the cases that were measured.
        b: Of the second.
        names: Of both.
        validation: The frozen cases that can be used.
        left_out: The others, with the reason.

    Returns:
        ``labels`` (cases, Dice before and after, worst case, p), ``cases`` (mean Dice of each), ``missing``,
        ``left_out``.

    Raises:
        Conflict: If there is no case on which both were measured.
    """
    shared = [case.id for case in validation if case.id in a and case.id in b]
    if not shared:
        unusable = "".join(f"; {case} cannot be used: {reason}" for case, reason in left_out.items())
        raise Conflict(f"there is no validation case on which both {names[0]} and {names[1]} were measured{unusable}")
    rows = {side: {case: dices[case] for case in shared} for side, dices in zip(names, (a, b), strict=True)}
    changes = compare({case: b[case] for case in shared}, {case: a[case] for case in shared})
    return {
        "a": names[0],
        "b": names[1],
        "mean_dice": {name: rounded(mean_dice(dices)) for name, dices in rows.items()},
        "labels": {
            label: {key: rounded(value) if isinstance(value, float) else value for key, value in asdict(change).items()}
            for label, change in changes.items()
        },
        "cases": {
            case: {name: rounded(mean_dice({case: dices[case]})) for name, dices in rows.items()} for case in shared
        },
        "missing": [case.id for case in validation if case.id not in shared],
        "left_out": dict(left_out),
    }
