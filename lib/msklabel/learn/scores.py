"""Dice of versions on labelled cases, measured once and kept.

A version never changes, and neither does a label; how a system predicts, and the file of a scan, may: then they are
measured anew, so that like is compared with like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from msklabel.durable import replace_text
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import CaseDice, Segmenter, each_dice
from msklabel.learn.record import read_json, rounded, to_json
from msklabel.system import System

_DIGITS = 6


class KeptScores:
    """``<folder>/<how>/<name>.json``: for each case, its label and its file the Dice of each label.

    Args:
        folder: Where they lie.
        system: How it predicts and cleans up labels is a part of what is measured.
    """

    def __init__(self, folder: Path, system: System) -> None:
        how = system.predict.model_dump_json(exclude={"batch"}) + system.postprocess.model_dump_json()
        self._folder = folder / _short(how)

    def measure(self, name: str, build: Callable[[], Segmenter], cases: Sequence[Case]) -> CaseDice:
        """Dice on cases, measuring only what was not measured before.

        Args:
            name: Of what is measured; it must mean the same for good.
            build: Makes the segmenter, where it is needed.
            cases: Labelled cases.
        """
        kept = self.known(name, cases)
        missing = [case for case in cases if case.id not in kept]
        for case, row in each_dice(build(), missing) if missing else ():
            kept[case.id] = row
            self.keep(name, [case], kept)
        return {case.id: kept[case.id] for case in cases}

    def known(self, name: str, cases: Sequence[Case]) -> CaseDice:
        """What was measured before of these cases."""
        stored = read_json(self._file(name))
        rows = {case.id: stored[case.key] for case in cases if case.label and case.key in stored}
        return {
            case: {label: float("nan") if value is None else value for label, value in row.items()}
            for case, row in rows.items()
        }

    def keep(self, name: str, cases: Sequence[Case], dices: CaseDice) -> None:
        """Note what was measured of labelled cases."""
        rows = {
            case.key: {label: rounded(value, _DIGITS) for label, value in dices[case.id].items()}
            for case in cases
            if case.label
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_text(self._file(name), to_json({**read_json(self._file(name)), **rows}))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
