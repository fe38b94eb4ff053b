"""Tables over scans: mean ± SD, median, range, volume agreement, folds, and one model against another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from msklabel.errors import UserError
from msklabel.measure.agreement import bland_altman, icc, pearson

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
COMPARED = ("generalised_dice", "dice", "assd_mm")  # between models, as Huysmans et al. 2023, 2.4
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
    """Pearson's correlation, ICC(A,1) and Bland-Altman of true and predicted volumes of each structure, over scans.

    A structure that both agree is not in a scan would count as a perfect pair of zeros: such scans are left out.
    """
    found = []
    for key, everything in rows.groupby(KEYS, sort=False):
        group = everything[everything["state"] != "absent"]
        r = pearson(group["truth_cm3"], group["predicted_cm3"])
        agreement = icc(group[["truth_cm3", "predicted_cm3"]].to_numpy(float))
        off = bland_altman(group["truth_cm3"], group["predicted_cm3"])
        intervals = [n for one in (r, agreement) for n in (one.value, one.lower, one.upper)]
        limits = [off.bias.value, off.bias.lower, off.bias.upper, off.lower.value, off.upper.value]
        found.append([*key, len(group), *intervals, *limits, r.note or agreement.note])
    names = [f"volume_{what}{end}" for what in ("r", "icc") for end in ("", "_lower", "_upper")]
    names += ["bias_cm3", "bias_lower_cm3", "bias_upper_cm3", "lower_limit_cm3", "upper_limit_cm3"]
    return pd.DataFrame(found, columns=[*KEYS, "cases", *names, "note"])


def rater_agreement(volumes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """ICC(A,1) of volumes between all raters at once (two annotators and a model, say).

    Scans where no rater has the structure are left out, as in :func:`volume_agreement`.

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
        ratings = group.to_numpy(float)
        agreement = icc(ratings[(ratings > 0).any(axis=1)])
        estimate = [agreement.value, agreement.lower, agreement.upper]
        found.append([*key, agreement.cases, len(volumes), *estimate, agreement.note])
    return pd.DataFrame(found, columns=[*KEYS, "cases", "raters", "icc", "icc_lower", "icc_upper", "note"])


def compare_models(first: pd.DataFrame, second: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Wilcoxon's signed-rank test of two models on the same scans (Huysmans et al. 2023, 2.4).

    Holm's adjustment is over the structures of one kind and side, which are one family: labels of both sides together,
    of the left, of the right, and groups likewise; a muscle, its left half and its group say the same three times.
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
    p, adjusted = table["p"].to_numpy(float), np.full(len(table), np.nan)
    for family in table.groupby(["kind", "side"]).indices.values():
        adjusted[family] = holm(p[family])
    table.insert(table.columns.get_loc("p") + 1, "p_holm", adjusted)
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
