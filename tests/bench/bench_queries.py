"""Whether a strategy finds what few scans have: ``python tests/bench/bench_queries.py OUT --system hip_tissue_ct``.

For each seed a network learns from the first slices of a simulation, as ``msklabel simulate`` does; then every strategy
is asked what to draw next. Printed is how many of those slices hold the label that the fewest slices of the pool hold.
No second network is trained, so that this takes minutes where a simulation takes an hour, and says less: not how much
better a network becomes. The default seeds are none that a simulation of twenty seeds or fewer plays.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.choose.simulate.queries import QUERIES, State
from msklabel.choose.simulate.run import Setting, load_cases, start
from msklabel.choose.simulate.scans import Case, split
from msklabel.cli.simulate import prepared_cases
from msklabel.system import System

_DRAWS = 4  # for strategies that leave something to chance


def main() -> None:
    """Ask all strategies, print a table for each system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the prepared phantoms")
    parser.add_argument("--system", action="append", help="system; may be given again (hip_tissue_ct)")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(20, 28), help="seeds (20 to 27)")
    parser.add_argument("--scans", type=int, default=8, help="scans of a query (8)")
    parser.add_argument("--per-scan", type=int, default=2, help="slices drawn in each (2)")
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps (600)")
    parser.add_argument("--patients", type=int, default=36, help="patients of the pool (36)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(2, options.scans, options.per_scan, options.steps)
    for name, system in load_catalogue(names=options.system or ["hip_tissue_ct"], profile="simulation").items():
        ask = partial(_asked, system, prepared_cases(system, options.out, None, options.patients), setting)
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            show(name, setting, list(pool.map(ask, options.seeds)))


def _asked(system: System, cases: Path, setting: Setting, seed: int) -> dict[str, float]:
    """Mean number of slices with the scarcest label that each strategy asks for, and the share of all that have it."""
    torch.set_num_threads(1)
    parts = split(load_cases(cases), setting.test_share, seed)
    begun = start(system, parts, seed, setting)
    count = setting.scans * setting.per_scan
    state = State(system, parts.pool, begun.judged, begun.drawn, 1, setting.rounds, count, setting.per_scan)
    having = [_having(case, system) for case in parts.pool]
    scarcest = int(np.argmin(np.sum([slices.sum(axis=1) for slices in having], axis=0)))
    found = {"of all slices": count * float(np.mean(np.concatenate([slices[scarcest] for slices in having])))}
    for name, strategy in QUERIES.items():
        queries = [strategy(state, np.random.default_rng([seed, 1, draw])) for draw in range(_DRAWS)]
        found[name] = float(np.mean([sum(having[s][scarcest, z] for s, z in query) for query in queries]))
    return found


def _having(case: Case, system: System) -> np.ndarray:
    """Which slices hold which label, shape (labels, slices)."""
    return np.array([(case.labels == label).any(axis=(0, 1)) for label in range(1, system.classes)])


def show(system: str, setting: Setting, seeds: list[dict[str, float]]) -> None:
    """One line for each strategy."""
    title = f"{system}: slices with the scarcest label among the next {setting.scans * setting.per_scan}"
    table = Table("strategy", "mean", "lowest seed", "highest seed", title=title)
    for name in sorted(seeds[0], key=lambda name: -np.mean([found[name] for found in seeds])):
        values = [found[name] for found in seeds]
        table.add_row(name, f"{np.mean(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
