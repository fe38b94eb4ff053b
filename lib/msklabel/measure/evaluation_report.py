"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msklabel.imaging.geometry import closest_axes, spacing_mm
from msklabel.imaging.scan import LabelMap, Scan
from msklabel.measure.agreement import icc, pearson
from msklabel.measure.report.figures import POOLED, bland_altman_plots, box_plots, overlays, scatter
from msklabel.measure.report.page import Picture, Report, Section, Table, places
from msklabel.measure.summary import KEYS
from msklabel.system import System

_METHODS = (
    "Dice 2|A∩B|/(|A|+|B|); generalised Dice of a whole scan, every voxel weighing the same (Crum 2006); sensitivity "
    "TP/(TP+FN) and specificity TN/(TN+FP) over the whole grid; RAVD (predicted − true)/true, signed.",
    "Distances in mm between voxel centres; a voxel is on the surface if a face neighbour is outside the structure. "
    "ASSD is the mean over both surfaces, HD the largest, HD95 the larger of either direction's 95th percentile.",
    "Structures absent from truth and prediction are left out and counted; missed ones and false alarms count as Dice "
    "0 and have no distances. SD is that of a sample (n − 1).",
)


def summary_table(summary: pd.DataFrame, kinds: Sequence[str] = ("scan", "label", "group")) -> pd.DataFrame:
    """Mean ± SD of every metric, a row for each structure and side, as papers print it."""
    chosen = summary[summary["kind"].isin(kinds)].copy()
    order = list(dict.fromkeys(chosen["metric"]))
    after = {metric: places(chosen.loc[chosen["metric"] == metric, "mean"]) for metric in order}
    told = zip(chosen["metric"], chosen["mean"], chosen["sd"], strict=True)
    chosen["text"] = [_mean_sd(mean, sd, after[metric]) for metric, mean, sd in told]
    table = chosen.pivot_table(index=KEYS, columns="metric", values="text", aggfunc="first", sort=False)
    return table[order].reset_index().fillna("–").drop(columns="kind")


def evaluation_report(
    system: System,
    rows: Mapping[str, pd.DataFrame],
    tables: Mapping[str, pd.DataFrame],
    pictures: Sequence[Picture],
    notes: Sequence[str],
    provenance: Sequence[tuple[str, str]],
) -> Report:
    """Put an evaluation's tables and figures on a page.

    Args:
        system: What was segmented.
        rows: Rows of each model by its name.
        tables: Further tables by caption; those of a model begin with its name.
        pictures: Best, median and worst case.
        notes: Said at the top.
        provenance: What it was made from.
    """
    sections = [Section("How it was measured", _METHODS)]
    for model, table in rows.items():
        sections.append(Section(f"Model {model}", (), _figures(table, model), _of_model(tables, model)))
    rest = [Table(caption, frame) for caption, frame in tables.items() if caption.split(":")[0] not in rows]
    if rest:
        sections.append(Section("Models and raters", tables=rest))
    if pictures:
        sections.append(Section("Best, median and worst case", pictures=pictures))
    return Report(f"Evaluation: {system.title}", notes, sections, provenance)


def case_picture(truth: LabelMap, predicted: LabelMap, image: Scan | None, system: System, title: str) -> Picture:
    """The axial slice with most labels, truth and prediction side by side."""
    labels = [axial(m.array, m.affine) for m in (truth, predicted)]
    at = int(np.argmax([len(np.unique(labels[0][..., z])) * 10**6 + np.count_nonzero(labels[0][..., z])
                        for z in range(labels[0].shape[2])]))  # fmt: skip
    slice_of_image = None if image is None else axial(image.array[0], image.affine)[..., at].astype(float)
    x, y = (spacing_mm(truth.affine)[axis] for axis in closest_axes(truth.affine)[0][:2])
    maps = {"truth": labels[0][..., at], "prediction": labels[1][..., at]}
    return Picture(f"{title}; slice {at}", overlays(slice_of_image, maps, system, title, y / x))


def _figures(rows: pd.DataFrame, model: str) -> list[Picture]:
    labels = rows[(rows["kind"] == "label") & (rows["side"] == "both") & (rows["state"] != "absent")]
    if labels.empty:
        return []
    metrics = (("dice", "Dice"), ("assd_mm", "ASSD (mm)"), ("ravd_percent", "RAVD (%)"))
    boxes = [
        Picture(f"{name} of each structure, every scan a point", box_plots(_by_structure(labels, metric), name, model))
        for metric, name in metrics
    ]
    return boxes if labels["truth_cm3"].isna().all() else [*boxes, *_of_volumes(labels, model)]


def _of_volumes(labels: pd.DataFrame, model: str) -> list[Picture]:
    volumes = {
        str(name): (g["truth_cm3"].tolist(), g["predicted_cm3"].tolist())
        for name, g in labels.groupby("structure", sort=False)
    }
    truth, predicted = labels["truth_cm3"].tolist(), labels["predicted_cm3"].tolist()
    agreement = pearson(truth, predicted), icc(np.column_stack([truth, predicted]))
    return [
        Picture(
            "Bland–Altman of each structure's volume, every scan a point: bias and limits (bias ± 1.96 SD), shaded "
            "their 95 % confidence intervals",
            bland_altman_plots(volumes, "cm³", f"{model}: predicted − true volume", "predicted − true"),
        ),
        Picture(
            f"True and predicted volume of every structure and scan; {POOLED}",
            scatter(truth, predicted, ("true volume (cm³)", "predicted volume (cm³)"), *agreement, model),
        ),
    ]


def _by_structure(rows: pd.DataFrame, metric: str) -> dict[str, list[float]]:
    return {str(name): group[metric].tolist() for name, group in rows.groupby("structure", sort=False)}


def _of_model(tables: Mapping[str, pd.DataFrame], model: str) -> list[Table]:
    mine = {caption.split(": ", 1)[1]: table for caption, table in tables.items() if caption.split(":")[0] == model}
    return [Table(caption, table) for caption, table in mine.items() if len(table)]


def _mean_sd(mean: float, sd: float, after: int) -> str:
    return f"{mean:.{after}f}" + (f" ± {sd:.{after}f}" if np.isfinite(sd) else "")


def axial(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Axes and senses as RAS."""
    axes, signs = closest_axes(affine)
    turned = array.transpose(axes)
    return turned[tuple(slice(None, None, sign) for sign in signs)]
