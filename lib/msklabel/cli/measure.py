"""From masks to numbers: compare label maps, measure them, relate what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from msklabel.catalogue import load_catalogue
from msklabel.cli.backup import Database
from msklabel.cli.shared import Configs, console
from msklabel.errors import UserError

if TYPE_CHECKING:
    from msklabel.measure.quantify import SliceChoice
    from msklabel.measure.report.page import Report

SystemName = Annotated[str, typer.Option("--system", help="System whose labels these are.")]
Out = Annotated[Path, typer.Option(help="Folder to write to; made if missing.")]
Sides = Annotated[
    str,
    typer.Option(
        help="auto: by the mid-sagittal plane, where both sides are there; none; left or right: the one there is."
    ),
]
Model = Annotated[
    Path | None, typer.Option(help="Version that made the labels, models/<system>/<version>; noted in the report.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        help="Version that made the predictions, models/<system>/<version>; noted in the report. "
        "With more than one --pred NAME=DIR, the prediction's name, for each."
    ),
]
LabelState = Annotated[
    Path | None,
    typer.Option("--state", help="State folder of the server that the labels are from; says what each speaks of."),
]
Pdf = Annotated[bool, typer.Option(help="Write the report as PDF, too.")]


def evaluate(
    truth: Annotated[Path, typer.Option(help="Folder of the true label maps.")],
    pred: Annotated[list[str], typer.Option(help="Folder of predictions of the same names; again for more: NAME=DIR.")],
    system: SystemName,
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans, of the same names, for the pictures.")
    ] = None,
    folds: Annotated[
        Path | None, typer.Option(help="CSV with the columns scan and fold, for fold-wise summaries.")
    ] = None,
    sides: Sides = "auto",
    resample: Annotated[bool, typer.Option(help="Bring predictions on other grids to the truth's.")] = False,
    paired_only: Annotated[bool, typer.Option(help="Leave out files without a partner.")] = False,
    model: Models = None,
    state: LabelState = None,
    database: Database = None,
    pdf: Pdf = False,
    configs: Configs = None,
) -> None:
    """Compare predicted label maps with true ones: a row for each scan and structure, a summary, a report."""
    from msklabel.measure.evaluate_folder import evaluate_folders, read_folds
    from msklabel.measure.sidecars import partial_labels

    chosen = load_catalogue(configs, [system])[system]
    models = _named_folders(pred)
    versions = _versions(model or (), list(models))
    make_folder(out)
    fold_of = read_folds(folds) if folds else None
    known = partial_labels(state, database) if state or database else None
    options = (sides, resample, paired_only, images, fold_of, console.print, known, versions)
    result = evaluate_folders(chosen, truth, models, *options)
    result.write(out)
    write_report(result.report, out, pdf)


def quantify(
    labels: Annotated[Path, typer.Option(help="Folder of label maps.")],
    system: SystemName,
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans, of the same names (x_water, x_fat).")
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="CSV: scan, height_cm, sex, weight_kg, age_years ...")] = None,
    at: Annotated[
        str,
        typer.Option("--slice", help="Slice of areas: default, none, neck, neck-left, neck-right, a number or 50%."),
    ] = "default",
    sides: Sides = "auto",
    maps: Annotated[bool, typer.Option(help="Write the fat fraction of every scan as NIfTI.")] = False,
    resample: Annotated[bool, typer.Option(help="Bring labels on other grids to their image's.")] = False,
    sr: Annotated[bool, typer.Option(help="Write a DICOM Structured Report of every scan that is DICOM.")] = False,
    model: Model = None,
    state: LabelState = None,
    database: Database = None,
    pdf: Pdf = False,
    configs: Configs = None,
) -> None:
    """Measure label maps: volumes, areas, HU, fat fractions, shares, asymmetry, profiles; a report.

    Ends with status 1 where a scan, or one side of it, was left empty because the slice that is measured is not to be
    found there.
    """
    from msklabel.imaging.maps import write_map
    from msklabel.measure.quantify_folder import Loaded, quantify_folder
    from msklabel.measure.sidecars import partial_labels
    from msklabel.measure.structured_report import write_reports

    chosen = load_catalogue(configs, [system])[system]
    make_folder(out)
    without_map: list[str] = []

    def each(loaded: Loaded) -> None:
        console.print(f"{loaded.scan}: measured", highlight=False)
        values = loaded.images.get("fat_fraction_percent")
        if values is None:
            without_map.append(loaded.scan)
        elif maps:
            write_map(out / f"{loaded.scan}_fat_fraction_percent.nii.gz", values, loaded.labels.affine)

    known = partial_labels(state, database) if state or database else None
    options = (_slice_choice(at), sides, resample, each, known, model)
    result = quantify_folder(chosen, labels, images, clinical, *options)
    result.write(out)
    for file in write_reports(result.cases, chosen, out) if sr else ():
        console.print(f"{file} written", highlight=False)
    write_report(result.report, out, pdf)
    _warn(result.warnings)
    if maps and without_map:
        _warn([f"--maps: there is no map of {', '.join(without_map)}, for want of water and fat images"])
    without = [case.scan for case in result.cases if case.no_slice]
    partly = [case.scan for case in result.cases if case.found.missing]
    for scans, where in ((without, ""), (partly, " on one side")):
        if scans:
            words = (
                f"left empty{where} for want of the slice that is measured: {len(scans)} of {len(result.cases)} scans"
            )
            console.print(f"{words}, {', '.join(scans)}", highlight=False, markup=False)
    if without or partly:
        raise typer.Exit(1)


def associate(
    quantities: Annotated[Path, typer.Option(help="quantities.csv of msklabel quantify.")],
    clinical: Annotated[Path, typer.Option(help="CSV with a row for each scan: outcomes, covariates, sex.")],
    outcome: Annotated[list[str], typer.Option(help="Column, or column:linear, :log, :logistic; again for more.")],
    out: Out,
    exposure: Annotated[
        list[str] | None, typer.Option(help="structure:quantity; again for more; default: all.")
    ] = None,
    adjust: Annotated[
        str, typer.Option(help="Columns to adjust for, by commas; of numbers, or sex.")
    ] = "age_years,height_cm,weight_kg",
    pdf: Pdf = False,
) -> None:
    """Relate quantities to outcomes: regressions, unadjusted and adjusted, and sarcopenia's heat map."""
    from msklabel.measure.associate_folder import associate_tables, parse_outcomes

    make_folder(out)
    covariates = [name.strip() for name in adjust.split(",") if name.strip()]
    result = associate_tables(quantities, clinical, parse_outcomes(outcome), exposure or (), covariates)
    _warn(result.warnings)
    result.write(out)
    write_report(result.report, out, pdf)


