"""Which labels are held back for a reviewer: assessed when they are new, and again by better models; kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msklabel.durable import replace_text
from msklabel.learn.cases import Case, blamed_on
from msklabel.learn.evaluate import CaseDice, Segmenter
from msklabel.learn.record import read_json, rounded, to_json
from msklabel.learn.screening import Finding, Usual, assess, usual_agreement
from msklabel.pipeline.grid import turned_grid

logger = logging.getLogger(__name__)
_BETTER_DICE = 0.05


@dataclass(frozen=True)
class Reference:
    """A segmenter to doubt labels by.

    Attributes:
        name: Of a version, or of the draft.
        segmenter: Itself.
        usual: How well it agrees with the validation cases.
    """

    name: str
    segmenter: Segmenter
    usual: Usual


def best_reference(candidates: Sequence[tuple[str, Segmenter, CaseDice]]) -> Reference | None:
    """The segmenter that agrees best with the validation cases, if any is good enough to doubt a label by.

    Args:
        candidates: Name, segmenter and its Dice on validation cases.
    """
    found = [Reference(name, segmenter, u) for name, segmenter, dices in candidates if (u := usual_agreement(dices))]
    best = max(found, key=lambda reference: reference.usual.dice, default=None)
    return best if best and best.usual.trusted else None


class Doubts:
    """Findings about labels of scans, in one file; of a scan whose file has changed they count no more.

    Args:
        file: Where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def held(self, cases: Sequence[Case]) -> dict[str, str]:
        """Checksum and reason of each of these labels that is held back; never one that a reviewer accepted."""
        known = read_json(self._file)
        found = {case.label: _found(known, case) for case in cases if not case.accepted}
        return {label: finding["reason"] for label, finding in found.items() if finding and finding["held"]}

    def review(self, cases: Sequence[Case], reference: Reference | None) -> dict[str, str]:
        """Assess what was not assessed yet, or by a much worse segmenter, or was held back by another one.

        Args:
            cases: Labelled cases.
            reference: None where no segmenter is good enough: nothing new is assessed then.

        Returns:
            As :meth:`held`.
        """
        if reference is None:
            return self.held(cases)
        known = read_json(self._file)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for case in cases:
            if not case.label or case.accepted or not _is_due(known.get(case.key), reference):
                continue
            finding = _assess(case, reference)
            if finding.reason:
                logger.warning("%s: %s: %s", case.id, "held for review" if finding.held else "noted", finding.reason)
            facts = {**asdict(finding), "agreement": rounded(finding.agreement)}
            before = f"{case.id}:{case.label}:"  # of the same label on the scan's earlier files
            known = {key: kept for key, kept in known.items() if key != case.label and not key.startswith(before)}
            known[case.key] = {**facts, "by": reference.name, "usual": rounded(reference.usual.dice)}
            replace_text(self._file, to_json(known))
        return self.held(cases)


def _found(known: Mapping[str, Any], case: Case) -> dict[str, Any] | None:
    """What is known of a label; what earlier releases kept by the label alone counts until it is found anew."""
    finding: dict[str, Any] | None = known.get(case.key, known.get(case.label))
    return finding


def _is_due(finding: dict[str, Any] | None, reference: Reference) -> bool:
    if finding is None:
        return True
    better = reference.usual.dice >= float(finding["usual"]) + _BETTER_DICE
    return better or (bool(finding["held"]) and finding["by"] != reference.name)


def _assess(case: Case, reference: Reference) -> Finding:
    system = reference.segmenter.system
    scan, labels = case.read(system)
    with blamed_on(case):
        predicted = reference.segmenter(scan).labels.array
    axes = turned_grid(scan, system.orientation).axes
    return assess(system, labels, predicted, case.annotated, reference.usual, axes)
