"""Smooth random functions of position, the same at whatever resolution they are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

NODES = (64, 48, 24)
# Mean over positions of the sum of squared cubic B-spline weights along one axis.
_WEIGHT_POWER = 151.0 / 315.0


class SmoothField:
    """A random field with zero mean, unit standard deviation and a given scale.

    Cubic B-splines on a lattice of Gaussian nodes, repeated periodically, so that one draw gives the same
    anatomy on every voxel grid and evaluation is three small matrix products.
    """

    def __init__(self, rng: np.random.Generator, scale_mm: Sequence[float]) -> None:
        """Draw the field.

        Args:
            rng: Source of randomness; always the same number of draws.
            scale_mm: Distance of the nodes along x, y, z in mm: features are about twice as large.
        """
        self._scale_mm = tuple(scale_mm)
        nodes = rng.standard_normal(NODES, dtype=np.float32)
        nodes -= nodes.mean()
        self._nodes = nodes / np.float32(_WEIGHT_POWER**1.5)

    def on_grid(self, x_mm: Array, y_mm: Array, z_mm: Array) -> Array:
        """Evaluate on the grid spanned by three axes.

        Args:
            x_mm: Positions along x in mm, shape (X,).
            y_mm: Positions along y in mm, shape (Y,).
            z_mm: Positions along z in mm, shape (Z,).

        Returns:
            Values of shape (X, Y, Z).
        """
        x, y, z = (
            _spline_weights(positions_mm / scale_mm, nodes)
            for positions_mm, scale_mm, nodes in zip((x_mm, y_mm, z_mm), self._scale_mm, NODES, strict=True)
        )
        rows = y @ (self._nodes @ z.T)
        return (x @ rows.reshape(len(rows), -1)).reshape(len(x), len(y), len(z))


def _spline_weights(positions: Array, nodes: int) -> Array:
    """Return the cubic B-spline weights, shape (positions, nodes), of a periodic lattice of unit distance."""
    start = np.floor(positions).astype(int)
    t = (positions - start).astype(np.float32)
    weights = np.zeros((len(positions), nodes), np.float32)
    rows = np.arange(len(positions))
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, piece in enumerate(pieces):
        weights[rows, (start + offset - 1) % nodes] += piece / 6
    return weights


def sheets(field: Array, width: float | Array) -> Array:
    """Turn a smooth field into thin wavy sheets, as septa and streaks of fat are.

    Args:
        field: A unit-variance field.
        width: Half width of the sheets in units of the field; larger is thicker.

    Returns:
        1 on the sheets, falling to 0 beside them, in the shape of ``field``.
    """
    return np.maximum(0, 1 - np.square(field / width)).astype(np.float32)


def smooth_step(values: Array, lower: float, upper: float) -> Array:
    """Rise from 0 at ``lower`` to 1 at ``upper`` with level ends."""
    t = np.clip((values - np.float32(lower)) / np.float32(upper - lower), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
