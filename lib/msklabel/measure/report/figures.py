"""Figures of a report, drawn without a display."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from msklabel.measure.agreement import BlandAltman, Estimate, bland_altman, complete_pairs
from msklabel.sections import Label, Window
from msklabel.system import System

POOLED = "r and ICC are high wherever structures differ in size, so see the table for those of each"
_OPACITY = 0.45
_MARGIN = 0.12  # of what is drawn, left around it
_LEGEND_INCHES = 1.9  # for one name
_PANELS_ACROSS = 5
_CHARACTERS = 12  # of a title in an inch
_PANEL_INCHES = (2.1, 1.7)
_NOTHING = "0.6"  # grey where a map says nothing, which no colour of a bar is


def box_plots(values: Mapping[str, Sequence[float]], axis_label: str, title: str) -> Figure:
    """A box for each name: median, quartiles, whiskers to 1.5 IQR, every case as a point."""
    told = {name: [v for v in row if np.isfinite(v)] for name, row in values.items()}
    told = {name: row for name, row in told.items() if row}
    figure = Figure(figsize=(9, max(2.5, 0.8 + 0.27 * len(told))), layout="constrained")
    axes = figure.subplots()
    names = [name.replace("_", " ") for name in told]
    if told:
        axes.boxplot(list(told.values()), vert=False, tick_labels=names, showfliers=False, medianprops={"color": "C1"})
    else:
        axes.text(0.5, 0.5, "no case has a value", transform=axes.transAxes, ha="center")
    for place, row in enumerate(told.values(), start=1):
        spread = place + 0.22 * np.linspace(-1, 1, len(row)) * (len(row) > 1)
        axes.plot(row, spread, "o", color="C0", markersize=3, alpha=0.6)
    axes.invert_yaxis()
    axes.set(xlabel=axis_label, title=title)
    axes.grid(axis="x", alpha=0.3)
    return figure


def bland_altman_plots(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    unit: str,
    title: str,
    difference: str = "second − first",
) -> Figure:
    """Differences over means of the cases, a panel for each name, with bias, limits and their intervals.

    A panel has the limits of its own cases only: structures of one scan are not independent of each other. With fewer
    than three cases there are points and no limits.

    Args:
        pairs: First and second measurement of each case, by name.
        unit: Of both.
        title: Of the figure.
        difference: What second − first is called.
    """
    columns = min(_PANELS_ACROSS, len(pairs))
    rows = -(-len(pairs) // columns)
    size = _PANEL_INCHES if len(pairs) > 1 else (8.0, 4.5)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, (name, (first, second)) in zip(panels, pairs.items(), strict=False):
        found = bland_altman(first, second)
        axes.plot(found.means, found.differences, "o", markersize=3, alpha=0.7)
        _agreement_lines(axes, found)
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=6)
        axes.margins(0.15)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.3)
    for axes in panels[len(pairs) :]:
        axes.remove()
    figure.supxlabel(f"mean of both ({unit})", fontsize=9)
    figure.supylabel(f"{difference} ({unit})", fontsize=9)
    figure.suptitle(textwrap.fill(title, int(_CHARACTERS * figure.get_figwidth())), fontsize=10)
    return figure


def _agreement_lines(axes: Axes, found: BlandAltman) -> None:
    """Bias and limits as lines, with their numbers in the margin: none lies on a point, nor on another."""
    for estimate, style, beside in (
        (found.bias, "-", {"va": "center_baseline", "xytext": (3, 0)}),
        (found.lower, "--", {"va": "top", "xytext": (3, -3)}),
        (found.upper, "--", {"va": "bottom", "xytext": (3, 3)}),
    ):
        if np.isfinite(estimate.value):
            axes.axhline(estimate.value, color="k", linestyle=style, linewidth=0.8)
            axes.axhspan(estimate.lower, estimate.upper, color="grey", alpha=0.15)
            place, where = (1, estimate.value), ("axes fraction", "data")
            text = f"{estimate.value:.3g}" if abs(estimate.value) < 1000 else f"{estimate.value:.0f}"
            axes.annotate(text, place, xycoords=where, textcoords="offset points", fontsize=6, **beside)


def scatter(
    first: Sequence[float], second: Sequence[float], names: tuple[str, str], r: Estimate, icc: Estimate, title: str
) -> Figure:
    """Both measurements against each other with the line of identity, r and ICC."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    a, b = complete_pairs(first, second)
    axes.plot(a, b, "o", markersize=4, alpha=0.7)
    if len(a):
        ends = [min(a.min(), b.min()), max(a.max(), b.max())]
        axes.plot(ends, ends, color="k", linewidth=1, label="identity")
    text = f"r = {_with_interval(r)}\nICC(A,1) = {_with_interval(icc)}\nn = {len(a)}"
    axes.annotate(text, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=9)
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.grid(alpha=0.3)
    return figure


def heat_map(table: pd.DataFrame, title: str, p: pd.DataFrame | None = None) -> Figure:
    """Correlations as colours from -1 to 1 with their numbers; those with p < 0.05 are bold."""
    rows, columns = table.shape
    longest = max((len(str(name)) for name in table.index), default=0)
    figure = Figure(figsize=(1.4 + 0.09 * longest + 1.3 * columns, 1.6 + 0.32 * rows), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(table.to_numpy(float), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(columns), [str(name).replace("_", " ") for name in table.columns])
    axes.set_yticks(range(rows), [str(name).replace("_", " ") for name in table.index])
    for (y, x), value in np.ndenumerate(table.to_numpy(float)):
        bold = p is not None and p.to_numpy(float)[y, x] < 0.05
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        colour = "w" if abs(value) > 0.6 else "k"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour, weight="bold" if bold else "normal")
    figure.colorbar(drawn, ax=axes, label="r")
    axes.set_title(title, fontsize=10)
    return figure


