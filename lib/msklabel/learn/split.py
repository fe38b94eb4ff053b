"""Which scans validate: decided once by the patient, never by chance."""

from __future__ import annotations

import hashlib

VALIDATION_SHARE = 0.2


def is_validation(patient: str, share: float = VALIDATION_SHARE) -> bool:
    """Whether all scans of a patient validate: a fixed function of the patient's identifier.

    Args:
        patient: Identifier of the patient.
        share: Expected share of patients that validate, 0 to 1.
    """
    digest = hashlib.sha256(f"msklabel split:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
