"""Maps come to a reference's grid by a known transform and by elastix, and what says nothing is never mixed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from msklabel.errors import UserError
from msklabel.imaging.registration import Moving, register, transformed

SHAPE = (40, 36, 16)
AFFINE = np.diag([0.8, 0.8, 2.0, 1.0]) + np.array([[0, 0, 0, -10.0], [0, 0, 0, 5], [0, 0, 0, 3], [0, 0, 0, 0]])
SHIFT_VOXELS = (3, -2, 0)


def joint() -> tuple[np.ndarray, np.ndarray]:
    """An image with structure everywhere, and a map of 40 ms in a slab, 0 outside."""
    image = 100 * ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (3, 3, 1.5))
    values = np.zeros(SHAPE)
    values[10:30, 14:20, 4:12] = 40
    return image - image.min(), values


def shifted() -> Moving:
    """The same, moved by whole voxels."""
    image, values = joint()
    return Moving(np.roll(image, SHIFT_VOXELS, (0, 1, 2)), np.roll(values, SHIFT_VOXELS, (0, 1, 2)), AFFINE)


def test_a_given_transform_maps_points_of_the_reference_to_points_of_the_patient(tmp_path: Path) -> None:
    ras_mm = np.array(SHIFT_VOXELS) * np.diag(AFFINE)[:3]
    sitk.WriteTransform(sitk.TranslationTransform(3, (ras_mm * [-1, -1, 1]).tolist()), str(tmp_path / "a.tfm"))
    moved = transformed(SHAPE, AFFINE, shifted(), tmp_path / "a.tfm")
    image, values = joint()
    np.testing.assert_allclose(moved.image[5:-5, 5:-5], image[5:-5, 5:-5], atol=1e-3)
    np.testing.assert_allclose(moved.values[values > 0], 40)
    assert np.isnan(moved.values[values == 0]).all()
    (tmp_path / "b.tfm").write_text("nothing")
    with pytest.raises(UserError, match=r"b.tfm: cannot be read as a transform"):
        transformed(SHAPE, AFFINE, shifted(), tmp_path / "b.tfm")


def test_voxels_that_say_nothing_are_not_mixed_with_others(tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.TranslationTransform(3, (0.3, 0.0, 0.0)), str(tmp_path / "a.tfm"))  # less than a voxel
    image, values = joint()
    moved = transformed(SHAPE, AFFINE, Moving(image, np.where(values > 0, values, np.nan), AFFINE), tmp_path / "a.tfm")
    told = moved.values[np.isfinite(moved.values)]
    np.testing.assert_allclose(told, 40, rtol=1e-5)
    assert abs(len(told) - (values > 0).sum()) <= 6 * 8  # at most one layer


def test_elastix_finds_a_shift_and_turns_with_the_geometry() -> None:
    image, values = joint()
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    patient = shifted()
    flipped = Moving(patient.image[::-1], patient.values[::-1], turned)  # the same patient, stored the other way round
    [moved] = register(image, AFFINE, [flipped], "rigid")
    inner = (slice(6, -6), slice(6, -6), slice(3, -3))
    assert np.corrcoef(moved.image[inner].ravel(), image[inner].ravel())[0, 1] > 0.99
    assert np.corrcoef(patient.image[inner].ravel(), image[inner].ravel())[0, 1] < 0.8
    told = np.isfinite(moved.values)
    both = (told & (values > 0)).sum()
    assert 2 * both / (told.sum() + (values > 0).sum()) > 0.9
    np.testing.assert_allclose(moved.values[told], 40, rtol=1e-4)
    assert register(image, AFFINE, []) == []


def test_a_patient_who_cannot_be_registered_is_named() -> None:
    image, values = joint()
    far = AFFINE + np.array([[0, 0, 0, 500.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    both = [Moving(image, values, AFFINE), Moving(image, values, far)]
    with pytest.raises(UserError, match="knee12: cannot be registered: the images do not overlap enough"):
        register(image, AFFINE, both, "rigid", iterations=5, names=["knee11", "knee12"])
