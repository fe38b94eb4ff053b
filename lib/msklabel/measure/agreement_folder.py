"""Agreement of two sets of measurements of the same scans, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from msklabel.errors import UserError
from msklabel.measure.agreement import bland_altman, icc, pearson
from msklabel.measure.clinical import number_columns, read_table, require_once
from msklabel.measure.report.figures import POOLED, bland_altman_plots, scatter
from msklabel.measure.report.page import Picture, Report, Section, Table, heading, with_intervals
from msklabel.measure.report.provenance import of_table, software
from msklabel.measure.slab import is_volume, slabs_apart, slabs_of

_KEYS = ["scan", "structure", "side"]
_ESTIMATES = {"bias": "bias", "lower_limit": "lower limit", "upper_limit": "upper limit", "r": "r", "icc": "ICC"}
_METHODS = (
    "Bland–Altman: bias is the mean of second − first, limits are bias ± 1.96 SD; 95 % confidence intervals from t "
    "with n − 1 degrees of freedom (limits: SD·√(3/n)). ICC(A,1): two-way random "
    "effects, absolute agreement, single rater. r is Pearson's.",
)


@dataclass(frozen=True)
class Agreement:
    """What was found: a row for each structure and side, the page, and what speaks against comparing at all."""

    table: pd.DataFrame
    report: Report
    warnings: Sequence[str] = ()

    def write(self, out: Path) -> None:
        """Write ``agreement.csv``."""
        self.table.to_csv(out / "agreement.csv", index=False)


def agreement_of_tables(first: Path, second: Path, quantity: str) -> Agreement:
    """Compare one quantity of two tables of ``msklabel quantify``.

    Args:
        first: The reference.
        second: The other.
        quantity: A column of both.

    Raises:
        UserError: If a column is missing or no row is in both.
    """
    joined = _joined(first, second, quantity)
    rows, pictures = [], []
    for (structure, side), group in joined.groupby(["structure", "side"], sort=False):
        a, b = group["first"].to_numpy(), group["second"].to_numpy()
        row = {"structure": structure, "side": side, **_row(a, b)}
        rows.append(row | {"note": "; ".join(filter(None, [str(row["note"]), _slabs_apart(group)]))})
    both = joined[joined["side"] == "both"]
    pairs = {str(n): (g["first"].tolist(), g["second"].tolist()) for n, g in both.groupby("structure", sort=False)}
    if pairs:
        title = f"second ({_with_folder(second)}) − first ({_with_folder(first)})"
        unit = heading(quantity).rpartition("(")[2].removesuffix(")")
        caption = f"Bland–Altman of {heading(quantity)}, each structure with the limits of its own cases"
        pictures.append(Picture(caption, bland_altman_plots(pairs, unit, title)))
        pooled = _without_groups(both)
        x, y = pooled["first"].tolist(), pooled["second"].tolist()
        drawn = scatter(x, y, ("first", "second"), pearson(x, y), icc(np.column_stack([x, y])), heading(quantity))
        pictures.append(Picture(f"{heading(quantity)} of every structure and scan; {POOLED}", drawn))
    table = pd.DataFrame(rows)
    sections = [
        Section("How it was computed", _METHODS),
        Section(heading(quantity), (), pictures, [_as_printed(table)]),
    ]
    provenance = [*software(), *of_table("first", first), *of_table("second", second)]
    apart = _slabs_apart(joined.drop_duplicates("scan"))
    notes = [f"Volumes are not of slabs of one height in both tables: {apart}."] if apart else []
    return Agreement(table, Report(f"Agreement of {heading(quantity)}", notes, sections, provenance), notes)


def _joined(first: Path, second: Path, quantity: str) -> pd.DataFrame:
    tables = []
    for name, file in (("first", first), ("second", second)):
        table = read_table(file)
        missing = [key for key in _KEYS if key not in table]
        if missing:
            raise UserError(
                f"{file.name}: the column {missing[0]} is missing; give quantities.csv of msklabel quantify"
            )
        require_once(table, file.name)
        numbers = number_columns(file, table, [quantity])[quantity]
        slabs = slabs_of(table if is_volume(quantity) else table[_KEYS]).add_prefix(f"{name}_")
        kept = table[_KEYS].astype(str).assign(**{name: numbers}).join(slabs)
        tables.append(kept.assign(kind=table["kind"]) if name == "first" and "kind" in table else kept)
    joined = tables[0].merge(tables[1], on=_KEYS).dropna(subset=["first", "second"])
    if joined.empty:
        raise UserError(f"{first} and {second} have no scan and structure with a {quantity} in common")
    return joined


def _without_groups(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of labels, for a group would count what is in these again; all where there is no label."""
    labels = rows[rows["kind"] == "label"] if "kind" in rows else rows
    return rows if labels.empty else labels


def _as_printed(table: pd.DataFrame) -> Table:
    """Each estimate with its interval in one cell, so that the notes are on the page, too."""
    printed = table[["structure", "side", "cases", "sd"]].rename(columns={"sd": "SD"})
    for name, words in _ESTIMATES.items():
        printed[words] = with_intervals(table[name], table[f"{name}_lower"], table[f"{name}_upper"])
    caption = "By structure and side: estimates with their 95 % confidence intervals"
    return Table(caption, printed.assign(note=table["note"]))


def _with_folder(file: Path) -> str:
    return f"{file.absolute().parent.name}/{file.name}"


def _slabs_apart(rows: pd.DataFrame) -> str:
    """In how many scans the volumes of both tables are of slabs that differ, or that one of them does not tell."""
    one, other = (rows.filter(like=f"{name}_") for name in ("first", "second"))
    return slabs_apart(one.rename(columns=_second_word), other.rename(columns=_second_word))


def _second_word(name: str) -> str:
    return name.split("_")[1]


def _row(a: np.ndarray, b: np.ndarray) -> dict[str, object]:
    found, r, agreement = bland_altman(a, b), pearson(a, b), icc(np.column_stack([a, b]))
    row: dict[str, object] = {"cases": found.cases, "sd": found.sd}
    estimates = {"bias": found.bias, "lower_limit": found.lower, "upper_limit": found.upper, "r": r, "icc": agreement}
    for name, estimate in estimates.items():
        row |= {name: estimate.value, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}
    return {**row, "note": found.bias.note or r.note or agreement.note}
