"""Skeletal muscle index and sarcopenia by the consensus of the Asian Working Group for Sarcopenia, 2019.

Chen LK et al., J Am Med Dir Assoc 2020;21:300-307 (Kim et al. 2024, reference 4).
"""

from __future__ import annotations

import math

import pandas as pd

from msklabel.errors import UserError
from msklabel.measure.quantities import height_m

SMI_CUTOFF_KG_PER_M2 = {"male": 7.0, "female": 5.4}  # by DXA
GRIP_CUTOFF_KG = {"male": 28.0, "female": 18.0}
GAIT_CUTOFF_M_PER_S = 1.0
CHAIR_STANDS_CUTOFF_S = 12.0  # five of them


def skeletal_muscle_index(appendicular_lean_kg: float, height_cm: float) -> float:
    """Appendicular lean mass over height squared, kg/m²; NaN where either is not known.

    Raises:
        UserError: If the height is 0 or less.
    """
    return appendicular_lean_kg / height_m(height_cm) ** 2


def _index_of(case: object, appendicular_lean_kg: float, height_cm: float) -> float:
    try:
        return skeletal_muscle_index(appendicular_lean_kg, height_cm)
    except UserError as error:
        raise UserError(f"height_cm of {case}: {error}") from error


def low_muscle_mass(sex: str, smi_kg_per_m2: float) -> bool | None:
    """Whether the index is below the cut-off, which Kim et al. 2024 call sarcopenia; None where it cannot be told."""
    if sex not in SMI_CUTOFF_KG_PER_M2 or math.isnan(smi_kg_per_m2):
        return None
    return smi_kg_per_m2 < SMI_CUTOFF_KG_PER_M2[sex]


def awgs2019(
    sex: str,
    smi_kg_per_m2: float,
    grip_kg: float = float("nan"),
    gait_m_per_s: float = float("nan"),
    chair_stands_s: float = float("nan"),
) -> str:
    """The AWGS 2019 class.

    Args:
        sex: ``male`` or ``female``.
        smi_kg_per_m2: By DXA.
        grip_kg: Hand grip strength; NaN where it was not measured, here and below.
        gait_m_per_s: Usual speed over six metres.
        chair_stands_s: Time for five.

    Returns:
        ``none``, ``low muscle mass`` (alone, or with neither strength nor performance known), ``sarcopenia`` (with low
        strength or low performance), ``severe sarcopenia`` (with both), or empty where sex or index are not known.
    """
    low = low_muscle_mass(sex, smi_kg_per_m2)
    if low is None:
        return ""
    if not low:
        return "none"
    weak = grip_kg < GRIP_CUTOFF_KG[sex]
    slow = gait_m_per_s < GAIT_CUTOFF_M_PER_S or chair_stands_s >= CHAIR_STANDS_CUTOFF_S
    return ("low muscle mass", "sarcopenia", "severe sarcopenia")[weak + slow]


def with_sarcopenia(clinical: pd.DataFrame) -> pd.DataFrame:
    """Add ``smi_kg_per_m2`` (from ``appendicular_lean_kg`` and height), ``low_muscle_mass`` and ``awgs2019``.

    Raises:
        UserError: If a height is 0 or less.
    """
    table = clinical.copy()
    if "smi_kg_per_m2" not in table and {"appendicular_lean_kg", "height_cm"} <= set(table.columns):
        given = zip(table.index, table["appendicular_lean_kg"], table["height_cm"], strict=True)
        table["smi_kg_per_m2"] = [_index_of(case, lean, height) for case, lean, height in given]
    if not {"smi_kg_per_m2", "sex"} <= set(table.columns):
        return table
    optional = [name for name in ("grip_kg", "gait_m_per_s", "chair_stands_s") if name in table]
    rows = table[["sex", "smi_kg_per_m2", *optional]].to_dict("records")
    table["low_muscle_mass"] = [low_muscle_mass(row["sex"], row["smi_kg_per_m2"]) for row in rows]
    table["awgs2019"] = [awgs2019(**row) for row in rows]
    return table
