"""Learn the left thigh of one real MR scan, segment its right one: ``python tests/bench/bench_real_thigh.py --seed 0``.

The system is ``thigh_dixon`` in its demo profile, adapted by data only: one channel, the labels that both legs of the
scan have, a finer grid and its own recipe. Only the left half of the image and of the labels reaches the training,
only the right half is tested on. The recipe was chosen the other way round (``--from right``), never by this one's
outcome. ``--every 5`` keeps every 5th slice of the labels and leaves the rest unknown; with ``--fill``, what lies
between the kept slices is what ``msklabel interpolate`` makes of them. The labels are another program's, not a human's:
agreement shows that learning works on a real scan.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.scan import LabelMap, Scan
from msklabel.imaging.write import write_labels
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import case_dice, label_means, mean_dice
from msklabel.learn.trainer import Report, Trainer
from msklabel.networks import loaded_network
from msklabel.pipeline.between_slices import fill_between
from msklabel.predict.engine import Engine
from msklabel.system import System

# Names in the scan's label_names.txt, without the side; its own spelling.
_NAMES = {
    "Biceps femoris long": "biceps_femoris_long_head",
    "Biceps femoris short": "biceps_femoris_short_head",
    "Satorius": "sartorius",
}
_DEMO: dict[str, Any] = {
    "spacing_mm": [2.6, 2.6, None],
    "intensity": {"kind": "zscore"},  # the units of this scanner are not those of the paper's
    "patch_voxels": [64, 80, 8],  # the whole of a cross-section
    "network": {
        "features": [12, 32, 64, 96, 128],
        "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]],
        "kernel": 3,
        "convolutions": 2,
    },
    "train": {
        "loss": "dice_cross_entropy",  # small muscles count as much as large ones
        "learning_rate": 3.0e-3,
        "schedule": "polynomial",
        "plateau_epochs": None,
        "epochs": 130,
        "crops_per_scan": 12,
        "foreground_fraction": 0.5,
        "deep_supervision": True,
        "augment": {
            "rotate_degrees": 20,
            "scale_fraction": 0.2,
            "shift_voxels": 4,
            "deform_voxels": 1.2,
            "shading": 0.2,
            "gamma_fraction": 0.3,
            "noise_sd": 0.05,
            "probability": 0.7,
        },
    },
    "predict": {"overlap": 0.5, "blend": "gaussian"},
}


def main() -> None:
    """Train, test, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MSKLABEL_REAL_DATA"), help="folder with mr_thigh")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--minutes", type=float, default=15.0, help="most for the training; fewer epochs if need be")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="train on every Nth annotated slice only")
    parser.add_argument("--fill", action="store_true", help="train on the slices in between, too, interpolated")
    parser.add_argument("--from", dest="learned", choices=("left", "right"), default="left", help="leg to learn from")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--labels", type=Path, help="NIfTI file for the predicted labels of the other leg")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or MSKLABEL_REAL_DATA must name the folder of real scans")
    figures, predicted = measure(options)
    show(figures)
    if options.labels:
        write_labels(options.labels, predicted)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], LabelMap]:
    """Train on one leg and measure on the other one."""
    folder = Path(options.data) / "mr_thigh"
    scan, values = read_scan(folder / "image.nii.gz"), read_labels(folder / "labels.nii.gz").array
    pairs = muscle_values(folder / "label_names.txt", values)
    system = derived_system(list(pairs))
    learned, tested = (one_leg(scan, values, pairs, side) for side in ("LR" if options.learned == "left" else "RL"))
    slices = tuple(range(options.every // 2, values.shape[2], options.every))
    annotated = Annotated(slices=slices) if options.every > 1 else Annotated()
    if options.fill:
        learned = learned[0], fill_between(learned[1], slices, axis=2)
        annotated = Annotated(slices=tuple(range(slices[0], slices[-1] + 1)))
    started, cpu = time.monotonic(), _cpu_seconds()
    weights, epochs = _train(system, Case("learned", "learned", lambda: learned, annotated), options)
    trained, trained_cpu = time.monotonic() - started, _cpu_seconds() - cpu
    engine = Engine(system, loaded_network(system, weights))
    dices = case_dice(engine, [Case("tested", "tested", lambda: tested)])
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "learned": options.learned,
        "seed": options.seed,
        "slices": len(slices),
        "filled": options.fill,
        "epochs": epochs,
        "training_seconds": round(trained, 1),
        "training_cpu_seconds": round(trained_cpu, 1),
        "mean_dice": round(mean_dice(dices), 4),
        "label_dice": {name: round(value, 4) for name, value in label_means(dices).items()},
    }
    return figures, engine(tested[0]).labels


def derived_system(names: list[str]) -> System:
    """``thigh_dixon``'s demo profile for one channel and these labels."""
    paper = load_catalogue(names=["thigh_dixon"])["thigh_dixon"]
    data = paper.model_dump(exclude_unset=True)
    labels = {name: {**data["labels"][name], "index": i} for i, name in enumerate(names, 1)}
    clean = {"largest_component": names, "fill_holes": names}
    changes = {"channels": ["mr"], "labels": labels, "groups": {}, "variants": {}, "postprocess": clean}
    demo = _merged(data["profiles"]["demo"], _DEMO)
    return System.model_validate({**data, **changes, "profiles": {"demo": demo}}).with_profile("demo")


def muscle_values(names: Path, values: NDArray[np.uint8]) -> dict[str, tuple[int, int]]:
    """Voxel values (left, right) of each of the system's muscles that both legs have, in the system's order."""
    known = load_catalogue(names=["thigh_dixon"])["thigh_dixon"].labels
    found: dict[str, dict[str, int]] = {}
    for line in names.read_text(encoding="utf-8").splitlines():
        if row := shlex.split(line, comments=True):  # value, colour, visibility, "number structure side"
            structure, _, side = row[-1].partition(" ")[2].strip().rpartition(" ")
            name = _NAMES.get(structure, structure.lower().replace(" ", "_"))
            found.setdefault(name, {})[side] = int(row[0])
    present = set(np.unique(values).tolist())
    sides = {name: (found[name]["Left"], found[name]["Right"]) for name in known if name in found}
    return {name: pair for name, pair in sides.items() if present.issuperset(pair)}


def one_leg(
    scan: Scan, values: NDArray[np.uint8], pairs: dict[str, tuple[int, int]], side: str
) -> tuple[Scan, NDArray[np.uint8]]:
    """Half of the scan, cut in the middle of its first axis, which runs from left to right, and its label map."""
    middle, which = scan.shape[0] // 2, ("L", "R").index(side)
    half = slice(None, middle) if side == "L" else slice(middle, None)
    labels = np.zeros(scan.shape, np.uint8)
    for index, pair in enumerate(pairs.values(), 1):
        labels[values == pair[which]] = index
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (middle * which)
    return Scan(scan.array[:, half], affine, facts={**scan.facts, "side": side}), labels[half]


def _train(system: System, case: Case, options: argparse.Namespace) -> tuple[Any, int]:
    """Weights after the last epoch; no voxel of the other leg chooses among them."""
    console = Console(stderr=True)

    def report(state: Report) -> None:
        if state.epoch % 5 == 0:
            console.print(f"epoch {state.epoch} of {state.epochs}, loss {state.loss:.3f}, {state.seconds:.0f} s")

    epochs = options.epochs or system.train.epochs
    with tempfile.TemporaryDirectory(prefix="msklabel-bench-") as folder:
        trial = Trainer(system, Path(folder) / "trial", epochs=2, seed=options.seed)
        seconds: list[float] = []
        trial([case], report=lambda state: seconds.append(state.seconds))
        fitting = int((60 * options.minutes - seconds[-1]) / (seconds[1] - seconds[0]))
        epochs = max(1, min(epochs, fitting))
        return Trainer(system, Path(folder) / "whole", epochs=epochs, seed=options.seed)([case], report=report), epochs


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {key: value for key, value in base.items() if isinstance(value, dict) and isinstance(changes.get(key), dict)}
    return {**base, **changes, **{key: _merged(both[key], changes[key]) for key in both}}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    between = " and what was interpolated between" if figures["filled"] else ""
    title = f"learned from {figures['slices']} slices{between} of the {figures['learned']} thigh, tested on the other"
    table = Table("muscle", "Dice", title=title)
    for name, value in figures["label_dice"].items():
        table.add_row(name.replace("_", " "), f"{value:.3f}")
    table.add_section()
    table.add_row("mean", f"{figures['mean_dice']:.3f}")
    console = Console()
    console.print(table)
    took, cpu = figures["training_seconds"], figures["training_cpu_seconds"]
    recipe = f"seed {figures['seed']}, {figures['epochs']} epochs"
    console.print(f"{recipe}: {took:.0f} s of training, {cpu:.0f} s of CPU; {figures['machine']}")


if __name__ == "__main__":
    main()
