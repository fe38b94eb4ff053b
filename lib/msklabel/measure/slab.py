"""Which axial slices a volume covers, where a System's volumes are of a slab around its reference slice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

COLUMN = "volume_slices"
_SPAN = re.compile(r"(\d+) to (\d+)")


def span_words(span: tuple[int, int]) -> str:
    """First and last slice as tables have them, counted from the lowest, from 0; no spreadsheet makes a date of it."""
    return f"{span[0]} to {span[1]}"


def slices_covered(words: object) -> int | None:
    """How many slices a cell of the column names; None where it names none."""
    found = _SPAN.fullmatch(words.strip()) if isinstance(words, str) else None
    return int(found[2]) - int(found[1]) + 1 if found else None


def volume_unit(rows: Iterable[Mapping[str, Any]]) -> str:
    """The unit of a scan's volumes, with the number of slices that they cover, where its rows name them."""
    counts = {slices_covered(row.get(COLUMN)) for row in rows} - {None}
    return f"cm³ of {counts.pop()} slices" if len(counts) == 1 else "cm³"


def counts_of(table: pd.DataFrame) -> pd.Series:
    """How many slices the volume of each row covers; NaN where the table does not say."""
    if COLUMN not in table:
        return pd.Series(np.nan, index=table.index, dtype=float)
    return table[COLUMN].map(slices_covered).astype(float)


def slabs_in_scans(table: pd.DataFrame, scans: Iterable[str]) -> str:
    """Of how many slices the volumes of some scans are, where that is not the same in all of them; else empty.

    Args:
        table: Quantities, a row for each scan and structure.
        scans: Those that are compared.
    """
    counts = counts_of(table).groupby(table["scan"].astype(str)).max().reindex(list(scans))
    if counts.nunique(dropna=False) < 2 or counts.isna().all():
        return ""
    found = counts.dropna().astype(int).value_counts().sort_index(ascending=False)
    parts = [f"{slices} slices in {scans} scans" for slices, scans in found.items()]
    unsaid = int(counts.isna().sum())
    return ", ".join([*parts, *([f"not known in {unsaid}"] if unsaid else [])])


def is_volume(quantity: str) -> bool:
    """Whether a column is told from volumes."""
    return quantity.startswith("volume_") and quantity != COLUMN
