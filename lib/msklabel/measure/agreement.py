"""Agreement between two or more measurements of the same cases: correlation, ICC, Bland-Altman.

Statistics that need more cases than there are come back as NaN with the reason, never as a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

NAN = float("nan")
FEWEST_PAIRS = 3  # two points always lie on a line


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval.

    Attributes:
        value: NaN where it cannot be told.
        lower: Lower end of the interval.
        upper: Upper end.
        cases: Cases that went into it.
        note: Why there is none; else empty.
    """

    value: float
    lower: float = NAN
    upper: float = NAN
    cases: int = 0
    note: str = ""


@dataclass(frozen=True)
class BlandAltman:
    """Bias and limits of agreement of ``second - first`` (Bland and Altman, Lancet 1986;327:307-10).

    Attributes:
        means: Mean of each pair, shape (N,).
        differences: Second minus first of each pair, shape (N,).
        bias: Mean difference, with its interval.
        lower: Bias - 1.96 SD, with its interval.
        upper: Bias + 1.96 SD, with its interval.
        sd: Standard deviation of the differences.
    """

    means: NDArray[np.float64]
    differences: NDArray[np.float64]
    bias: Estimate
    lower: Estimate
    upper: Estimate
    sd: float

    @property
    def cases(self) -> int:
        """Pairs that went into it."""
        return len(self.differences)


def complete_pairs(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both measurements of the cases that have both.

    Raises:
        ValueError: If they are not of one length.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two rows of one length expected, got {a.shape} and {b.shape}")
    told = np.isfinite(a) & np.isfinite(b)
    return a[told], b[told]


def pearson(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Pearson's r with the interval of Fisher's z, which needs four cases; Kim et al. 2024's volume correlation."""
    a, b = complete_pairs(first, second)
    if len(a) < FEWEST_PAIRS:
        return Estimate(NAN, cases=len(a), note=f"{len(a)} cases, at least {FEWEST_PAIRS} needed")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Estimate(NAN, cases=len(a), note="one of the two does not vary")
    result = stats.pearsonr(a, b)
    interval = result.confidence_interval() if len(a) > FEWEST_PAIRS else (NAN, NAN)
    return Estimate(float(result.statistic), float(interval[0]), float(interval[1]), len(a))


def bland_altman(first: ArrayLike, second: ArrayLike) -> BlandAltman:
    """Agreement of two measurements of the same cases.

    The intervals are those of Bland and Altman 1986: bias ± t · SD / √n, limits ± t · SD · √(3 / n), t with n - 1
    degrees of freedom.

    Args:
        first: Reference, shape (N,); cases with NaN in either are left out.
        second: The same cases.
    """
    a, b = complete_pairs(first, second)
    differences, means, cases = b - a, (a + b) / 2, len(a)
    if cases < FEWEST_PAIRS:
        nothing = Estimate(NAN, cases=cases, note=f"{cases} cases, at least {FEWEST_PAIRS} needed")
        return BlandAltman(means, differences, nothing, nothing, nothing, NAN)
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    t = float(stats.t.ppf(0.975, cases - 1))
    margins = t * sd / np.sqrt(cases), t * sd * np.sqrt(3 / cases)
    ends = bias - 1.96 * sd, bias, bias + 1.96 * sd
    lower, middle, upper = (
        Estimate(end, end - margin, end + margin, cases)
        for end, margin in zip(ends, (margins[1], margins[0], margins[1]), strict=True)
    )
    return BlandAltman(means, differences, middle, lower, upper, sd)


def icc(ratings: Mapping[str, Sequence[float]] | NDArray[np.float64]) -> Estimate:
    """ICC(A,1): two-way random effects, absolute agreement, single rater (McGraw and Wong 1996, case 2A).

    The form that Koo and Li 2016 (Kim et al. 2024, reference 18) give for raters who stand for others. The interval is
    McGraw and Wong's, table 7.

    Args:
        ratings: Measurements of the same cases by rater, or shape (cases, raters). Cases with a gap are left out.
    """
    table = np.column_stack(list(ratings.values())) if isinstance(ratings, Mapping) else np.asarray(ratings, float)
    table = table[np.isfinite(table).all(axis=1)]
    n, k = table.shape
    if n < FEWEST_PAIRS or k < 2:
        return Estimate(NAN, cases=n, note=f"{n} cases of {k} raters, at least {FEWEST_PAIRS} of 2 needed")
    rows, columns, error = _mean_squares(table)
    if rows == 0 and columns == 0 and error == 0:
        return Estimate(NAN, cases=n, note="the measurements do not vary")
    value = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    lower, upper = _icc_interval(value, rows, columns, error, n, k)
    return Estimate(float(value), lower, upper, n)


def _mean_squares(table: NDArray[np.float64]) -> tuple[float, float, float]:
    """Between cases, between raters, and what is left."""
    n, k = table.shape
    grand = table.mean()
    rows = k * np.square(table.mean(axis=1) - grand).sum() / (n - 1)
    columns = n * np.square(table.mean(axis=0) - grand).sum() / (k - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + grand
    return float(rows), float(columns), float(np.square(rest).sum() / ((n - 1) * (k - 1)))


def _icc_interval(value: float, rows: float, columns: float, error: float, n: int, k: int) -> tuple[float, float]:
    if value == 1:  # but for rounding, nothing differs
        return 1.0, 1.0
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    divisor = (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    if divisor == 0:  # cases that do not differ have no interval
        return NAN, NAN
    freedom = (a * columns + b * error) ** 2 / divisor
    f_lower, f_upper = stats.f.ppf(0.975, n - 1, freedom), stats.f.ppf(0.975, freedom, n - 1)
    spread = k * columns + (k * n - k - n) * error
    lower = n * (rows - f_lower * error) / (f_lower * spread + n * rows)
    upper = n * (f_upper * rows - error) / (spread + n * f_upper * rows)
    return float(lower), float(upper)
