"""The B-spline brings a bent knee's map to a reference: cartilage on cartilage, each T1rho value at its own place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from msklabel.imaging.registration import Moved, Moving, register

SHAPE = (48, 44, 20)
SPACING_MM = np.array([0.8, 0.8, 2.0])
AFFINE = np.diag([*SPACING_MM, 1.0]) + np.array([[0, 0, 0, -10.0], [0, 0, 0, 5], [0, 0, 0, 3], [0, 0, 0, 0]])
ITERATIONS = 60  # a quarter of what is usual, so that the test is quick


def bend_mm() -> np.ndarray:
    """A smooth displacement of at most 2.4 mm along each axis, 0 at the edges; shape (3, X, Y, Z)."""
    x, y, z = np.pi * np.indices(SHAPE) / np.reshape(SHAPE, (3, 1, 1, 1))
    return np.stack([2.4 * np.sin(y) * np.sin(x), -2.0 * np.sin(2 * x) * np.sin(y), 1.5 * np.sin(z) * np.sin(x)])


def knee(displacement_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A condyle with its cartilage in soft tissue, and T1rho (ms) that changes along the cartilage; 0 outside it."""
    middle = (np.array(SHAPE) - 1) * SPACING_MM / 2
    x, y, z = np.indices(SHAPE) * SPACING_MM.reshape(3, 1, 1, 1) + displacement_mm
    radius = np.sqrt(((x - middle[0]) / 12) ** 2 + ((y - middle[1] - 2) / 11) ** 2 + ((z - middle[2]) / 13) ** 2)
    bone, cartilage = radius < 0.8, (radius >= 0.8) & (radius < 1.05)
    image = 40 + 15 * np.sin(x / 4) * np.cos(y / 5) * np.cos(z / 6)
    image = np.where(bone, 100 + 20 * np.sin(x / 3) * np.sin(z / 5), np.where(cartilage, 160, image))
    t1rho_ms = 40 + 0.5 * (x - middle[0]) + 0.4 * (y - middle[1])
    return ndimage.gaussian_filter(image, (0.6, 0.6, 0.3)), np.where(cartilage, t1rho_ms, 0)


def dice(moved: np.ndarray, expected: np.ndarray) -> float:
    told = np.isfinite(moved) & (moved > 0)
    return 2 * (told & (expected > 0)).sum() / (told.sum() + (expected > 0).sum())


@pytest.fixture(scope="module")
def bent() -> Moving:
    image, values = knee(bend_mm())
    return Moving(image + np.random.default_rng(0).normal(0, 4, SHAPE), values, AFFINE)


@pytest.fixture(scope="module")
def moved(bent: Moving) -> Moved:
    [found] = register(knee(np.zeros((3, *SHAPE)))[0], AFFINE, [bent], "bspline", iterations=ITERATIONS)
    return found


def test_a_b_spline_undoes_a_smooth_bend(bent: Moving, moved: Moved) -> None:
    _, expected = knee(np.zeros((3, *SHAPE)))
    assert dice(bent.values, expected) < 0.7
    assert dice(moved.values, expected) > 0.88


def test_relaxation_times_come_to_where_they_belong(bent: Moving, moved: Moved) -> None:
    _, expected = knee(np.zeros((3, *SHAPE)))
    error = {}
    for name, values in (("before", bent.values), ("after", moved.values)):
        both = np.isfinite(values) & (values > 0) & (expected > 0)
        error[name] = np.abs(values - expected)[both]
    assert np.median(error["before"]) > 0.6
    assert np.median(error["after"]) < 0.3 and np.percentile(error["after"], 95) < 0.8
