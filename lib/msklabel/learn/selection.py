"""Which labels a training learns from, which it replays, which validate, and which nobody uses now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from msklabel.learn.cases import Case
from msklabel.learn.split import VALIDATION
from msklabel.system import System


@dataclass(frozen=True)
class Selection:
    """The labels of one training.

    Attributes:
        training: Shown in each epoch.
        older: Replayed beside them; empty where the recipe is followed on all labels.
        validation: Never learned from.
    """

    training: list[Case]
    older: list[Case]
    validation: list[Case]

    @property
    def learned(self) -> list[Case]:
        """All that are learned from."""
        return [*self.training, *self.older]


def select(
    system: System,
    cases: Sequence[Case],
    roles: Mapping[str, str],
    seen: Collection[str],
    finetune: bool,
) -> Selection:
    """Sort labels by what becomes of them.

    A trained model is fine-tuned on the new ones, with replay of the older, once the older ones outnumber the new;
    before, there is too little to forget, and the recipe is followed on all of them.

    Args:
        system: Its recipe says from when on to fine-tune.
        cases: All that may be used.
        roles: Of each patient.
        seen: Checksums of the labels that the initial weights have learned from.
        finetune: Whether there are initial weights, and fine-tuning was not ruled out.
    """
    validation = [case for case in cases if roles[case.patient] == VALIDATION]
    learned = [case for case in cases if roles[case.patient] != VALIDATION]
    new = [case for case in learned if case.label not in seen]
    older = [case for case in learned if case.label in seen]
    if finetune and new and len(older) >= system.train.finetune.older_to_new * len(new):
        return Selection(new, older, validation)
    return Selection(learned, [], validation)