def overlays(
    image: NDArray[np.floating] | None,
    maps: Mapping[str, NDArray[np.uint8]],
    system: System,
    title: str,
    edge_ratio: float = 1.0,
) -> Figure:
    """One slice with each label map over it, the patient's right on the left, as radiologists look.

    Args:
        image: Shape (X, Y), right and anterior growing; None draws the labels alone.
        maps: Label maps of the same shape, by caption.
        system: Gives colours and the window.
        title: Of the figure.
        edge_ratio: Voxel height over width.
    """
    panels = len(maps) + (image is not None)
    around = _frame(np.any([labels > 0 for labels in maps.values()], axis=0))
    maps = {caption: labels[around] for caption, labels in maps.items()}
    low, high = (0.0, 1.0) if image is None else _window(image, system)
    image = None if image is None else image[around]
    shape = next(iter(maps.values())).shape
    height = 3.6 * min(1.6, max(0.25, edge_ratio * shape[1] / shape[0]))
    figure = Figure(figsize=(3.6 * panels, height + 1.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    captions: list[str | None] = [*([None] if image is not None else []), *maps]
    for axis, caption in zip(axes, captions, strict=True):
        if image is not None:
            axis.imshow(image.T, cmap="gray", origin="lower", vmin=low, vmax=high, aspect=edge_ratio)
        if caption is not None:
            axis.imshow(_coloured(maps[caption], system, image is not None), origin="lower", aspect=edge_ratio)
        axis.set_title(caption or "image", fontsize=9)
        as_radiologists_look(axis)
    shown = {int(v) for labels in maps.values() for v in np.unique(labels)}
    handles = [
        Patch(color=unit_colour(label), label=name.replace("_", " "))
        for name, label in system.labels.items()
        if label.index in shown
    ]
    if handles:
        columns = max(1, min(len(handles), int(3.6 * panels / _LEGEND_INCHES)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="x-small")
    figure.suptitle(title, fontsize=10)
    return figure


def profile_plot(profiles: Mapping[str, tuple[Sequence[float], Sequence[float]]], labels: tuple[str, str]) -> Figure:
    """Lines of a quantity along the limb, a colour for each name."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in profiles.items():
        axes.plot(x, y, label=name.replace("_", " "), linewidth=1.2)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="x-small")
    return figure


def map_figure(
    array: NDArray[np.floating],
    title: str,
    bar: str,
    limits: tuple[float, float],
    colours: str = "viridis",
    edge_ratio: float = 1.0,
) -> Figure:
    """One slice of a map of numbers, grey where it is NaN; shape (X, Y), right and anterior growing."""
    array = array[_frame(np.isfinite(array))]
    height = 5.5 * min(1.2, max(0.3, edge_ratio * array.shape[1] / array.shape[0]))
    figure = Figure(figsize=(7, height + 0.6), layout="constrained")
    axes = figure.subplots()
    shades = matplotlib.colormaps[colours].with_extremes(bad=_NOTHING)
    drawn = axes.imshow(array.T, cmap=shades, origin="lower", vmin=limits[0], vmax=limits[1], aspect=edge_ratio)
    as_radiologists_look(axes)
    axes.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, label=bar)
    return figure


def _frame(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The part of a picture in which something is, with a margin; all where nothing is."""
    found = []
    for axis in (0, 1):
        there = np.flatnonzero(inside.any(axis=1 - axis))
        if not len(there):
            return (slice(None), slice(None))
        margin = int(np.ceil(_MARGIN * (there[-1] - there[0] + 1)))
        found.append(slice(max(0, int(there[0]) - margin), int(there[-1]) + 1 + margin))
    return tuple(found)


def as_radiologists_look(axes: Axes) -> None:
    """The patient's right on the left, and said so."""
    axes.invert_xaxis()
    axes.axis("off")
    for place, name in ((0.02, "R"), (0.98, "L")):
        where = "left" if name == "R" else "right"
        text = axes.text(place, 0.98, name, transform=axes.transAxes, ha=where, va="top", color="w", weight="bold")
        text.set_path_effects([withStroke(linewidth=2, foreground="k")])


def unit_colour(label: Label) -> tuple[float, float, float]:
    """Red, green, blue of a label, each 0 to 1."""
    red, green, blue = (part / 255 for part in label.color)
    return red, green, blue


def _window(image: NDArray[np.floating], system: System) -> tuple[float, float]:
    if isinstance(system.intensity, Window) and "CT" in system.modality:
        return system.intensity.lower, system.intensity.upper
    low, high = np.percentile(image, [1, 99.5])
    return float(low), float(high)


def _coloured(labels: NDArray[np.uint8], system: System, over_image: bool) -> NDArray[np.floating]:
    table = np.zeros((256, 4))
    for label in system.labels.values():
        table[label.index] = [*unit_colour(label), _OPACITY if over_image else 1.0]
    return table[labels].transpose(1, 0, 2)


def _with_interval(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return f"– ({estimate.note})"
    interval = f" [{estimate.lower:.3f}, {estimate.upper:.3f}]" if np.isfinite(estimate.lower) else ""
    return f"{estimate.value:.3f}{interval}"
