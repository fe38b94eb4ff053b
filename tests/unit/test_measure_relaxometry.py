"""Voxel-based relaxometry finds what was planted, keeps false positives at alpha, and equals pingouin."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest

from msklabel.errors import UserError
from msklabel.measure.relaxometry import voxel_correlation

SHAPE = (24, 20, 10)
CLUSTER = (slice(5, 11), slice(5, 11), slice(3, 7))


def cohort(seed: int, patients: int = 60, planted: float = 0.0):
    """T1rho in ms (about 40 ± 3) in a cartilage mask; in the cluster it rises with the fat fraction."""
    rng = np.random.default_rng(seed)
    age = rng.normal(50, 10, patients)
    fat = 8 + 0.1 * (age - 50) + rng.normal(0, 3, patients)
    maps = 40 + 0.2 * (age - 50)[:, None, None, None] + rng.normal(0, 3, (patients, *SHAPE))
    maps[(slice(None), *CLUSTER)] += planted * (fat - 8)[:, None, None, None]
    mask = np.zeros(SHAPE, bool)
    mask[2:22, 2:18, 1:9] = True
    return maps, mask, fat, age[:, None]


def test_a_planted_cluster_is_found_and_the_rest_stays_at_alpha():
    maps, mask, fat, age = cohort(0, planted=1.0)
    found = voxel_correlation(maps, mask, fat, age)
    cluster = np.zeros(SHAPE, bool)
    cluster[CLUSTER] = True
    significant = found.p < 0.05
    assert significant[cluster].mean() >= 0.95
    assert found.r[cluster].mean() > 0.5
    rest = mask & ~cluster
    assert 0.03 <= significant[rest].mean() <= 0.07
    assert found.psv_percent == pytest.approx(100 * significant[mask].mean())
    assert np.isnan(found.r[~mask]).all()
    assert (found.voxels, found.cases) == (mask.sum(), 60)


def test_without_any_effect_false_positives_stay_at_alpha():
    shares = []
    for seed in range(40):
        maps, mask, fat, age = cohort(100 + seed, patients=20)
        shares.append(voxel_correlation(maps, mask, fat, age).psv_percent)
    assert np.mean(shares) == pytest.approx(5, abs=0.5)


def test_with_the_false_discovery_rate_the_rest_is_nearly_clean():
    maps, mask, fat, age = cohort(1, planted=1.5)
    found = voxel_correlation(maps, mask, fat, age, fdr=True)
    cluster = np.zeros(SHAPE, bool)
    cluster[CLUSTER] = True
    significant = found.p < 0.05
    assert significant[cluster].mean() >= 0.9
    false = significant[mask & ~cluster].sum()
    assert false / max(1, significant[mask].sum()) <= 0.10


def test_without_adjustment_the_confounder_shows_everywhere():
    maps, mask, fat, age = cohort(2)
    assert voxel_correlation(maps, mask, fat).mean_r > 0.05
    assert abs(voxel_correlation(maps, mask, fat, age).mean_r) < 0.02


def test_a_voxel_equals_pingouin():
    maps, mask, fat, age = cohort(3, 25, planted=0.5)
    covariates = np.column_stack([age, np.random.default_rng(0).normal(size=25)])
    found = voxel_correlation(maps, mask, fat, covariates)
    for voxel in ((6, 6, 4), (15, 12, 2)):
        data = pd.DataFrame({"y": maps[(slice(None), *voxel)], "x": fat, "a": covariates[:, 0], "b": covariates[:, 1]})
        expected = pingouin.partial_corr(data, "x", "y", ["a", "b"]).iloc[0]
        assert found.r[voxel] == pytest.approx(expected["r"])
        assert found.p[voxel] == pytest.approx(expected.filter(like="p").iloc[0])


def test_voxels_that_say_nothing_in_a_patient_are_left_out():
    maps, mask, fat, age = cohort(4, 12)
    maps[3, 5, 5, 5], maps[4, 6, 6, 6], maps[:, 7, 7, 7] = np.nan, 0, 41
    found = voxel_correlation(maps, mask, fat, age)
    assert np.isnan([found.r[5, 5, 5], found.r[6, 6, 6], found.r[7, 7, 7]]).all()
    assert found.voxels == mask.sum() - 3


def test_too_few_patients_and_constant_exposures_are_said():
    maps, mask, fat, age = cohort(5, 5)
    with pytest.raises(UserError, match="5 patients, at least 6 needed for 1 covariates"):
        voxel_correlation(maps, mask, fat, age)
    maps, mask, fat, age = cohort(5, 20)
    with pytest.raises(UserError, match="the exposure does not vary"):
        voxel_correlation(maps, mask, np.full(20, 7.0), age)
    with pytest.raises(UserError, match="the covariates say the same"):
        voxel_correlation(maps, mask, age[:, 0] * 2 + 1, age)
    with pytest.raises(UserError, match="a fat fraction or a covariate is missing"):
        voxel_correlation(maps, mask, np.where(np.arange(20) == 3, np.nan, fat), age)
