"""Which axial slices a volume covers, where a System's volumes are of a slab around its reference slice.

Slabs are compared by their height in mm: five slices of 1 mm hold a third of five slices of 3 mm. Tables of older
versions tell no height; there the numbers of slices are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

COLUMN = "volume_slices"
HEIGHT = "slab_mm"
VOXELS = "slab_voxels"
_SPAN = re.compile(r"(\d+) to (\d+)")
_SAME_FRACTION = 0.01  # of a height


def span_words(span: tuple[int, int]) -> str:
    """First and last slice as tables have them, counted from the lowest, from 0; no spreadsheet makes a date of it."""
    return f"{span[0]} to {span[1]}"


def slices_covered(words: object) -> int | None:
    """How many slices a cell of the column names; None where it names none."""
    found = _SPAN.fullmatch(words.strip()) if isinstance(words, str) else None
    return int(found[2]) - int(found[1]) + 1 if found else None


def volume_unit(rows: Iterable[Mapping[str, Any]]) -> str:
    """The unit of a scan's volumes, with the number of slices that they cover and its height, where its rows say it."""
    found = {(slices_covered(row.get(COLUMN)), row.get(HEIGHT)) for row in rows} - {(None, None)}
    if len(found) != 1:
        return "cm³"
    slices, height_mm = found.pop()
    return f"cm³ of {slices} slices" + (f", {height_mm:.3g} mm" if height_mm else "")


def slabs_of(table: pd.DataFrame) -> pd.DataFrame:
    """What the volume of each row covers: ``slices`` and ``mm``; NaN where the table does not say."""
    slices = table[COLUMN].map(slices_covered).astype(float) if COLUMN in table else np.nan
    height = pd.to_numeric(table[HEIGHT], errors="coerce") if HEIGHT in table else np.nan
    return pd.DataFrame({"slices": slices, "mm": height}, index=table.index, dtype=float)


def slabs_in_scans(table: pd.DataFrame, scans: Iterable[str]) -> str:
    """Of which slabs the volumes of some scans are, where these are not alike in all of them; else empty.

    Args:
        table: Quantities, a row for each scan and structure.
        scans: Those that are compared.
    """
    slabs = slabs_of(table).groupby(table["scan"].astype(str)).max().reindex(list(scans))
    [sizes], unit = _comparable([slabs])
    if sizes.nunique(dropna=False) < 2 or sizes.isna().all():
        return ""
    counts = sizes.value_counts().sort_index(ascending=False)
    parts = [f"{size:.3g} {unit} in {n} scan{'s' * (n > 1)}" for size, n in counts.items()]
    unsaid = int(sizes.isna().sum())
    return ", ".join([*parts, *([f"not known in {unsaid}"] if unsaid else [])])


def slabs_apart(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """In how many scans the slabs of two measurements differ, or one of them is not known; else empty.

    Args:
        first: As :func:`slabs_of` gives them, a row for each scan.
        second: The same scans.
    """
    (a, b), unit = _comparable([first, second])
    apart = pd.DataFrame({"first": a, "second": b}).dropna(how="all")
    apart = apart[apart["first"] != apart["second"]]
    if apart.empty:
        return ""
    pairs = apart.fillna(0).value_counts(sort=False).index
    said = ", ".join(" and ".join(f"{size:.3g} {unit}" if size else "not known" for size in pair) for pair in pairs)
    return f"in {len(apart)} of {len(first)} scans over other slabs (first and second: {said})"


def is_volume(quantity: str) -> bool:
    """Whether a column is told from volumes."""
    return quantity.startswith("volume_") and quantity != COLUMN


def _comparable(tables: list[pd.DataFrame]) -> tuple[list[pd.Series], str]:
    """Sizes of slabs that may be compared, in mm, or in slices where not all heights are known; and their unit."""
    every = pd.concat(tables)
    if not (every["mm"].notna() | every["slices"].isna()).all():
        return [table["slices"] for table in tables], "slices"
    least: list[float] = []  # of heights that are as good as equal
    for height in sorted(every["mm"].dropna()):
        if not least or height > least[-1] * (1 + _SAME_FRACTION):
            least.append(height)
    alike = [table["mm"].map(lambda mm: max((x for x in least if x <= mm), default=np.nan)) for table in tables]
    return alike, "mm"
