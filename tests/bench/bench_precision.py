"""What half precision changes: in what a training learns, and in the labels of a trained network.

    python tests/bench/bench_precision.py --systems hip_tissue_ct hip_abductor_mr --seeds 5

For each seed a network is trained twice from the same weights on the same phantoms: in single precision, and
multiplying in bfloat16 as :mod:`msklabel.learn.trainer` does where the processor has units for it. Printed is the mean
Dice of both on phantoms that neither saw, by PyTorch in single precision, with the mean and the standard error of the
paired differences. The network that was trained in single precision then segments these phantoms with each backend: how
many voxels get another label than from PyTorch, how near its labels come to PyTorch's (the least Dice of a label) and
to the truth, and the seconds for a window. ``--scan`` takes a scan of your own as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_latency import in_a_folder
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.imaging.scan import Scan
from msklabel.learn.cases import Case
from msklabel.learn.trainer import Trainer
from msklabel.networks import loaded_network
from msklabel.predict.backends import BACKENDS, OPENVINO_PRECISIONS, mixed_type
from msklabel.predict.engine import Engine, dice
from msklabel.predict.on_openvino import compile_model, convert
from msklabel.predict.selection import site_of
from msklabel.predict.source import read_for
from msklabel.system import System
from msklabel_phantoms.write import generate

CPU = torch.device("cpu")
_MADE_UNSEEN = 1_000_000  # first number of the phantoms' second seed


def main() -> None:
    """Train, segment, print two tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*", default=["hip_tissue_ct"], help="which systems (hip_tissue_ct)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings in each precision (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="number of the first one (0)")
    parser.add_argument("--scans", type=int, default=8, help="phantoms to learn from (8)")
    parser.add_argument("--unseen", type=int, default=3, help="phantoms to test on (3)")
    parser.add_argument("--scan", type=Path, help="also segment this scan")
    parser.add_argument("--json", type=Path, help="file for the figures")
    in_a_folder(measure, show, parser.parse_args())


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each system."""
    if mixed_type(CPU) is None:
        raise SystemExit("this processor has no units for bfloat16: trainings are in single precision here")
    torch.set_num_threads(2)
    systems = load_catalogue(names=options.systems, profile="demo")
    return {name: _system(folder, system, options) for name, system in systems.items()}


def _system(folder: Path, system: System, options: argparse.Namespace) -> dict[str, Any]:
    trained: dict[str, list[float]] = {"f32": [], "bf16": []}
    labels: dict[str, list[dict[str, float]]] = {name: [] for name in OPENVINO_PRECISIONS}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        learn = [_phantom(system, seed, number) for number in range(options.scans)]
        unseen = [_phantom(system, _MADE_UNSEEN + seed, number) for number in range(options.unseen)]
        networks = {}
        for precision, scores in trained.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                trainer = Trainer(system, Path(place), device=CPU, seed=seed)
                trainer.mixed = None if precision == "f32" else mixed_type(CPU)
                weights = trainer([_case(number, *pair) for number, pair in enumerate(learn)])
            networks[precision] = loaded_network(system, weights).eval()
            engine = Engine(system, networks[precision])
            scores.append(float(np.mean([_dice(engine(scan).labels.array, truth) for scan, truth in unseen])))
            print(f"{system.name}, seed {seed}, {precision}: mean Dice {scores[-1]:.4f}", flush=True)
        scans = [*unseen, *([(read_for(system, options.scan), None)] if options.scan else [])]
        for name, row in _labels(system, networks["f32"], scans).items():
            labels[name] += row
    differences = np.subtract(trained["bf16"], trained["f32"])
    return {
        "trained": trained,
        "difference": float(differences.mean()),
        "standard_error": float(differences.std(ddof=1) / len(differences) ** 0.5) if len(differences) > 1 else None,
        "labels": labels,
    }


def _labels(system: System, network: torch.nn.Module, scans: list) -> dict[str, list[dict[str, float]]]:
    """How far the labels of each backend are from those of PyTorch, scan by scan."""
    site = site_of(system, CPU)
    model = convert(network, site.window)
    plain = [Engine(system, network)(scan).labels.array for scan, _ in scans]
    eager_s = _seconds(BACKENDS["eager"](network, site), site.window)
    found: dict[str, list[dict[str, float]]] = {}
    for name, precision in OPENVINO_PRECISIONS.items():
        try:
            forward = compile_model(model, precision)
        except ValueError as error:
            print(f"{name}: {error}")
            continue
        window_s = _seconds(forward, site.window)
        for (scan, truth), expected in zip(scans, plain, strict=True):
            given = Engine(system, [], CPU, [forward])(scan).labels.array
            row = {
                "other_percent": 100 * float(np.mean(given != expected)),
                "least_dice": min(dice(given, expected, label) for label in np.unique(expected[expected > 0])),
                "speedup": eager_s / window_s,
            }
            if truth is not None:
                row["dice_change"] = _dice(given, truth) - _dice(expected, truth)
            found.setdefault(name, []).append(row)
    return found


def show(figures: dict[str, Any]) -> None:
    """Print both tables."""
    table = Table("system", "seeds", "trained in f32", "in bf16", "difference", "standard error")
    for name, system in figures.items():
        f32, bf16 = (np.mean(system["trained"][key]) for key in ("f32", "bf16"))
        error = "" if system["standard_error"] is None else f"{system['standard_error']:.4f}"
        seeds = str(len(system["trained"]["f32"]))
        table.add_row(name, seeds, f"{f32:.4f}", f"{bf16:.4f}", f"{system['difference']:+.4f}", error)
    backends = Table(
        "system", "backend", "scans", "most voxels with another label (%)", "least Dice with PyTorch's labels",
        "largest change of the Dice with the truth", "window, times as quick as PyTorch",
    )  # fmt: skip
    for name, system in figures.items():
        for backend, rows in system["labels"].items():
            if rows:
                changes = [abs(row["dice_change"]) for row in rows if "dice_change" in row]
                backends.add_row(
                    name, backend, str(len(rows)),
                    f"{max(row['other_percent'] for row in rows):.4f}", f"{min(row['least_dice'] for row in rows):.4f}",
                    f"{max(changes):.4f}", f"{np.median([row['speedup'] for row in rows]):.1f}",
                )  # fmt: skip
    Console(width=130).print(table, backends)


def _phantom(system: System, seed: int, number: int) -> tuple[Scan, np.ndarray]:
    made = generate(system.name, seed, number)
    return Scan(made.image, made.affine, {key: str(value) for key, value in made.facts.items()}), made.labels


def _case(number: int, scan: Scan, labels: np.ndarray) -> Case:
    return Case(str(number), str(number), lambda: (scan, labels))


def _dice(given: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([dice(given, truth, int(label)) for label in np.unique(truth[truth > 0])]))


def _seconds(forward: Any, window: torch.Tensor) -> float:
    with torch.inference_mode():
        forward(window)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            forward(window)
            taken.append(time.perf_counter() - started)
    return min(taken)


if __name__ == "__main__":
    main()
