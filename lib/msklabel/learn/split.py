"""Which patients validate, and folds: decided once for each patient, never by chance, never again.

A patient's role comes from a hash of the identifier, one in five validates. Left to that alone, the first labels of a
project might all train, and nothing could be said about the first models; or all validate, and nothing could be
trained. So while there are few patients their order counts, too:

- the first patient trains;
- the 2nd, 5th, 8th, 11th, 14th and 17th validate, unless so many validate already: a paired comparison needs six cases
  before it can tell anything about several labels at once (two sides of a coin, six times: 1/64);
- and the hash adds none while as many as that, or a third of all, validate.

What is decided is stored with the labels (``assign_roles``) and holds, so that later patients change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from msklabel.durable import replace_text
from msklabel.learn.record import read_json, to_json

TRAIN, VALIDATION = "train", "validation"
VALIDATION_SHARE = 0.2
MINIMUM_PATIENTS = 6
_EVERY = 3


class Roles(Protocol):
    """Where the roles of patients are kept; ``msklabel.store`` is one."""

    def roles(self, system: str) -> Mapping[str, str]:
        """``train`` or ``validation`` for each patient that is decided."""

    def assign_roles(self, system: str, roles: Mapping[str, str]) -> Mapping[str, str]:
        """Decide patients; the first decision wins, also between processes. Returns what holds for them."""


def decide_roles(patients: Iterable[str], decided: Mapping[str, str]) -> dict[str, str]:
    """Roles of the patients that have none yet.

    Args:
        patients: Identifiers in the order in which they were first labelled.
        decided: Roles that hold already.

    Returns:
        New roles only; the same for the same arguments.
    """
    new: dict[str, str] = {}
    number, validating = len(decided), sum(role == VALIDATION for role in decided.values())
    for patient in patients:
        if patient in decided or patient in new:
            continue
        number += 1
        wanted = is_validation(patient) or validating < _at_least(number)
        allowed = validating < max(_at_least(number), number // _EVERY)
        new[patient] = VALIDATION if wanted and allowed else TRAIN
        validating += new[patient] == VALIDATION
    return new


def _at_least(number: int) -> int:
    """How many of the first patients validate at least."""
    return min(MINIMUM_PATIENTS, (number + 1) // _EVERY)


def is_validation(patient: str, share: float = VALIDATION_SHARE) -> bool:
    """Whether a patient validates by the hash alone: a fixed function of the patient's identifier.

    Args:
        patient: Identifier of the patient.
        share: Expected share of patients that validate, 0 to 1.
    """
    return _number(f"msklabel split:{patient}") < share * 2**64


def fold_of(patient: str, folds: int) -> int:
    """Which of a number of cross-validation folds all scans of a patient are held out in, from 0."""
    return _number(f"msklabel fold:{patient}") % folds


class RolesInFile:
    """Roles in ``<root>/<system>/roles.json``, for training where there is no store.

    Args:
        root: Folder of the model versions.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def roles(self, system: str) -> dict[str, str]:
        """``train`` or ``validation`` for each patient that is decided."""
        return read_json(self._root / system / "roles.json")

    def assign_roles(self, system: str, roles: Mapping[str, str]) -> dict[str, str]:
        """Decide patients; the first decision wins, also between processes. Returns what holds for them."""
        folder = self._root / system
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".roles.lock"):
            known = self.roles(system)
            if new := {patient: role for patient, role in roles.items() if patient not in known}:
                known |= new
                replace_text(folder / "roles.json", to_json(known))
        return {patient: known[patient] for patient in roles}


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
