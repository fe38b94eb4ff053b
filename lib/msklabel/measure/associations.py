"""Regressions of outcomes on quantities, and correlations with sarcopenia: tables 4 to 6 of Imani et al. 2025
(doi:10.1002/jcsm.13728, 2.6) and figures 7 and 8 of Kim et al. 2024.

What cannot be estimated is said in the row's ``note`` and not computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
import statsmodels.api as sm
from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationError, PerfectSeparationWarning

from msklabel.errors import UserError
from msklabel.measure.agreement import pearson
from msklabel.measure.clinical import require_once
from msklabel.measure.quantities import KEYS

Kind = Literal["linear", "log", "logistic"]
KINDS: tuple[Kind, ...] = ("linear", "log", "logistic")
ADJUSTED_FOR = ("age_years", "height_cm", "weight_kg")  # Imani et al. 2025, 2.6
CASES_PER_TERM = 5  # at least so many cases for each term of a linear model
EVENTS_PER_TERM = 5  # and, in a logistic one, so many of the rarer outcome for each term but the constant
NAN = float("nan")


@dataclass(frozen=True)
class Association:
    """One exposure's part in one model.

    Attributes:
        exposure: Column that stands for it.
        outcome: Column that is explained.
        kind: ``linear``: the coefficient; ``log``: of the logarithm, exponentiated, the fold difference; ``logistic``:
            the odds ratio. Always for one unit more of the exposure.
        adjusted_for: Covariates, comma-separated; empty: unadjusted.
        cases: Complete cases.
        estimate: As kind says.
        lower: Lower end of its 95 % confidence interval.
        upper: Upper end.
        p: Two-sided; of Student's t in linear models, of the normal in logistic ones.
        note: Why there is no estimate.
    """

    exposure: str
    outcome: str
    kind: str
    adjusted_for: str
    cases: int
    estimate: float = NAN
    lower: float = NAN
    upper: float = NAN
    p: float = NAN
    note: str = ""


def associate(
    table: pd.DataFrame, exposure: str, outcome: str, kind: Kind = "linear", covariates: Sequence[str] = ()
) -> Association:
    """Explain an outcome by an exposure, adjusted for covariates; cases with a gap are left out.

    Args:
        table: A row for each case; numbers.
        exposure: Its column.
        outcome: Its column; 0 or 1 for ``logistic``, above 0 for ``log``.
        kind: The model.
        covariates: Columns.

    Raises:
        UserError: If the outcome does not suit the model.
    """
    data = table[[outcome, exposure, *covariates]].dropna().astype(float)
    names = ", ".join(covariates)
    y, x = data[outcome].to_numpy(), data[[exposure, *covariates]].to_numpy()
    _require_outcome(outcome, y, kind)
    why_not = _why_not(data, exposure, y, kind)
    if why_not:
        return Association(exposure, outcome, kind, names, len(y), note=why_not)
    # Centred and scaled, so that a weight in kg beside a speed in m/s cannot spoil the solution; the slope is
    # brought back to the exposure's own unit.
    scale = x.std(axis=0)
    design = sm.add_constant((x - x.mean(axis=0)) / scale)
    try:
        result = _fit(np.log(y) if kind == "log" else y, design, kind)
    except (PerfectSeparationError, np.linalg.LinAlgError, ConvergenceWarning, PerfectSeparationWarning):
        return Association(exposure, outcome, kind, names, len(y), note="the exposure parts the outcomes wholly")
    slope, ends, p = result.params[1] / scale[0], result.conf_int(0.05)[1] / scale[0], float(result.pvalues[1])
    estimate, lower, upper = (np.exp([slope, *ends]) if kind != "linear" else np.array([slope, *ends])).tolist()
    return Association(exposure, outcome, kind, names, len(y), estimate, lower, upper, p)


def association_table(
    table: pd.DataFrame,
    exposures: Iterable[str],
    outcomes: Iterable[tuple[str, Kind]],
    covariates: Sequence[str] = ADJUSTED_FOR,
) -> pd.DataFrame:
    """Every exposure with every outcome, unadjusted and adjusted."""
    exposures = list(exposures)
    adjusted = [(), tuple(covariates)] if covariates else [()]
    return pd.DataFrame(
        [
            asdict(associate(table, exposure, outcome, kind, [c for c in terms if c not in (exposure, outcome)]))
            for outcome, kind in outcomes
            for terms in adjusted
            for exposure in exposures
        ]
    )


def correlations(table: pd.DataFrame, exposures: Sequence[str], outcome: str, by: str | None = "sex") -> pd.DataFrame:
    """Pearson's r of an outcome of 0 and 1 (point-biserial) with each exposure, in each group of cases and in all.

    Args:
        table: A row for each case.
        exposures: Columns.
        outcome: Column; sarcopenia, say.
        by: Column of the groups; None: all cases together only.

    Returns:
        ``exposure``, ``group``, ``cases``, ``r``, ``lower``, ``upper``, ``p``, ``note``.
    """
    groups = {"all": table}
    if by is not None:
        groups |= {str(name): group for name, group in table.groupby(by)}
    rows = []
    for name, group in groups.items():
        for exposure in exposures:
            found = pearson(group[exposure].astype(float), group[outcome].astype(float))
            p = _p_of_r(found.value, found.cases)
            rows.append([exposure, name, found.cases, found.value, found.lower, found.upper, p, found.note])
    return pd.DataFrame(rows, columns=["exposure", "group", "cases", "r", "lower", "upper", "p", "note"])


def wide(quantities: pd.DataFrame, side: str = "both") -> pd.DataFrame:
    """Quantities of ``msklabel quantify`` with a row for each scan and a column ``<structure>:<quantity>``.

    Raises:
        UserError: If the table is none of that command, or has a scan twice.
    """
    keys = {"scan", "structure", "kind", "side"}
    if not keys <= set(quantities.columns):
        missing = ", ".join(sorted(keys - set(quantities.columns)))
        raise UserError(f"the quantities have no column {missing}; give quantities.csv of msklabel quantify")
    require_once(quantities, "the quantities")
    rows = quantities[quantities["side"] == side]
    names = [name for name in quantities.columns if name not in KEYS]
    table = rows.assign(scan=rows["scan"].astype(str)).pivot_table(index="scan", columns="structure", values=names)
    table.columns = [f"{structure}:{name}" for name, structure in table.columns]
    return table.dropna(axis=1, how="all")


def _require_outcome(outcome: str, y: np.ndarray, kind: Kind) -> None:
    if kind == "logistic" and not np.isin(y, (0, 1)).all():
        raise UserError(f"{outcome}: a logistic model needs an outcome of 0 and 1, got {y[~np.isin(y, (0, 1))][0]:g}")
    if kind == "log" and (y <= 0).any():
        raise UserError(f"{outcome}: a logarithm needs values above 0, got {y[y <= 0][0]:g}")


def _why_not(data: pd.DataFrame, exposure: str, y: np.ndarray, kind: Kind) -> str:
    terms = data.shape[1]  # slopes and the constant
    if kind == "logistic":
        rarer, needed = int(min(y.sum(), len(y) - y.sum())), EVENTS_PER_TERM * (terms - 1)
        if rarer < needed:
            return f"{rarer} cases of the rarer outcome, at least {needed} needed"
    elif len(y) < CASES_PER_TERM * terms:
        return f"{len(y)} cases, at least {CASES_PER_TERM * terms} needed"
    still = [name for name in data.columns[1:] if np.ptp(data[name]) == 0]
    if still:
        return f"{still[0]} does not vary"
    x = data.iloc[:, 1:].to_numpy()
    if np.linalg.matrix_rank(x - x.mean(axis=0)) < x.shape[1]:
        return f"{exposure} and the covariates say the same"
    return ""


def _fit(y: np.ndarray, design: np.ndarray, kind: Kind) -> sm.regression.linear_model.RegressionResults:
    if kind != "logistic":
        return sm.OLS(y, design).fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.simplefilter("error", PerfectSeparationWarning)
        return sm.Logit(y, design).fit(disp=False, maxiter=100)


def _p_of_r(r: float, cases: int) -> float:
    from scipy import stats

    if not np.isfinite(r) or cases < 3:
        return NAN
    if abs(r) >= 1:
        return 0.0
    return float(2 * stats.t.sf(abs(r) * np.sqrt((cases - 2) / (1 - r * r)), cases - 2))
