"""Associations from a table of quantities and one of clinical facts, with their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msklabel.errors import UserError
from msklabel.measure.associations import KINDS, Kind, association_table, correlations, wide
from msklabel.measure.clinical import number_columns, read_clinical, read_table
from msklabel.measure.report.figures import heat_map
from msklabel.measure.report.page import Picture, Report, Section, Table, with_intervals
from msklabel.measure.report.provenance import of_files, of_table, software
from msklabel.measure.sarcopenia import with_sarcopenia
from msklabel.measure.slab import is_volume, slabs_in_scans

_METHODS = (
    "One model for each exposure and outcome. Linear: coefficient, the change of the outcome for one unit more. Log: "
    "the outcome's logarithm, exponentiated coefficient, the fold difference. Logistic: odds ratio. 95 % confidence "
    "intervals; p two-sided and not corrected for the number of tests. Cases with a gap are left out of their model.",
    "Too few cases for a model (five for each term; in logistic models five of the rarer outcome) are said, not "
    "computed.",
)


@dataclass(frozen=True)
class Associations:
    """What was found.

    Attributes:
        regressions: A row for each exposure, outcome and adjustment.
        sarcopenia: Correlations of low muscle mass with each exposure, by sex; None without an index.
        report: The page.
        warnings: What speaks against relating them at all.
    """

    regressions: pd.DataFrame
    sarcopenia: pd.DataFrame | None
    report: Report
    warnings: Sequence[str] = ()

    def write(self, out: Path) -> None:
        """Write ``associations.csv`` and, where there is one, ``sarcopenia.csv``."""
        self.regressions.to_csv(out / "associations.csv", index=False)
        if self.sarcopenia is not None:
            self.sarcopenia.to_csv(out / "sarcopenia.csv", index=False)


def parse_outcomes(texts: Sequence[str]) -> list[tuple[str, Kind]]:
    """Outcomes from ``column`` or ``column:kind``.

    Raises:
        UserError: If a kind is not known.
    """
    found: list[tuple[str, Kind]] = []
    for text in texts:
        column, _, kind = text.partition(":")
        chosen = next((known for known in KINDS if known == (kind or "linear")), None)
        if chosen is None:
            raise UserError(f"--outcome {text}: no model {kind!r}; models: {', '.join(KINDS)}")
        found.append((column, chosen))
    return found


def associate_tables(
    quantities: Path,
    clinical: Path,
    outcomes: Sequence[tuple[str, Kind]],
    exposures: Sequence[str] = (),
    covariates: Sequence[str] = (),
) -> Associations:
    """Relate quantities to outcomes.

    Args:
        quantities: ``quantities.csv`` of ``msklabel quantify``.
        clinical: CSV with a row for each scan.
        outcomes: Columns of the clinical table, each with its model.
        exposures: ``<structure>:<quantity>``; all by default.
        covariates: Columns of the clinical table to adjust for.

    Raises:
        UserError: If a column is missing or mistyped, or no scan is in both tables.
    """
    rows_of_scans = read_table(quantities)
    measured = wide(rows_of_scans)
    facts = with_sarcopenia(read_clinical(clinical, [*(name for name, _ in outcomes), *covariates]))
    unknown = [name for name in exposures if name not in measured]
    if unknown:
        raise UserError(f"{quantities.name}: no exposure {unknown[0]!r}; there are {', '.join(measured.columns[:8])} …")
    needed = list(dict.fromkeys([*(name for name, _ in outcomes), *covariates]))
    numbers = number_columns(clinical, facts, needed)
    table = measured.join(numbers, how="inner")
    if table.empty:
        raise UserError(f"{quantities.name} and {clinical.name} have no scan in common")
    chosen = list(exposures) or list(measured.columns)
    regressions = association_table(table, chosen, outcomes, covariates)
    slabs = _slabs(rows_of_scans, table, chosen)
    regressions["note"] = [
        "; ".join(filter(None, [note, slabs.get(exposure, "")]))
        for note, exposure in zip(regressions["note"], regressions["exposure"], strict=True)
    ]
    sections = [Section("How it was computed", [*_METHODS, f"{len(table)} scans are in both tables."])]
    for outcome, kind in outcomes:
        rows = regressions[(regressions["outcome"] == outcome) & (regressions["kind"] == kind)]
        sections.append(Section(f"{outcome} ({kind})", tables=[_as_printed(rows)]))
    sarcopenia = None
    if "low_muscle_mass" in facts:
        joined = measured.join(facts[["sex", "low_muscle_mass"]], how="inner").dropna(subset="low_muscle_mass")
        sarcopenia = correlations(joined, chosen, "low_muscle_mass")
        sections.append(_sarcopenia_section(sarcopenia))
    provenance = [*software(), *of_table("quantities", quantities), *of_files("clinical", [clinical])]
    apart = next(iter(slabs.values()), "")
    warnings = [f"Not of slabs of one height in all scans: {apart}."] if apart else []
    notes = [*warnings, "Associations of quantities with outcomes; no causes."]
    report = Report("Associations", notes, sections, provenance)
    return Associations(regressions, sarcopenia, report, warnings)


def _slabs(quantities: pd.DataFrame, table: pd.DataFrame, exposures: Sequence[str]) -> dict[str, str]:
    """What to say of each volume whose slab is not as high in all scans that have it."""
    volumes = [name for name in exposures if is_volume(name.partition(":")[2])]
    told = {name: slabs_in_scans(quantities, table.index[table[name].notna()]) for name in volumes}
    return {name: f"volumes of {words}" for name, words in told.items() if words}


def _as_printed(rows: pd.DataFrame) -> Table:
    shown = rows[["exposure", "adjusted_for", "cases", "estimate", "p", "note"]].reset_index(drop=True)
    shown["estimate"] = with_intervals(rows["estimate"], rows["lower"], rows["upper"])
    return Table("Estimate with its 95 % confidence interval", shown)


def _sarcopenia_section(table: pd.DataFrame) -> Section:
    order = list(dict.fromkeys(table["exposure"])), list(dict.fromkeys(table["group"]))
    cells = table.set_index(["exposure", "group"])
    r, p = (cells[name].unstack().reindex(index=order[0], columns=order[1]) for name in ("r", "p"))
    caption = "Correlation (r) of low muscle mass by the AWGS 2019 cut-offs with each quantity; bold where p < 0.05"
    return Section(
        "Sarcopenia",
        ["Kim et al. 2024, figures 7 and 8: low muscle mass is an index below 7.0 (men) or 5.4 (women) kg/m²."],
        [Picture(caption, heat_map(r, "low muscle mass", p))],
        [Table("Correlations", table)],
    )
