"""The report of a cohort's quantities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from msklabel.imaging.geometry import closest_axes, spacing_mm
from msklabel.measure.case_images import image_parts
from msklabel.measure.evaluation_report import axial
from msklabel.measure.quantities import FAT, KEYS
from msklabel.measure.report.figures import box_plots, map_figure, overlays, profile_plot
from msklabel.measure.report.page import Picture, Report, Section, Table, heading
from msklabel.measure.report.provenance import of_files, of_model, of_system, software
from msklabel.measure.slab import span_words
from msklabel.system import System

if TYPE_CHECKING:
    from msklabel.measure.quantify import Quantified
    from msklabel.measure.quantify_folder import Case, Loaded

_PROFILED = 6  # scans whose profiles are drawn
_METHODS = (
    "Volume: voxels times their volume. Area: in the chosen slice. Means (HU, fat fraction) are over the voxels of the "
    "structure; fat fraction is fat / (water + fat), voxel by voxel, voxels without signal left out. Asymmetry: "
    "(left − right) / mean. Sides are parted by the mid-sagittal plane of the labels, or by the labels' names.",
)


def quantify_report(
    system: System,
    rows: pd.DataFrame,
    profiles: pd.DataFrame,
    clinical: pd.DataFrame | None,
    cases: Sequence[Case],
    pictures: Sequence[Picture],
    model: Path | None = None,
    warnings: Sequence[str] = (),
) -> Report:
    """Put a cohort's quantities on a page.

    Args:
        system: What was segmented.
        rows: Quantities, one row for each scan, structure and side.
        profiles: Slice by slice.
        clinical: What is known about the patients.
        cases: Where it came from.
        pictures: Of some of them.
        model: Folder of the model version that made the labels, where one did.
        warnings: What speaks against comparing the cases.
    """
    quantities = [name for name in rows.columns if name not in KEYS]
    sections = [
        Section("How it was measured", [*_METHODS, *_chosen(cases)]),
        Section("Quantities", (), _boxes(rows, quantities), _tables(rows, quantities)),
    ]
    if len(profiles):
        sections.append(Section("Along the limb", pictures=_profiles(profiles)))
    if clinical is not None:
        sections.append(Section("Cases", tables=[Table("As given, with index and class", clinical.reset_index())]))
    sections.append(Section("Pictures", pictures=pictures))
    notes = list(dict.fromkeys(note for case in cases for note in case.found.notes))
    if notes:
        sections.append(Section("Limits", notes))
    files = [case.labels_file for case in cases]
    given = [file for case in cases if case.image_file for file in image_parts(case.image_file)]
    provenance = [*of_system(system), *of_model(model), *software(), *of_files("labels", files)]
    provenance += of_files("image", given)
    first = [*(f"{words}." for words in warnings), "Made from label maps that may be automatic."]
    return Report(f"Quantities: {system.title}", first, sections, provenance)


def case_pictures(loaded: Loaded, found: Quantified, system: System) -> list[Picture]:
    """The chosen slice, or the one with most labelled voxels, with its labels, and its fat fraction if there is one."""
    affine = loaded.labels.affine
    labels = axial(loaded.labels.array, affine)
    at = found.slices.get("both", int(np.argmax((labels > 0).sum(axis=(0, 1)))))
    x, y = (spacing_mm(affine)[axis] for axis in closest_axes(affine)[0][:2])
    seen = None if loaded.image is None else axial(loaded.image, affine)[..., at].astype(float)
    title = f"{loaded.scan}, slice {at}"
    pictures = [Picture(title, overlays(seen, {"labels": labels[..., at]}, system, title, y / x))]
    if FAT in loaded.images:
        percent = axial(loaded.images[FAT], affine)[..., at]
        title = f"Fat fraction of {title}"
        pictures.append(Picture(title, map_figure(percent, title, "fat fraction (%)", (0, 100), "inferno", y / x)))
    return pictures


def _chosen(cases: Sequence[Case]) -> list[str]:
    chosen = {case.scan: case.found.slices for case in cases if case.found.slices}
    said = [f"{scan}: {', '.join(f'{side} {at}' for side, at in slices.items())}" for scan, slices in chosen.items()]
    spans = {case.scan: case.found.volume_slices for case in cases if case.found.volume_slices}
    over = [f"{scan}: {span_words(span)}" for scan, span in spans.items()]
    words = []
    if said:
        words.append(
            f"Areas, mean HU and shares are of these slices, counted from the lowest, from 0: {'; '.join(said)}."
        )
    if over:
        words.append(f"Volumes are of these slices only, first to last: {'; '.join(over)}.")
    return words


def _tables(rows: pd.DataFrame, quantities: list[str]) -> list[Table]:
    tables = []
    present = rows[rows["voxels"] > 0]
    for name in quantities:
        shown = present.dropna(subset=name)
        if shown.empty:
            continue
        if rows["scan"].nunique() == 1:
            table = shown.pivot_table(index="structure", columns="side", values=name, sort=False).reset_index()
            if name.endswith("asymmetry_percent"):
                table = table.rename(columns={"both": "left − right, of their mean"})
        else:
            table = shown.groupby(["structure", "side"], sort=False)[name].describe().reset_index()
            table = table.rename(columns={"count": "cases", "std": "SD", "50%": "median"})
            table["cases"] = table["cases"].astype(int)
        tables.append(Table(heading(name), table))
    return tables


def _boxes(rows: pd.DataFrame, quantities: list[str]) -> list[Picture]:
    if rows["scan"].nunique() < 3:
        return []
    shown = rows[(rows["kind"] == "label") & (rows["side"] == "both") & (rows["voxels"] > 0)]
    pictures = []
    for name in quantities:
        values = {str(key): group[name].dropna().tolist() for key, group in shown.groupby("structure", sort=False)}
        if any(values.values()):
            label = heading(name)
            pictures.append(Picture(f"{label} of each structure, every scan a point", box_plots(values, label, "")))
    return pictures


def _profiles(profiles: pd.DataFrame) -> list[Picture]:
    """Area of the largest structures, both sides together, along the limb of each scan."""
    shown = profiles[(profiles["kind"] == "label") & (profiles["side"] == "both")]
    scans = shown["scan"].unique()
    pictures = [_profile(str(scan), shown[shown["scan"] == scan]) for scan in scans[:_PROFILED]]
    if len(scans) > _PROFILED:
        last = pictures[-1]
        more = f"{last.caption}; of {len(scans) - _PROFILED} more scans see profiles.csv"
        pictures[-1] = Picture(more, last.figure)
    return pictures


def _profile(scan: str, rows: pd.DataFrame) -> Picture:
    whole = "femur_percent" in rows and rows["femur_percent"].notna().any()
    x, name = ("femur_percent", "% of the femur from its upper end") if whole else ("z_mm", "height (mm)")
    largest = rows.groupby("structure")["area_cm2"].sum().nlargest(10).index
    lines = {
        str(key): (group[x].tolist(), group["area_cm2"].tolist())
        for key, group in rows.groupby("structure", sort=False)
        if key in largest
    }
    which = f"the {len(lines)} largest structures" if len(lines) > 1 else next(iter(lines), "nothing")
    caption = f"Area of {which} of {scan} in each slice, both sides together"
    return Picture(caption, profile_plot(lines, (name, "area (cm²)")))
