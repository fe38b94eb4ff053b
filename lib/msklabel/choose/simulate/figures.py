"""Figures of a simulation."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

_NOTE = "mean over seeds, band: one standard error"


def draw_curves(points: pd.DataFrame, file: Path, full: str = "full") -> None:
    """Dice over drawn slices, a mark at each budget, one panel for each system."""
    systems = sorted(points.system.unique())
    figure, axes = plt.subplots(1, len(systems), figsize=(6.5 * len(systems), 5), squeeze=False, layout="constrained")
    for axis, system in zip(axes[0], systems, strict=True):
        own = points[points.system == system]
        for strategy, group in own[own.strategy != full].groupby("strategy"):
            rounds = group.groupby("round")
            slices, mean = rounds.slices.mean(), rounds.dice.mean()
            error = rounds.dice.sem().fillna(0)
            width = 2.5 if strategy == "auto" else 1.2
            axis.plot(slices, mean, label=strategy, linewidth=width, marker="o", markersize=4)
            axis.fill_between(slices, mean - error, mean + error, alpha=0.12)
        level = own[own.strategy == full].dice.mean()
        if level == level:
            axis.axhline(level, color="black", linestyle=":", linewidth=1, label="all slices")
        axis.set(title=system, xlabel="slices drawn", ylabel="Dice on test scans")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    names = axes[0, 0].get_legend_handles_labels()
    figure.legend(*names, fontsize=8, ncols=5, loc="outside lower center", title=_NOTE, title_fontsize=8)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def draw_matrix(matrix: pd.DataFrame, file: Path) -> None:
    """The pairwise penalty matrix: how often the row beats the column."""
    figure, axis = plt.subplots(figsize=(7, 6))
    shown = axis.imshow(matrix.to_numpy(), vmin=0, vmax=1, cmap="Blues")
    axis.set_xticks(range(len(matrix)), matrix.columns, rotation=60, ha="right")
    axis.set_yticks(range(len(matrix)), matrix.index)
    for (row, column), share in np.ndenumerate(matrix.to_numpy()):
        axis.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7)
    axis.set_title("share of comparisons in which the row beats the column (Holm, 0.05)", fontsize=9)
    figure.colorbar(shown, shrink=0.8)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
