"""Tables over scans: mean ± SD, median, range, volume agreement, folds, and one model against another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from msklabel.errors import UserError
from msklabel.measure.agreement import icc, pearson

METRICS = (
    "dice",
    "generalised_dice",
    "sensitivity",
    "specificity",
    "ravd_percent",
    "assd_mm",
    "hd_mm",
    "hd95_mm",
)
KEYS = ["structure", "kind", "side"]
FEWEST_DIFFERENCES = 6  # with five, the smallest two-sided p of Wilcoxon's test is 0.0625


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each structure, side and metric over all scans.

    Args:
        rows: Columns of :class:`msklabel.measure.evaluate.Row`.

    Returns:
        The keys, ``metric``, ``cases`` (scans that have a value), ``mean``, ``sd`` (n - 1; empty with one case),
        ``median``, ``minimum``, ``maximum``.
    """
    found = []
    for key, group in rows.groupby(KEYS, sort=False):
        for metric in METRICS:
            values = group[metric].dropna().to_numpy(float)
            if len(values):
                found.append([*key, metric, len(values), *_describe(values)])
    return pd.DataFrame(found, columns=[*KEYS, "metric", "cases", "mean", "sd", "median", "minimum", "maximum"])


def empty_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """How often each structure was in both, missed, a false alarm, or absent."""
    states = ["both", "missed", "false_alarm", "absent"]
    table = rows.groupby([*KEYS, "state"], sort=False).size().unstack(fill_value=0)
    return table.reindex(columns=states, fill_value=0).reset_index()


def volume_agreement(rows: pd.DataFrame) -> pd.DataFrame:
    """Pearson's correlation and ICC(A,1) of true and predicted volumes of each structure, over scans.

    A structure that both agree is not in a scan would count as a perfect pair of zeros: such scans are left out.
    """
    found = []
    for key, everything in rows.groupby(KEYS, sort=False):
        group = everything[everything["state"] != "absent"]
        r = pearson(group["truth_cm3"], group["predicted_cm3"])
        agreement = icc(group[["truth_cm3", "predicted_cm3"]].to_numpy(float))
        intervals = [r.value, r.lower, r.upper, agreement.value, agreement.lower, agreement.upper]
        found.append([*key, len(group), *intervals, r.note or agreement.note])
    names = ["volume_r", "volume_r_lower", "volume_r_upper", "volume_icc", "volume_icc_lower", "volume_icc_upper"]
    return pd.DataFrame(found, columns=[*KEYS, "cases", *names, "note"])


def rater_agreement(volumes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """ICC(A,1) of volumes between all raters at once (two annotators and a model, say).

    Args:
        volumes: For each rater, columns ``scan``, the keys and ``cm3``.
    """
    joined: pd.DataFrame | None = None
    for rater, table in volumes.items():
        one = table.set_index(["scan", *KEYS])["cm3"].rename(rater).to_frame()
        joined = one if joined is None else joined.join(one, how="inner")
    if joined is None:
        raise ValueError("at least one rater is needed")
    found = []
    for key, group in joined.groupby(level=KEYS, sort=False):
        agreement = icc(group.to_numpy(float))
        estimate = [agreement.value, agreement.lower, agreement.upper]
        found.append([*key, agreement.cases, len(volumes), *estimate, agreement.note])
    return pd.DataFrame(found, columns=[*KEYS, "cases", "raters", "icc", "icc_lower", "icc_upper", "note"])


def compare_models(first: pd.DataFrame, second: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Wilcoxon's signed-rank test of two models on the same scans (Huysmans et al. 2023, 2.4), Holm over structures.

    Scans where both have the same value say nothing (``zero_method="wilcox"``). With fewer than six that differ no p
    is given: none could be below 0.05.

    Args:
        first: Rows of one model.
        second: Rows of the other.
        metric: A column of both.

    Returns:
        The keys, ``cases``, means and medians of both, ``statistic``, ``p``, ``p_holm``, ``note``.

    Raises:
        UserError: If the metric is none that is measured.
    """
    if metric not in METRICS:
        raise UserError(f"no metric {metric!r}; metrics: {', '.join(METRICS)}")
    joined = first.merge(second, on=["scan", *KEYS], suffixes=("_first", "_second"))
    found = []
    for key, group in joined.groupby(KEYS, sort=False):
        pairs = group[[f"{metric}_first", f"{metric}_second"]].dropna().to_numpy(float)
        if not len(pairs):
            continue
        differing = int((pairs[:, 0] != pairs[:, 1]).sum())
        statistic, p, note = (
            float("nan"),
            float("nan"),
            f"{differing} scans differ, at least {FEWEST_DIFFERENCES} needed",
        )
        if differing >= FEWEST_DIFFERENCES:
            result = stats.wilcoxon(pairs[:, 0], pairs[:, 1], zero_method="wilcox")
            statistic, p, note = float(result.statistic), float(result.pvalue), ""
        middles = [*pairs.mean(axis=0), *np.median(pairs, axis=0)]
        found.append([*key, len(pairs), *middles, statistic, p, note])
    names = ["mean_first", "mean_second", "median_first", "median_second", "statistic", "p", "note"]
    table = pd.DataFrame(found, columns=[*KEYS, "cases", *names])
    table.insert(len(KEYS), "metric", metric)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"].to_numpy(float)))
    return table


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values; NaN stays NaN and does not count as a test."""
    adjusted = np.full(len(p), np.nan)
    told = np.isfinite(p)
    if told.any():
        adjusted[told] = multipletests(p[told], method="holm")[1]
    return adjusted


def summarise_folds(rows: pd.DataFrame, folds: Mapping[str, str]) -> pd.DataFrame:
    """Mean ± SD over the folds of a cross-validation, of each fold's mean (Imani et al. 2025, table 1).

    Args:
        rows: Rows of all scans.
        folds: Fold of each scan.

    Raises:
        UserError: If a scan has no fold.
    """
    missing = sorted(set(rows["scan"]) - set(folds))
    if missing:
        raise UserError(f"no fold is given for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    by_fold = rows.assign(fold=rows["scan"].map(folds))
    found = []
    for key, group in by_fold.groupby(KEYS, sort=False):
        for metric in METRICS:
            means = group.groupby("fold")[metric].mean().dropna().to_numpy(float)
            if len(means):
                found.append([*key, metric, len(means), *_describe(means)])
    return pd.DataFrame(found, columns=[*KEYS, "metric", "folds", "mean", "sd", "median", "minimum", "maximum"])


def _describe(values: np.ndarray) -> list[float]:
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return [float(values.mean()), sd, float(np.median(values)), float(values.min()), float(values.max())]
