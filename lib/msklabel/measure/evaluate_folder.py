"""Evaluate folders of label files and keep all that the report and the tables need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msklabel.errors import UserError
from msklabel.imaging.alignment import misfit
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.scan import LabelMap, Scan
from msklabel.measure.clinical import read_table
from msklabel.measure.evaluate import evaluate_pair
from msklabel.measure.evaluation_report import case_picture, evaluation_report, summary_table
from msklabel.measure.pairs import Pair, find_pairs, image_files, read_pair
from msklabel.measure.report.page import Picture, Report
from msklabel.measure.report.provenance import of_files, of_model, of_system, software
from msklabel.measure.sidecars import annotated_for
from msklabel.measure.summary import (
    COMPARED,
    KEYS,
    compare_models,
    empty_cases,
    rater_agreement,
    summarise,
    summarise_folds,
    volume_agreement,
)
from msklabel.system import System


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        rows: A row for each model, scan, structure and side.
        tables: File name without suffix -> table.
        report: The page.
    """

    rows: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    report: Report

    def write(self, out: Path) -> None:
        """Write ``cases.csv`` and a CSV for each table."""
        for name, table in {"cases": self.rows, **self.tables}.items():
            table.to_csv(out / f"{name}.csv", index=False)


def evaluate_folders(
    system: System,
    truth: Path,
    models: Mapping[str, Path],
    sides: str = "auto",
    resample: bool = False,
    paired_only: bool = False,
    images: Path | None = None,
    folds: Mapping[str, str] | None = None,
    say: Callable[[str], object] = lambda line: None,
    of_store: Mapping[str, Annotated] | None = None,
    versions: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Evaluate one model or several on the same scans.

    Args:
        system: Names the labels.
        truth: Folder of the true labels.
        models: Folder of predictions by name of the model.
        sides: As for :func:`msklabel.measure.evaluate.evaluate_pair`.
        resample: Bring predictions to the truth's grid.
        paired_only: Leave out files without a partner.
        images: Folder of the scans for the pictures.
        folds: Fold of each scan.
        say: Told after every scan.
        of_store: What the true labels speak of, by checksum, see :mod:`msklabel.measure.sidecars`.
        versions: Folder of the model version that made the predictions, by name of the model, where one did.

    Raises:
        UserError: If files have no partner, lie on different grids, or hold unknown labels.
    """
    by_model: dict[str, pd.DataFrame] = {}
    notes = [f"Truth: {truth.name}. A label map may itself be automatic; nothing here says who drew it."]
    provenance = [*of_system(system), *software()]
    tables: dict[str, pd.DataFrame] = {}
    in_report: dict[str, pd.DataFrame] = {}
    pictures: list[Picture] = []
    scans = image_files(images) if images else {}
    for model, folder in models.items():
        pairs, left_out = find_pairs(truth, folder, paired_only)
        if left_out:
            notes.append(f"{model}: left out for want of a partner: {', '.join(left_out)}.")
        rows, partly = _evaluate(system, pairs, sides, resample, f"{model}: ", say, of_store)
        if partly:
            notes.append(f"{model}: judged where the truth was drawn only: {'; '.join(partly)}.")
        by_model[model] = rows
        provenance += [(f"{model}: {what}", value) for what, value in of_model((versions or {}).get(model))]
        provenance += of_files(f"{model}: prediction", [pair.predicted for pair in pairs])
        in_report[f"{model}: mean ± SD over scans"] = summary_table(summarise(rows))
        in_report[f"{model}: empty cases"] = _with_gaps(empty_cases(rows))
        if not system.of_projections:
            in_report[f"{model}: agreement of volumes"] = volume_agreement(rows).drop(columns="kind")
        if folds:
            in_report[f"{model}: mean ± SD over folds"] = summary_table(summarise_folds(rows, folds))
        pictures += _pictures(system, model, rows, pairs, scans, resample)
    provenance += of_files("truth", [pair.truth for pair in find_pairs(truth, next(iter(models.values())), True)[0]])
    everything = pd.concat([rows.assign(model=model) for model, rows in by_model.items()], ignore_index=True)
    everything.insert(0, "model", everything.pop("model"))
    makers = {"summary": summarise, "empty": empty_cases, "volumes": volume_agreement}
    for name, make in makers.items():
        if name == "volumes" and system.of_projections:
            continue
        tables[name] = _stacked({model: make(rows) for model, rows in by_model.items()})
    if folds:
        tables["folds"] = _stacked({model: summarise_folds(rows, folds) for model, rows in by_model.items()})
    if len(by_model) > 1:
        tables |= _between_models(by_model, system)
        caption = "Wilcoxon's signed-rank test; Holm over the structures of one metric, kind and side"
        in_report[caption] = tables["wilcoxon"].drop(columns="kind")
        if "icc" in tables:
            in_report["ICC(A,1) of volumes between truth and all models"] = tables["icc"].drop(columns="kind")
    report = evaluation_report(system, by_model, in_report, pictures, notes, provenance)
    return Evaluation(everything, tables, report)


def read_folds(file: Path) -> dict[str, str]:
    """Fold of each scan from a CSV with the columns ``scan`` and ``fold``.

    Raises:
        UserError: If a column is missing.
    """
    table = read_table(file)
    for column in ("scan", "fold"):
        if column not in table:
            raise UserError(f"{file.name}: a column {column} is missing; it has {', '.join(table.columns)}")
    return {str(scan): str(fold) for scan, fold in zip(table["scan"], table["fold"], strict=True)}


def _evaluate(
    system: System,
    pairs: list[Pair],
    sides: str,
    resample: bool,
    prefix: str,
    say: Callable[[str], object],
    of_store: Mapping[str, Annotated] | None,
) -> tuple[pd.DataFrame, list[str]]:
    """A row for each scan, structure and side, and which scans are judged in part."""
    rows, partly = [], []
    for number, pair in enumerate(pairs, start=1):
        truth, predicted = read_pair(pair, resample)
        annotated = annotated_for(pair.truth, system, truth.array.shape, of_store)
        found = evaluate_pair(pair.scan, truth.array, predicted.array, truth.affine, system, sides, annotated)
        rows += [row.as_dict() for row in found]
        partly += [] if annotated.complete else [f"{pair.scan} ({_part(annotated)})"]
        say(f"{prefix}{number} of {len(pairs)}, {pair.scan}: generalised Dice {found[0].generalised_dice:.3f}")
    return pd.DataFrame(rows), partly


def _part(annotated: Annotated) -> str:
    """How much an annotator looked at."""
    parts = []
    if annotated.classes is not None:
        parts.append(f"{len(annotated.classes)} labels")
    if annotated.slices is not None:
        parts.append(f"{len(annotated.slices)} slices")
    return ", ".join(parts)


def _between_models(by_model: Mapping[str, pd.DataFrame], system: System) -> dict[str, pd.DataFrame]:
    names = list(by_model)
    tests = []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            for metric in COMPARED:
                table = compare_models(by_model[first], by_model[second], metric)
                table.insert(0, "models", f"{first} and {second}")
                tests.append(table)
    tested = {"wilcoxon": pd.concat(tests, ignore_index=True)}
    if system.of_projections:
        return tested
    volumes = {
        "truth": next(iter(by_model.values())).rename(columns={"truth_cm3": "cm3"}),
        **{name: rows.rename(columns={"predicted_cm3": "cm3"}) for name, rows in by_model.items()},
    }
    return {**tested, "icc": rater_agreement(volumes)}


def _pictures(
    system: System, model: str, rows: pd.DataFrame, pairs: list[Pair], scans: Mapping[str, Path], resample: bool
) -> list[Picture]:
    ranked = rows[rows["kind"] == "scan"].dropna(subset="generalised_dice").sort_values("generalised_dice")
    if ranked.empty:
        return []
    files = {pair.scan: pair for pair in pairs}
    places = {"best": len(ranked) - 1, "median": len(ranked) // 2, "worst": 0}
    pictures = []
    for what, place in places.items() if len(ranked) > 2 else [("every", place) for place in range(len(ranked))]:
        row = ranked.iloc[place]
        truth, predicted = read_pair(files[row["scan"]], resample)
        image = _image(scans.get(row["scan"]), truth)
        title = f"{model}, {what} case {row['scan']}: generalised Dice {row['generalised_dice']:.3f}"
        title += ", no image of its name and grid" if scans and image is None else ""
        pictures.append(case_picture(truth, predicted, image, system, title))
    return pictures


def _image(file: Path | None, truth: LabelMap) -> Scan | None:
    from msklabel.imaging.read import read_scan

    scan = read_scan(file) if file else None
    fits = scan is not None and misfit(scan, Scan(truth.array[None], truth.affine), ("image", "truth")) is None
    return scan if fits else None


def _with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    gaps = table[(table[["missed", "false_alarm", "absent"]] > 0).any(axis=1)]
    return gaps.drop(columns="kind")


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    stacked = pd.concat([table.assign(model=model) for model, table in tables.items()], ignore_index=True)
    return stacked[["model", *KEYS, *[c for c in stacked.columns if c not in ("model", *KEYS)]]]
