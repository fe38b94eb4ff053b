"""Which scans validate, and folds: decided once by the patient, never by chance."""

from __future__ import annotations

import hashlib

VALIDATION_SHARE = 0.2


def is_validation(patient: str, share: float = VALIDATION_SHARE) -> bool:
    """Whether all scans of a patient validate: a fixed function of the patient's identifier.

    Args:
        patient: Identifier of the patient.
        share: Expected share of patients that validate, 0 to 1.
    """
    return _number(f"msklabel split:{patient}") < share * 2**64


def fold_of(patient: str, folds: int) -> int:
    """Which of a number of cross-validation folds all scans of a patient are held out in, from 0."""
    return _number(f"msklabel fold:{patient}") % folds


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
