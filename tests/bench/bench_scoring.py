"""What judging a scan costs beside segmenting it: ``python tests/bench/bench_scoring.py --repeats 9``.

For each system a plain inference, one with a summary, and one with a summary and a mirrored member are timed in turn on
the same phantom; the medians of the ratios to the plain one of the same turn are printed. Fresh weights of a profile.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.choose.summarise import Summarise
from msklabel.choose.summary import to_bytes
from msklabel.imaging import Scan
from msklabel.networks import build_network
from msklabel.predict.engine import Engine
from msklabel.system import System
from msklabel_phantoms.write import generate

_SIZES = {2: ((160, 120, 8), (2.6, 2.6, 3.0)), 3: ((96, 72, 48), (4.0, 4.0, 6.0))}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--systems", nargs="*", default=["hip_tissue_ct", "thigh_ct"])
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    systems = load_catalogue(names=options.systems, profile=options.profile)
    rows = {name: measure(system, options.repeats) for name, system in systems.items()}
    table = Table("system", "crop", "plain s", "summary, ratio", "summary and flip, ratio", "bytes")
    for name, row in rows.items():
        ratios = (f"{row['summary']:.2f}", f"{row['flip']:.2f}")
        table.add_row(name, str(row["crop"]), f"{row['plain_s']:.2f}", *ratios, str(row["bytes"]))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(system: System, repeats: int) -> dict[str, object]:
    """Median seconds, median ratios and bytes of one system."""
    torch.manual_seed(0)
    shape, spacing_mm = _SIZES[system.dimensions]
    phantom = generate(system.name, 3, 0, shape, spacing_mm)
    scan = Scan(phantom.image, phantom.affine, {k: str(v) for k, v in phantom.facts.items()})
    network = build_network(system)
    plain = Engine(_with_flips(system, ()), network)
    summary = Summarise(plain, "bench")
    flip = Summarise(Engine(_with_flips(system, (0,)), network), "bench")
    taken: dict[str, list[float]] = {"plain": [], "summary": [], "flip": []}
    for _ in range(repeats + 1):
        for name, work in (("plain", plain), ("summary", summary), ("flip", flip)):
            taken[name].append(seconds(lambda work=work: work(scan)))
    times = {name: np.array(values[1:]) for name, values in taken.items()}
    return {
        "crop": list(plain.preprocess(scan).image.shape[1:]),
        "plain_s": float(np.median(times["plain"])),
        "summary": float(np.median(times["summary"] / times["plain"])),
        "flip": float(np.median(times["flip"] / times["plain"])),
        "bytes": len(to_bytes(flip(scan)[1])),
    }


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _with_flips(system: System, axes: tuple[int, ...]) -> System:
    return system.model_copy(update={"choose": system.choose.model_copy(update={"flip_axes": axes})})


if __name__ == "__main__":
    main()
