"""Tables of a study: one row a case, with checked columns, units and values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msklabel.errors import NotFound, UserError

# Plausible values of adults; outside it is most likely another unit.
_RANGES = {
    "age_years": (10, 120),
    "height_cm": (100, 230),
    "weight_kg": (25, 350),
    "smi_kg_per_m2": (2, 20),
    "appendicular_lean_kg": (3, 60),
    "grip_kg": (0, 120),
    "gait_m_per_s": (0, 5),
    "chair_stands_s": (0, 600),
}
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female", "w": "female"}
_SEX_AS_NUMBER = {"female": 0, "male": 1}  # to adjust for it


def read_table(file: Path) -> pd.DataFrame:
    """Read a CSV with a header.

    Raises:
        NotFound: If there is no such file.
        UserError: If it is no table, not in UTF-8, empty, or names a column twice.
    """
    if not file.is_file():
        raise NotFound(f"{file}: no such file")
    try:
        head = file.read_text(encoding="utf-8-sig").split("\n", 1)[0].split(",")
        names = [name.strip().strip('"') for name in head]
        scans: Any = {name: str for name in names if name.strip() == "scan"}  # 001 is no number
        table = pd.read_csv(file, encoding="utf-8-sig", skipinitialspace=True, dtype=scans)
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name}: is not in UTF-8; save it as CSV UTF-8, as Excel calls it") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{file.name}: cannot be read as a CSV table with a header") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{file.name}: the column {twice[0]} is there twice")
    if table.empty:
        raise UserError(f"{file.name}: there is no row below the header")
    return table.rename(columns=str.strip)


def require_once(table: pd.DataFrame, name: str) -> None:
    """Refuse a table of quantities that has a structure of a scan twice, which would count twice.

    Args:
        table: With the columns ``scan``, ``structure``, ``side`` and, where there is one, ``kind``.
        name: Of the table, for the sentence.

    Raises:
        UserError: Names the first.
    """
    keys = [key for key in ("scan", "structure", "kind", "side") if key in table]
    twice = table[table.duplicated(keys)]
    if len(twice):
        scan, structure, side = twice.iloc[0][["scan", "structure", "side"]]
        raise UserError(f"{name}: {structure} ({side}) of {scan} is there twice; give each scan once")


def read_clinical(file: Path, needed: Iterable[str] = ()) -> pd.DataFrame:
    """Read what is known about the cases beside their scans.

    Args:
        file: A CSV; ``scan`` names the case. ``height_cm``, ``weight_kg``, ``age_years``, ``sex`` (male or female) and
            what sarcopenia is told by are checked where they are there; other columns are kept as they are.
        needed: Columns that must be there.

    Returns:
        Indexed by ``scan``; ``sex`` as ``male`` or ``female``; an empty cell is NaN.

    Raises:
        UserError: If a column is missing or mistyped, a case is there twice, or a value is impossible (a height of 0).
    """
    table = read_table(file)
    for column in ("scan", *needed):
        if column not in table:
            raise UserError(f"{file.name}: the column {column} is missing; it has {', '.join(table.columns)}")
    table["scan"] = table["scan"].astype(str)
    twice = table["scan"][table["scan"].duplicated()]
    if len(twice):
        raise UserError(f"{file.name}: {twice.iloc[0]} is there twice")
    for column, (low, high) in _RANGES.items():
        if column in table:
            table[column] = _numbers(file, table, column)
            wrong = table[(table[column] < low) | (table[column] > high)]
            if len(wrong):
                case, value = wrong.iloc[0]["scan"], wrong.iloc[0][column]
                raise UserError(f"{file.name}: {column} of {case} is {value:g}, expected {low} to {high}")
    if "sex" in table:
        table["sex"] = _sexes(file, table)
    return table.set_index("scan")


def number_columns(file: Path, table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Some columns of a table as numbers; ``sex`` is 1 for male, 0 for female.

    Raises:
        UserError: If a column is missing or holds something else.
    """
    for column in columns:
        if column not in table:
            raise UserError(f"{file.name}: the column {column} is missing; it has {', '.join(map(str, table.columns))}")
    return pd.DataFrame({column: _numbers(file, table, column) for column in columns}, index=table.index)


def _numbers(file: Path, table: pd.DataFrame, column: str) -> pd.Series:
    cells = table[column].map(lambda cell: _SEX_AS_NUMBER.get(cell, cell)) if column == "sex" else table[column]
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    wrong = table[values.isna() & table[column].notna() | np.isinf(values)]
    if len(wrong):
        case = wrong.iloc[0].get("scan", wrong.index[0])
        raise UserError(f"{file.name}: {column} of {case} is {wrong.iloc[0][column]!r}, which is no number")
    return values


def _sexes(file: Path, table: pd.DataFrame) -> pd.Series:
    found = table["sex"].map(lambda value: _SEXES.get(str(value).strip().lower()))
    wrong = table[found.isna() & table["sex"].notna()]
    if len(wrong):
        case, value = wrong.iloc[0]["scan"], wrong.iloc[0]["sex"]
        raise UserError(f"{file.name}: sex of {case} is {value!r}, expected male or female")
    return found
