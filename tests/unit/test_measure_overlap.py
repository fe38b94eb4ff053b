"""Overlap and surface metrics: hand-computed cases, and MONAI, scikit-learn and SciPy on random masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import (
    GeneralizedDiceScore,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
)
from scipy import ndimage
from sklearn.metrics import confusion_matrix, recall_score

from msklabel.measure.overlap import Counts, confusion, counts_of, generalised_dice
from msklabel.measure.surface import surface_distances, surfaces

NAN = float("nan")
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (2.5, 0.7, 1.1)]


def blobs(seed: int, shape: tuple[int, ...] = (23, 19, 17), classes: int = 4) -> np.ndarray:
    """A random label map with smooth, touching regions, in Fortran order for odd seeds."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 2.0) for _ in range(classes)]
    labels = np.argmax(fields, axis=0).astype(np.uint8)
    return np.asfortranarray(labels) if seed % 2 else labels


def one_hot(labels: np.ndarray, classes: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.stack([labels == c for c in range(classes)])[None].astype(np.float32))


def distances_of(truth: np.ndarray, predicted: np.ndarray, label: int, spacing_mm: tuple, in_plane: int | None = None):
    none = np.empty((0, 3), np.int32)
    edges = [surfaces(labels, in_plane).get(label, none) for labels in (truth, predicted)]
    return surface_distances(*edges, spacing_mm)


@pytest.mark.parametrize(
    ("counts", "state", "dice", "sensitivity", "specificity", "ravd"),
    [
        (Counts(6, 2, 4, 88), "both", 12 / 18, 0.6, 88 / 90, -20.0),
        (Counts(5, 0, 0, 5), "both", 1.0, 1.0, 1.0, 0.0),
        (Counts(0, 0, 4, 6), "missed", 0.0, 0.0, 1.0, -100.0),
        (Counts(0, 3, 0, 7), "false_alarm", 0.0, NAN, 0.7, NAN),
        (Counts(0, 0, 0, 10), "absent", NAN, NAN, 1.0, NAN),
    ],
)
def test_hand_computed_overlaps(counts, state, dice, sensitivity, specificity, ravd):
    assert counts.state == state
    found = (counts.dice, counts.sensitivity, counts.specificity, counts.ravd_percent)
    assert found == pytest.approx((dice, sensitivity, specificity, ravd), nan_ok=True)


def test_the_table_counts_pairs_of_values():
    truth = np.array([[[0, 1, 1], [2, 2, 0]]], np.uint8)
    predicted = np.array([[[0, 1, 2], [2, 2, 1]]], np.uint8)
    table = confusion(truth, predicted, 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 2]]
    assert counts_of(table, (1,)) == Counts(1, 1, 1, 3)
    assert counts_of(table, (1, 2)) == Counts(4, 1, 0, 1)
    assert generalised_dice(table) == pytest.approx(2 * 3 / (4 + 5))
    with pytest.raises(ValueError, match="below 2"):
        confusion(truth, predicted, 2)


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_equal_monai_and_scikit_learn(seed):
    truth, predicted = blobs(seed), blobs(seed + 10 + seed % 2)
    table = confusion(truth, predicted, 4)
    assert table.tolist() == confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(4)).tolist()
    dice = compute_dice(one_hot(predicted), one_hot(truth), include_background=False)[0].numpy()
    assert [counts_of(table, (c,)).dice for c in (1, 2, 3)] == pytest.approx(dice, abs=1e-6)
    for c in (1, 2, 3):
        a, b = truth.ravel() == c, predicted.ravel() == c
        counts = counts_of(table, (c,))
        assert counts.sensitivity == pytest.approx(recall_score(a, b))
        assert counts.specificity == pytest.approx(recall_score(~a, ~b))
    score = GeneralizedDiceScore(include_background=False, weight_type="uniform")
    assert generalised_dice(table) == pytest.approx(float(score(one_hot(predicted), one_hot(truth)).mean()), abs=1e-6)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_monai(seed, spacing_mm):
    truth, predicted = blobs(seed), blobs(seed + 20)
    a, b = one_hot(truth), one_hot(predicted)
    assd = compute_average_surface_distance(b, a, symmetric=True, spacing=spacing_mm)[0]
    hd = compute_hausdorff_distance(b, a, spacing=spacing_mm)[0]
    hd95 = compute_hausdorff_distance(b, a, percentile=95, spacing=spacing_mm)[0]
    for c in (1, 2, 3):
        found = distances_of(truth, predicted, c, spacing_mm)
        expected = [float(values[c - 1]) for values in (assd, hd, hd95)]
        assert (found.assd_mm, found.hd_mm, found.hd95_mm) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_distances_equal_an_erosion_and_a_distance_transform(spacing_mm):
    truth, predicted = blobs(3) == 1, blobs(8) == 1
    cross = ndimage.generate_binary_structure(3, 1)
    edges = [mask & ~ndimage.binary_erosion(mask, cross) for mask in (truth, predicted)]
    maps = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    found = distances_of(truth.astype(np.uint8), predicted.astype(np.uint8), 1, spacing_mm)
    np.testing.assert_allclose(np.sort(found.truth_mm), np.sort(maps[1][edges[0]]), rtol=1e-9)
    np.testing.assert_allclose(np.sort(found.predicted_mm), np.sort(maps[0][edges[1]]), rtol=1e-9)


def test_two_shifted_boxes_by_hand():
    truth, predicted = np.zeros((2, 9, 5, 5), np.uint8)
    truth[2:5, 1:4, 1:4] = 1
    predicted[3:6, 1:4, 1:4] = 1
    found = distances_of(truth, predicted, 1, (2.0, 1.0, 1.0))
    # Of the 26 surface voxels of each, 9 lie outside the other: 2 mm away. Inside the other and off its surface is one
    # of each, the voxel next to its centre: 1 mm away from four side faces.
    assert found.truth_mm.size == found.predicted_mm.size == 26
    assert found.hd_mm == 2.0
    assert found.assd_mm == pytest.approx((9 * 2.0 + 1 * 1.0) / 26)


def test_voxels_at_the_edge_of_the_grid_are_surface():
    assert len(surfaces(np.ones((3, 3, 3), np.uint8))[1]) == 26


def test_in_a_2d_system_the_surface_is_the_contour_of_each_slice():
    labels = np.ones((5, 5, 3), np.uint8)
    assert len(surfaces(labels, in_plane=2)[1]) == 16 * 3
    assert len(surfaces(labels[:, :, :1])[1]) == 16  # an axis of one voxel has no neighbours to tell


@pytest.mark.parametrize("seed", range(2))
def test_a_slice_equals_monai_in_2d(seed):
    truth, predicted = blobs(seed, (40, 30, 1)), blobs(seed + 5, (40, 30, 1))
    a, b = one_hot(truth)[..., 0], one_hot(predicted)[..., 0]
    assd = compute_average_surface_distance(b, a, symmetric=True, spacing=(0.8, 1.3))[0]
    for c in (1, 2, 3):
        found = distances_of(truth, predicted, c, (0.8, 1.3, 5.0), in_plane=2)
        assert found.assd_mm == pytest.approx(float(assd[c - 1]), rel=1e-5)


def test_without_a_surface_there_is_no_distance():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1, 1, 1] = 1
    found = distances_of(truth, np.zeros_like(truth), 1, (1, 1, 1))
    assert np.isnan([found.assd_mm, found.hd_mm, found.hd95_mm]).all()
