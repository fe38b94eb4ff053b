"""The page of a voxel-based relaxometry: R and p over the reference, PSV by cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from msklabel.imaging.geometry import closest_axes, spacing_mm
from msklabel.measure.evaluation_report import axial
from msklabel.measure.relaxometry import ALPHA, Relaxometry
from msklabel.measure.report.figures import as_radiologists_look
from msklabel.measure.report.page import Picture, Report, Section, Table, heading

if TYPE_CHECKING:
    from msklabel.measure.relaxometry_folder import Space

_MARGIN_VOXELS = 12
_PLANES = ("sagittal", "coronal", "axial")


def relaxometry_report(
    space: Space,
    found: Mapping[tuple[str, str], Relaxometry],
    table: pd.DataFrame,
    likeness: pd.DataFrame,
    notes: Sequence[str],
    how: Sequence[str],
    provenance: Sequence[tuple[str, str]],
) -> Report:
    """Put the page together.

    Args:
        space: Reference and mask.
        found: Maps by cohort and exposure.
        table: A row for each.
        likeness: A row for each patient.
        notes: Doubts.
        how: How it was computed.
        provenance: What it was made from.
    """
    sections = [Section("How it was computed", how), Section("By cohort", tables=[Table("Results", table)])]
    for (cohort, exposure), one in found.items():
        caption = (
            f"{cohort}, {exposure.replace('_', ' ')}: partial correlation R and p over the reference, in the slice of "
            f"each plane with the most voxels of p < {ALPHA}; {one.cases} patients, PSV {one.psv_percent:.1f} %"
        )
        drawn = correlation_figure(space, one, f"{cohort}: {heading(exposure)}")
        sections.append(Section(f"{cohort}: {exposure}", pictures=[Picture(caption, drawn)]))
    likenesses = Table("Likeness to the reference within 10 mm of the mask", likeness)
    sections.append(Section("Registration", tables=[likenesses]))
    return Report("Voxel-based relaxometry", [*notes, "Correlations; no causes."], sections, provenance)


def correlation_figure(space: Space, one: Relaxometry, title: str) -> Figure:
    """R (above) and p (below) over the reference, in the slice of each plane with the most significant voxels."""
    image, mask, r, p = (axial(a, space.affine) for a in (space.reference, space.mask, one.r, one.p))
    axes_order, _ = closest_axes(space.affine)
    edges = [spacing_mm(space.affine)[axis] for axis in axes_order]
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 3)
    low, high = np.percentile(image, [1, 99.5])
    for column in range(3):
        others = tuple(axis for axis in range(3) if axis != column)
        place = int(np.argmax((p < ALPHA).sum(axis=others) + mask.sum(axis=others) / mask.size))
        box = _box(mask, column)
        x, y = [axis for axis in range(3) if axis != column]
        for row, (values, name, limits, colours) in enumerate(
            ((r, "R", (-1, 1), "RdBu_r"), (np.where(p < ALPHA, p, np.nan), f"p < {ALPHA}", (0, ALPHA), "autumn"))
        ):
            panel = panels[row, column]
            under, over = (_slice(a, column, place, box) for a in (image, values))
            ratio = edges[y] / edges[x]
            panel.imshow(under.T, cmap="gray", origin="lower", vmin=low, vmax=high, aspect=ratio)
            drawn = panel.imshow(over.T, cmap=colours, origin="lower", vmin=limits[0], vmax=limits[1], aspect=ratio)
            panel.set_title(f"{name}, {_PLANES[column]}", fontsize=9)
            panel.axis("off")
            if column != 0:
                as_radiologists_look(panel)
            if column == 2:
                figure.colorbar(drawn, ax=panels[row, :], label=name, shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def _box(mask: NDArray[np.bool_], across: int) -> tuple[slice, ...]:
    """The mask's extent with a margin, whole across the plane."""
    places = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = max(0, inside[0] - _MARGIN_VOXELS), min(mask.shape[axis], inside[-1] + 1 + _MARGIN_VOXELS)
        places.append(slice(None) if axis == across else slice(int(low), int(high)))
    return tuple(places)


def _slice(array: NDArray, axis: int, place: int, box: tuple[slice, ...]) -> NDArray:
    return np.take(array[box], place, axis=axis)
