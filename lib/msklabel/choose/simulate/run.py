"""Play strategies, seeds and systems through; each cell is a JSON file, and one that is there is not played again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msklabel.choose.simulate.judge import Judge, Judged, JudgedOnDemand
from msklabel.choose.simulate.queries import QUERIES, State, first_slices
from msklabel.choose.simulate.scans import Case, Drawn, Split, split
from msklabel.choose.simulate.train import train
from msklabel.durable import replace_text
from msklabel.errors import UserError
from msklabel.memory import keep_freed_memory
from msklabel.system import System

FULL = "full"  # a cell that trains on every slice, for comparison
_MINUTES_PER_SLICE = 0.5  # to open it and look; an assumption, not a measurement
_MINUTES_PER_CM2 = 0.02  # to draw


@dataclass(frozen=True)
class Setting:
    """The same for all cells of a simulation.

    Attributes:
        rounds: Queries after the start.
        scans: Scans that a query is made for.
        per_scan: Slices of each; a query asks for ``scans`` x ``per_scan`` slices.
        steps: Optimiser steps of every training.
        test_share: Share of patients that test.
    """

    rounds: int = 5
    scans: int = 4
    per_scan: int = 2
    steps: int = 120
    test_share: float = 0.35


@dataclass(frozen=True)
class Cell:
    """One curve: a system, a strategy, a seed."""

    system: str
    strategy: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its result."""
        return f"{self.system}-{self.strategy}-{self.seed:03d}.json"


@dataclass(frozen=True)
class Stage:
    """What is drawn, what the model that learned from it says of the pool, and how good it is."""

    drawn: Drawn
    judged: Sequence[Judged]
    point: dict[str, Any]


def stage(system: System, parts: Split, drawn: Drawn, number: int, seed: int, steps: int) -> Stage:
    """Train from fresh weights on what is drawn, and test."""
    judge = Judge(system, train(system, parts.pool, drawn, steps, seed))
    point = {"round": number, "dice": judge.dice(parts.test), **cost(parts.pool, drawn)}
    return Stage(drawn, JudgedOnDemand(judge, parts.pool), point)


def start(system: System, parts: Split, seed: int, setting: Setting) -> Stage:
    """Where every strategy of a seed begins."""
    drawn = first_slices(parts.pool, setting.scans, setting.per_scan, seed)
    return stage(system, parts, drawn, 0, seed, setting.steps)


def play(
    system: System, parts: Split, strategy: str, seed: int, setting: Setting, begun: Callable[[], Stage] | None = None
) -> list[dict[str, Any]]:
    """Query, draw, train from fresh weights, test; again and again.

    Args:
        system: The system.
        parts: What to query, and what to test with.
        strategy: Which; ``FULL`` for every slice at once.
        seed: Of the start, the weights and what is left to chance.
        setting: Rounds, slices and steps.
        begun: Gives the start, if somebody has it.

    Returns:
        A point for the start and after each round: Dice of each label on the test cases, and what was drawn.

    Raises:
        UserError: If there is no such strategy.
    """
    if strategy == FULL:
        every = {s: set(range(case.slices)) for s, case in enumerate(parts.pool)}
        return [stage(system, parts, every, 0, seed, setting.steps).point]
    if strategy not in QUERIES:
        raise UserError(f"there is no strategy {strategy!r} to simulate; strategies: {', '.join(QUERIES)}")
    now = begun() if begun else start(system, parts, seed, setting)
    points = [now.point]
    count = setting.scans * setting.per_scan
    for number in range(1, setting.rounds + 1):
        state = State(system, parts.pool, now.judged, now.drawn, number, setting.rounds, count, setting.per_scan)
        drawn = now.drawn
        for scan, place in QUERIES[strategy](state, np.random.default_rng([seed, number, 5])):
            drawn = {**drawn, scan: drawn.get(scan, set()) | {place}}
        now = stage(system, parts, drawn, number, seed, setting.steps)
        points.append(now.point)
    return points


def cost(pool: Sequence[Case], drawn: Drawn) -> dict[str, float]:
    """What was drawn: slices, their share of the pool, foreground voxels, and minutes under a plain assumption."""
    slices = sum(len(some) for some in drawn.values())
    voxels = {s: int((pool[s].labels[:, :, sorted(some)] > 0).sum()) for s, some in drawn.items()}
    area_cm2 = sum(count * pool[s].voxel_cm2 for s, count in voxels.items())
    return {
        "scans": len(drawn),
        "slices": slices,
        "share": slices / sum(case.slices for case in pool),
        "voxels": sum(voxels.values()),
        "minutes": round(_MINUTES_PER_SLICE * slices + _MINUTES_PER_CM2 * area_cm2, 2),
    }


