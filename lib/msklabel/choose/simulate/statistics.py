"""From the curves of a simulation to tables: areas, final Dice, and who beats whom."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from msklabel.errors import UserError

ALPHA = 0.05


def read_points(folder: Path) -> pd.DataFrame:
    """One row for each point of each cell: Dice as mean and worst label, what it cost; ``dice_<label>`` for each.

    The mean is over labels that the test cases have.

    Raises:
        UserError: If they have none.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.json")):
        cell = json.loads(file.read_text(encoding="utf-8"))
        for point in cell["points"]:
            dices = {f"dice_{label}": value for label, value in point["dice"].items()}
            known = [value for value in dices.values() if value is not None and not np.isnan(value)]
            costs = {key: value for key, value in point.items() if key != "dice"}
            facts = {key: cell[key] for key in ("system", "strategy", "seed", "seconds")}
            if not known:
                raise UserError(f"{file}: the scans to test with have no label at all")
            rows.append({**facts, **costs, "dice": float(np.mean(known)), "worst": float(np.min(known)), **dices})
    return pd.DataFrame(rows)


def area_under(curve: Sequence[float]) -> float:
    """Area under a curve of n points over equal steps, trapezoid with dx = 1 / (n - 1); a constant gives itself."""
    if len(curve) < 2:
        return float(curve[0]) if len(curve) else float("nan")
    return float(integrate.trapezoid(curve, dx=1 / (len(curve) - 1)))


def summary_table(points: pd.DataFrame, full: str = "full") -> pd.DataFrame:
    """For each system and strategy, over seeds: area, final and worst-label Dice, share of the full data's, cost."""
    rows = []
    best = points[points.strategy == full].groupby("system").dice.mean()
    for (system, strategy), group in points[points.strategy != full].groupby(["system", "strategy"]):
        curves = group.sort_values("round").groupby("seed")
        last = curves.last()
        areas = curves.dice.apply(list).map(area_under)
        row = {"system": system, "strategy": strategy, "seeds": len(last), "area": areas.mean(), "area_sd": areas.std()}
        row |= {"final": last.dice.mean(), "final_sd": last.dice.std(), "worst": last.worst.mean()}
        row |= {name: last[name].mean() for name in ("slices", "share", "voxels", "minutes")}
        row["of_full"] = row["final"] / best[system] if system in best else float("nan")
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["system", "area"], ascending=[True, False], ignore_index=True)


def comparisons(points: pd.DataFrame, full: str = "full") -> pd.DataFrame:
    """Paired t-tests across the seeds that both have, of each pair of strategies at each budget after the start.

    P values are corrected by Holm within each system and budget; ``wins`` names who is better, empty if nobody is.
    """
    rows: list[dict[str, Any]] = []
    some = points[(points.strategy != full) & (points["round"] > 0)]
    for (system, number), group in some.groupby(["system", "round"]):
        table = group.pivot(index="seed", columns="strategy", values="dice")
        pairs = itertools.combinations(table.columns, 2)
        tests = [(a, b, *_paired(*table[[a, b]].dropna().to_numpy().T)) for a, b in pairs]
        if not tests:
            continue
        corrected = multipletests([p for *_, p in tests], ALPHA, "holm")[1]
        for (a, b, difference, p), holm in zip(tests, corrected, strict=True):
            wins = "" if not holm < ALPHA else (a if difference > 0 else b)
            facts = {"system": system, "round": number, "a": a, "b": b}
            rows.append({**facts, "difference": difference, "p": p, "holm": holm, "wins": wins})
    return pd.DataFrame(rows, columns=["system", "round", "a", "b", "difference", "p", "holm", "wins"])


def penalty_matrix(compared: pd.DataFrame) -> pd.DataFrame:
    """Share of the comparisons in which the row beats the column (Ash et al. 2020, BADGE)."""
    names = sorted({*compared.a, *compared.b})
    wins, tests = np.zeros((2, len(names), len(names)))
    for a, b, winner in zip(compared.a, compared.b, compared.wins, strict=True):
        tests[[names.index(a), names.index(b)], [names.index(b), names.index(a)]] += 1
        if winner:
            wins[names.index(winner), names.index(b if winner == a else a)] += 1
    return pd.DataFrame(wins / np.maximum(1, tests), index=names, columns=names)


def record_of(compared: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """What came of the comparisons of one strategy with each other one, over the budgets of each system.

    Args:
        compared: See :func:`comparisons`.
        strategy: Which.

    Returns:
        Columns ``system``, ``rival``, ``won``, ``lost``, ``of``, and ``difference``, the mean in Dice, above 0 where
        the strategy is better.
    """
    own = compared[(compared.a == strategy) | (compared.b == strategy)]
    rival = own.a.where(own.a != strategy, own.b)
    facts = {"won": own.wins == strategy, "lost": own.wins == rival}
    signed = own.difference.where(own.a == strategy, -own.difference)
    groups = own.assign(rival=rival, difference=signed, **facts).groupby(["system", "rival"], as_index=False)
    return groups.agg(won=("won", "sum"), lost=("lost", "sum"), of=("won", "size"), difference=("difference", "mean"))


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Mean difference and P of the two-sided paired t-test; 1 where it cannot be told."""
    difference = a - b
    if len(difference) < 2 or np.allclose(difference, 0):
        return float(difference.mean()) if len(difference) else 0.0, 1.0
    return float(difference.mean()), float(stats.ttest_rel(a, b).pvalue)
