"""Voxel-based relaxometry: where in the cartilage a relaxation time goes with a muscle's fat fraction.

The hip abductor study's maps: T1ρ or T2 of every patient in one common space; at each voxel the partial Pearson
correlation with the mean fat fraction of a muscle, adjusted for covariates; the percentage of significant voxels (PSV),
mean R and mean p. All maps lie on one grid already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msklabel.errors import UserError

ALPHA = 0.05
FEWEST_FREEDOM = 3  # degrees of freedom that a partial correlation must leave


@dataclass(frozen=True)
class Relaxometry:
    """Maps and figures of one cohort.

    Attributes:
        r: Partial correlation at each voxel of the mask, NaN elsewhere and where it cannot be told; shape (X, Y, Z).
        p: Two-sided p, or the false discovery rate's adjusted p (Benjamini and Hochberg), likewise.
        psv_percent: Share of the told voxels with p below 0.05.
        mean_r: Mean R over the told voxels.
        mean_p: Mean p over them.
        voxels: Told voxels.
        cases: Patients.
        fdr: Whether p is adjusted.
    """

    r: NDArray[np.float64]
    p: NDArray[np.float64]
    psv_percent: float
    mean_r: float
    mean_p: float
    voxels: int
    cases: int
    fdr: bool


def voxel_correlation(
    maps: NDArray[np.floating],
    mask: NDArray[np.bool_],
    exposure: NDArray[np.floating],
    covariates: NDArray[np.floating] | None = None,
    fdr: bool = False,
) -> Relaxometry:
    """Correlate relaxation times with a number for each patient, voxel by voxel.

    R is Pearson's correlation of what is left of both after a linear regression on the covariates; its p comes from t
    with n - 2 - k degrees of freedom. A voxel where a patient's map says nothing (NaN, or 0) is not told.

    Args:
        maps: T1ρ or T2 in ms, shape (patients, X, Y, Z), on one grid.
        mask: Cartilage, shape (X, Y, Z).
        exposure: Shape (patients,); the mean fat fraction of a muscle, say.
        covariates: Shape (patients, k), numbers; None: none.
        fdr: Adjust p over the told voxels for the false discovery rate.

    Raises:
        UserError: If there are too few patients, a number is missing, or the covariates say the same as the exposure.
    """
    patients = len(exposure)
    terms = np.ones((patients, 1)) if covariates is None else np.column_stack([np.ones(patients), covariates])
    freedom = patients - 1 - terms.shape[1]
    if maps.shape[0] != patients or maps.shape[1:] != mask.shape:
        raise ValueError(f"maps of shape {(patients, *mask.shape)} expected, got {maps.shape}")
    if freedom < FEWEST_FREEDOM:
        needed = FEWEST_FREEDOM + 1 + terms.shape[1]
        raise UserError(f"{patients} patients, at least {needed} needed for {terms.shape[1] - 1} covariates")
    if not np.isfinite(exposure).all() or not np.isfinite(terms).all():
        raise UserError("a fat fraction or a covariate is missing; leave that patient out")
    columns, sizes, _ = np.linalg.svd(terms, full_matrices=False)
    basis = columns[:, sizes > 1e-10 * sizes.max()]
    left_of_exposure = _residual(np.asarray(exposure, float)[:, None], basis)[:, 0]
    if np.linalg.norm(left_of_exposure) < 1e-8 * (float(np.linalg.norm(exposure)) + 1e-30):
        raise UserError("the exposure does not vary, or the covariates say the same")
    values = maps[:, mask].astype(float)
    told = np.isfinite(values).all(axis=0) & (values > 0).all(axis=0)
    left = _residual(values[:, told], basis)
    size = np.linalg.norm(left, axis=0)
    varies = size > 1e-8 * np.linalg.norm(values[:, told], axis=0)
    told[told] = varies
    r = np.clip(left_of_exposure @ left[:, varies] / (np.linalg.norm(left_of_exposure) * size[varies]), -1, 1)
    p = 2 * stats.t.sf(np.abs(r) * np.sqrt(freedom / np.maximum(1 - r * r, 1e-300)), freedom)
    return _relaxometry(r, stats.false_discovery_control(p) if fdr and len(p) else p, told, mask, patients, fdr)


def _residual(values: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an orthonormal basis, shape (patients, k), leaves of each column."""
    return values - basis @ (basis.T @ values)


def _relaxometry(
    r: NDArray[np.float64],
    p: NDArray[np.float64],
    told: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    cases: int,
    fdr: bool,
) -> Relaxometry:
    maps = []
    for values in (r, p):
        inside = np.full(len(told), np.nan)
        inside[told] = values
        whole = np.full(mask.shape, np.nan)
        whole[mask] = inside
        maps.append(whole)
    if not len(r):
        raise UserError("no voxel of the mask has a relaxation time in every patient")
    significant = 100 * float(np.mean(p < ALPHA))
    return Relaxometry(maps[0], maps[1], significant, float(r.mean()), float(p.mean()), len(r), cases, fdr)
