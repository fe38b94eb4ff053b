"""Whether a new version may be served: a comparison with the one in service, case by case, on the same frozen cases.

A candidate is published only if

- **no label is worse by more than the margin** (0.01 Dice). For each label the differences candidate - serving over
  the cases are tested one-sidedly against "worse by the margin or more" (paired t-test, level 0.05). The burden of
  proof lies with the candidate, and every label has to pass: so the level holds for all labels together without a
  correction (an intersection-union test: Berger 1982, Technometrics 24:295; a correction such as Holm's is for claims
  of which some may fail). Gains count up to 0.03 only: a case that gains a lot would otherwise widen the spread, and
  so speak against the candidate; capping makes the test stricter, never looser.
- **and the mean over labels is better.**

With fewer than six cases such a test can hardly succeed, whatever the gain. Then a label also passes if it gains the
margin in the mean, gains capped; with fewer than three, if no case loses more than the margin. The verdict says "weakly
validated", and "not validated" where there is no case. A first version has nothing to be compared with but the system's
draft without training, where there is one: if that has the better mean, it stays the better start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
from scipy.special import stdtr

MARGIN_DICE = 0.01
LEVEL = 0.05
VALIDATED, WEAK, NOT = "validated", "weakly validated", "not validated"
_GAIN_DICE = 0.03
_ENOUGH_CASES, _TESTABLE_CASES = 6, 3
_Dices = Mapping[str, Mapping[str, float]]  # Dice for each case and label, NaN where there is none


@dataclass(frozen=True)
class Change:
    """How one label differs between two versions.

    Attributes:
        cases: Cases in which it can be compared.
        before: Mean Dice of the version in service.
        after: Mean Dice of the candidate.
        worst: Lowest difference in a case.
        p: That so good a result comes by chance from a candidate that is worse by the margin; NaN with too few cases.
        passes: Whether it is shown not to be worse by more than the margin.
    """

    cases: int
    before: float
    after: float
    worst: float
    p: float
    passes: bool


@dataclass(frozen=True)
class Verdict:
    """What becomes of a candidate, and why.

    Attributes:
        publish: Whether it may be served.
        validation: ``validated``, ``weakly validated`` or ``not validated``.
        reasons: Sentences for people.
        changes: By label, where there was something to compare with.
    """

    publish: bool
    validation: str
    reasons: tuple[str, ...]
    changes: dict[str, Change]


def judge(
    candidate: _Dices, serving: _Dices | None, draft: _Dices | None = None, margin: float = MARGIN_DICE
) -> Verdict:
    """Decide on a candidate.

    Args:
        candidate: Its Dice on the frozen cases.
        serving: That of the version in service on the same cases; None where none is served.
        draft: That of the draft without training; None where the system has none.
        margin: Loss of Dice that is tolerated, 0 to 1.
    """
    strength = _strength(len(candidate))
    if serving is None:
        return _first(candidate, draft, strength)
    if not candidate:
        reason = "there is no validation case to compare on; put it in service by hand if it is wanted"
        return Verdict(False, NOT, (f"kept: {reason}",), {})
    changes = compare(candidate, serving, margin)
    before, after = _mean([c.before for c in changes.values()]), _mean([c.after for c in changes.values()])
    reasons = [_shortfall(name, change, margin) for name, change in changes.items() if not change.passes]
    if not after > before:
        reasons.append(f"the mean Dice is not better: {after:.4f} after {before:.4f}")
    if reasons:
        return Verdict(False, strength, ("kept: " + "; ".join(reasons),), changes)
    shown = f"mean Dice {after:.4f} after {before:.4f} on {len(candidate)} cases, no label worse by {margin:g}"
    return Verdict(True, strength, (f"published: {shown}",), changes)


def compare(candidate: _Dices, serving: _Dices, margin: float = MARGIN_DICE) -> dict[str, Change]:
    """Compare two versions label by label on the cases that both have, in the labels' order."""
    shared = [case for case in candidate if case in serving]
    names = list(dict.fromkeys(name for case in shared for name in candidate[case]))
    pairs = {
        name: _pairs([(serving[case].get(name, nan), candidate[case].get(name, nan)) for case in shared])
        for name in names
    }
    pairs = {name: rows for name, rows in pairs.items() if len(rows)}
    p = {name: _p(rows[:, 1] - rows[:, 0], margin) for name, rows in pairs.items() if len(rows) >= _TESTABLE_CASES}
    return {
        name: Change(
            cases=len(rows),
            before=float(rows[:, 0].mean()),
            after=float(rows[:, 1].mean()),
            worst=float((rows[:, 1] - rows[:, 0]).min()),
            p=p.get(name, nan),
            passes=p.get(name, nan) <= LEVEL or _passes_untested(rows[:, 1] - rows[:, 0], margin),
        )
        for name, rows in pairs.items()
    }


def _pairs(rows: Sequence[tuple[float, float]]) -> np.ndarray:
    """Shape (cases, 2): before and after; 1 where one version rightly does not predict a label that is not there."""
    return np.array([[1.0 if isnan(x) else x for x in row] for row in rows if not all(map(isnan, row))]).reshape(-1, 2)


def _p(differences: np.ndarray, margin: float) -> float:
    """One-sided p of the paired t-test against a mean difference of -margin, gains capped."""
    capped = np.minimum(differences, _GAIN_DICE)
    mean, error = float(capped.mean()) + margin, float(capped.std(ddof=1)) / sqrt(len(capped))
    if error < 1e-12:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(len(capped) - 1, -mean / error))


def _passes_untested(differences: np.ndarray, margin: float) -> bool:
    """Whether a label passes with too few cases for the test to mean much."""
    if len(differences) < _TESTABLE_CASES:
        return bool((differences >= -margin).all())
    return len(differences) < _ENOUGH_CASES and float(np.minimum(differences, _GAIN_DICE).mean()) >= margin


def _first(candidate: _Dices, draft: _Dices | None, strength: str) -> Verdict:
    if not candidate:
        return Verdict(True, NOT, ("published: the first version; no case is there to validate it on",), {})
    own = mean_over_labels(candidate)
    if draft is None:
        return Verdict(True, strength, (f"published: the first version, mean Dice {own:.4f}",), {})
    theirs = mean_over_labels({case: draft[case] for case in candidate if case in draft})
    shown = f"mean Dice {own:.4f}, the draft without training has {theirs:.4f} on the same {len(candidate)} case(s)"
    if own < theirs:
        return Verdict(False, strength, (f"kept: the draft is still the better start: {shown}",), {})
    return Verdict(True, strength, (f"published: {shown}",), {})


def mean_over_labels(dices: _Dices) -> float:
    """Mean over labels of their means over cases; NaN without any."""
    names = {name for row in dices.values() for name in row}
    return _mean([_mean([row[name] for row in dices.values() if name in row]) for name in sorted(names)])


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not isnan(value)]
    return float(np.mean(numbers)) if numbers else nan


def _strength(cases: int) -> str:
    return VALIDATED if cases >= _ENOUGH_CASES else WEAK if cases else NOT


def _shortfall(name: str, change: Change, margin: float) -> str:
    difference = change.after - change.before
    if difference < -margin:
        return f"{name} is worse: {change.after:.4f} after {change.before:.4f} on {change.cases} cases"
    if isnan(change.p):
        return (
            f"{name} loses {-change.worst:.4f} in a case, more than {margin:g}, and there are too few cases for a test"
        )
    return (
        f"{name} is not shown to be within {margin:g}: {change.after:.4f} after {change.before:.4f} "
        f"on {change.cases} cases, p = {change.p:.3f}"
    )
