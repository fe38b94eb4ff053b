"""The demo's picture: a learning curve, and one held-out phantom before and after."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from msklabel.demo.loop import Outcome
from msklabel.imaging.read import read_labels, read_scan
from msklabel.sections import Label, Window
from msklabel.system import System

_OPACITY = 0.6
_LINE_INCHES = 0.18  # of a label's name beside its bar


def draw(outcome: Outcome, system: System, file: Path) -> None:
    """Write the picture as PNG."""
    heights = max(3.8, 1 + _LINE_INCHES * len(outcome.rounds[-1].label_dice)), 4.2
    figure = plt.figure(figsize=(13, sum(heights)), layout="constrained")
    top, bottom = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=heights)))
    left, right = top.subplots(1, 2)
    _curve(left, outcome)
    _bars(right, outcome, system)
    _overlays(bottom.subplots(1, len(outcome.pictures)), outcome, system)
    figure.suptitle(f"{system.title}: synthetic phantoms, {system.profile} profile, not clinically validated")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _curve(axes: Axes, outcome: Outcome) -> None:
    axes.plot([r.labels for r in outcome.rounds], [r.dice for r in outcome.rounds], "o-", label="what is served")
    for number in outcome.rounds:
        axes.annotate(f"{number.dice:.3f}", (number.labels, number.dice), (0, 8), textcoords="offset points")
    if outcome.draft:
        axes.axhline(outcome.draft.dice, color="grey", linestyle="--", label="draft without training")
    axes.set(xlabel="labels submitted", ylabel="mean Dice, held-out phantoms", ylim=(0, 1.02))
    axes.set_xticks([r.labels for r in outcome.rounds])
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    axes.margins(x=0.08)


def _bars(axes: Axes, outcome: Outcome, system: System) -> None:
    last = outcome.rounds[-1].label_dice
    names = list(last)
    colours = [_unit(system.labels[name]) for name in names]
    axes.barh([name.replace("_", " ") for name in names], [last[name] for name in names], color=colours, edgecolor="k")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"Dice after {outcome.rounds[-1].labels} labels")


def _overlays(axes: np.ndarray, outcome: Outcome, system: System) -> None:
    image = read_scan(outcome.pictures["image"]).array[0]
    shown = [what for what in ("before", "after", "truth") if what in outcome.pictures]  # one round has no before
    maps = {what: read_labels(outcome.pictures[what]).array for what in shown}
    at = int(np.argmax([len(np.unique(maps["truth"][..., z])) for z in range(image.shape[2])]))
    window = system.intensity
    low, high = (window.lower, window.upper) if isinstance(window, Window) else np.percentile(image, [1, 99.5])
    titles = {
        "before": "before: draft without training" if outcome.draft else "before: first round",
        "after": f"after: {outcome.rounds[-1].labels} labels",
        "truth": "truth of the phantom",
    }
    for axis, what in zip(axes, [None, *shown], strict=True):
        axis.imshow(image[..., at].T, cmap="gray", origin="lower", vmin=low, vmax=high)
        if what:
            axis.imshow(_coloured(maps[what][..., at], system).transpose(1, 0, 2), origin="lower")
        axis.set_title(titles[what] if what else "held-out phantom")
        axis.invert_xaxis()  # the patient's right is shown on the left, as radiologists look
        axis.axis("off")
    handles = [Patch(color=_unit(label), label=name.replace("_", " ")) for name, label in system.labels.items()]
    axes[0].get_figure().legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")


def _coloured(labels: np.ndarray, system: System) -> np.ndarray:
    table = np.zeros((256, 4))
    for label in system.labels.values():
        table[label.index] = [*_unit(label), _OPACITY]
    return table[labels]


def _unit(label: Label) -> tuple[float, float, float]:
    red, green, blue = (part / 255 for part in label.color)
    return red, green, blue