def run_cells(
    cells: Sequence[Cell],
    systems: Mapping[str, System],
    cases: Mapping[str, Path],
    setting: Setting,
    out: Path,
    workers: int,
) -> Iterator[tuple[Cell, float]]:
    """Play the cells whose results are missing, each in a process with one thread.

    Args:
        cells: What to play.
        systems: By name.
        cases: For each system the file of its prepared cases, see :func:`save_cases`.
        setting: The same for all.
        out: Where results lie.
        workers: Processes at once.

    Yields:
        Each cell when it is done, and its seconds of processor time.

    Raises:
        UserError: If a result that is there was played otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    todo = missing_cells(cells, systems, cases, setting, out)
    context = get_context("spawn")  # a forked child would inherit the threads of this one
    with ProcessPoolExecutor(workers, context, initializer=_begin_process) as pool:
        jobs = {pool.submit(_cell, cell, systems[cell.system], cases[cell.system], setting, out): cell for cell in todo}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


def missing_cells(
    cells: Sequence[Cell], systems: Mapping[str, System], cases: Mapping[str, Path], setting: Setting, out: Path
) -> list[Cell]:
    """Cells without a result.

    Raises:
        UserError: If a result that is there was played on other scans, by another setting, or another configuration of
            its system.
    """
    missing = []
    for cell in cells:
        file = out / cell.file
        if not file.exists():
            missing.append(cell)
            continue
        played = json.loads(file.read_text(encoding="utf-8"))
        now = _played_with(systems[cell.system], cases[cell.system], setting)
        if any(played.get(key) != value for key, value in now.items()):
            reason = "was played with other options, on other scans or by another configuration"
            raise UserError(f"{file} {reason}; choose another folder")
    return missing


def save_cases(file: Path, cases: Sequence[Case]) -> None:
    """Keep prepared cases for the processes of a simulation."""
    partial = file.with_name(f".{os.getpid()}-{file.name}")
    torch.save(list(cases), partial)
    partial.replace(file)


def load_cases(file: Path) -> list[Case]:
    """Cases that :func:`save_cases` kept; only to be used on files of one's own."""
    cases: list[Case] = torch.load(file, weights_only=False)
    return cases


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it; Python's way it would go on with the next cell
    torch.set_num_threads(1)
    keep_freed_memory(large=True)


_begun: dict[tuple[Path, int], Stage] = {}  # the last start of this process: the strategies of a seed share it


def _cell(cell: Cell, system: System, cases: Path, setting: Setting, out: Path) -> float:
    started = time.process_time()
    parts = split(load_cases(cases), setting.test_share, cell.seed)

    def begun() -> Stage:
        key = (cases, cell.seed)
        if key not in _begun:
            _begun.clear()
            _begun[key] = start(system, parts, cell.seed, setting)
        return _begun[key]

    points = play(system, parts, cell.strategy, cell.seed, setting, begun)
    seconds = round(time.process_time() - started, 1)
    facts = {**_played_with(system, cases, setting), "seconds": seconds}
    result = {**asdict(cell), **facts, "points": points}
    replace_text(out / cell.file, json.dumps(result, indent=1))
    return seconds


def _played_with(system: System, cases: Path, setting: Setting) -> dict[str, Any]:
    """What must be the same for a result to count: the file of cases is named by what is in it."""
    facts = {"fingerprint": system.fingerprint, "setting": asdict(setting), "cases": cases.name}
    recipe = {"learning_rate": system.train.learning_rate, "batch": system.train.batch}
    predict, choose = system.predict.model_dump(mode="json", exclude={"batch"}), system.choose.model_dump(mode="json")
    return {**facts, "recipe": recipe, "predict": predict, "choose": choose}


def progress_of(done: Iterator[tuple[Cell, float]], say: Callable[[str], None], total: int) -> None:
    """Say what is done."""
    for number, (cell, seconds) in enumerate(done, 1):
        say(f"{number} of {total}: {cell.system}, {cell.strategy}, seed {cell.seed}: {seconds:.0f} s")