def agreement(
    first: Annotated[Path, typer.Option(help="quantities.csv of the reference.")],
    second: Annotated[Path, typer.Option(help="quantities.csv of the other.")],
    quantity: Annotated[str, typer.Option(help="Column to compare, such as volume_cm3.")],
    out: Out,
    pdf: Pdf = False,
) -> None:
    """Compare one quantity of two tables of the same scans: Bland-Altman, ICC, r; a report."""
    from msklabel.measure.agreement_folder import agreement_of_tables

    make_folder(out)
    result = agreement_of_tables(first, second, quantity)
    _warn(result.warnings)
    result.write(out)
    write_report(result.report, out, pdf)


def distance_map(
    truth: Annotated[Path, typer.Option(help="Label map whose surface is coloured.")],
    pred: Annotated[Path, typer.Option(help="Label map that the distances go to.")],
    system: SystemName,
    structure: Annotated[str, typer.Option(help="Label or group.")],
    out: Out,
    resample: Annotated[bool, typer.Option(help="Bring the prediction to the truth's grid.")] = False,
    configs: Configs = None,
) -> None:
    """Map the distance between two surfaces of a structure: NRRD, VTK and a figure."""
    from msklabel.durable import replace_text
    from msklabel.imaging.maps import write_map
    from msklabel.measure.distance_map import distance_figure, vtk_text
    from msklabel.measure.distance_map import distance_map as measure
    from msklabel.measure.pairs import Pair, read_pair
    from msklabel.measure.structures import structures_of

    chosen = load_catalogue(configs, [system])[system]
    known = {one.name: one for one in structures_of(chosen)}
    if structure not in known:
        raise UserError(f"{system} has no structure {structure!r}; structures: {', '.join(known)}")
    first, second = read_pair(Pair(truth.name, truth, pred), resample)
    masks = [np.isin(labels.array, known[structure].indices) for labels in (first, second)]
    found = measure(masks[0], masks[1], first.affine)
    make_folder(out)
    truth_name, pred_name = (f"{file.absolute().parent.name}/{file.name}" for file in (truth, pred))
    title = f"{structure}: distance of the truth {truth_name} from the prediction {pred_name}, mm, negative inside"
    write_map(out / f"{structure}_distance_mm.nrrd", found.array, first.affine)
    replace_text(out / f"{structure}_distance_mm.vtk", vtk_text(found, title))
    distance_figure(found, title).savefig(out / f"{structure}_distance_mm.png", dpi=110)
    console.print(f"{out / structure}_distance_mm.nrrd, .vtk and .png written", highlight=False)


def _warn(warnings: Sequence[str]) -> None:
    for words in warnings:
        console.print(f"warning: {words}", highlight=False, markup=False)


def _slice_choice(text: str) -> SliceChoice:
    from msklabel.measure.quantify import SliceChoice

    fixed = {
        "default": SliceChoice(),
        "none": SliceChoice("none"),
        "neck": SliceChoice("neck"),
        "neck-left": SliceChoice("neck", side="left"),
        "neck-right": SliceChoice("neck", side="right"),
    }
    if text in fixed:
        return fixed[text]
    try:
        return SliceChoice("percent", float(text[:-1])) if text.endswith("%") else SliceChoice("index", int(text))
    except ValueError:
        raise UserError(f"--slice: expected {', '.join(fixed)}, a whole number or a percentage, got {text!r}") from None


def _named_folders(values: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        path = Path(folder if separator else value)
        name = name if separator else path.name or "prediction"
        if name in named:
            raise UserError(f"--pred: two predictions are called {name}; give them names: --pred A=DIR --pred B=DIR")
        named[name] = path
    return named


def _versions(values: Sequence[str], predictions: Sequence[str]) -> dict[str, Path]:
    """Folder of the model version that made each prediction, of those that are named."""
    found: dict[str, Path] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not separator and len(predictions) == 1:
            name, folder = predictions[0], value
        if name not in predictions or not folder or name in found:
            raise UserError(f"--model {value}: expected NAME=DIR once for each prediction: {', '.join(predictions)}")
        found[name] = Path(folder)
    return found


def make_folder(folder: Path) -> None:
    """Make the folder that results go to.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from error


def write_report(report: Report, out: Path, pdf: bool) -> None:
    """Write ``report.html`` and, where asked for, ``report.pdf``."""
    from msklabel.measure.report.page import write_html
    from msklabel.measure.report.pdf import write_pdf

    write_html(report, out / "report.html")
    if pdf:
        write_pdf(report, out / "report.pdf")
    console.print(f"{out / 'report.html'} written", highlight=False)
